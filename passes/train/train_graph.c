/* Builds the training graph:
 *
 *   student  = c->graph at the shard's batch; trained constants become inputs;
 *              BatchNormalization becomes BatchNormTrain (statistics of the shard)
 *   teacher  = c->original, inlined on the same inputs
 *   loss     = (1 - a) CE(z, labels) + a T^2 CE(z / T, softmax(z_teacher / T))
 *              + h mean over residual sums s of |s - s_teacher|^2 / |s_teacher|^2;
 *              with --distill, (1 - a) CE as before, and the relative squares of the values named
 *   outputs  = loss, what the outputs have of it (without hints; TrainGraph.judged),
 *              d loss / d parameter …, mean and variance of every BatchNormTrain,
 *              least and largest element of activations whose range follows the data
 *
 * The teacher shares the student's inputs, so augmented samples are seen by both alike. */
#include "passes/train/train_graph.h"

#include <string.h>

#include "ir/op.h"
#include "ir/text.h"
#include "passes/batches.h"
#include "passes/quant/targets.h"

/* Which operands are parameters where they are float constants: bit k for input k. */
static const uint8_t trained_operands[OP_COUNT] = {
    [OP_Conv] = 6,
    [OP_ConvTranspose] = 6,
    [OP_DeformConv] = 10,
    [OP_Gemm] = 6,
    [OP_MatMul] = 3,
    [OP_BatchNormalization] = 6,
    [OP_LayerNormalization] = 6,
    [OP_PRelu] = 2,
    [OP_LSTM] = 14,
    [OP_GRU] = 14,
    [OP_RNN] = 14,
    [OP_Add] = 3,
    [OP_Sub] = 3,
    [OP_Mul] = 3,
    [OP_Div] = 3,
};

typedef struct Builder {
    Context *c;
    Arena *a;
    const TrainSetup *setup;
    TrainGraph *t;
    Value **twin;       /* by id in c->graph: the value of the training graph */
    int *param;         /* by id in c->graph: 1 + index of its parameter */
    int *range;         /* by id of a scale in c->graph: 1 + index of its TrainRange */
    Value **statistics; /* mean and variance of each TrainNorm */
    Value **extremes;   /* least and largest of each TrainExtreme */
} Builder;

bool graph_is_fake_quantized(const Graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i]->op == OP_FakeQuant) return true;
    return false;
}

/* ---- parameters --------------------------------------------------------------------- */

static int make_input(Builder *b, Value *home)
{
    value_make_input(b->t->g, b->twin[home->id]);
    return b->t->g->ninputs - 1;
}

static void add_param(Builder *b, Value *home, bool decay, bool scale)
{
    TrainGraph *t = b->t;
    if (b->param[home->id]) return;
    t->params[t->nparams++] = (TrainParam){
        .home = home, .input = make_input(b, home), .output = -1, .decay = decay, .scale = scale};
    b->param[home->id] = t->nparams;
}

static bool is_float_const(const Value *v)
{
    return v && value_is_const(v) && v->type.dtype == DT_F32;
}

/* Operands of arithmetic are parameters if they are more than a number, no mask, and not part of
 * the preparation of the input. */
static bool is_structural(const Node *n, const Value *v)
{
    if (value_is_masked(v)) return true;
    if (!(op_info[n->op].flags & OPF_ELTWISE) || n->op == OP_PRelu) return false;
    for (int k = 0; k < n->nin; k++)
        if (n->in[k] && value_is_input(n->in[k])) return true;
    return type_count(&v->type) <= 1;
}

/* A weight on a grid: the weight is the parameter, the grid's scales follow it. */
static void add_quantized_weight(Builder *b, const Node *fq)
{
    TrainGraph *t = b->t;
    Value *w = fq->in[0], *scale = fq->in[1];
    int axis = (int)node_int(fq, "axis", -1);
    if (!is_float_const(w) || axis < 0 || b->param[scale->id]) return;
    add_param(b, w, true, false);
    b->param[scale->id] = -1;
    t->scales[t->nscales++] = (TrainScale){.home = scale,
                                           .input = make_input(b, scale),
                                           .param = b->param[w->id] - 1,
                                           .axis = axis,
                                           .qmax = (int)node_int(fq, "qmax", 127)};
}

/* The scale is a parameter. */
static void learn_range(Builder *b, const Node *fq)
{
    TrainGraph *t = b->t;
    add_param(b, fq->in[1], false, true);
    t->params[t->nparams - 1].least = node_float(fq, "scale_min", 0);
    t->params[t->nparams - 1].most = node_float(fq, "scale_max", 0);
}

