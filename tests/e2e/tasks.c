/* Writes small networks of several kinds, for what trains without labels and without being a
 * classifier: tasks NAME OUT.onnx. */
#include <stdio.h>

#include "backend/backend.h"
#include "tests/unit/small_net.h"

enum { WIDTH = 16, ANCHORS = NET_SIZE * NET_SIZE };

static Value *relu(Graph *g, Value *x) { return build(g, OP_Relu, IN(x), NO_ATTRS); }

static Value *named(Value *v, const char *name)
{
    v->name = value_new(v->graph, name, v->type)->name;
    return v;
}

static Value *backbone(Graph *g)
{
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    x = relu(g, net_conv(g, x, "stem", 2, WIDTH, false));
    return named(relu(g, net_conv(g, x, "body", WIDTH, WIDTH, false)), "features");
}

static void one_number(Graph *g, Value *x)
{
    x = build(g, OP_GlobalAveragePool, IN(x), NO_ATTRS);
    x = build(g, OP_Flatten, IN(x), NO_ATTRS);
    Value *w = net_const(g, "fc_w", 1, 2, DIMS(1, WIDTH));
    graph_add_output(g, named(build(g, OP_Gemm, IN(x, w), ATTRS(attr_int("transB", 1))), "y"));
}

static void regressor(Graph *g) { one_number(g, backbone(g)); }

/* A convolution, `raw`, and its BatchNormalization, `normed`. */
static void normalized(Graph *g)
{
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    x = named(net_conv(g, x, "stem", 2, WIDTH, true), "normed");
    named(x->def->in[0], "raw");
    one_number(g, relu(g, x));
}

/* Down by a strided convolution, up by ConvTranspose and Resize; the mask is an index output. */
static void segmenter(Graph *g)
{
    Value *top = backbone(g), *w = net_const(g, "down_w", 0.1f, 4, DIMS(WIDTH, WIDTH, 2, 2));
    Value *x = build(g, OP_Conv, IN(top, w), ATTRS(attr_ints("strides", 2, DIMS(2, 2))));
    Value *u = net_const(g, "up_w", 0.1f, 4, DIMS(WIDTH, WIDTH, 2, 2));
    Value *a =
        build(g, OP_ConvTranspose, IN(relu(g, x), u), ATTRS(attr_ints("strides", 2, DIMS(2, 2))));
    static const float twice[4] = {1, 1, 2, 2};
    Value *scales = value_const(g, "scales", type_of(DT_F32, 1, DIMS(4)), twice);
    Value *b = build(g, OP_Resize, 3, (Value *[]){relu(g, x), NULL, scales},
                     ATTRS(attr_str("mode", "nearest"),
                           attr_str("coordinate_transformation_mode", "asymmetric"),
                           attr_str("nearest_mode", "floor")));
    b = build(g, OP_Concat, IN(relu(g, a), b), ATTRS(attr_int("axis", 1)));
    Value *y = named(net_conv(g, b, "head", 2 * WIDTH, 3, false), "classes");
    graph_add_output(g, y);
    graph_add_output(
        g, named(build(g, OP_ArgMax, IN(y), ATTRS(attr_int("axis", 1), attr_int("keepdims", 0))),
                 "mask"));
}

/* [N,C,8,8] as [N,64,C] */
static Value *by_anchor(Graph *g, Value *x, int64_t channels)
{
    x = build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", 4, DIMS(0, 2, 3, 1))));
    return build(g, OP_Reshape, IN(x, CONST_INTS(g, 0, ANCHORS, channels)), NO_ATTRS);
}

/* Boxes and scores, the best five by TopK, and all by NonMaxSuppression. */
static void detector(Graph *g)
{
    Value *x = backbone(g);
    Value *boxes = named(by_anchor(g, net_conv(g, x, "box", WIDTH, 4, false), 4), "boxes");
    Value *scores = by_anchor(g, net_conv(g, x, "class", WIDTH, 3, false), 3);
    scores = named(build(g, OP_Sigmoid, IN(scores), NO_ATTRS), "scores");
    Value *best =
        build(g, OP_ReduceMax, IN(scores, CONST_INTS(g, 2)), ATTRS(attr_int("keepdims", 0)));
    Node *top = build_multi(g, OP_TopK, 2, IN(best, CONST_INTS(g, 5)), NO_ATTRS);
    Value *turned = build(g, OP_Transpose, IN(scores), ATTRS(attr_ints("perm", 3, DIMS(0, 2, 1))));
    int64_t five = 5;
    float half = 0.5f;
    Value *most =
        value_const(g, "most", type_of(DT_I64, 0, NULL), arena_memdup(g->arena, &five, 8));
    Value *over =
        value_const(g, "over", type_of(DT_F32, 0, NULL), arena_memdup(g->arena, &half, 4));
    Value *chosen = build(g, OP_NonMaxSuppression, IN(boxes, turned, most, over, over), NO_ATTRS);
    graph_add_output(g, boxes);
    graph_add_output(g, scores);
    graph_add_output(g, named(top->out[1], "order"));
    graph_add_output(g, named(chosen, "selected"));
}

static void classifier(Graph *g)
{
    Value *x = build(g, OP_GlobalAveragePool, IN(backbone(g)), NO_ATTRS);
    x = build(g, OP_Flatten, IN(x), NO_ATTRS);
    Value *w = net_const(g, "fc_w", 1, 2, DIMS(3, WIDTH));
    graph_add_output(g, named(build(g, OP_Gemm, IN(x, w), ATTRS(attr_int("transB", 1))), "logits"));
}

