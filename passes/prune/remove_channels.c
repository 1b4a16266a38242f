/* The pass "remove-channels".
 *
 * Which lanes go is decided elsewhere (allocate); lanes of one class go together, so every
 * constant can be sliced along each of its axes on its own: what survives of a weight is the
 * product of what survives of its axes. Then the nodes are visited front to back: the op's shrink
 * rule corrects what repeats a size, types are inferred, and sizes are compared with the lanes.
 *
 * The proof, on every run: the smaller network must compute what the larger one does with the
 * removed lanes set to zero after every node, to rounding. The two are run side by side. */
#include "passes/prune/remove_channels.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ir/batch.h"
#include "ir/op.h"
#include "passes/passes.h"

static const double PROOF_LIMIT = 1e-4;

static bool lost_lanes(Lanes *l, const Value *v, int axis)
{
    int64_t n = lanes_open(l, v, axis) ? lanes_size(l, v, axis) : 0;
    return n && lanes_survivors(l, v, axis, 0, n) < n;
}

/* ---- removing ----------------------------------------------------------------------- */

/* [outer, axis, inner bytes] without the removed lanes of the axis. */
static void slice_constant(Graph *g, Lanes *l, Value *v, int axis)
{
    int64_t n = lanes_size(l, v, axis), left = lanes_survivors(l, v, axis, 0, n), outer = 1;
    size_t inner = dtype_size(v->type.dtype);
    for (int i = 0; i < axis; i++) outer *= v->type.dim[i];
    for (int i = axis + 1; i < v->type.rank; i++) inner *= (size_t)v->type.dim[i];
    char *data = arena_array(g->arena, (size_t)(outer * left), inner), *to = data;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n; i++) {
            if (lanes_removed(l, v, axis, i)) continue;
            memcpy(to, (const char *)v->data + (size_t)(o * n + i) * inner, inner);
            to += inner;
        }
    v->data = data;
    v->type.dim[axis] = left;
}

static int check_not_empty(Lanes *l, const Node *n, const Value *v, Diag *d)
{
    for (int axis = 0; v && axis < v->type.rank; axis++) {
        int64_t size = lanes_open(l, v, axis) ? lanes_size(l, v, axis) : 0;
        if (size && lanes_survivors(l, v, axis, 0, size) == 0)
            return node_error(d, n, "all %lld channels of '%s' would be removed", (long long)size,
                              v->name);
    }
    return 0;
}

static int check_removable(Graph *g, Lanes *l, const bool *removed, Diag *d)
{
    bool pinned;
    for (int c = 0; c < lanes_count_classes(l); c++) {
        const Node *by = removed[c] ? lanes_pinned_by(l, c, &pinned) : NULL;
        if (removed[c] && (by || pinned))
            trap(TRAP_INTERNAL, "a channel pinned by '%s' was chosen for removal",
                 by && by->name ? by->name : "an input or output");
    }
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        for (int k = 0; k < n->nin; k++) TRY(check_not_empty(l, n, n->in[k], d));
        for (int o = 0; o < n->nout; o++) TRY(check_not_empty(l, n, n->out[o], d));
    }
    return 0;
}

/* Sizes by the lanes, before inference: what it cannot tell keeps them. */
static void shrink_types(Lanes *l, const Node *n)
{
    for (int o = 0; o < n->nout; o++) {
        Value *v = n->out[o];
        for (int axis = 0; v && axis < v->type.rank; axis++)
            if (lanes_open(l, v, axis))
                v->type.dim[axis] = lanes_survivors(l, v, axis, 0, lanes_size(l, v, axis));
    }
}

static void check_sizes(Lanes *l, const Node *n)
{
    for (int o = 0; o < n->nout; o++) {
        const Value *v = n->out[o];
        for (int axis = 0; v && axis < v->type.rank; axis++) {
            if (!lanes_open(l, v, axis)) continue;
            int64_t want = lanes_survivors(l, v, axis, 0, lanes_size(l, v, axis));
            if (v->type.dim[axis] != want)
                trap(TRAP_INTERNAL, "%s: '%s' has %lld channels on axis %d after removal, not %lld",
                     node_op_name(n), v->name, (long long)v->type.dim[axis], axis, (long long)want);
        }
    }
}

static void slice_inputs(Graph *g, Lanes *l, const Node *n, bool *done)
{
    for (int k = 0; k < n->nin; k++) {
        Value *v = n->in[k];
        if (!v || !v->data || done[v->id]) continue;
        done[v->id] = true;
        for (int axis = 0; axis < v->type.rank; axis++)
            if (lost_lanes(l, v, axis)) slice_constant(g, l, v, axis);
    }
}

