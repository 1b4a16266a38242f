/* Samples without data.
 *
 * Drawings (draw.c) are kept as bytes and brought to the range in which the model expects its
 * input. That range is tried out: under the right one, the inputs of every BatchNormalization have
 * nearly the mean and variance that it remembers from training,
 *     score = - mean over channels of (m - mu)^2 / var + |log(v / var)|;
 * a model without them answers with confidence and variety,
 *     score = H(mean of p) - mean of H(p)      (the mutual information of input and answer). */
#include "passes/synthesize.h"

#include <math.h>
#include <string.h>

#include "passes/batches.h"

enum { DEFAULT_COUNT = 8192, LEAST_COUNT = 256, MOST_BYTES = 1 << 28, TRIAL = 256 };

typedef struct Preset {
    const char *name;
    float scale, offset; /* of a drawing in [0, 1] */
} Preset;

static const Preset presets[] = {
    {"mean 0, deviation 1", 1 / 0.226f, -0.449f / 0.226f},
    {"mean 0, deviation 1 (dark)", 1 / 0.353f, -0.286f / 0.353f},
    {"0 … 1", 1, 0},
    {"-1 … 1", 2, -1},
    {"0 … 255", 255, 0},
};

enum { NPRESETS = sizeof presets / sizeof *presets };

/* ---- making ------------------------------------------------------------------------- */

/* The planes of an image-like sample. */
typedef struct Planes {
    int64_t channels, height, width;
    bool channels_last;
} Planes;

static bool planes_of(Planes *p, const Type *t)
{
    const int64_t *d = t->dim;
    if (t->rank != 3) return false;
    bool last = d[2] <= 4 && d[0] > 4 && d[1] > 4;
    *p = last ? (Planes){d[2], d[0], d[1], true} : (Planes){d[0], d[1], d[2], false};
    return p->channels <= 16 && p->height >= 4 && p->width >= 4;
}

/* Drawings number first … first + count - 1, as bytes. */
static void make_drawings(uint8_t *out, const Planes *p, DrawStyle style, uint64_t seed,
                          int64_t first, int64_t count)
{
    Arena *scratch = arena_new();
    int64_t area = p->height * p->width, n = p->channels * area;
    float *image = NEW_ARRAY(scratch, float, n), *mask = NEW_ARRAY(scratch, float, area);
    for (int64_t s = 0; s < count; s++) {
        draw_image(image, mask, p->channels, p->height, p->width, style, seed ^ 0x5e7d,
                   (uint64_t)(first + s));
        for (int64_t k = 0; k < n; k++) {
            int64_t to = p->channels_last ? k % area * p->channels + k / area : k;
            out[s * n + to] = (uint8_t)lrintf(image[k] * 255);
        }
    }
    arena_free(scratch);
}

/* Smooth along the last axis, at a random speed per sample, as bytes around 128. */
static void make_noise(uint8_t *out, int64_t n, int64_t count, uint64_t seed)
{
    for (int64_t s = 0; s < count; s++) {
        Rng r = rng_new(seed ^ 0x5e7e, (uint64_t)s);
        float keep = sqrtf(rng_uniform(&r)), x = rng_normal(&r);
        for (int64_t k = 0; k < n; k++) {
            x = keep * x + sqrtf(1 - keep * keep) * rng_normal(&r);
            out[s * n + k] = (uint8_t)lrintf(fminf(fmaxf(128 + 40 * x, 0), 255));
        }
    }
}

static void make_numbers(int64_t *out, int64_t n, int64_t count, uint64_t seed)
{
    Rng r = rng_new(seed ^ 0x5e7f, 0);
    for (int64_t k = 0; k < n * count; k++) out[k] = rng_below(&r, 100);
}

static void set_range(Arena *a, SampleInput *in, const Preset *p)
{
    float values[2] = {p->scale / 255, -p->offset * 255 / p->scale};
    in->channel_axis = -1;
    in->factor = arena_memdup(a, &values[0], sizeof(float));
    in->shift = arena_memdup(a, &values[1], sizeof(float));
}

/* The type of one sample: the input's without its batch; open sizes get a usual one. */
static Type sample_type(const Type *t)
{
    Type s = {.dtype = t->dtype, .rank = t->rank - 1};
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = t->dim[i + 1] > 0 ? t->dim[i + 1] : s.rank == 3 ? 224 : 64;
    return s;
}

