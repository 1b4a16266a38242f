/* A network with enough channels to choose from:
 *     x [N,2,8,8] -> a 16 relu -> b 32 relu -> c 16 (+ a) relu -> d 24, stride 2, relu -> mean ->
 * fc */
#ifndef EHAP_TESTS_WIDE_NET_H
#define EHAP_TESTS_WIDE_NET_H

#include "tests/unit/device.h"
#include "tests/unit/small_net.h"

static inline Value *wide_relu(Graph *g, Value *x) { return build(g, OP_Relu, IN(x), NO_ATTRS); }

/* The same with m channels in a and c, n in b, k in d. */
static inline Graph *wide_net_of(Arena *a, bool norm, int m, int n, int k)
{
    Graph *g = graph_new(a, "wide");
    Value *x = graph_add_input(
        g, "x", type_of(DT_F32, 4, DIMS(graph_symbol(g, "N"), 2, NET_SIZE, NET_SIZE)));
    x = wide_relu(g, net_conv(g, x, "a", 2, m, norm));
    Value *y = wide_relu(g, net_conv(g, x, "b", m, n, norm));
    y = build(g, OP_Add, IN(net_conv(g, y, "c", n, m, norm), x), NO_ATTRS);
    y = wide_relu(g, net_conv(g, wide_relu(g, y), "d", m, k, norm));
    y = build(g, OP_GlobalAveragePool, IN(y), NO_ATTRS);
    y = build(g, OP_Flatten, IN(y), NO_ATTRS);
    y = build(g, OP_Gemm,
              IN(y, net_const(g, "fc_w", 1, 2, DIMS(NET_CLASSES, k)),
                 net_const(g, "fc_b", 0.1f, 1, DIMS(NET_CLASSES))),
              ATTRS(attr_int("transB", 1)));
    static const char *const names[] = {"a", "b", "c", "d", "fc"};
    for (int i = 0, next = 0; i < g->nnodes; i++)
        if (g->nodes[i]->op == OP_Conv || g->nodes[i]->op == OP_Gemm)
            g->nodes[i]->name = names[next++];
    graph_add_output(g, y);
    return g;
}

static inline Graph *wide_net(Arena *a, bool norm) { return wide_net_of(a, norm, 16, 32, 24); }

static inline Context wide_context(Arena *a, Diag *d, bool norm)
{
    Context c = {.arena = a, .diag = d, .graph = wide_net(a, norm), .data = small_samples(a)};
    c.original = graph_clone(c.graph, a, NULL);
    c.opt = (Options){.device = test_device("cpu"), .threads = 1, .seed = 1};
    return c;
}

#endif
