/* Shape inference: a table of ops, input types, attributes, and the types (or the error) that must
 * come out. Inputs are "f N,3,8,8" (float with that shape), "f *" (unknown rank), "=1,-1"
 * (constant int64 vector), "=1" … "@2" (constant int64 scalar), "-" (omitted), separated by '|'.
 * Attributes are "name=1,2" (list), "name:1" (number), "name~text". A '?' in a result is any
 * unnamed symbol. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/lanes.h"

typedef struct Case {
    Op op;
    const char *in, *attrs, *want;
} Case;

static const Case cases[] = {
    /* Conv */
    {OP_Conv, "f N,3,32,32|f 16,3,3,3", "pads=1,1,1,1", "f N,16,32,32"},
    {OP_Conv, "f N,3,32,32|f 16,3,3,3|f 16", "strides=2,2;pads=1,1,1,1", "f N,16,16,16"},
    {OP_Conv, "f 1,3,5,7|f 4,3,3,3", "dilations=2,3", "f 1,4,1,1"},
    {OP_Conv, "f 1,8,9,9|f 8,1,3,3", "group:8;strides=2,2;auto_pad~SAME_UPPER", "f 1,8,5,5"},
    {OP_Conv, "f 1,8,9,9|f 8,1,4,4", "group:8;strides=3,3;auto_pad~SAME_LOWER", "f 1,8,3,3"},
    {OP_Conv, "f 1,8,9,9|f 4,4,3,3", "group:2;auto_pad~VALID;pads=5,5,5,5", "f 1,4,7,7"},
    {OP_Conv, "f N,3,H,W|f 4,3,3,3", "pads=1,1,1,1", "f N,4,H,W"},
    {OP_Conv, "f N,3,H,W|f 4,3,3,3", "", "f N,4,?,?"},
    {OP_Conv, "f N,3,20|f 4,3,5", "", "f N,4,16"},
    {OP_Conv, "f N,3,9,9,9|f 4,3,3,3,3", "strides=2,2,2", "f N,4,4,4,4"},
    {OP_Conv, "f N,C,8,8|f 4,3,1,1", "", "f N,4,8,8"},
    {OP_Conv, "f *|f 4,3,1,1", "", "f *"},
    {OP_Conv, "f 1,48,8,8|f 4,64,1,1", "",
     "error: weight needs 64 input channels, input 'x0' has 48"},
    {OP_Conv, "f 1,4,8,8|f 3,2,1,1", "group:2", "error: 3 output channels do not divide into 2"},
    {OP_Conv, "f 1,3,2,2|f 4,3,3,3", "", "error: window reaches over 3, the padded input has 2"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3|f 5", "", "error: bias 'x2' has 5 elements, needs 4"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "strides=2", "error: 'strides' has 1 numbers, needs 2"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "strides=0,1", "error: 'strides' has 0, allowed is 1"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "strides:2",
     "error: attribute 'strides' is of the wrong kind"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "kernel_shape=3,5", "error: 'kernel_shape' says 5 on axis 1"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "group:0", "error: 'group' is 0"},
    {OP_Conv, "f 1,3,8,8|f 4,3,3,3", "auto_pad~SAME", "error: 'auto_pad' is 'SAME'"},
    {OP_GatherElements, "f 3,4|i 2,5", "", "error: 'x1' has 5 on axis 1, 'x0' only 4"},
    {OP_GatherElements, "f 3,4|i 2,5", "axis:1", "f 2,5"},
    {OP_ScatterElements, "f 3,4|i 4,4|f 4,4", "axis:1", "error: 'x1' has 4 on axis 0, 'x0' only 3"},
    {OP_GatherND, "f 3,4|i 2,1", "batch_dims:1", "error: 'x1' has 2 on axis 0, 'x0' 3"},
    {OP_Conv, "f 1,3,8,8|h 4,3,3,3", "", "error: 'x0' is float, 'x1' is float16"},
    {OP_Conv, "f 1,3,8,8", "", "error: has 1 inputs, needs 2 or more"},
    {OP_Conv, "f 1,3,8,8|-", "", "error: input 1 is missing"},
    {OP_Conv, "f 3,8|f 4,3", "", "error: input has rank 2, needs 3 to 8"},
    {OP_Conv, "f 1,3,9223372036854775807,8|f 4,3,1,1", "", "error: axis 2 has size"},
    {OP_Conv, "f 99999999,3,99999,99999|f 99999999,3,1,1", "", "error: output has too many"},

    /* ConvTranspose and the gradients */
    {OP_ConvTranspose, "f 1,8,5,5|f 8,4,3,3", "strides=2,2;pads=1,1,1,1", "f 1,4,9,9"},
    {OP_ConvTranspose, "f 1,8,5,5|f 8,4,3,3", "strides=2,2;pads=1,1,1,1;output_padding=1,1",
     "f 1,4,10,10"},
    {OP_ConvTranspose, "f 1,8,5,5|f 8,2,3,3", "group:2;dilations=2,2", "f 1,4,9,9"},
    {OP_ConvTranspose, "f 1,8,5,5|f 8,4,3,3", "strides=2,2;auto_pad~SAME_UPPER", "f 1,4,10,10"},
    {OP_ConvTranspose, "f 1,8,5,5|f 8,4,3,3", "strides=3,2;output_shape=14,10", "f 1,4,14,10"},
    {OP_ConvTranspose, "f N,8,H,W|f 8,4,3,3", "", "f N,4,?,?"},
    {OP_ConvTranspose, "f 1,6,5,5|f 8,4,3,3", "", "error: weight needs 8 input channels"},
    {OP_ConvTranspose, "f 1,8,1,1|f 8,4,1,1", "pads=1,1,1,1", "error: output has -1 positions"},
    {OP_ConvWgrad, "f 2,6,9,9|f 2,4,5,5", "kernel_shape=3,3;strides=2,2;pads=1,1,1,1;group:2",
     "f 4,3,3,3"},
    {OP_ConvWgrad, "f 2,6,9,9|f 2,4,5,5", "kernel_shape=3,3",
     "error: dy has 5 positions on axis 2"},
    {OP_ConvWgrad, "f 2,6,9,9|f 2,4,5,5", "", "error: attribute 'kernel_shape' is missing"},

    /* products */
    {OP_MatMul, "f N,64|f 64,10", "", "f N,10"},
    {OP_MatMul, "f N,12,17,8|f N,12,8,17", "", "f N,12,17,17"},
    {OP_MatMul, "f 5,1,3,4|f 7,4,2", "", "f 5,7,3,2"},
    {OP_MatMul, "f 4|f 5,4,2", "", "f 5,2"},
    {OP_MatMul, "f 5,3,4|f 4", "", "f 5,3"},
    {OP_MatMul, "f 4|f 4", "", "f "},
    {OP_MatMul, "f 5,3,4|f 6,4,2", "", "error: cannot broadcast"},
    {OP_MatMul, "f 3,4|f 5,2", "", "error: 'x0' has 4 columns, 'x1' has 5 rows"},
    {OP_MatMul, "f |f 5,2", "", "error: 'x0' is a scalar"},
    {OP_Gemm, "f N,64|f 10,64|f 10", "transB:1", "f N,10"},
    {OP_Gemm, "f 64,N|f 64,10|f 1,10", "transA:1", "f N,10"},
    {OP_Gemm, "f N,64|f 10,64|f 9", "transB:1", "error: bias 'x2' has 9 elements, needs 10"},
    {OP_Gemm, "f N,64|f 10,64", "", "error: 'x0' has 64 columns, 'x1' has 10 rows"},

    /* element-wise */
    {OP_Relu, "f N,3", "", "f N,3"},
    {OP_Add, "f N,3,8,8|f 3,1,1", "", "f N,3,8,8"},
    {OP_Add, "f N,1|f 1,5", "", "f N,5"},
    {OP_Add, "f N,4|f M,4", "", "f ?,4"},
    {OP_Add, "f N,4|f 2,4", "", "f 2,4"},
    {OP_Add, "f N,4|f *", "", "f *"},
    {OP_Add, "f 2,3|f 4", "", "error: cannot broadcast float[2,3] with 'x1' of float[4]"},
    {OP_Add, "f 2|i 2", "", "error: 'x0' is float, 'x1' is int64"},
    {OP_Sum, "f 2,1|f 1,3|f 4,1,1", "", "f 4,2,3"},
    {OP_Pow, "f 2|i 1", "", "f 2"},
    {OP_Greater, "f 2,1|f 3", "", "b 2,3"},
    {OP_Where, "b 2,1|f 3|f 1", "", "f 2,3"},
    {OP_Where, "f 2,1|f 3|f 1", "", "error: condition 'x0' is float, needs bool"},
    {OP_Cast, "f N,2", "to:7", "i N,2"},
    {OP_Cast, "f N,2", "to:99", "error: cannot cast to element type 99"},
    {OP_Dropout, "f N,2", "", "f N,2|b N,2"},
    {OP_Clip, "f N,2|f |f ", "", "f N,2"},

    /* pools */
    {OP_MaxPool, "f N,4,9,9", "kernel_shape=2,2;strides=2,2", "f N,4,4,4|i N,4,4,4"},
    {OP_MaxPool, "f N,4,9,9", "kernel_shape=2,2;strides=2,2;ceil_mode:1", "f N,4,5,5"},
    {OP_MaxPool, "f N,4,2,2", "kernel_shape=1,1;strides=2,2;ceil_mode:1", "f N,4,1,1"},
    {OP_MaxPool, "f N,4,8,8", "kernel_shape=3,3;strides=2,2;pads=1,1,1,1", "f N,4,4,4"},
    {OP_AveragePool, "f N,4,7,7", "kernel_shape=7,7", "f N,4,1,1"},
    {OP_AveragePool, "f N,4,7,7", "kernel_shape=3,3;strides=2,2;auto_pad~SAME_UPPER", "f N,4,4,4"},
    {OP_MaxPool, "f N,4,9,9", "", "error: attribute 'kernel_shape' is missing"},
    {OP_GlobalAveragePool, "f N,4,H,7", "", "f N,4,1,1"},
    {OP_MaxPoolGrad, "f 1,4,4,4|f 1,4,8,8", "kernel_shape=2,2;strides=2,2", "f 1,4,8,8"},
    {OP_MaxPoolGrad, "f 1,4,5,4|f 1,4,8,8", "kernel_shape=2,2;strides=2,2", "error: 'x0' has 5 on"},
    {OP_MaxPoolPick, "f 1,4,8,8|f 1,4,8,8", "kernel_shape=2,2;strides=2,2", "f 1,4,4,4"},
    {OP_AveragePoolGrad, "f 1,4,4,4", "input_shape=1,4,8,8;kernel_shape=2,2;strides=2,2",
     "f 1,4,8,8"},

    /* normalizations and reductions */
    {OP_BatchNormalization, "f N,8,4,4|f 8|f 8|f 8|f 8", "", "f N,8,4,4"},
    {OP_BatchNormalization, "f N,8,4,4|f 8|f 8|f 7|f 8", "",
     "error: parameter 'x3' has 7 elements"},
    {OP_BatchNormTrain, "f 2,8,4,4|f 8|f 8", "", "f 2,8,4,4|f 8|f 8"},
    {OP_BatchNormTrainGrad, "f 2,8,4|f 2,8,4|f 8|f 8|f 8", "", "f 2,8,4|f 8|f 8"},
    {OP_LayerNormalization, "f N,5,8|f 8|f 8", "", "f N,5,8|f N,5,1|f N,5,1"},
    {OP_LayerNormalization, "f N,5,8|f 7", "", "error: cannot broadcast"},
    {OP_Softmax, "f N,10", "axis:-1", "f N,10"},
    {OP_Softmax, "f N,10", "axis:2", "error: axis 2 does not exist in rank 2"},
    {OP_ReduceMean, "f N,8,4,4|=2,-1", "", "f N,8,1,1"},
    {OP_ReduceMean, "f N,8,4,4|=2,3", "keepdims:0", "f N,8"},
    {OP_ReduceMean, "f N,8,4", "", "f 1,1,1"},
    {OP_ReduceSum, "f N,8,4", "keepdims:0", "f "},
    {OP_ReduceSum, "f N,8|=", "noop_with_empty_axes:1", "f N,8"},
    {OP_ReduceMean, "f N,8|i 1", "", "f ?,?"},
    {OP_ReduceMean, "f N,8|=0,-2", "", "error: axis 0 is listed twice"},

    /* shapes */
    {OP_Reshape, "f N,64,1,1|=0,-1", "", "f N,64"},
    {OP_Reshape, "f N,64,4,4|=-1,1024", "", "f N,1024"},
    {OP_Reshape, "f N,64,4,4|=-1,512", "", "f ?,512"},
    {OP_Reshape, "f 2,3,4|=4,-1", "", "f 4,6"},
    {OP_Reshape, "f 2,0,4|=0,0,2,2", "", "f 2,0,2,2"},
    {OP_Reshape, "f 0,4|=0,4", "allowzero:1", "f 0,4"},
    {OP_Reshape, "f 2,3|=2,2", "", "error: cannot reshape float[2,3] to float[2,2]"},
    {OP_Reshape, "f N,3|=0,2", "", "error: cannot reshape float[N,3]"},
    {OP_Reshape, "f 2,3|=-1,-1", "", "error: the target shape has -1 twice"},
    {OP_Reshape, "f 2,3|=-1,4", "", "error: cannot reshape"},
    {OP_Reshape, "f 2,3|=-2,3", "", "error: cannot reshape"},
    {OP_Reshape, "f 6|=0,0", "", "error: cannot reshape"},
    {OP_Reshape, "f 2,3|i 3", "", "f ?,?,?"},
    {OP_Reshape, "f 2,3|i M", "", "f *"},
    {OP_Reshape, "f 2,3|=1,1,1,1,1,1,1,1,6", "", "error: 'x1' gives 9 dimensions"},
    {OP_Flatten, "f N,64,4,4", "", "f N,1024"},
    {OP_Flatten, "f 2,3,4", "axis:-1", "f 6,4"},
    {OP_Flatten, "f 2,3,4", "axis:0", "f 1,24"},
    {OP_Flatten, "f 2,3", "axis:3", "error: axis 3 does not exist in rank 2"},
    {OP_Squeeze, "f N,64,1,1|=2,-1", "", "f N,64"},
    {OP_Squeeze, "f 1,64,1", "", "f 64"},
    {OP_Squeeze, "f 2,3|=0", "", "error: axis 0 has size 2, needs 1"},
    {OP_Unsqueeze, "f N,64|=-1,0", "", "f 1,N,64,1"},
    {OP_Unsqueeze, "f N,64|=4", "", "error: axis 4 does not exist in rank 3"},
    {OP_Transpose, "f N,3,8", "", "f 8,3,N"},
    {OP_Transpose, "f N,3,8,9", "perm=0,2,3,1", "f N,8,9,3"},
    {OP_Transpose, "f N,3", "perm=0,0", "error: 'perm' is not a permutation"},
    {OP_Transpose, "f N,3", "perm=0", "error: 'perm' has 1 numbers, input has rank 2"},
    {OP_Expand, "f 3,1|=2,1,6", "", "f 2,3,6"},
    {OP_Expand, "f 3|=2", "", "error: cannot broadcast"},
    {OP_Shape, "f N,3,8", "start:-2", "i 2"},
    {OP_ConstantOfShape, "=2,3", "", "f 2,3"},
    {OP_ConstantOfShape, "=2,-3", "", "error: axis 1 of the output has a negative"},

    /* selections */
    {OP_Concat, "f N,3,8|f N,5,8", "axis:1", "f N,8,8"},
    {OP_Concat, "f N,3,8|f 2,5,8", "axis:-2", "f 2,8,8"},
    {OP_Concat, "f N,3|f M,3", "axis:0", "f ?,3"},
    {OP_Concat, "f N,3,8|f N,5,7", "axis:1", "error: 'x1' has 7 on axis 2, 'x0' has 8"},
    {OP_Concat, "f N,3", "", "error: attribute 'axis' is missing"},
    {OP_Split, "f N,7", "axis:1;num_outputs:2", "f N,4|f N,3"},
    {OP_Split, "f N,7|=2,5", "axis:1", "f N,2|f N,5"},
    {OP_Split, "f N,7|=2,4", "axis:1", "error: 2 sizes sum up to 6, the axis has 7"},
    {OP_Split, "f N,7|=-2,9", "axis:1", "error: axis 1 of the output has a negative"},
    {OP_Slice, "f N,10|=2|=8|=1|=3", "", "f N,2"},
    {OP_Slice, "f N,10|=-3|=9223372036854775807|=-1", "", "f N,3"},
    {OP_Slice, "f N,10|=-1|=-9223372036854775807|=1|=-1", "", "f N,10"},
    {OP_Slice, "f N,10|=9223372036854775807|=-9223372036854775808|=1|=-3", "", "f N,4"},
    {OP_Slice, "f N,10|=8|=2|=1", "", "f N,0"},
    {OP_Slice, "f N,10|=0|=9223372036854775807|=0", "", "f N,10"},
    {OP_Slice, "f N,10|=0|=2|=0", "", "f ?,10"},
    {OP_Slice, "f 4,10|=1,2|=3,4", "", "f 2,2"},
    {OP_Slice, "f N,10|=0|=2|=1|=0", "", "error: the step on axis 1 is 0"},
    {OP_Slice, "f N,10|=0,0|=2", "", "error: 'x2' has 1 elements, needs 2"},
    {OP_Slice, "f N,10|i 1|=2", "", "f ?,?"},
    {OP_Pad, "f N,16,8,8|=0,8,0,0,0,8,0,0", "", "f N,32,8,8"},
    {OP_Pad, "f N,16,8,8|=-2,3|-|=-1", "", "f N,16,8,9"},
    {OP_Pad, "f 4,4|=-3,0,-2,0", "", "error: axis 0 of size 4 cannot be padded by -3 and -2"},
    {OP_Pad, "f 4,4|=1,1", "", "error: 'x1' has 2 elements, needs 4"},
    {OP_Gather, "f N,10|=1,2,3", "axis:1", "f N,3"},
    {OP_Gather, "f N,10|@1", "axis:1", "f N"},
    {OP_Gather, "f 5,6|i 2,3", "axis:-1", "f 5,2,3"},
    {OP_SliceGrad, "f 2,3|=1|=4|=1", "shape=2,10", "f 2,10"},
    {OP_SliceGrad, "f 2,4|=1|=4|=1", "shape=2,10", "error: dy has 4 on axis 1, the slice has 3"},
    {OP_GatherGrad, "f 5,2,3,7|i 2,3", "axis:1;dim:9", "f 5,9,7"},

    /* quantization, random numbers */
    {OP_QuantizeLinear, "f N,3,8|f |y ", "", "y N,3,8"},
    {OP_QuantizeLinear, "f N,3,8|f 3|z 3", "axis:1", "z N,3,8"},
    {OP_QuantizeLinear, "f N,3,8|f 4", "axis:1", "error: scale 'x1' has 4 elements, needs 3"},
    {OP_DequantizeLinear, "z 8,3|f 8|z 8", "axis:0", "f 8,3"},
    {OP_FakeQuant, "f N,3,8|f |f ", "", "f N,3,8"},
    {OP_FakeQuantGrad, "f N,3|f N,3|f 3|f 3", "axis:1", "f N,3|f 3"},
    {OP_Rademacher, "i 2", "shape=3,4;stream:1", "f 3,4"},
};