int channels_remove(Graph *g, Lanes *l, const bool *removed, Diag *d)
{
    lanes_set_removed(l, removed);
    TRY(check_removable(g, l, removed, d));
    bool *done = NEW_ARRAY(g->arena, bool, g->nvalues);
    for (int i = 0; i < g->nnodes; i++) slice_inputs(g, l, g->nodes[i], done);
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        ShrinkRule *shrink = op_info[n->op].shrink;
        if (shrink) TRY(shrink(l, g, n, d));
        shrink_types(l, n);
        TRY(node_infer(n, d));
        check_sizes(l, n);
        node_append(g, n);
    }
    rewrite_end(&r);
    return 0;
}

/* ---- the proof ---------------------------------------------------------------------- */

/* y where the lane survives, 0 elsewhere; shaped to broadcast along the axis. Where, not Mul: a
 * removed lane may hold infinities. */
static Value *masked(Graph *g, Lanes *l, const Value *of, int axis, Value *y)
{
    int64_t n = lanes_size(l, of, axis), dim[MAX_RANK];
    uint8_t *keep = NEW_ARRAY(g->arena, uint8_t, n);
    uint64_t *zero = NEW(g->arena, uint64_t);
    for (int k = 0; k < MAX_RANK; k++) dim[k] = k == axis ? n : 1;
    for (int64_t i = 0; i < n; i++) keep[i] = !lanes_removed(l, of, axis, i);
    Value *mask = value_const(g, "mask", type_of(DT_BOOL, of->type.rank, dim), keep);
    Value *none = value_const(g, "zero", type_of(y->type.dtype, 0, NULL), zero);
    return build(g, OP_Where, IN(mask, y, none), NO_ATTRS);
}

/* Where results feed back inside a node (hidden units of recurrent layers), zero outputs alone
 * would not silence a lane: its weights are zero, too. */
static void mask_weights(Graph *m, Lanes *l, const Node *of, Node *n)
{
    for (int k = 0; k < n->nin && (op_info[n->op].flags & OPF_FEEDBACK); k++)
        for (int axis = 0; n->in[k] && axis < n->in[k]->type.rank; axis++)
            if (of->in[k]->data && lost_lanes(l, of->in[k], axis))
                n->in[k] = masked(m, l, of->in[k], axis, n->in[k]);
}

Graph *channels_masked(const Graph *g, Lanes *l, const bool *removed, Arena *a)
{
    Graph *m = graph_clone(g, a, NULL);
    Rewrite r = rewrite_begin(m);
    lanes_set_removed(l, removed);
    for (int i = 0; i < r.nold; i++) {
        rewrite_map_inputs(&r, r.old[i]);
        mask_weights(m, l, g->nodes[i], r.old[i]);
        node_append(m, r.old[i]);
        for (int o = 0; o < r.old[i]->nout; o++) {
            const Value *of = g->nodes[i]->out[o];
            Value *y = r.old[i]->out[o], *z = y;
            for (int axis = 0; of && axis < of->type.rank && dtype_is_float(of->type.dtype); axis++)
                if (lost_lanes(l, of, axis)) z = masked(m, l, of, axis, z);
            if (z != y) rewrite_replace(&r, y, z);
        }
    }
    rewrite_end(&r);
    return m;
}

/* Cuts operators that nobody can run out of g: what they read becomes outputs, what they make
 * becomes inputs. */
static void cut_opaque(Graph *g)
{
    Rewrite r = rewrite_begin(g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        if (n->op != OP_Opaque) {
            node_append(g, n);
            continue;
        }
        for (int k = 0; k < n->nin; k++)
            if (n->in[k] && !n->in[k]->data) graph_add_output(g, n->in[k]);
        for (int o = 0; o < n->nout; o++)
            if (n->out[o]) {
                n->out[o]->def = NULL;
                value_make_input(g, n->out[o]);
            }
    }
    rewrite_end(&r);
}

static Graph *runnable(const Graph *g, Arena *a)
{
    Graph *copy = graph_clone(g, a, NULL);
    cut_opaque(copy);
    return copy;
}

/* Numbers for the symbols in the inputs: the batch small, the rest as the samples have it or
 * `otherwise`. */
static void choose_dims(const Graph *g, const Samples *s, int64_t batch, int64_t otherwise,
                        int64_t *dims)
{
    const int *axes = batch_axes(g, g->arena);
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    for (int i = 0; i < g->ninputs; i++) {
        const Type *t = &g->inputs[i]->type;
        const SampleInput *in = s && i < s->ninputs ? &s->inputs[i] : NULL;
        const int batch_axis = in ? in->batch_axis : axes[i];
        for (int axis = 0; axis < t->rank; axis++) {
            int64_t k = t->dim[axis] - DIM_SYM_BASE;
            if (!dim_is_sym(t->dim[axis]) || dims[k] >= 0) continue;
            const int at = batch_axis >= 0 && axis > batch_axis ? axis - 1 : axis;
            const bool given = in && at < in->type.rank;
            dims[k] = axis == batch_axis ? batch : given ? in->type.dim[at] : otherwise;
        }
    }
}