/* Scale and zero point are computed from a moving average. */
static void follow_range(Builder *b, const Node *fq)
{
    TrainGraph *t = b->t;
    Value *scale = fq->in[1], *zero = fq->in[2];
    GridKind kind = {(int)node_int(fq, "qmin", 0), (int)node_int(fq, "qmax", 255),
                     target_find(b->c->opt.target)->symmetric, node_float(fq, "scale_min", 0)};
    float steps = (float)kind.qmax - *(const float *)zero->data;
    b->param[scale->id] = b->param[zero->id] = -1;
    t->ranges[t->nranges++] = (TrainRange){.scale = scale,
                                           .zero = zero,
                                           .scale_input = make_input(b, scale),
                                           .zero_input = make_input(b, zero),
                                           .kind = kind,
                                           .top = node_float(fq, "scale_max", 0) * steps};
    b->range[scale->id] = t->nranges;
}

/* The grid of an activation, where its bounds leave anything to find out. */
static void add_range(Builder *b, const Node *fq)
{
    float least = node_float(fq, "scale_min", 0), most = node_float(fq, "scale_max", 0);
    const Value *scale = fq->in[1], *zero = fq->in[2];
    bool activation = !value_is_const(fq->in[0]) && is_float_const(scale) && is_float_const(zero);
    if (!activation || (most > 0 && least >= most) || b->param[scale->id]) return;
    if (b->setup->ranges == RANGES_LEARNED) learn_range(b, fq);
    if (b->setup->ranges == RANGES_MOVING_AVERAGE && !b->param[zero->id]) follow_range(b, fq);
}

static void collect_params(Builder *b)
{
    const Graph *g = b->c->graph;
    int bound = 0;
    for (int i = 0; i < g->nnodes; i++) bound += g->nodes[i]->nin;
    b->t->params = NEW_ARRAY(b->a, TrainParam, bound);
    b->t->scales = NEW_ARRAY(b->a, TrainScale, bound);
    b->t->ranges = NEW_ARRAY(b->a, TrainRange, bound);
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        if (n->op == OP_FakeQuant) {
            add_quantized_weight(b, n);
            add_range(b, n);
            continue;
        }
        for (int k = 0; k < n->nin && k < 8; k++) {
            Value *v = n->in[k];
            if (!(trained_operands[n->op] >> k & 1) || !is_float_const(v) || is_structural(n, v))
                continue;
            add_param(b, v, v->type.rank >= 2 && !(op_info[n->op].flags & OPF_ELTWISE), false);
        }
    }
}

/* ---- statistics --------------------------------------------------------------------- */

/* Statistics of fewer elements than this are noise: the running ones stay. */
enum { LEAST_ELEMENTS = 64 };

static int64_t elements_per_channel(const Node *n)
{
    const Type *t = &n->in[0]->type;
    return t->rank >= 2 && t->dim[1] > 0 ? type_count(t) / t->dim[1] : 0;
}

static Node *train_norm(Builder *b, const Node *n, const Node *home)
{
    TrainGraph *t = b->t;
    double elements = (double)elements_per_channel(n);
    Attr epsilon = attr_float("epsilon", node_float(n, "epsilon", 1e-5f));
    Node *m =
        build_multi(t->g, OP_BatchNormTrain, 3, IN(n->in[0], n->in[1], n->in[2]), 1, &epsilon);
    b->statistics[2 * t->nnorms] = m->out[1];
    b->statistics[2 * t->nnorms + 1] = m->out[2];
    t->norms[t->nnorms++] = (TrainNorm){
        .mean = home->in[3], .variance = home->in[4], .correction = elements / (elements - 1)};
    return m;
}

/* Whether x was put together from values on the very grid of fq, and so brings nothing new. */
static bool moved_on_grid(const Node *fq)
{
    const Node *n = fq->in[0]->def;
    int floats = 0, same = 0;
    for (int k = 0; n && k < n->nin; k++) {
        const Value *x = n->in[k];
        if (!x || value_is_const(x) || x->type.dtype != DT_F32) continue;
        floats++;
        same += x->def && x->def->op == OP_FakeQuant && x->def->in[1] == fq->in[1];
    }
    return floats > 0 && floats == same;
}