static const struct {
    char letter;
    DType dtype;
} letters[] = {{'f', DT_F32},  {'h', DT_F16}, {'i', DT_I64},
               {'b', DT_BOOL}, {'y', DT_U8},  {'z', DT_I8}};

static int parse_dims(Graph *g, const char *s, int64_t *dim)
{
    int n = 0;
    char *copy = arena_strdup(g->arena, s), *save = NULL;
    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        bool number = (*t >= '0' && *t <= '9') || *t == '-';
        dim[n++] = number ? strtoll(t, NULL, 10) : graph_symbol(g, t);
    }
    return n;
}

static Value *parse_input(Graph *g, const char *s, int i)
{
    int64_t dim[32];
    if (*s == '-') return NULL;
    if (*s == '=' || *s == '@') {
        Value *v = const_ints(g, parse_dims(g, s + 1, dim), dim);
        v->name = arena_printf(g->arena, "x%d", i);
        if (*s == '@') v->type.rank = 0;
        return v;
    }
    Type t = {.dtype = DT_NONE, .rank = -1};
    for (size_t k = 0; k < sizeof letters / sizeof *letters; k++)
        if (letters[k].letter == *s) t.dtype = letters[k].dtype;
    if (s[2] != '*') {
        t.rank = parse_dims(g, s + 2, dim);
        memcpy(t.dim, dim, (size_t)t.rank * sizeof *dim);
    }
    return value_new(g, arena_printf(g->arena, "x%d", i), t);
}

