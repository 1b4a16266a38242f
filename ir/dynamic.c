/* Counting, sorting slices, suppressing boxes. */
#include "ir/dynamic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- elements ----------------------------------------------------------------------- */

bool element_is_set(const void *data, DType t, int64_t k)
{
    const size_t size = dtype_size(t);
    uint64_t bits = 0;
    memcpy(&bits, (const char *)data + (size_t)k * size, size); /* little-endian */
    return dtype_is_float(t) ? (bits << (65 - 8 * size)) != 0 : bits != 0;
}

int64_t count_set(const void *data, DType t, int64_t count)
{
    int64_t n = 0;
    for (int64_t k = 0; k < count; k++) n += element_is_set(data, t, k);
    return n;
}

/* ---- slices ------------------------------------------------------------------------- */

/* Bits whose unsigned order is the order of the values: sign bits flipped, negative floats
 * reversed, both zeros one, NaN last. */
static uint64_t ordered_bits(const Slices *s, int64_t k)
{
    const size_t size = dtype_size(s->dtype), width = 8 * size;
    const uint64_t sign = (uint64_t)1 << (width - 1);
    uint64_t bits = 0;
    memcpy(&bits, (const char *)s->data + (size_t)k * size, size);
    if (s->dtype == DT_BOOL || s->dtype == DT_U8 || s->dtype == DT_U16 || s->dtype == DT_U32 ||
        s->dtype == DT_U64)
        return bits;
    if (!dtype_is_float(s->dtype)) return bits ^ sign;
    const uint64_t infinity = s->dtype == DT_F64    ? (uint64_t)0x7ff << 52
                              : s->dtype == DT_F16  ? 0x7c00
                              : s->dtype == DT_BF16 ? 0x7f80
                                                    : 0x7f800000;
    if ((bits & ~sign) > infinity) return UINT64_MAX;
    if ((bits & ~sign) == 0) return sign;
    return bits & sign ? sign - (bits & ~sign) : bits | sign;
}

int slices_compare(const Slices *s, int64_t i, int64_t k)
{
    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t e = 0; e < s->inner; e++) {
            const uint64_t a = ordered_bits(s, (o * s->n + i) * s->inner + e);
            const uint64_t b = ordered_bits(s, (o * s->n + k) * s->inner + e);
            if (a != b) return a < b ? -1 : 1;
        }
    return 0;
}

static int by_value(const void *a, const void *b, void *slices)
{
    const int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    const int order = slices_compare(slices, i, k);
    return order ? order : (i > k) - (i < k);
}

int64_t slices_sort(const Slices *s, int64_t *order)
{
    Slices copy = *s;
    int64_t different = s->n > 0;
    for (int64_t i = 0; i < s->n; i++) order[i] = i;
    qsort_r(order, (size_t)s->n, sizeof *order, by_value, &copy);
    for (int64_t i = 1; i < s->n; i++) different += slices_compare(s, order[i - 1], order[i]) != 0;
    return different;
}

/* ---- boxes -------------------------------------------------------------------------- */

typedef struct Box {
    double low[2], high[2], area;
} Box;

static Box box_of(const Nms *s, const float *p)
{
    Box b;
    for (int a = 0; a < 2; a++) {
        const double u = (double)p[a], v = (double)p[a + 2];
        b.low[a] = s->centers ? u - v / 2 : fmin(u, v);
        b.high[a] = s->centers ? u + v / 2 : fmax(u, v);
    }
    b.area = (b.high[0] - b.low[0]) * (b.high[1] - b.low[1]);
    return b;
}

static double lesser(double x, double y) { return x < y ? x : y; }
static double greater(double x, double y) { return x > y ? x : y; }

static double overlap(const Box *a, const Box *b)
{
    const double height = lesser(a->high[0], b->high[0]) - greater(a->low[0], b->low[0]);
    const double width = lesser(a->high[1], b->high[1]) - greater(a->low[1], b->low[1]);
    if (!(height > 0 && width > 0)) return 0;
    const double both = height * width, whole = a->area + b->area - both;
    return whole > 0 ? both / whole : 0;
}

/* Highest first, equal ones by position. */
static int by_score(const void *a, const void *b, void *scores)
{
    const int64_t i = *(const int64_t *)a, k = *(const int64_t *)b;
    const float x = ((const float *)scores)[i], y = ((const float *)scores)[k];
    return x != y ? (x < y) - (x > y) : (i > k) - (i < k);
}

/* Candidates in order of score; their number. */
static int64_t candidates(const Nms *s, const float *scores, int64_t *order)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (!isnan(scores[i]) && (!s->has_threshold || (double)scores[i] > s->threshold))
            order[n++] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_score, (void *)(uintptr_t)scores);
    return n;
}

/* One image and class: the chosen boxes move to the front of order[]. */
static int64_t suppress(const Nms *s, const float *boxes, const float *scores, int64_t *order,
                        Box *chosen)
{
    const int64_t n = candidates(s, scores, order);
    int64_t kept = 0;
    for (int64_t c = 0; c < n && kept < s->most; c++) {
        const Box box = box_of(s, boxes + 4 * order[c]);
        bool good = true;
        for (int64_t k = 0; k < kept && good; k++) good = overlap(&box, &chosen[k]) <= s->iou;
        if (!good) continue;
        chosen[kept] = box;
        order[kept++] = order[c];
    }
    return kept;
}

bool nms_args(const Node *n, const float *boxes, const float *scores, const int64_t *most,
              const float *iou, const float *threshold, Nms *s)
{
    const Type *b = &n->in[0]->type, *c = &n->in[1]->type;
    if (b->rank != 3 || c->rank != 3 || b->dim[2] != 4) return false;
    *s = (Nms){.boxes = boxes,
               .scores = scores,
               .images = b->dim[0],
               .classes = c->dim[1],
               .n = b->dim[1],
               .most = most ? *most : 0,
               .iou = iou ? (double)*iou : 0,
               .threshold = threshold ? (double)*threshold : 0,
               .has_threshold = threshold != NULL,
               .centers = node_int(n, "center_point_box", 0) != 0};
    return true;
}

int64_t nms_select(const Nms *s, int64_t *out)
{
    Arena *scratch = arena_new();
    int64_t total = 0, *order = NEW_ARRAY(scratch, int64_t, s->n);
    Box *chosen = NEW_ARRAY(scratch, Box, s->n);
    for (int64_t i = 0; i < s->images; i++)
        for (int64_t c = 0; c < s->classes; c++) {
            const int64_t kept = suppress(s, s->boxes + i * s->n * 4,
                                          s->scores + (i * s->classes + c) * s->n, order, chosen);
            for (int64_t k = 0; k < kept && out; k++) {
                int64_t *row = out + 3 * (total + k);
                row[0] = i, row[1] = c, row[2] = order[k];
            }
            total += kept;
        }
    arena_free(scratch);
    return total;
}
