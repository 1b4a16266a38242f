/* Which values are stored channels-last. */
#ifndef EHAP_RUNTIME_LAYOUT_H
#define EHAP_RUNTIME_LAYOUT_H

#include "runtime/kernel.h"

typedef enum Need {
    NEED_ANY,       /* kernels follow strides */
    NEED_ROW_MAJOR, /* weights, vectors */
    NEED_LAST,      /* images of spatial ops: channels-last */
} Need;

/* What the kernel for node n wants of input i / output o on a device; NEED_LAST only for rank 4 and
 * 5 and devices with channels_last. */
Need layout_need_in(const Device *dev, const Node *n, int i);
Need layout_need_out(const Device *dev, const Node *n, int o);

/* By value id: true for values to be stored channels-last. Values of rank 4 and 5 start from
 * the images of spatial ops and spread through ops that keep axes in place. In arena `a`. */
bool *layout_choose(const Device *dev, const Graph *g, Arena *a);

#endif