/* Splits at any of `sep`; empty parts count. */
static int split(Arena *a, const char *s, char sep, const char **part)
{
    int n = 0;
    char *copy = arena_strdup(a, s);
    for (char *end = copy; end; copy = end + 1) {
        end = strchr(copy, sep);
        if (end) *end = 0;
        part[n++] = copy;
        if (!end) break;
    }
    return n;
}

static void set_attrs(Graph *g, Node *n, const char *attrs)
{
    const char *part[16];
    int count = *attrs ? split(g->arena, attrs, ';', part) : 0;
    for (int k = 0; k < count; k++) {
        char *name = arena_strdup(g->arena, part[k]), *sep = strpbrk(name, "=:~");
        char kind = *sep;
        int64_t list[16];
        *sep++ = 0;
        if (kind == '=')
            node_set_attr(g, n, attr_ints(name, (size_t)parse_dims(g, sep, list), list));
        else if (kind == ':')
            node_set_attr(g, n, attr_int(name, strtoll(sep, NULL, 10)));
        else
            node_set_attr(g, n, attr_str(name, sep));
    }
}

static void print_type(const Graph *g, const Type *t, char *out)
{
    for (size_t k = 0; k < sizeof letters / sizeof *letters; k++)
        if (letters[k].dtype == t->dtype) out += sprintf(out, "%c ", letters[k].letter);
    if (t->rank < 0) out += sprintf(out, "*");
    for (int i = 0; i < t->rank; i++) {
        const char *symbol = dim_is_sym(t->dim[i]) ? g->symbols[t->dim[i] - DIM_SYM_BASE] : NULL;
        if (i) out += sprintf(out, ",");
        if (dim_is_sym(t->dim[i]))
            out += sprintf(out, "%s", symbol ? symbol : "?");
        else
            out += sprintf(out, "%lld", (long long)t->dim[i]);
    }
}

