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
#include <omp.h>
#include <string.h>

#include "ir/batch.h"
#include "ir/process.h"
#include "passes/batches.h"
#include "passes/observe.h"

enum { MOST_ELEMENTS = 1 << 24 }; /* of one sample */
enum { DEFAULT_COUNT = 8192, LEAST_COUNT = 16, MOST_BYTES = 1 << 28, TRIAL = 256 };

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

/* Drawing number `index`, as bytes; room: of an image and its mask. */
static void make_drawing(uint8_t *out, float *room, const Planes *p, DrawStyle style, uint64_t seed,
                         int64_t index)
{
    const int64_t area = p->height * p->width, n = p->channels * area;
    draw_image(room, room + n, p->channels, p->height, p->width, style, seed ^ 0x5e7d,
               (uint64_t)index);
    for (int64_t k = 0; k < n; k++) {
        int64_t to = p->channels_last ? k % area * p->channels + k / area : k;
        out[to] = (uint8_t)lrintf(room[k] * 255);
    }
}

/* Drawings number first … first + count - 1. */
static void make_drawings(uint8_t *out, const Planes *p, DrawStyle style, const Options *o,
                          int64_t first, int64_t count)
{
    Arena *scratch = arena_new();
    const int threads = options_threads(o);
    const int64_t area = p->height * p->width, n = p->channels * area;
    float *room = NEW_ARRAY(scratch, float, threads *(n + area));
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
    for (int64_t s = 0; s < count; s++)
        make_drawing(out + s * n, room + omp_get_thread_num() * (n + area), p, style, o->seed,
                     first + s);
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

static void set_range(Arena *a, SampleInput *in, const Preset *p)
{
    float values[2] = {p->scale / 255, -p->offset * 255 / p->scale};
    in->channel_axis = -1;
    in->factor = arena_memdup(a, &values[0], sizeof(float));
    in->shift = arena_memdup(a, &values[1], sizeof(float));
}

Type synthesize_type(const Type *t, int axis, const Options *o)
{
    Type s = batch_part(t, axis);
    for (int i = 0; i < s.rank; i++) {
        int64_t dim = s.dim[i], symbol = dim - DIM_SYM_BASE;
        bool chosen = dim_is_sym(dim) && symbol < o->ndims && o->dims[symbol] > 0;
        s.dim[i] = dim > 0 ? dim : chosen ? o->dims[symbol] : 1;
    }
    return s;
}

/* Whether nothing is read but input v. */
static bool only_input(const Graph *g, const Value *v)
{
    for (int k = 0; k < g->ninputs; k++)
        if (g->inputs[k] != v && value_is_read(g, g->inputs[k])) return false;
    return true;
}

/* Whether samples of type t are drawings: beside other inputs only what has no more planes than
 * colours, for there may be the keys of a few heads. */
static bool is_picture(Planes *p, const Graph *g, const Value *v, const Type *t)
{
    enum { COLOURS = 4 };
    return planes_of(p, t) && (p->channels <= COLOURS || only_input(g, v));
}

/* Bytes, which gathering makes floats of. */
static void make_floats(SampleInput *in, Context *c, const Value *v, int64_t n, int64_t count)
{
    Planes planes;
    uint8_t *bytes = NEW_ARRAY(c->arena, uint8_t, n * count);
    const bool stay = v->type.dtype == DT_U8; /* 0 to 255 is what it expects */
    in->type.dtype = DT_U8;
    in->data = bytes;
    if (is_picture(&planes, c->original, v, &in->type)) {
        make_drawings(bytes, &planes, DRAW_SCENES, &c->opt, 0, count);
        if (!stay) set_range(c->arena, in, &presets[0]);
    } else {
        make_noise(bytes, n, count, c->opt.seed);
        set_range(c->arena, in, &(Preset){"", 255.0f / 40, -128.0f / 40});
    }
}

static int make_elements(SampleInput *in, Context *c, const Value *v, int64_t n, int64_t count)
{
    Planes planes;
    const DType t = v->type.dtype;
    const bool whole = dtype_is_int(t) || t == DT_BOOL, real = t == DT_F32 || t == DT_F64;
    if (!value_is_read(c->original, v) && dtype_size(t)) {
        in->same = true;
        in->data = arena_array(c->arena, (size_t)n, dtype_size(t));
    } else if (in->same && n == 1 && (whole || real)) {
        in->data = make_number(c, v);
    } else if (real || (t == DT_U8 && is_picture(&planes, c->original, v, &in->type))) {
        make_floats(in, c, v, n, count);
    } else if (whole) {
        in->data = make_integers(c, v, &in->type, count);
    } else {
        return diag_error(c->diag, "no samples for input '%s' of %s: give --data", v->name,
                          dtype_name(t));
    }
    return 0;
}

static int make_input(SampleInput *in, Context *c, const Value *v, int axis, int64_t count)
{
    if (v->type.rank < 0)
        return diag_error(c->diag, "no samples for input '%s', of unknown shape: give --data",
                          v->name);
    *in = (SampleInput){.name = v->name,
                        .type = synthesize_type(&v->type, axis, &c->opt),
                        .batch_axis = axis,
                        .same = axis < 0,
                        .channel_axis = -1};
    const int64_t n = type_count(&in->type);
    if (n < 0 || n > MOST_ELEMENTS)
        return diag_error(c->diag,
                          "a sample of input '%s' has %lld elements: too many to make up, "
                          "give --data",
                          v->name, (long long)n);
    return make_elements(in, c, v, n, in->same ? 1 : count);
}

/* Bytes of a sample of all inputs as it is kept: floats are bytes. */
static int64_t bytes_of_sample(const Graph *g, const int *axes, const Options *o)
{
    int64_t bytes = 0;
    for (int k = 0; k < g->ninputs; k++) {
        const Type t = synthesize_type(&g->inputs[k]->type, axes[k], o);
        const int64_t n = t.rank >= 0 ? type_count(&t) : 0;
        const int64_t each = dtype_is_float(t.dtype) ? 1 : (int64_t)dtype_size(t.dtype);
        if (n > 0 && n <= MOST_ELEMENTS) bytes += n * each; /* make_input refuses the others */
    }
    return bytes > 0 ? bytes : 1;
}

/* As many as fit into memory, fewer where one pass over them would take minutes. */
static int64_t choose_count(const Graph *g, int64_t bytes, const Options *o)
{
    const size_t memory = o->memory;
    const int64_t most = memory && memory / 4 < MOST_BYTES ? (int64_t)memory / 4 : MOST_BYTES;
    int64_t count = most / bytes;
    count = count > DEFAULT_COUNT ? DEFAULT_COUNT : count < LEAST_COUNT ? LEAST_COUNT : count;
    Options given = *o; /* they are made once, and training sees all of them */
    given.made_up = false;
    return samples_affordable(g, &given, count);
}

/* ---- trying ranges ------------------------------------------------------------------ */

/* A model to try samples on, and the best that was found. */
typedef struct Choice {
    Context *c;
    Arena *a;
    Samples *samples; /* one image input */
    uint8_t *bytes;   /* of the samples */
    Planes planes;
    Node **norms;  /* BatchNormalizations of the original */
    Value **input; /* what they normalize */
    int nnorms;
    DrawStyle style;
    int preset;
} Choice;

static double norm_misfit(const Moments *m, const Node *bn)
{
    const float *mean = bn->in[3]->data, *variance = bn->in[4]->data;
    double misfit = 0;
    for (int64_t k = 0; k < m->channels; k++) {
        double var = (double)variance[k] + 1e-5, d = m->mean[k] - (double)mean[k];
        misfit += d * d / var + fabs(log((m->variance[k] + 1e-5) / var));
    }
    return misfit / (double)m->channels;
}

static int score_by_norms(const Choice *k, Arena *a, double *score)
{
    Context *c = k->c;
    Moments *m = NEW_ARRAY(a, Moments, k->nnorms);
    TRY(measure_moments(m, a, c->original, k->nnorms, k->input, k->samples, TRIAL, &c->opt,
                        c->diag));
    *score = 0;
    for (int i = 0; i < k->nnorms; i++) *score -= norm_misfit(&m[i], k->norms[i]);
    return 0;
}

static double entropy(const double *p, int64_t n)
{
    double h = 0;
    for (int64_t k = 0; k < n; k++) h -= p[k] > 0 ? p[k] * log(p[k]) : 0;
    return h;
}

static int score_by_answers(const Choice *k, Arena *a, double *score)
{
    Context *c = k->c;
    Rows y;
    const int64_t n = k->samples->count < TRIAL ? k->samples->count : TRIAL;
    TRY(forward_rows(&y, a, c->original, NULL, k->samples, n, NULL, &c->opt, c->diag));
    float *z = y.x;
    const int64_t classes = y.row;
    softmax_rows(z, n, classes);
    double *mean = NEW_ARRAY(a, double, classes), *p = NEW_ARRAY(a, double, classes), within = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < classes; j++) {
            p[j] = (double)z[i * classes + j];
            mean[j] += p[j] / (double)n;
        }
        within += entropy(p, classes) / (double)n;
    }
    *score = entropy(mean, classes) - within;
    return 0;
}