static void add_extremes(Builder *b, const Node *n, const Node *home)
{
    TrainGraph *t = b->t;
    int range = home->op == OP_FakeQuant ? b->range[home->in[1]->id] : 0;
    if (!range || moved_on_grid(home)) return;
    Attr keep = attr_int("keepdims", 0);
    b->extremes[2 * t->nextremes] = build(t->g, OP_ReduceMin, 1, &n->in[0], 1, &keep);
    b->extremes[2 * t->nextremes + 1] = build(t->g, OP_ReduceMax, 1, &n->in[0], 1, &keep);
    t->extremes[t->nextremes++].range = range - 1;
}

static void add_statistics(Builder *b)
{
    TrainGraph *t = b->t;
    Rewrite r = rewrite_begin(t->g);
    t->norms = NEW_ARRAY(b->a, TrainNorm, r.nold);
    t->extremes = NEW_ARRAY(b->a, TrainExtreme, r.nold);
    b->statistics = NEW_ARRAY(b->a, Value *, 2 * r.nold);
    b->extremes = NEW_ARRAY(b->a, Value *, 2 * r.nold);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        const Node *home = b->c->graph->nodes[i];
        rewrite_map_inputs(&r, n);
        add_extremes(b, n, home);
        bool norm = n->op == OP_BatchNormalization && !b->setup->freeze_norms &&
                    is_float_const(home->in[3]) && is_float_const(home->in[4]);
        if (norm && elements_per_channel(n) >= LEAST_ELEMENTS)
            rewrite_replace(&r, n->out[0], train_norm(b, n, home)->out[0]);
        else
            node_append(t->g, n);
    }
    rewrite_end(&r);
}

/* ---- loss --------------------------------------------------------------------------- */

static Value *scaled(Graph *g, Value *v, double by)
{
    return by == 1 ? v : build(g, OP_Mul, IN(v, const_f32(g, (float)by)), NO_ATTRS);
}

static Value *plus(Graph *g, Value *x, Value *y)
{
    return x && y ? build(g, OP_Add, IN(x, y), NO_ATTRS) : x ? x : y;
}

/* Labels or a Softmax tell a classifier: without either, a row may hold boxes or angles, which a
 * cross-entropy would leave free to move together, and squared differences teach logits as well
 * (docs/results.md). teacher NULL: the labels' part alone. */
static Value *classifier_loss(Builder *b, Value *z, Value *teacher)
{
    Graph *g = b->t->g;
    double batch = (double)b->setup->batch, a = b->setup->distill,
           temperature = b->setup->temperature;
    bool labels = b->c->data->labels != NULL;
    Value *hard = NULL, *soft = NULL;
    if (!labels) a = 1;
    if (a < 1) {
        Value *t = graph_add_input(g, "labels", z->type);
        b->t->labels = g->ninputs - 1;
        hard = scaled(g, loss_cross_entropy(g, z, t, batch), 1 - a);
    }
    if (a > 0 && teacher) {
        Attr axis = attr_int("axis", -1);
        Value *p =
            build(g, OP_Softmax, 1, (Value *[]){scaled(g, teacher, 1 / temperature)}, 1, &axis);
        Value *ce = loss_cross_entropy(g, scaled(g, z, 1 / temperature), p, batch);
        soft = scaled(g, ce, a * temperature * temperature);
    }
    return plus(g, hard, soft);
}

/* Mean square of an output of the original: what makes errors relative. */
static int output_power(Builder *b, int o, double *power)
{
    enum { FEW = 64 };
    Context *c = b->c;
    Rows y;
    const int64_t n = c->data->count < FEW ? c->data->count : FEW;
    TRY(forward_rows(&y, b->a, c->original, c->original->outputs[o], c->data, n, NULL, &c->opt,
                     c->diag));
    double sum = 0;
    for (int64_t i = 0; i < n * y.row; i++) sum += (double)y.x[i] * (double)y.x[i];
    *power = sum > 0 ? sum / (double)(n * y.row) : 1;
    return 0;
}

/* The mean square of the difference, relative to that of the original's output, summed over the
 * float outputs. */
static int regression_loss(Builder *b, Value *const *y, Value *const *teacher, int n, Value **loss)
{
    Graph *g = b->t->g;
    for (int o = 0; o < n; o++) {
        double power;
        if (y[o]->type.dtype != DT_F32) {
            diag_remark(b->c->diag, "output '%s' is %s: training ignores it", y[o]->name,
                        dtype_name(y[o]->type.dtype));
            continue;
        }
        TRY(output_power(b, o, &power));
        double per_sample = (double)type_count(&y[o]->type) / (double)b->t->shard;
        double total = per_sample * (double)b->setup->batch * power;
        *loss = plus(g, *loss, loss_mse(g, y[o], teacher[o], total));
    }
    return 0;
}