static void keep_error(void *ctx, Severity sev, const char *text)
{
    (void)sev;
    snprintf(ctx, 512, "%s", text);
}

static void run_case(const Case *c)
{
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    const char *in[16], *want[8];
    char got[512] = "";
    Value *values[16];
    Diag d = {.sink = keep_error, .ctx = got};
    int nin = split(a, c->in, '|', in);
    bool error = strncmp(c->want, "error: ", 7) == 0;
    int nout = error ? 1 : split(a, c->want, '|', want);
    for (int i = 0; i < nin; i++) values[i] = parse_input(g, in[i], i);
    if (error && c->op == OP_Split) nout = 2;
    Node *n = node_new(g, c->op, nin, values, nout);
    for (int o = 0; o < nout; o++) n->out[o] = value_new(g, "y", (Type){.rank = -1});
    set_attrs(g, n, c->attrs);
    int status = node_infer(n, &d);
    for (int o = 0; o < nout && !error; o++) {
        char text[256];
        print_type(g, &n->out[o]->type, text);
        if (status == 0 && strcmp(text, want[o]) == 0) continue;
        fail_msg("%s(%s) <%s>: output %d is %s, wanted %s; %s", op_info[c->op].name, c->in,
                 c->attrs, o, text, want[o], got);
    }
    if (error && (status == 0 || !strstr(got, c->want + 7)))
        fail_msg("%s(%s) <%s>: said '%s', wanted '%s'", op_info[c->op].name, c->in, c->attrs, got,
                 c->want);
    arena_free(a);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) run_case(&cases[k]);
}