static bool classifies(const Graph *g)
{
    const Value *z = graph_logits(g);
    return z && z->type.rank == 2 && z->type.dim[1] > 1 && z->type.dtype == DT_F32;
}

static void find_norms(Choice *k)
{
    const Graph *g = k->c->original;
    k->norms = NEW_ARRAY(k->a, Node *, g->nnodes);
    k->input = NEW_ARRAY(k->a, Value *, g->nnodes);
    for (int i = 0; i < g->nnodes; i++) {
        Node *n = g->nodes[i];
        if (n->op != OP_BatchNormalization || n->in[0]->type.rank < 2 ||
            n->in[0]->type.dim[1] <= 0 || !value_is_const(n->in[3]) || !value_is_const(n->in[4]))
            continue;
        k->norms[k->nnorms] = n;
        k->input[k->nnorms++] = n->in[0];
    }
}

static int try_one(const Choice *k, double *score)
{
    Arena *a = arena_new();
    int status = k->nnorms ? score_by_norms(k, a, score) : score_by_answers(k, a, score);
    arena_free(a);
    return status;
}

static int choose(Choice *k)
{
    double top = -INFINITY, score;
    int64_t trial = k->samples->count < TRIAL ? k->samples->count : TRIAL;
    find_norms(k);
    if (!k->nnorms && !classifies(k->c->original)) return 0;
    for (int style = DRAW_SCENES; style <= DRAW_ON_WHITE; style++) {
        make_drawings(k->bytes, &k->planes, (DrawStyle)style, &k->c->opt, 0, trial);
        for (int p = 0; p < NPRESETS; p++) {
            set_range(k->c->arena, &k->samples->inputs[0], &presets[p]);
            TRY(try_one(k, &score));
            if (!(score > top)) continue;
            top = score;
            k->preset = p;
            k->style = (DrawStyle)style;
        }
    }
    return 0;
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

/* In no order, as passes look at the first so many: those taken late are of the rare classes. */
static void shuffle(Quota *q, uint8_t *room, uint64_t seed)
{
    Rng r = rng_new(seed ^ 0x5e7f, 0);
    const size_t n = (size_t)q->size;
    for (int64_t k = q->accepted - 1; k > 0; k--) {
        uint8_t *last = q->out + k * q->size,
                *any = q->out + (int64_t)rng_below(&r, (uint32_t)(k + 1)) * q->size;
        memcpy(room, last, n);
        memmove(last, any, n);
        memcpy(any, room, n);
    }
}

/* Draws several times as many as wanted, and keeps those whose classes, by the model's own answer,
 * are rare. What is missing then comes from the last batch. */
static int balance(Choice *k)
{
    enum { BATCHES = 4 };
    Context *c = k->c;
    Samples *s = k->samples;
    const Value *logits = graph_logits(c->original);
    const int64_t n = s->count;
    Rows z;
    if (!classifies(c->original) || logits->type.dim[1] > n) return 0;
    Quota q = {.wanted = n, .size = type_count(&s->inputs[0].type), .classes = logits->type.dim[1]};
    q.out = NEW_ARRAY(c->arena, uint8_t, n * q.size);
    q.of_class = NEW_ARRAY(k->a, int64_t, q.classes);
    for (int batch = 0; batch <= BATCHES && q.accepted < n; batch++) {
        if (batch < BATCHES) make_drawings(k->bytes, &k->planes, k->style, &c->opt, batch * n, n);
        TRY(forward_rows(&z, k->a, c->original, NULL, s, n, NULL, &c->opt, c->diag));
        accept_batch(&q, k->bytes, z.x, n, batch == BATCHES);
    }
    shuffle(&q, k->bytes, c->opt.seed);
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
                             k.nnorms ? "BatchNormalization statistics" : "answers");
    return status;
}

