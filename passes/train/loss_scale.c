/* Starts high and comes down within the first steps, as each overflow costs one run of the batch.
 */
#include "passes/train/loss_scale.h"

#include <math.h>

enum { CLEAN_STEPS = 2000 };

static const float MOST = 16777216; /* that it grows to */

LossScale loss_scale_new(DType storage, double start)
{
    const bool half = storage == DT_F16;
    const float value = start > 0 ? exp2f(roundf(log2f((float)start))) : 65536;
    return (LossScale){.value = half ? value : 1, .moves = half};
}

bool loss_scale_lower(LossScale *s)
{
    if (!s->moves || s->value <= 1) return false;
    s->value /= 2;
    s->clean = 0;
    return true;
}

void loss_scale_passed(LossScale *s)
{
    if (!s->moves || ++s->clean < CLEAN_STEPS) return;
    if (s->value < MOST) s->value *= 2;
    s->clean = 0;
}