static Graph *new_graph(Arena *a) { return graph_new(a, "test"); }

static Value *input(Graph *g, const char *type)
{
    Value *v = parse_input(g, type, g->ninputs);
    return graph_add_input(g, "in", v->type);
}

/* x.view(x.size(0), -1, x.size(2) * x.size(3)) as exporters write it. */
static void test_shape_chain(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = new_graph(a);
    Value *x = input(g, "f N,16,4,5");
    Value *shape = build(g, OP_Shape, IN(x), NO_ATTRS);
    Value *batch = build(g, OP_Gather, IN(shape, const_ints(g, 1, (int64_t[]){0})), NO_ATTRS);
    Value *tail = build(g, OP_Slice, IN(shape, CONST_INTS(g, 2), CONST_INTS(g, 4)), NO_ATTRS);
    Value *h = build(g, OP_Gather, IN(tail, CONST_INTS(g, 0)), NO_ATTRS);
    Value *w = build(g, OP_Gather, IN(tail, CONST_INTS(g, -1)), NO_ATTRS);
    Value *hw = build(g, OP_Mul, IN(h, w), NO_ATTRS);
    Value *target =
        build(g, OP_Concat, IN(batch, CONST_INTS(g, -1), hw), ATTRS(attr_int("axis", 0)));
    Value *y = build(g, OP_Reshape, IN(x, target), NO_ATTRS);
    char text[128];
    print_type(g, &y->type, text);
    assert_string_equal(text, "f N,16,20");
    arena_free(a);
}