/* What inputs are filled with. */
typedef struct Draw {
    const Samples *samples; /* or NULL */
    uint64_t seed;
    bool positive; /* random numbers above 0 only, for networks of logarithms and roots */
} Draw;

static void fill_random(const Type *t, const Draw *draw, int input, void *data)
{
    Rng rng = rng_new(draw->seed, (uint64_t)input);
    int64_t n = dtype_is_float(t->dtype) ? type_count(t) : 0;
    for (int64_t i = 0; i < n; i++) {
        float x = rng_normal(&rng);
        if (draw->positive) x = fabsf(x) + 0.125f;
        if (t->dtype == DT_F32) ((float *)data)[i] = x;
        if (t->dtype == DT_F16) ((uint16_t *)data)[i] = f32_to_f16(x);
        if (t->dtype == DT_F64) ((double *)data)[i] = x;
    }
}

/* The sample's rows if it has as many elements as the input wants, else random numbers (and zeros
 * for integers). */
static const void *input_data(const Graph *g, int input, const Draw *draw, Arena *a)
{
    const Samples *s = draw->samples;
    const Type *t = &g->inputs[input]->type;
    void *data = arena_alloc(a, (size_t)type_bytes(t));
    const int axis = s && input < s->ninputs ? s->inputs[input].batch_axis : -1;
    const int64_t batch = axis >= 0 && axis < t->rank ? t->dim[axis] : 1;
    bool usable = s && input < s->ninputs && s->count > 0 && batch > 0 &&
                  type_count(&s->inputs[input].type) * batch == type_count(t);
    if (!usable) {
        fill_random(t, draw, input, data);
        return data;
    }
    int64_t *index = NEW_ARRAY(a, int64_t, batch);
    for (int64_t i = 0; i < batch; i++) index[i] = i % s->count;
    samples_gather(s, input, index, batch, t->dtype, data);
    return data;
}

typedef struct Running {
    Program *program;
    Instance *instance;
} Running;

static void stop(Running *r)
{
    if (r->instance) instance_free(r->instance);
    if (r->program) program_free(r->program);
    *r = (Running){0};
}

/* On the CPU device where it can, else on the reference device. */
static int start(Running *r, const Graph *g, Diag *d)
{
    Diag quiet = {0};
    ProgramOptions cpu = {.device = "cpu"}, ref = {.device = "ref"};
    if (program_compile(&r->program, g, &cpu, &quiet) < 0)
        TRY(program_compile(&r->program, g, &ref, d));
    return instance_new(&r->instance, r->program, d);
}

static float *float_output(const Running *r, const Type *t, int o, Arena *a)
{
    int64_t n = type_count(t);
    void *raw = arena_alloc(a, (size_t)type_bytes(t));
    float *x = NEW_ARRAY(a, float, n);
    instance_read(r->instance, o, raw);
    for (int64_t i = 0; i < n; i++)
        x[i] = t->dtype == DT_F16   ? f16_to_f32(((uint16_t *)raw)[i])
               : t->dtype == DT_F64 ? (float)((double *)raw)[i]
                                    : ((float *)raw)[i];
    return x;
}

/* Relative to the largest element; NaN if there is not one finite element to compare. */
static double difference(const float *x, const float *y, int64_t n)
{
    double scale = 0, most = 0;
    int64_t finite = 0;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] == y[i] ? isinf(x[i]) : isnan(x[i]) && isnan(y[i])) continue;
        if (!isfinite(x[i]) || !isfinite(y[i])) return INFINITY;
        finite++;
        scale = fmax(scale, fabs((double)x[i]));
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
    }
    if (n > 0 && finite == 0) return NAN;
    return most == 0 ? 0 : most / fmax(scale, 1e-30);
}

/* The worst of the outputs; NaN if one of them has nothing to compare. */
static double compare_outputs(const Running *r, const Running *q, const Graph *a, const Graph *b,
                              Arena *scratch)
{
    double worst = 0;
    for (int o = 0; o < a->noutputs; o++) {
        const Type *t = &a->outputs[o]->type;
        if (!type_equal(t, &b->outputs[o]->type)) return INFINITY;
        if (t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_F64) continue;
        double off = difference(float_output(r, t, o, scratch), float_output(q, t, o, scratch),
                                type_count(t));
        if (isnan(off)) return off;
        worst = fmax(worst, off);
    }
    return worst;
}

