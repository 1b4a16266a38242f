/* Loop nests of kernels. */
#include "runtime/cuda/loops.h"

#include <string.h>

Tensor tensor_broadcast(const Tensor *t, const Tensor *like)
{
    Tensor v = *like;
    v.dtype = t->dtype;
    v.data = t->data;
    for (int i = 0; i < v.rank; i++) {
        const int k = i - (v.rank - t->rank);
        v.stride[i] = k < 0 || t->dim[k] == 1 ? 0 : t->stride[k];
    }
    return v;
}

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

static void swap_loops(Loops *l, int i, int j)
{
    const int64_t dim = l->dim[i];
    l->dim[i] = l->dim[j];
    l->dim[j] = dim;
    for (int k = 0; k < l->operands; k++) {
        const int64_t stride = l->stride[k][i];
        l->stride[k][i] = l->stride[k][j];
        l->stride[k][j] = stride;
    }
}

/* Insertion sort by the first operand's strides, largest first; stable. */
static void sort_loops(Loops *l)
{
    for (int i = 1; i < l->n; i++)
        for (int j = i; j > 0; j--) {
            if (magnitude(l->stride[0][j - 1]) >= magnitude(l->stride[0][j])) break;
            swap_loops(l, j - 1, j);
        }
}

static bool runs_on(const Loops *l, int outer, int inner)
{
    for (int k = 0; k < l->operands; k++)
        if (l->stride[k][outer] != l->stride[k][inner] * l->dim[inner]) return false;
    return true;
}

static void merge_loops(Loops *l)
{
    int last = 0;
    for (int i = 1; i < l->n; i++) {
        const bool merge = runs_on(l, last, i);
        const int to = merge ? last : ++last;
        l->dim[to] = merge ? l->dim[last] * l->dim[i] : l->dim[i];
        for (int k = 0; k < l->operands; k++) l->stride[k][to] = l->stride[k][i];
    }
    l->n = last + 1;
}

void loops_make(Loops *l, int operands, const Tensor *const *t)
{
    memset(l, 0, sizeof *l);
    l->operands = operands;
    for (int i = 0; i < t[0]->rank; i++) {
        if (t[0]->dim[i] == 1) continue;
        l->dim[l->n] = t[0]->dim[i];
        for (int k = 0; k < operands; k++) {
            const Tensor v = tensor_broadcast(t[k], t[0]);
            l->stride[k][l->n] = v.stride[i];
        }
        l->n++;
    }
    if (l->n == 0) l->dim[l->n++] = 1;
    sort_loops(l);
    merge_loops(l);
}

int64_t loops_count(const Loops *l)
{
    int64_t n = 1;
    for (int i = 0; i < l->n; i++) n *= l->dim[i];
    return n;
}