/* Unknown elements become symbols, and the same ones when types are inferred again. */
static void test_symbols_stay(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = new_graph(a);
    Value *x = input(g, "f N,H,4");
    Value *shape = build(g, OP_Shape, IN(x), NO_ATTRS);
    Value *two = build(g, OP_Mul, IN(shape, CONST_INTS(g, 2)), NO_ATTRS);
    Value *y = build(g, OP_ConstantOfShape, IN(two), NO_ATTRS);
    Type before = y->type;
    Diag d = diag_stderr(NULL);
    assert_int_equal(before.dim[2], 8);
    assert_true(dim_is_sym(before.dim[0]) && dim_is_sym(before.dim[1]));
    assert_true(before.dim[0] != before.dim[1] && before.dim[0] != x->type.dim[0]);
    assert_int_equal(graph_infer(g, &d), 0);
    assert_true(type_equal(&before, &y->type));
    int64_t dims[8] = {2, 3, -1, -1, -1, -1, -1, -1};
    graph_add_output(g, y);
    Graph *s = graph_specialize(g, a, dims, &d);
    assert_non_null(s);
    assert_int_equal(s->outputs[0]->type.dim[0], 4);
    assert_int_equal(s->outputs[0]->type.dim[1], 6);
    arena_free(a);
}