static int make_input(SampleInput *in, Context *c, const Value *v, int64_t count)
{
    Planes planes;
    if (v->type.rank < 1)
        return diag_error(c->diag, "no samples for input '%s', of unknown shape: give --data",
                          v->name);
    *in = (SampleInput){.name = v->name, .type = sample_type(&v->type), .channel_axis = -1};
    int64_t n = type_count(&in->type);
    if (v->type.dtype == DT_I64) {
        int64_t *numbers = NEW_ARRAY(c->arena, int64_t, n * count);
        make_numbers(numbers, n, count, c->opt.seed);
        in->data = numbers;
        return 0;
    }
    if (!dtype_is_float(v->type.dtype))
        return diag_error(c->diag, "no samples for input '%s' of %s: give --data", v->name,
                          dtype_name(v->type.dtype));
    uint8_t *bytes = NEW_ARRAY(c->arena, uint8_t, n * count);
    in->type.dtype = DT_U8;
    in->data = bytes;
    set_range(c->arena, in, &presets[0]);
    if (planes_of(&planes, &in->type)) {
        make_drawings(bytes, &planes, DRAW_SCENES, c->opt.seed, 0, count);
    } else {
        make_noise(bytes, n, count, c->opt.seed);
        set_range(c->arena, in, &(Preset){"", 255.0f / 40, -128.0f / 40});
    }
    return 0;
}

static int64_t choose_count(const Graph *g)
{
    int64_t bytes = 0;
    for (int k = 0; k < g->ninputs; k++) {
        Type t = sample_type(&g->inputs[k]->type);
        int64_t n = t.rank >= 0 ? type_count(&t) : 0;
        bytes += n > 0 ? n : 1;
    }
    int64_t count = bytes > 0 ? MOST_BYTES / bytes : DEFAULT_COUNT;
    return count > DEFAULT_COUNT ? DEFAULT_COUNT : count < LEAST_COUNT ? LEAST_COUNT : count;
}

/* ---- trying ranges ------------------------------------------------------------------ */

typedef struct Trial {
    Feed *feed;
    const Graph *g;
    float *buffer;
    double **sum, **square; /* per output, per channel */
    double *entropy;        /* sum over samples of H(p) */
    double *mean_p;
    int64_t samples;
    bool norms;
} Trial;

static int try_shard(void *ctx, int64_t shard, Instance *inst)
{
    Trial *t = ctx;
    feed_bind(t->feed, shard, inst);
    instance_run_all(inst);
    return 0;
}

static void add_moments(Trial *t, int o)
{
    const Type *type = &t->g->outputs[o]->type;
    int64_t n = type->dim[0], channels = type->dim[1], inner = type_count(type) / (n * channels);
    for (int64_t i = 0; i < n * channels; i++)
        for (int64_t k = 0; k < inner; k++) {
            double x = (double)t->buffer[i * inner + k];
            t->sum[o][i % channels] += x;
            t->square[o][i % channels] += x * x;
        }
}

static void add_answers(Trial *t)
{
    const Type *type = &t->g->outputs[0]->type;
    int64_t n = type->dim[0], classes = type->dim[1];
    softmax_rows(t->buffer, n, classes);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < classes; k++) {
            double p = (double)t->buffer[i * classes + k];
            t->mean_p[k] += p;
            *t->entropy -= p > 0 ? p * log(p) : 0;
        }
}

static int collect_shard(void *ctx, int64_t shard, Instance *inst)
{
    Trial *t = ctx;
    (void)shard;
    for (int o = 0; o < t->g->noutputs; o++) {
        instance_read(inst, o, t->buffer);
        if (t->norms) add_moments(t, o);
    }
    if (!t->norms) add_answers(t);
    t->samples += t->g->outputs[0]->type.dim[0];
    return 0;
}

static double norm_misfit(const Trial *t, int o, const Node *bn)
{
    const Type *type = &t->g->outputs[o]->type;
    int64_t channels = type->dim[1];
    double count = (double)t->samples * (double)(type_count(type) / (type->dim[0] * channels)),
           misfit = 0;
    const float *mean = bn->in[3]->data, *variance = bn->in[4]->data;
    for (int64_t k = 0; k < channels; k++) {
        double m = t->sum[o][k] / count, v = t->square[o][k] / count - m * m;
        double var = (double)variance[k] + 1e-5, d = m - (double)mean[k];
        misfit += d * d / var + fabs(log((v + 1e-5) / var));
    }
    return misfit / (double)channels;
}