static Value *prelu(Graph *g, Value *x, int64_t channels)
{
    Value *slope = net_const(g, "slope", 0.2f, 3, DIMS(channels, 1, 1));
    return build(g, OP_PRelu, IN(x, slope), NO_ATTRS);
}

/* Convolution of weights that keep the variance, PRelu, and pooling by 2. */
static Value *stage(Graph *g, Value *x, int64_t in, int64_t out, int64_t size)
{
    const float spread = sqrtf(2 / (float)(in * size * size));
    Value *w = net_const(g, "w", spread, 4, DIMS(out, in, size, size));
    x = prelu(g, build(g, OP_Conv, IN(x, w, net_const(g, "b", 0.1f, 1, DIMS(out))), NO_ATTRS), out);
    return build(
        g, OP_MaxPool, IN(x),
        ATTRS(attr_ints("kernel_shape", 2, DIMS(2, 2)), attr_ints("strides", 2, DIMS(2, 2))));
}

static Value *dense(Graph *g, Value *x, int64_t in, int64_t out)
{
    Value *w = net_const(g, "w", sqrtf(2 / (float)in), 2, DIMS(in, out));
    return build(g, OP_Gemm, IN(x, w, net_const(g, "b", 0.1f, 1, DIMS(out))), NO_ATTRS);
}

/* A patch of 24 x 24: whether it is one (Softmax), and where it should be instead. */
static void patches(Graph *g)
{
    Value *x = graph_add_input(g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 3, 24, 24)));
    x = stage(g, stage(g, stage(g, x, 3, 16, 3), 16, 24, 3), 24, 32, 2); /* [N,32,1,1] */
    x = dense(g, build(g, OP_Flatten, IN(x), NO_ATTRS), 32, 64);
    Value *slope = net_const(g, "slope", 0.2f, 1, DIMS(64));
    x = build(g, OP_PRelu, IN(x, slope), NO_ATTRS);
    Value *is = build(g, OP_Softmax, IN(dense(g, x, 64, 2)), ATTRS(attr_int("axis", 1)));
    graph_add_output(g, named(is, "is"));
    graph_add_output(g, named(dense(g, x, 64, 4), "where"));
}

/* Rows of the image as a sequence, both ways from a state that is repeated for each sample, then
 * forward; the last state decides. */
static void reader(Graph *g)
{
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    Value *n = build(g, OP_Gather, IN(build(g, OP_Shape, IN(x), NO_ATTRS), CONST_INTS(g, 0)),
                     ATTRS(attr_int("axis", 0)));
    Value *shape = build(g, OP_Concat, IN(CONST_INTS(g, 2), n, CONST_INTS(g, WIDTH)),
                         ATTRS(attr_int("axis", 0)));
    Value *h = build(g, OP_Expand, IN(net_const(g, "h", 1, 3, DIMS(2, 1, WIDTH)), shape), NO_ATTRS);
    x = build(g, OP_Reshape, IN(x, CONST_INTS(g, 0, 2 * NET_SIZE, NET_SIZE)), NO_ATTRS);
    x = build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", 3, DIMS(1, 0, 2))));
    Value *in[] = {x,
                   net_const(g, "w", 0.3f, 3, DIMS(2, 4 * WIDTH, NET_SIZE)),
                   net_const(g, "r", 0.3f, 3, DIMS(2, 4 * WIDTH, WIDTH)),
                   net_const(g, "b", 0.1f, 2, DIMS(2, 8 * WIDTH)),
                   NULL,
                   h};
    x = build(g, OP_LSTM, 6, in,
              ATTRS(attr_int("hidden_size", WIDTH), attr_str("direction", "bidirectional")));
    x = build(g, OP_Transpose, IN(x), ATTRS(attr_ints("perm", 4, DIMS(0, 2, 1, 3))));
    x = build(g, OP_Reshape, IN(x, CONST_INTS(g, 0, 0, 2 * WIDTH)), NO_ATTRS);
    Node *last = build_multi(g, OP_GRU, 2,
                             IN(x, net_const(g, "v", 0.3f, 3, DIMS(1, 3 * WIDTH, 2 * WIDTH)),
                                net_const(g, "u", 0.3f, 3, DIMS(1, 3 * WIDTH, WIDTH))),
                             ATTRS(attr_int("hidden_size", WIDTH)));
    x = build(g, OP_Squeeze, IN(last->out[1], CONST_INTS(g, 0)), NO_ATTRS);
    Value *w = net_const(g, "fc_w", 1, 2, DIMS(3, WIDTH));
    graph_add_output(g, named(build(g, OP_Gemm, IN(x, w), ATTRS(attr_int("transB", 1))), "logits"));
}

static const struct {
    const char *name;
    void (*make)(Graph *g);
} tasks[] = {{"regressor", regressor},   {"segmenter", segmenter}, {"detector", detector},
             {"classifier", classifier}, {"reader", reader},       {"normalized", normalized},
             {"patches", patches}};

int main(int argc, char **argv)
{
    Diag d = diag_stderr("tasks");
    Arena *a = arena_new();
    int status = 2;
    for (size_t k = 0; argc == 3 && k < sizeof tasks / sizeof *tasks; k++) {
        if (strcmp(argv[1], tasks[k].name) != 0) continue;
        Graph *g = graph_new(a, tasks[k].name);
        tasks[k].make(g);
        status = onnx_write(g, argv[2], &(EmitOptions){0}, &d) < 0;
    }
    arena_free(a);
    return status;
}