/* torch's expand: Where(Equal(shape, -1), ones, shape). */
static void test_expand_chain(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = new_graph(a);
    Value *x = input(g, "f N,1,8");
    int64_t one = 1;
    Attr value = {.name = "value", .kind = ATTR_TENSOR, .s = {&one, 8}};
    value.type = type_of(DT_I64, 1, &one);
    Value *shape = CONST_INTS(g, -1, 5, -1);
    Value *ones = build(g, OP_ConstantOfShape, IN(CONST_INTS(g, 3)), ATTRS(value));
    Value *minus = build(g, OP_Mul, IN(ones, CONST_INTS(g, -1)), NO_ATTRS);
    Value *is = build(g, OP_Equal, IN(shape, minus), NO_ATTRS);
    Value *to = build(g, OP_Where, IN(is, ones, shape), NO_ATTRS);
    Value *y = build(g, OP_Expand, IN(x, to), NO_ATTRS);
    char text[128];
    print_type(g, &y->type, text);
    assert_string_equal(text, "f N,5,8");
    arena_free(a);
}

static void test_costs(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Graph *g = new_graph(a);
    static const float w[16 * 4 * 9], f[10 * 16 * 64];
    Value *x = input(g, "f N,8,8,8");
    Value *cw = value_const(g, "w", type_of(DT_F32, 4, (int64_t[]){16, 4, 3, 3}), w);
    Value *fw = value_const(g, "f", type_of(DT_F32, 2, (int64_t[]){10, 1024}), f);
    Value *y = build(g, OP_Conv, IN(x, cw),
                     ATTRS(attr_int("group", 2), attr_ints("pads", 4, (int64_t[]){1, 1, 1, 1})));
    Value *v = build(g, OP_Flatten, IN(y), NO_ATTRS);
    Value *z = build(g, OP_Gemm, IN(v, fw), ATTRS(attr_int("transB", 1)));
    assert_int_equal(node_flops(y->def), 2 * 16 * 64 * 4 * 9);
    assert_int_equal(node_flops(z->def), 2 * 1024 * 10);
    assert_int_equal(graph_flops(g), node_flops(y->def) + node_flops(z->def));
    assert_int_equal(graph_params(g), 16 * 4 * 9 + 10 * 1024);
    arena_free(a);
}

/* ---- random nodes: anything may be refused, nothing may break ------------------------- */

static const int64_t odd_numbers[] = {
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    -1,
    -2,
    -3,
    16,
    64,
    1000,
    INT32_MAX,
    INT64_MAX,
    INT64_MIN,
    INT64_MIN + 1,
    1LL << 40,
    -(1LL << 40),
    INT64_MAX / 2,
    INT32_MIN,
    99999,
};

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33);
}

