/* Losses: -w[label] log p[label], of log p as given or of a softmax over axis 1; their sum, or mean
 * weighted by w; a label that equals ignore_index counts nothing. */
#include <math.h>
#include <string.h>

#include "runtime/ref/ref.h"

/* The logarithm of the sum of exponentials over axis 1, at an offset into its first element. */
static double log_sum(const Tensor *x, int64_t offset)
{
    double max = -INFINITY, sum = 0;
    for (int64_t c = 0; c < x->dim[1]; c++) max = fmax(max, load(x, offset + c * x->stride[1]));
    for (int64_t c = 0; c < x->dim[1]; c++) sum += exp(load(x, offset + c * x->stride[1]) - max);
    return max + log(sum);
}

/* The offset in x of class 0 at a position of the labels. */
static int64_t class_start(const Tensor *x, const Tensor *labels, const Index *at)
{
    int64_t offset = at->i[0] * x->stride[0];
    for (int a = 1; a < labels->rank; a++) offset += at->i[a] * x->stride[a + 1];
    return offset;
}

REF_KERNEL(loss)
{
    UNUSED_STATE;
    const Tensor *x = &in[0], *labels = &in[1];
    const bool softmax = n->op == OP_SoftmaxCrossEntropyLoss,
               has_ignore = node_attr(n, "ignore_index");
    const char *reduction = node_str(n, "reduction", "mean");
    const int64_t ignore = node_int(n, "ignore_index", 0);
    const bool log_prob = n->nout > 1 && out[1].rank >= 0;
    double sum = 0, total = 0;
    FOR_EACH(at, labels)
    {
        const int64_t label = element_load_int(labels, ref_index(labels, &at));
        const int64_t start = class_start(x, labels, &at);
        const bool counts = label >= 0 && label < x->dim[1] && !(has_ignore && label == ignore);
        const double norm = softmax ? log_sum(x, start) : 0;
        const double w = !counts ? 0 : node_in(n, 2) ? ref_at(&in[2], label) : 1;
        const double loss = counts ? w * (norm - load(x, start + label * x->stride[1])) : 0;
        sum += loss;
        total += w;
        if (*reduction == 'n') element_store(out, ref_index(out, &at), loss);
        for (int64_t c = 0; c < x->dim[1] && log_prob; c++)
            element_store(&out[1], class_start(&out[1], labels, &at) + c * out[1].stride[1],
                          load(x, start + c * x->stride[1]) - norm);
    }
    if (*reduction != 'n') element_store(out, 0, *reduction == 'm' ? sum / total : sum);
}