static double score_of(const Trial *t, Node *const *norms)
{
    double score = 0, n = (double)t->samples;
    if (t->norms) {
        for (int o = 0; o < t->g->noutputs; o++) score -= norm_misfit(t, o, norms[o]);
        return isfinite(score) ? score : -INFINITY;
    }
    for (int64_t k = 0; k < t->g->outputs[0]->type.dim[1]; k++) {
        double p = t->mean_p[k] / n;
        score -= p > 0 ? p * log(p) : 0;
    }
    return score - *t->entropy / n;
}

/* The inputs of the BatchNormalizations as outputs, or else the logits. */
static int trial_graph(Graph **out, Node **norms, int *nnorms, Context *c, Arena *a,
                       const Samples *s)
{
    Graph *g = graph_clone(c->original, a, NULL);
    Value *logits = graph_logits(g);
    g->noutputs = 0;
    for (int i = 0; i < g->nnodes; i++) {
        Node *n = g->nodes[i];
        if (n->op != OP_BatchNormalization || n->in[0]->type.rank < 2 ||
            !value_is_const(n->in[3]) || !value_is_const(n->in[4]))
            continue;
        norms[(*nnorms)++] = n;
        graph_add_output(g, n->in[0]);
    }
    if (!*nnorms) graph_add_output(g, logits);
    TRY(simplify_dce(g, a));
    return shard_specialize(out, g, a, s, shard_size(g, 0), c->diag);
}

static void reset(Trial *t, Arena *a)
{
    int n = t->g->noutputs;
    t->sum = NEW_ARRAY(a, double *, n);
    t->square = NEW_ARRAY(a, double *, n);
    t->entropy = NEW(a, double);
    t->samples = 0;
    t->mean_p = NEW_ARRAY(a, double, t->g->outputs[0]->type.dim[1]);
    for (int o = 0; o < n; o++) {
        t->sum[o] = NEW_ARRAY(a, double, t->g->outputs[o]->type.dim[1]);
        t->square[o] = NEW_ARRAY(a, double, t->g->outputs[o]->type.dim[1]);
    }
}

/* A program to try samples on, and the best that was found. */
typedef struct Choice {
    Context *c;
    Arena *a;
    Samples *samples; /* one image input */
    uint8_t *bytes;   /* of the samples */
    Planes planes;
    DrawStyle style;
    int preset;
    bool by_norms;
} Choice;

static int try_all(Choice *k, Session *session, Trial *t, Node *const *norms, int64_t shard)
{
    double top = -INFINITY;
    int64_t trial = k->samples->count < TRIAL ? k->samples->count : TRIAL;
    for (int style = DRAW_SCENES; style <= DRAW_ON_WHITE; style++) {
        make_drawings(k->bytes, &k->planes, (DrawStyle)style, k->c->opt.seed, 0, trial);
        for (int p = 0; p < NPRESETS; p++) {
            set_range(k->c->arena, &k->samples->inputs[0], &presets[p]);
            t->feed = feed_new(k->a, t->g, k->samples, trial, NULL, shard, session);
            reset(t, k->a);
            TRY(session_run(session, feed_shards(t->feed), try_shard, collect_shard, t));
            double score = score_of(t, norms);
            if (score <= top) continue;
            top = score;
            k->preset = p;
            k->style = (DrawStyle)style;
        }
    }
    return 0;
}

static int choose(Choice *k)
{
    Graph *g;
    Session *session;
    Context *c = k->c;
    Node **norms = NEW_ARRAY(k->a, Node *, c->original->nnodes);
    int nnorms = 0;
    TRY(trial_graph(&g, norms, &nnorms, c, k->a, k->samples));
    const Type *type = &g->outputs[0]->type;
    k->by_norms = nnorms > 0;
    if (!nnorms && (type->rank != 2 || type->dim[1] < 2 || type->dtype != DT_F32)) return 0;
    ProgramOptions po = {.device = c->opt.device};
    TRY(session_open(&session, k->a, g, &po, c->opt.threads, c->opt.memory, c->diag));
    Trial t = {.g = g, .norms = nnorms > 0};
    int64_t largest = 1;
    for (int o = 0; o < g->noutputs; o++) {
        int64_t n = type_count(&g->outputs[o]->type);
        largest = n > largest ? n : largest;
    }
    t.buffer = NEW_ARRAY(k->a, float, largest);
    return try_all(k, session, &t, norms, shard_size(g, 0));
}