static int64_t odd_number(uint64_t *r, bool odd)
{
    size_t n = odd ? sizeof odd_numbers / sizeof *odd_numbers : 7;
    return odd_numbers[next_random(r) % n];
}

static Value *random_input(Graph *g, uint64_t *r, bool odd)
{
    int64_t dim[MAX_RANK];
    uint32_t kind = next_random(r) % 8;
    int rank = (int)(next_random(r) % (odd ? MAX_RANK + 1 : 5));
    if (kind == 0 && odd) return NULL;
    for (int i = 0; i < rank; i++) dim[i] = odd_number(r, odd);
    if (kind == 1) return const_ints(g, rank, dim);
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0) dim[i] = graph_symbol(g, dim[i] % 2 ? "N" : "M");
    Type t = type_of(kind == 2 ? DT_I64 : DT_F32, kind == 3 && odd ? -1 : rank, dim);
    return value_new(g, "x", t);
}

static void random_attr(Graph *g, Node *n, uint64_t *r, bool odd)
{
    static const char *const lists[] = {"strides",      "pads",  "dilations",
                                        "kernel_shape", "perm",  "output_padding",
                                        "output_shape", "shape", "input_shape"};
    static const char *const numbers[] = {"axis", "group", "ceil_mode", "keepdims", "num_outputs",
                                          "dim",  "to",    "start",     "end",      "allowzero"};
    static const char *const modes[] = {"SAME_UPPER", "SAME_LOWER", "VALID"};
    int64_t x[16];
    size_t count = 1 + next_random(r) % 4;
    uint32_t kind = next_random(r) % 20;
    for (size_t i = 0; i < 16; i++) x[i] = odd_number(r, odd);
    if (kind < 9)
        node_set_attr(g, n, attr_ints(lists[kind], count, x));
    else if (kind < 19)
        node_set_attr(g, n, attr_int(numbers[kind - 9], x[0]));
    else
        node_set_attr(g, n, attr_str("auto_pad", modes[next_random(r) % 3]));
}

static void check_types(const Graph *g, const Node *n)
{
    for (int o = 0; o < n->nout; o++) {
        const Type *t = &n->out[o]->type;
        for (int i = 0; i < t->rank; i++)
            assert_true(t->dim[i] >= 0 ||
                        (dim_is_sym(t->dim[i]) && t->dim[i] - DIM_SYM_BASE < g->nsymbols));
        if (type_is_static(t)) assert_true(type_count(t) >= 0);
    }
}

static void test_random_nodes(void **state)
{
    (void)state;
    uint64_t r = 1;
    int good = 0;
    for (int round = 0; round < 60000; round++) {
        Arena *a = arena_new();
        Graph *g = graph_new(a, "test");
        bool odd = next_random(&r) % 2;
        Op op = (Op)(next_random(&r) % OP_COUNT);
        int nin = op_info[op].min_in + (int)(next_random(&r) % 3),
            attrs = (int)(next_random(&r) % 5);
        int nout = op_info[op].max_out < 0 ? 1 + (int)(next_random(&r) % 3) : op_info[op].max_out;
        Value *in[16]; /* QLinearConv wants 8, and up to 2 more are tried */
        for (int i = 0; i < nin; i++) in[i] = random_input(g, &r, odd);
        Node *n = node_new(g, op, nin, in, nout);
        for (int o = 0; o < nout; o++) n->out[o] = value_new(g, "y", (Type){.rank = -1});
        for (int k = 0; k < attrs; k++) random_attr(g, n, &r, odd);
        Diag quiet = {0};
        if (node_infer(n, &quiet) == 0) {
            check_types(g, n);
            node_append(g, n);
            Lanes *l = lanes_new(g, a);
            assert_true(node_flops(n) >= 0);
            lanes_run(l);
            good++;
        } else {
            if (!quiet.errors) fprintf(stderr, "%s fails without an error\n", op_info[op].name);
            assert_true(quiet.errors > 0);
        }
        arena_free(a);
    }
    assert_true(good > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),        cmocka_unit_test(test_shape_chain),
        cmocka_unit_test(test_symbols_stay), cmocka_unit_test(test_expand_chain),
        cmocka_unit_test(test_costs),        cmocka_unit_test(test_random_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