/* ---- hints -------------------------------------------------------------------------- */

/* The residual sums: where a network's stream is handed on, and what the teacher can tell the
 * student besides its answer. */
static bool is_residual_sum(const Node *n)
{
    return n->op == OP_Add && n->out[0]->type.dtype == DT_F32 && n->in[0]->def && n->in[1]->def &&
           !value_is_masked(n->out[0]);
}

/* The teacher's channels that the student still has. */
static Value *surviving(Builder *b, Value *v, const char *name)
{
    const Context *c = b->c;
    for (int k = 0; k < c->nsurvivors; k++) {
        const Survivors *s = &c->survivors[k];
        if (strcmp(s->name, name) != 0) continue;
        Attr axis = attr_int("axis", s->axis);
        v = build(b->t->g, OP_Gather, 2, (Value *[]){v, const_ints(b->t->g, (int)s->n, s->index)},
                  1, &axis);
    }
    return v;
}

typedef struct Hint {
    const char *name;
    Value *student, *teacher;
} Hint;

static int find_hints(Builder *b, Graph *teacher, Hint *hints)
{
    int n = 0;
    for (int i = 0; i < b->t->g->nnodes && b->setup->hints > 0; i++) {
        const Node *s = b->t->g->nodes[i];
        Value *t = is_residual_sum(s) ? graph_computed(teacher, s->out[0]->name) : NULL;
        if (!t || !is_residual_sum(t->def)) continue;
        hints[n++] = (Hint){t->name, s->out[0], t};
        graph_add_output(teacher, t);
    }
    return n;
}

/* The values that --distill names, in both networks. */
static int find_named(Builder *b, Graph *teacher, Hint *hints, int *n)
{
    const Context *c = b->c;
    for (const char *const *named = name_list(b->a, c->opt.distill); *named; named++) {
        const char *name = *named;
        Value *s = graph_computed(b->t->g, name), *t = graph_computed(teacher, name);
        if (!s || !t) {
            diag_error(c->diag, "--distill: %s has no value '%s'",
                       t ? "the network" : "the original", name);
            if (t) diag_note(c->diag, "it went into another node; name one behind it");
            return -1;
        }
        if (s->type.dtype != DT_F32)
            return diag_error(c->diag, "--distill: '%s' is %s, and floats can be learned", name,
                              dtype_name(s->type.dtype));
        hints[(*n)++] = (Hint){t->name, s, t};
        graph_add_output(teacher, t);
    }
    return 0;
}

static Value *square_sum(Graph *g, Value *x)
{
    Attr keep = attr_int("keepdims", 0);
    Value *square = build(g, OP_Mul, IN(x, x), NO_ATTRS);
    return build(g, OP_ReduceSum, 1, &square, 1, &keep);
}

/* `each`: the weight of one. */
static Value *hint_loss(Builder *b, const Hint *h, int n, Value *const *teacher, double each)
{
    Graph *g = b->t->g;
    Value *loss = NULL;
    double weight = each * (double)b->t->shard / (double)b->setup->batch;
    for (int k = 0; k < n; k++) {
        Value *want = surviving(b, teacher[k], h[k].name);
        if (!type_equal(&want->type, &h[k].student->type)) continue;
        Value *far = square_sum(g, build(g, OP_Sub, IN(h[k].student, want), NO_ATTRS));
        Value *norm = build(g, OP_Add, IN(square_sum(g, want), const_f32(g, 1e-6f)), NO_ATTRS);
        loss = plus(g, loss, scaled(g, build(g, OP_Div, IN(far, norm), NO_ATTRS), weight));
    }
    return loss;
}

/* What the outputs say: y of the student, wanted of the teacher. */
static int output_loss(Builder *b, Value *z, Value *const *y, Value *const *wanted, int n,
                       Value **loss)
{
    const Context *c = b->c;
    bool named = c->opt.distill != NULL;
    for (int o = 0; o < n && !b->t->classifies; o++)
        if (!type_equal(&y[o]->type, &wanted[o]->type))
            return diag_error(c->diag, "output '%s' of the two networks differ in type",
                              y[o]->name);
    if (b->t->classifies && (!named || c->data->labels))
        *loss = classifier_loss(b, z, named ? NULL : wanted[0]);
    return b->t->classifies || named ? 0 : regression_loss(b, y, wanted, n, loss);
}

