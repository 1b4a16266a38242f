/* Writes every network of lane_nets.h without a random third of its free channels, and with those
 * zeroed: K.FORM.removed.onnx and K.FORM.zeroed.onnx, for structures.py to have ONNX Runtime
 * compare. float    the network, channels zeroed after every node heads    whole attention heads
 * go, where there are some widths   of what `heads` leaves, a position goes from all heads int8 as
 * QuantizeLinear and DequantizeLinear on the same grids; channels are zeroed in all constants
 * before, as masks after nodes would change what is quantized */
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "passes/passes.h"
#include "passes/prune/remove_channels.h"
#include "removal.h"
#include "unit/lane_nets.h"

enum { SAMPLES = 16, SEEDS = 20, OPEN_SIZE = 6 };

static Lanes *analysed(Graph *g, Arena *a, bool heads)
{
    Lanes *l = lanes_new(g, a);
    if (heads) lanes_prefer_heads(l);
    lanes_run(l);
    return l;
}

/* Writes the pair and leaves g as what remains; 1 if nothing was chosen or an axis would be left
 * without channels, -1 after an error. */
static int write_pair(Graph *g, bool heads, uint64_t seed, const char *path)
{
    Arena *a = g->arena;
    Diag quiet = {0}, loud = diag_stderr(path);
    int chosen;
    Lanes *l = analysed(g, a, heads);
    const bool *removed = random_removal(l, a, seed, &chosen);
    Graph *zeroed = channels_masked(g, l, removed, a);
    if (!chosen || channels_remove(g, l, removed, &quiet) < 0) return 1;
    TRY(onnx_write(g, arena_printf(a, "%s.removed.onnx", path), NULL, &loud));
    return onnx_write(zeroed, arena_printf(a, "%s.zeroed.onnx", path), NULL, &loud);
}

static Graph *network(const LaneNet *net, Arena *a)
{
    Graph *g = graph_new(a, "net");
    net->build(g);
    return g;
}

/* Random numbers: words from 0 to 8, else normal. */
static Samples *samples_for(const Graph *g, Arena *a)
{
    Samples *s = NEW(a, Samples);
    *s = (Samples){.count = SAMPLES, .ninputs = g->ninputs};
    s->inputs = NEW_ARRAY(a, SampleInput, g->ninputs);
    Rng r = rng_new(3, 1);
    for (int i = 0; i < g->ninputs; i++) {
        Type t = g->inputs[i]->type, one = {.dtype = t.dtype, .rank = t.rank - 1};
        for (int k = 1; k < t.rank; k++) one.dim[k - 1] = t.dim[k] < 0 ? OPEN_SIZE : t.dim[k];
        int64_t n = SAMPLES * type_count(&one);
        float *x = NEW_ARRAY(a, float, n);
        int64_t *word = NEW_ARRAY(a, int64_t, n);
        for (int64_t k = 0; k < n; k++) {
            x[k] = rng_normal(&r);
            word[k] = (int64_t)rng_below(&r, 9);
        }
        s->inputs[i] = (SampleInput){
            .type = one, .data = t.dtype == DT_I64 ? (void *)word : (void *)x, .channel_axis = -1};
    }
    return s;
}

static int write_quantized(Graph *g, const char *path)
{
    Arena *a = g->arena;
    Diag d = diag_stderr(path);
    Context c = {.arena = a, .graph = g, .diag = &d, .data = samples_for(g, a)};
    c.opt = (Options){.device = "cpu",
                      .threads = 1,
                      .batch = SAMPLES,
                      .precision = "fp32",
                      .calibration = "min-max"};
    c.original = graph_clone(g, a, NULL);
    sizes_of_samples(&c, c.data);
    TRY(pass_run_pipeline(&c, "fake-quant,quantize"));
    return onnx_write(c.graph, path, NULL, &d);
}

/* Zeroes in `copy`, a constant, what is removed along an axis of v, which it is a copy of. */
static void zero_lanes(Lanes *l, const Value *v, Value *copy, int axis)
{
    size_t inner = dtype_size(v->type.dtype);
    int64_t outer = 1, n = v->type.dim[axis];
    char *data = arena_memdup(copy->graph->arena, copy->data, (size_t)type_bytes(&v->type));
    for (int i = 0; i < axis; i++) outer *= v->type.dim[i];
    for (int i = axis + 1; i < v->type.rank; i++) inner *= (size_t)v->type.dim[i];
    for (int64_t k = 0; k < outer * n; k++)
        if (lanes_removed(l, v, axis, k % n)) memset(data + (size_t)k * inner, 0, inner);
    copy->data = data;
}

/* The pair in integers: as of write_pair. */
static int write_int8_pair(Graph *g, uint64_t seed, const char *path)
{
    Arena *a = g->arena;
    Value **copy;
    Diag quiet = {0};
    int chosen;
    Lanes *l = analysed(g, a, false);
    const bool *removed = random_removal(l, a, seed, &chosen);
    Graph *zeroed = graph_clone(g, a, &copy);
    lanes_set_removed(l, removed);
    for (int i = 0; i < g->nnodes; i++)
        for (int k = 0; k < g->nodes[i]->nin; k++) {
            const Value *v = g->nodes[i]->in[k];
            for (int axis = 0; v && v->data && axis < v->type.rank; axis++)
                if (lanes_open(l, v, axis)) zero_lanes(l, v, copy[v->id], axis);
        }
    if (!chosen || channels_remove(g, l, removed, &quiet) < 0) return 1;
    TRY(write_quantized(g, arena_printf(a, "%s.removed.onnx", path)));
    return write_quantized(zeroed, arena_printf(a, "%s.zeroed.onnx", path));
}

static bool has_heads(const LaneNet *net, Arena *a)
{
    Graph *g = network(net, a);
    int whole = count_removable(analysed(g, a, true));
    return whole && whole != count_removable(analysed(g, a, false));
}

/* One form with one seed: as of write_pair. */
static int write_form(const char *form, int k, uint64_t seed, const char *dir, Arena *a)
{
    const char *stem = arena_printf(a, "%s/%d", dir, k),
               *path = arena_printf(a, "%s.%s", stem, form);
    Graph *g = network(&lane_nets[k], a);
    bool heads = strcmp(form, "heads") == 0;
    if (strcmp(form, "int8") == 0) return write_int8_pair(g, seed, path);
    int status = write_pair(g, heads, seed, path);
    if (status || !heads) return status;
    return write_pair(g, false, seed, arena_printf(a, "%s.widths", stem));
}

static int write_net(int k, const char *form, const char *dir)
{
    Arena *a = arena_new();
    int status = 1;
    for (uint64_t seed = 0; seed < SEEDS && status == 1; seed++)
        status = write_form(form, k, seed, dir, a);
    bool heads = strcmp(form, "heads") == 0;
    if (status)
        fprintf(stderr, "%s, %s: no pair\n", lane_nets[k].name, form);
    else
        printf("%d %s %s\n%s", k, form, lane_nets[k].name,
               heads ? arena_printf(a, "%d widths %s\n", k, lane_nets[k].name) : "");
    arena_free(a);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    Arena *a = arena_new();
    int failed = 0;
    for (int k = 0; k < LANE_NETS; k++) {
        failed += write_net(k, "float", argv[1]) != 0;
        failed += write_net(k, "int8", argv[1]) != 0;
        if (has_heads(&lane_nets[k], a)) failed += write_net(k, "heads", argv[1]) != 0;
    }
    arena_free(a);
    return failed != 0;
}
