/* Where the time of a model goes on one thread.
 *
 *   bench_kernels MODEL.onnx [forward|gradient|half] [batch] [runs] [each]
 *
 * Compiles the model, or the gradient of a cross-entropy by all its weights (half: with half
 * storage), for a batch, runs
 * it on random input, and prints per op: calls, time, share, GFLOP/s of convolutions and
 * products, GB/s of operands for the rest. The best of `runs` counts for each step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/op.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "runtime/program.h"

typedef struct Line {
    const char *name;
    int calls;
    double seconds, flops, bytes;
} Line;

static Graph *load(const char *path, int64_t batch, Arena *a, Diag *d)
{
    Graph *g;
    const char *dot = strrchr(path, '.');
    bool text = dot && strcmp(dot, ".onnxtxt") == 0;
    if ((text ? ir_load : onnx_read)(&g, a, path, d) < 0) exit(1);
    int64_t *dims = NEW_ARRAY(a, int64_t, g->nsymbols + 1), first = g->inputs[0]->type.dim[0];
    for (int i = 0; i < g->nsymbols; i++) dims[i] = -1;
    if (dim_is_sym(first)) dims[first - DIM_SYM_BASE] = batch;
    g = graph_specialize(g, a, dims, d);
    if (!g || simplify_fold(g, a, d) < 0 || simplify_dce(g, a) < 0) exit(1);
    return g;
}

static bool is_weight(const Graph *g, const Value *v)
{
    for (int k = 0; k < g->nnodes; k++) {
        const Node *n = g->nodes[k];
        bool linear = n->op == OP_Conv || n->op == OP_Gemm || n->op == OP_MatMul;
        for (int i = 1; linear && i < n->nin; i++)
            if (n->in[i] == v) return value_is_const(v);
    }
    return false;
}

/* Replaces the outputs by the gradient of the loss. */
static void make_gradient(Graph *g, Diag *d)
{
    Value *wrt[1024], *grad[1024], *z = graph_logits(g);
    int n = 0;
    for (int k = 0; k < g->nnodes; k++)
        for (int i = 0; i < g->nodes[k]->nin; i++)
            if (g->nodes[k]->in[i] && is_weight(g, g->nodes[k]->in[i]) && n < 1024)
                wrt[n++] = g->nodes[k]->in[i];
    for (int i = 0; i < n; i++)
        if (value_is_const(wrt[i])) value_make_input(g, wrt[i]);
    Value *t = graph_add_input(g, "target", z->type);
    Value *loss = loss_cross_entropy(g, z, t, (double)z->type.dim[0]);
    if (ad_grad(g, loss, n, wrt, grad, d) < 0) exit(1);
    g->noutputs = 0;
    for (int i = 0; i < n; i++)
        if (grad[i]) graph_add_output(g, grad[i]);
}

static void *random_input(const Value *v)
{
    int64_t count = type_count(&v->type);
    float *x = aligned_alloc(64, ((size_t)count * sizeof *x + 63) & ~(size_t)63);
    Rng r = rng_new(1, v->id);
    for (int64_t i = 0; x && i < count; i++) x[i] = rng_normal(&r) * 0.1f;
    return x;
}

static const char *step_name(const Step *s) { return s->copy ? "(copy)" : node_op_name(s->node); }

static double step_bytes(const Step *s)
{
    double n = 0;
    for (int i = 0; i < s->nin + s->nout; i++)
        if (s->slot[i].t.rank >= 0)
            n += (double)tensor_count(&s->slot[i].t) * (double)dtype_size(s->slot[i].t.dtype);
    return n;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const Line *)a)->seconds, y = ((const Line *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void report(const Program *p, const double *best, bool each)
{
    Line lines[OP_COUNT + 2];
    int n = 0;
    double total = 0, flops = 0;
    for (int k = 0; k < p->nsteps; k++) {
        const Step *s = &p->steps[k];
        int i = 0;
        while (i < n && strcmp(lines[i].name, step_name(s)) != 0) i++;
        if (i == n) lines[n++] = (Line){.name = step_name(s)};
        lines[i].calls++;
        lines[i].seconds += best[k];
        lines[i].bytes += step_bytes(s);
        lines[i].flops += s->copy ? 0 : (double)node_flops(s->node);
        total += best[k];
        if (!s->copy) flops += (double)node_flops(s->node);
        if (each && best[k] > 0)
            printf("%4d %-20s %8.1f us %7.1f GFLOP/s %6.1f GB/s  %s\n", k, step_name(s),
                   best[k] * 1e6, s->copy ? 0 : (double)node_flops(s->node) / best[k] * 1e-9,
                   step_bytes(s) / best[k] * 1e-9,
                   s->node && s->node->out[0] ? s->node->out[0]->name : "");
    }
    qsort(lines, (size_t)n, sizeof *lines, by_time);
    for (int i = 0; i < n; i++)
        printf("%-20s %5d calls %9.3f ms %5.1f %%  %7.1f GFLOP/s %6.1f GB/s\n", lines[i].name,
               lines[i].calls, lines[i].seconds * 1e3, 100 * lines[i].seconds / total,
               lines[i].flops / lines[i].seconds * 1e-9, lines[i].bytes / lines[i].seconds * 1e-9);
    printf("all %.3f ms, %.1f GFLOP/s, %.1f MiB\n", total * 1e3, flops / total * 1e-9,
           (double)program_peak_bytes(p) / 1048576);
}

int main(int argc, char **argv)
{
    Diag d = diag_stderr(argc > 1 ? argv[1] : NULL);
    Arena *a = arena_new();
    Program *p;
    Instance *inst;
    ProgramOptions o = {.device = "cpu"};
    if (argc < 2)
        return fprintf(
                   stderr,
                   "usage: bench_kernels MODEL [forward|gradient|half] [batch] [runs] [each]\n"),
               2;
    Graph *g = load(argv[1], argc > 3 ? atoll(argv[3]) : 32, a, &d);
    const char *mode = argc > 2 ? argv[2] : "forward";
    if (strcmp(mode, "forward") != 0) make_gradient(g, &d);
    if (strcmp(mode, "half") == 0 && lower_precision(g, a, DT_F16, &d) < 0) return 1;
    if (program_compile(&p, g, &o, &d) < 0 || instance_new(&inst, p, &d) < 0) return 1;
    for (int i = 0; i < g->ninputs; i++) {
        const void *data = g->inputs[i]->data ? g->inputs[i]->data : random_input(g->inputs[i]);
        instance_bind(inst, i, data);
    }
    double *best = calloc((size_t)p->nsteps + 1, sizeof *best);
    double *now = calloc((size_t)p->nsteps + 1, sizeof *now);
    if (!best || !now) return 1;
    for (int k = 0; k < p->nsteps; k++) best[k] = 1e9;
    for (int r = 0; r < (argc > 4 ? atoi(argv[4]) : 10); r++) {
        memset(now, 0, (size_t)p->nsteps * sizeof *now);
        instance_profile(inst, now);
        instance_run_all(inst);
        for (int k = 0; k < p->nsteps; k++) best[k] = now[k] < best[k] ? now[k] : best[k];
    }
    printf("%s\n", runtime_cpu_features());
    report(p, best, argc > 5);
    instance_free(inst);
    program_free(p);
    arena_free(a);
    return 0;
}