static int run_both(double *worst, const Graph *a, const Graph *b, const Draw *draw, Arena *scratch,
                    Diag *d)
{
    Running r = {0}, q = {0};
    int status = start(&r, a, d);
    if (status == 0) status = start(&q, b, d);
    for (int i = 0; i < a->ninputs && status == 0; i++) {
        const void *data = input_data(a, i, draw, scratch);
        instance_bind(r.instance, i, data);
        instance_bind(q.instance, i, data);
    }
    if (status == 0) {
        instance_run_all(r.instance);
        instance_run_all(q.instance);
        *worst = compare_outputs(&r, &q, a, b, scratch);
    }
    stop(&r);
    stop(&q);
    return status;
}

static bool all_static(const Graph *g)
{
    for (int i = 0; i < g->ninputs; i++)
        if (!type_is_static(&g->inputs[i]->type) || !dtype_size(g->inputs[i]->type.dtype))
            return false;
    for (int i = 0; i < g->nnodes; i++)
        for (int o = 0; o < g->nodes[i]->nout; o++)
            if (g->nodes[i]->out[o] && !type_is_static(&g->nodes[i]->out[o]->type)) return false;
    return true;
}

static int compare(double *worst, const Graph *a, const Graph *b, const Samples *s, uint64_t seed,
                   Arena *scratch, Diag *d)
{
    Draw draw = {.samples = s, .seed = seed};
    TRY(run_both(worst, a, b, &draw, scratch, d));
    if (!isnan(*worst)) return 0;
    draw = (Draw){.seed = seed, .positive = true};
    TRY(run_both(worst, a, b, &draw, scratch, d));
    return isnan(*worst) ? diag_error(d, "an output has no finite element") : 0;
}

int graphs_differ(double *worst, const Graph *a, const Graph *b, const Samples *s, uint64_t seed,
                  Diag *d)
{
    static const int64_t guesses[] = {32, 224, 64, 128, 16, 1};
    Arena *scratch = arena_new();
    a = runnable(a, scratch);
    b = runnable(b, scratch);
    int64_t *da = NEW_ARRAY(scratch, int64_t, a->nsymbols + 1);
    int64_t *db = NEW_ARRAY(scratch, int64_t, b->nsymbols + 1);
    Graph *x = NULL, *y = NULL;
    Diag quiet = {0};
    for (size_t k = 0; k < sizeof guesses / sizeof *guesses && !(x && y); k++) {
        choose_dims(a, s, 2, guesses[k], da);
        choose_dims(b, s, 2, guesses[k], db);
        x = simplify_specialize(a, scratch, da, NULL, &quiet);
        y = x ? simplify_specialize(b, scratch, db, NULL, &quiet) : NULL;
        if (x && !all_static(x)) x = NULL;
    }
    int status = x && y ? 0 : diag_error(d, "no input shape found that the network can be run on");
    if (status == 0) status = compare(worst, x, y, s, seed, scratch, d);
    arena_free(scratch);
    return status;
}

/* ---- the pass ----------------------------------------------------------------------- */

static int64_t count_removed(Lanes *l, const bool *removed)
{
    int64_t n = 0;
    for (int c = 0; c < lanes_count_classes(l); c++) n += removed[c];
    return n;
}

static void keep_message(void *ctx, Severity sev, const char *text)
{
    if (sev == SEV_ERROR) snprintf(ctx, 512, "%s", text);
}

/* Compares; a network that cannot be run at all is only warned about, a difference is our fault. */
static void prove(Context *c, const Graph *before)
{
    char why[512] = "";
    double worst = -1;
    Diag held = {.sink = keep_message, .ctx = why};
    if (graphs_differ(&worst, before, c->graph, c->data, c->opt.seed, &held) < 0)
        diag_warning(c->diag, "the smaller network could not be compared with the larger one: %s",
                     why);
    else if (!(worst <= PROOF_LIMIT))
        trap(TRAP_INTERNAL, "removal changed the network: outputs differ by %g of their range",
             worst);
    else
        diag_remark(c->diag, "equal to the network with those channels zeroed to %.2g", worst);
    c->report.proof_max_diff = worst;
}

int pass_remove_channels(Context *c, const char *opt)
{
    (void)opt;
    if (!c->lanes || !c->removed)
        return diag_error(c->diag, "no channels are chosen: run allocate before remove-channels");
    double flops = (double)graph_flops_at(c->graph, &c->opt),
           params = (double)graph_params(c->graph);
    int64_t count = count_removed(c->lanes, c->removed);
    Graph *before = channels_masked(c->graph, c->lanes, c->removed, c->arena);
    TRY(channels_remove(c->graph, c->lanes, c->removed, c->diag));
    c->lanes = NULL;
    c->removed = NULL;
    c->scores = NULL;
    diag_remark(c->diag,
                "removed %lld coupled channels: %.1f %% of flops, %.1f %% of parameters left",
                (long long)count, 100 * (double)graph_flops_at(c->graph, &c->opt) / fmax(flops, 1),
                100 * (double)graph_params(c->graph) / fmax(params, 1));
    prove(c, before);
    return 0;
}
