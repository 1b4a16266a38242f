/* Einsum by its definition, and determinants. */
#include "ir/einsum.h"

#include <math.h>

#include "runtime/ref/ref.h"

/* The equation, and by how much each operand moves along each label. */
typedef struct Terms {
    Einsum e;
    int64_t stride[EINSUM_INPUTS][EINSUM_LABELS];
    int summed[EINSUM_LABELS], nsummed; /* labels that the result lacks */
} Terms;

static Terms terms_of(const Node *n, const Tensor *in)
{
    Terms t = {.nsummed = 0};
    Diag silent = {0};
    if (einsum_parse(n, &t.e, &silent) != 1) trap(TRAP_INTERNAL, "ref: an einsum without a shape");
    for (int i = 0; i < t.e.nin; i++)
        for (int k = 0; k < t.e.rank[i]; k++)
            if (in[i].dim[k] != 1) t.stride[i][t.e.label[i][k]] += in[i].stride[k];
    for (int k = 0; k < t.e.nlabels; k++)
        if (!einsum_out_has(&t.e, k)) t.summed[t.nsummed++] = k;
    return t;
}

/* The product of one element of each operand. */
static double product(const Terms *t, const Tensor *in, const int64_t *offset)
{
    double p = 1;
    for (int i = 0; i < t->e.nin; i++) p *= load(&in[i], offset[i]);
    return p;
}

static uint64_t product_int(const Terms *t, const Tensor *in, const int64_t *offset)
{
    uint64_t p = 1;
    for (int i = 0; i < t->e.nin; i++) p *= (uint64_t)element_load_int(&in[i], offset[i]);
    return p;
}

static void move(const Terms *t, int label, int64_t by, int64_t *offset)
{
    for (int i = 0; i < t->e.nin; i++) offset[i] += by * t->stride[i][label];
}

/* To the next index of the summed labels; false after the last. */
static bool next(const Terms *t, int64_t *at, int64_t *offset)
{
    for (int k = t->nsummed - 1; k >= 0; k--) {
        const int label = t->summed[k];
        move(t, label, 1, offset);
        if (++at[k] < t->e.size[label]) return true;
        move(t, label, -at[k], offset);
        at[k] = 0;
    }
    return false;
}

REF_KERNEL(einsum)
{
    UNUSED_STATE;
    const Terms t = terms_of(n, in);
    bool empty = false;
    for (int k = 0; k < t.nsummed; k++) empty |= t.e.size[t.summed[k]] == 0;
    FOR_EACH(at, out)
    {
        int64_t offset[EINSUM_INPUTS] = {0}, inner[EINSUM_LABELS] = {0};
        double sum = 0;
        uint64_t whole = 0;
        for (int k = 0; k < out->rank; k++) move(&t, t.e.out[k], at.i[k], offset);
        bool more = !empty;
        for (; more; more = next(&t, inner, offset))
            if (is_exact_int(out))
                whole += product_int(&t, in, offset);
            else
                sum += product(&t, in, offset);
        const int64_t to = ref_index(out, &at);
        if (is_exact_int(out))
            element_store_int(out, to, (int64_t)whole);
        else
            element_store(out, to, sum);
    }
}

/* By elimination with the largest pivot of a column; m [size, size] is overwritten. */
static double determinant(double *m, int64_t size)
{
    double det = 1;
    for (int64_t k = 0; k < size; k++) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < size; i++)
            if (fabs(m[i * size + k]) > fabs(m[pivot * size + k])) pivot = i;
        const double p = m[pivot * size + k];
        if (p == 0) return 0;
        det *= pivot == k ? p : -p;
        for (int64_t j = 0; j < size; j++) {
            const double x = m[k * size + j];
            m[k * size + j] = m[pivot * size + j];
            m[pivot * size + j] = x;
        }
        for (int64_t i = k + 1; i < size; i++)
            for (int64_t j = size - 1; j >= k; j--)
                m[i * size + j] -= m[i * size + k] / p * m[k * size + j];
    }
    return det;
}

int ref_det_prepare(Prepare *p)
{
    const int64_t size = p->in->dim[p->in->rank - 1];
    p->scratch = (size_t)(size * size) * sizeof(double);
    return 0;
}

REF_KERNEL(det)
{
    UNUSED_STATE;
    const int row = in->rank - 2;
    const int64_t size = in->dim[row];
    double *m = scratch;
    FOR_EACH(at, out)
    {
        const int64_t from = ref_index(in, &at);
        for (int64_t k = 0; k < size * size; k++)
            m[k] = load(in, from + k / size * in->stride[row] + k % size * in->stride[row + 1]);
        element_store(out, ref_index(out, &at), determinant(m, size));
    }
}