/* ---- as many of each class ---------------------------------------------------------- */

typedef struct Quota {
    uint8_t *out; /* samples accepted */
    int64_t size, accepted, wanted;
    int64_t *of_class;
    int64_t classes;
} Quota;

static void accept(Quota *q, const uint8_t *sample)
{
    memcpy(q->out + q->accepted++ * q->size, sample, (size_t)q->size);
}

/* Takes from a batch what its class still lacks; `any`: whatever there is. */
static void accept_batch(Quota *q, const uint8_t *bytes, const float *logits, int64_t n, bool any)
{
    int64_t quota = (q->wanted + q->classes - 1) / q->classes;
    for (int64_t i = 0; i < n && q->accepted < q->wanted; i++) {
        const float *z = logits + i * q->classes;
        int64_t best = 0;
        for (int64_t k = 1; k < q->classes; k++)
            if (z[k] > z[best]) best = k;
        bool lacking = q->of_class[best] < quota;
        if (lacking) q->of_class[best]++;
        if (lacking || any) accept(q, bytes + i * q->size);
    }
}

/* Draws several times as many as wanted, and keeps those whose classes, by the model's own answer,
 * are rare. What is missing then comes from the last batch. */
static int balance(Choice *k)
{
    enum { BATCHES = 6 };
    Context *c = k->c;
    Samples *s = k->samples;
    const Value *logits = graph_logits(c->original);
    int64_t n = s->count, classes;
    float *z;
    if (!logits || logits->type.rank != 2 || logits->type.dim[1] < 2 || logits->type.dim[1] > n)
        return 0;
    Quota q = {.wanted = n, .size = type_count(&s->inputs[0].type), .classes = logits->type.dim[1]};
    q.out = NEW_ARRAY(c->arena, uint8_t, n * q.size);
    q.of_class = NEW_ARRAY(k->a, int64_t, q.classes);
    for (int batch = 0; batch <= BATCHES && q.accepted < n; batch++) {
        if (batch < BATCHES)
            make_drawings(k->bytes, &k->planes, k->style, c->opt.seed, batch * n, n);
        TRY(forward_rows(&z, &classes, k->a, c->original, NULL, s, n, NULL, &c->opt, c->diag));
        accept_batch(&q, k->bytes, z, n, batch == BATCHES);
    }
    s->inputs[0].data = q.out;
    return 0;
}

static int choose_drawings(Context *c, Samples *s)
{
    static const char *const style_name[] = {"scenes", "cut-outs on black", "cut-outs on white"};
    Choice k = {.c = c, .samples = s, .a = arena_new()};
    k.bytes = (uint8_t *)(uintptr_t)s->inputs[0].data;
    planes_of(&k.planes, &s->inputs[0].type);
    int status = choose(&k);
    set_range(c->arena, &s->inputs[0], &presets[k.preset]);
    if (status == 0) status = balance(&k);
    arena_free(k.a);
    s->source = arena_printf(c->arena, "%lld drawings (%s) of range %s, which suit the model's %s",
                             (long long)s->count, style_name[k.style], presets[k.preset].name,
                             k.by_norms ? "BatchNormalization statistics" : "answers");
    return status;
}

int synthesize(Samples **out, Context *c, int64_t count)
{
    const Graph *g = c->original;
    Planes planes;
    Samples *s = *out = NEW(c->arena, Samples);
    s->count = count > 0 ? count : choose_count(g);
    s->ninputs = g->ninputs;
    s->inputs = NEW_ARRAY(c->arena, SampleInput, g->ninputs);
    s->source = "smooth noise";
    for (int k = 0; k < g->ninputs; k++) TRY(make_input(&s->inputs[k], c, g->inputs[k], s->count));
    bool image = g->ninputs == 1 && s->inputs[0].type.dtype == DT_U8 &&
                 planes_of(&planes, &s->inputs[0].type);
    return image ? choose_drawings(c, s) : 0;
}