static size_t held_now(const Options *o)
{
    return o->whole_process && !runtime_is_parallel(o->device) ? process_resident() : 0;
}

int synthesize(Samples **out, Context *c, int64_t count)
{
    const Graph *g = c->original;
    Planes planes;
    Samples *s = *out = NEW(c->arena, Samples);
    const int *axes = batch_axes(g, c->arena);
    const int64_t bytes = bytes_of_sample(g, axes, &c->opt);
    s->count = count > 0 ? count : choose_count(g, bytes, &c->opt);
    TRY(memory_allows(&c->opt, held_now(&c->opt) + (size_t)bytes * (size_t)s->count, s->count,
                      c->diag));
    s->ninputs = g->ninputs;
    s->inputs = NEW_ARRAY(c->arena, SampleInput, g->ninputs);
    s->source = "smooth noise";
    for (int k = 0; k < g->ninputs; k++)
        TRY(make_input(&s->inputs[k], c, g->inputs[k], axes[k], s->count));
    bool image = g->ninputs > 0 && only_input(g, g->inputs[0]) &&
                 dtype_is_float(g->inputs[0]->type.dtype) && s->inputs[0].type.dtype == DT_U8 &&
                 planes_of(&planes, &s->inputs[0].type);
    return image ? choose_drawings(c, s) : 0;
}
