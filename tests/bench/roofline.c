/* The least time that a model's convolutions can take on this machine.
 *
 *   roofline MODEL.onnx [batch] [runs]
 *
 * Every convolution of the model is run alone by oneDNN, on one thread and in the layouts that
 * oneDNN likes best (nothing is reordered), forward, by data and by weights; the best of `runs`
 * counts. Prints one JSON object: FLOPs of one forward pass, and the seconds per pass that the
 * sums of those best times make, for each of the three. A Hessian-vector product needs three
 * convolutions of the forward kind and two by data per layer; a training step one of each kind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/process.h"
#include "ir/window.h"
#include "passes/derive/hvp.h"
#include "runtime/cpu/primitive.h"

static void check(dnnl_status_t s)
{
    if (s == dnnl_success) return;
    fprintf(stderr, "roofline: oneDNN says %d\n", (int)s);
    exit(1);
}

static MemDesc any(int rank, const int64_t *dim)
{
    MemDesc m;
    dnnl_dims_t d = {0};
    for (int i = 0; i < rank; i++) d[i] = dim[i];
    check(md_any(&m, rank, d, dnnl_f32));
    return m;
}

/* The best time of one primitive on memory of its own. */
static double best_time(dnnl_engine_t e, dnnl_primitive_desc_t pd, const int *arg, int runs)
{
    static const dnnl_query_t what[] = {dnnl_query_src_md,          dnnl_query_weights_md,
                                        dnnl_query_dst_md,          dnnl_query_diff_src_md,
                                        dnnl_query_diff_weights_md, dnnl_query_diff_dst_md};
    dnnl_primitive_t p;
    dnnl_stream_t stream;
    dnnl_exec_arg_t args[3];
    double best = 1e9;
    check(dnnl_primitive_create(&p, pd));
    check(dnnl_stream_create(&stream, e, dnnl_stream_default_flags));
    for (int k = 0; k < 3; k++) {
        args[k].arg = arg[k];
        const int q = arg[k] == DNNL_ARG_SRC            ? 0
                      : arg[k] == DNNL_ARG_WEIGHTS      ? 1
                      : arg[k] == DNNL_ARG_DST          ? 2
                      : arg[k] == DNNL_ARG_DIFF_SRC     ? 3
                      : arg[k] == DNNL_ARG_DIFF_WEIGHTS ? 4
                                                        : 5;
        check(dnnl_memory_create(&args[k].memory, dnnl_primitive_desc_query_md(pd, what[q], 0), e,
                                 DNNL_MEMORY_ALLOCATE));
    }
    for (int r = 0; r < runs; r++) {
        const double start = process_seconds();
        check(dnnl_primitive_execute(p, stream, 3, args));
        check(dnnl_stream_wait(stream));
        if (process_seconds() - start < best) best = process_seconds() - start;
    }
    for (int k = 0; k < 3; k++) dnnl_memory_destroy(args[k].memory);
    dnnl_stream_destroy(stream);
    dnnl_primitive_destroy(p);
    return best;
}

/* [O,I/g,k…] as [g,O/g,I/g,k…] where there are groups. */
static MemDesc weights_of(const Node *n)
{
    const Type *w = &n->in[1]->type;
    const int64_t g = node_int(n, "group", 1);
    int64_t dim[MAX_RANK + 1] = {g, w->dim[0] / g};
    for (int i = 1; i < w->rank; i++) dim[i + 1] = w->dim[i];
    return g > 1 ? any(w->rank + 1, dim) : any(w->rank, w->dim);
}

static void time_conv(const Node *n, dnnl_engine_t e, int runs, double *seconds, Diag *d)
{
    static const int args[3][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                   {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                   {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS}};
    MemDesc src = any(n->in[0]->type.rank, n->in[0]->type.dim), weights = weights_of(n),
            dst = any(n->out[0]->type.rank, n->out[0]->type.dim);
    ConvShape c = {{0}, {0}, {0}, {0}};
    Window w;
    dnnl_primitive_desc_t hint = NULL, pd;
    if (node_window(n, &w, d) < 0) exit(1);
    for (int i = 0; i < w.n; i++) {
        const int64_t extent = (w.kernel[i] - 1) * w.dilation[i] + 1;
        c.stride[i] = w.stride[i];
        c.dilation[i] = w.dilation[i] - 1;
        c.pad_lo[i] = w.pad[i];
        c.pad_hi[i] = (n->out[0]->type.dim[i + 2] - 1) * w.stride[i] + extent -
                      n->in[0]->type.dim[i + 2] - w.pad[i];
    }
    for (int kind = CONV_FORWARD; kind <= CONV_BY_WEIGHTS; kind++) {
        check(conv_desc(&pd, (ConvKind)kind, e, &src, &weights, NULL, &dst, &c, hint, NULL));
        seconds[kind] += best_time(e, pd, args[kind], runs);
        if (kind == CONV_FORWARD)
            hint = pd;
        else
            dnnl_primitive_desc_destroy(pd);
    }
    dnnl_primitive_desc_destroy(hint);
    md_free(&src), md_free(&weights), md_free(&dst);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : NULL;
    const int64_t batch = argc > 2 ? atoll(argv[2]) : 32;
    const int runs = argc > 3 ? atoi(argv[3]) : 10;
    double seconds[3] = {0};
    Diag d = diag_stderr(path);
    Arena *a = arena_new();
    Graph *g;
    dnnl_engine_t e;
    if (!path) return fprintf(stderr, "usage: roofline MODEL.onnx [batch] [runs]\n"), 2;
    if (onnx_read(&g, a, path, &d) < 0) return 1;
    g = graph_with_batch(g, a, batch, &d);
    if (!g || simplify_fold(g, a, &d) < 0) return 1;
    single_thread_begin();
    check(dnnl_engine_create(&e, dnnl_cpu, 0));
    for (int k = 0; k < g->nnodes; k++)
        if (g->nodes[k]->op == OP_Conv) time_conv(g->nodes[k], e, runs, seconds, &d);
    printf("{\"batch\": %lld, \"flops\": %lld, \"forward\": %g, \"by_data\": %g, "
           "\"by_weights\": %g}\n",
           (long long)batch, (long long)graph_flops(g), seconds[CONV_FORWARD],
           seconds[CONV_BY_DATA], seconds[CONV_BY_WEIGHTS]);
    dnnl_engine_destroy(e);
    arena_free(a);
    return 0;
}