/* *judged: what the outputs say of it, or, where they say nothing, all. */
static int build_loss(Builder *b, Value **loss, Value **judged)
{
    Context *c = b->c;
    TrainGraph *t = b->t;
    Graph *teacher, *g = t->g;
    int n = g->noutputs, nhints = 0;
    bool named = c->opt.distill != NULL;
    Value *z = graph_logits(g);
    TRY(shard_specialize(&teacher, c->original, b->a, c->data, t->shard, c->diag));
    Value **y = arena_memdup(b->a, g->outputs, sizeof(Value *) * (size_t)n);
    size_t names = 0;
    for (const char *const *name = name_list(b->a, c->opt.distill); *name; name++) names++;
    Hint *hints = NEW_ARRAY(b->a, Hint, (size_t)g->nnodes + names);
    if (named)
        TRY(find_named(b, teacher, hints, &nhints));
    else
        nhints = find_hints(b, teacher, hints);
    Value **wanted = NEW_ARRAY(b->a, Value *, n + nhints);
    t->classifies = z && z->type.rank == 2 && z->type.dim[1] > 1 && n == 1 &&
                    (c->data->labels || z != g->outputs[0]);
    if (t->classifies) teacher->outputs[0] = graph_logits(teacher);
    graph_inline(g, teacher, g->inputs, wanted);
    *loss = NULL;
    TRY(output_loss(b, z, y, wanted, n, loss));
    *judged = named ? NULL : *loss;
    double each = named ? 1 : b->setup->hints / nhints;
    *loss = plus(g, *loss, hint_loss(b, hints, nhints, wanted + n, each));
    if (!*judged) *judged = *loss;
    return *loss ? 0 : diag_error(c->diag, "the network has no float output to train");
}

/* ---- outputs ------------------------------------------------------------------------ */

static int add_output(Graph *g, Value *v)
{
    if (!v) return -1;
    graph_add_output(g, v);
    return g->noutputs - 1;
}

static bool is_narrow(const TrainSetup *s)
{
    return s->precision == DT_F16 || s->precision == DT_BF16;
}

/* What gradients are taken of: in narrow storage, as many losses as the input says. */
static Value *magnified(Builder *b, Value *loss)
{
    Graph *g = b->t->g;
    if (!is_narrow(b->setup)) return loss;
    b->t->loss_scale = g->ninputs;
    Value *scale = graph_add_input(g, "loss_scale", type_of(DT_F32, 0, NULL));
    return build(g, OP_Mul, IN(loss, scale), NO_ATTRS);
}

static int build_gradients(Builder *b, Value *loss, Value *judged)
{
    TrainGraph *t = b->t;
    Graph *g = t->g;
    Value **wrt = NEW_ARRAY(b->a, Value *, t->nparams),
          **grad = NEW_ARRAY(b->a, Value *, t->nparams);
    for (int i = 0; i < t->nparams; i++) wrt[i] = g->inputs[t->params[i].input];
    TRY(ad_grad(g, magnified(b, loss), t->nparams, wrt, grad, b->c->diag));
    g->noutputs = 0;
    add_output(g, loss);
    t->judged = judged == loss ? 0 : add_output(g, judged);
    for (int i = 0; i < t->nparams; i++) t->params[i].output = add_output(g, grad[i]);
    for (int i = 0; i < t->nnorms; i++) {
        t->norms[i].mean_output = add_output(g, b->statistics[2 * i]);
        t->norms[i].variance_output = add_output(g, b->statistics[2 * i + 1]);
    }
    for (int i = 0; i < t->nextremes; i++) {
        t->extremes[i].least_output = add_output(g, b->extremes[2 * i]);
        t->extremes[i].most_output = add_output(g, b->extremes[2 * i + 1]);
    }
    simplify_cse(g, b->a);
    TRY(simplify_dce(g, b->a));
    return is_narrow(b->setup) ? lower_precision(g, b->a, b->setup->precision, b->c->diag) : 0;
}

int train_graph_build(TrainGraph *out, Context *c, Arena *a, const TrainSetup *setup)
{
    *out = (TrainGraph){.labels = -1, .loss_scale = -1};
    Builder b = {.c = c, .a = a, .setup = setup, .t = out};
    Value *loss, *judged;
    b.param = NEW_ARRAY(a, int, c->graph->nvalues);
    b.range = NEW_ARRAY(a, int, c->graph->nvalues);
    out->shard = setup->shard;
    TRY(shard_specialize_mapped(&out->g, c->graph, a, c->data, out->shard, &b.twin, c->diag));
    collect_params(&b);
    if (out->nparams == 0) return -1;
    add_statistics(&b);
    TRY(build_loss(&b, &loss, &judged));
    return build_gradients(&b, loss, judged);
}
