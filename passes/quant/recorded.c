/* Reads grids off a quantized graph and its metadata. The metadata holds, a line each, what the
 * nodes cannot say: who it was laid out for, the grids of values that this target needs none for,
 * and the exact biases, of which the file has integers:
 *
 *     1                               version of this form
 *     target NAME BITS                of the weights
 *     exclude A,B                     nodes kept in float
 *     grid SCALE ZERO QMIN QMAX NAME
 *     bias HEX NAME                   eight digits per float: its bits */
#include "passes/quant/recorded.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/names.h"
#include "ir/op.h"
#include "passes/simplify/simplify.h"

typedef struct Bias {
    int64_t n;
    const float *x;
} Bias;

typedef struct Strip {
    Graph *g;
    Known *known;
    Arena *a;
    Uses uses;
    Names *biases;   /* Bias by name */
    Value **clipped; /* by id of a QuantizeLinear's result: what its grid leaves of its input */
    int cap;
} Strip;

static KnownGrid *add_grid(Strip *s)
{
    Known *k = s->known;
    if (k->n == s->cap) {
        KnownGrid *more = NEW_ARRAY(s->a, KnownGrid, 2 * s->cap + 16);
        if (k->n) memcpy(more, k->grid, (size_t)k->n * sizeof *more);
        k->grid = more;
        s->cap = 2 * s->cap + 16;
    }
    return &k->grid[k->n++];
}

/* ---- metadata ----------------------------------------------------------------------- */

static int bad_line(Diag *d, int line)
{
    return diag_error(d, "metadata '%s': line %d cannot be understood", RECORD_KEY, line);
}

/* The number at *p, which moves behind it and a blank. */
static double next_number(const char **p, bool *ok)
{
    char *end;
    double x = strtod(*p, &end);
    *ok &= end != *p && *end == ' ' && isfinite(x);
    *p = *ok ? end + 1 : *p;
    return x;
}

static bool take_grid(Strip *s, const char *p)
{
    bool ok = true;
    double scale = next_number(&p, &ok), zero = next_number(&p, &ok);
    double qmin = next_number(&p, &ok), qmax = next_number(&p, &ok);
    if (!ok || !*p || !((float)scale > 0) || qmin < -32768 || qmax > 65535 || qmin >= qmax ||
        zero < qmin || zero > qmax || zero != rint(zero) || !isfinite((float)scale))
        return false;
    float *one = NEW(s->a, float);
    *one = (float)scale;
    *add_grid(s) = (KnownGrid){.name = p,
                               .scale = one,
                               .n = 1,
                               .axis = -1,
                               .qmin = (int)qmin,
                               .qmax = (int)qmax,
                               .zero = (float)zero};
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_bias(Strip *s, const char *p)
{
    size_t n = strcspn(p, " ");
    if (n == 0 || n % 8 || p[n] != ' ' || !p[n + 1]) return false;
    float *x = NEW_ARRAY(s->a, float, n / 8);
    for (size_t i = 0; i < n / 8; i++) {
        uint32_t bits = 0;
        for (int k = 0; k < 8; k++) {
            int digit = hex_digit(p[8 * i + (size_t)k]);
            if (digit < 0) return false;
            bits = bits << 4 | (uint32_t)digit;
        }
        memcpy(&x[i], &bits, sizeof bits);
    }
    Bias *b = NEW(s->a, Bias);
    *b = (Bias){(int64_t)(n / 8), x};
    if (!names_get(s->biases, p + n + 1)) names_put(s->biases, p + n + 1, b);
    return true;
}

static bool take_target(Strip *s, char *p)
{
    char *bits = strchr(p, ' ');
    if (!bits) return false;
    *bits++ = '\0';
    s->known->target = p;
    s->known->bits = atoi(bits);
    return s->known->bits >= 2 && s->known->bits <= 8;
}

static bool take_line(Strip *s, char *line)
{
    if (strncmp(line, "grid ", 5) == 0) return take_grid(s, line + 5);
    if (strncmp(line, "bias ", 5) == 0) return take_bias(s, line + 5);
    if (strncmp(line, "target ", 7) == 0) return take_target(s, line + 7);
    if (strncmp(line, "exclude ", 8) != 0) return false;
    s->known->exclude = line + 8;
    return true;
}

static int read_record(Strip *s, Diag *d)
{
    const ModelInfo *info = &s->g->info;
    char *text = NULL, *next;
    for (size_t i = 0; i < info->nprops; i++)
        if (strcmp(info->props[i].key, RECORD_KEY) == 0)
            text = arena_strdup(s->a, info->props[i].value);
    if (!text) return 0;
    if (strncmp(text, "1\n", 2) != 0)
        return diag_error(d, "metadata '%s' is of a version that this ehapc does not know",
                          RECORD_KEY);
    int line = 2;
    for (char *p = text + 2; *p; p = next, line++) {
        next = p + strcspn(p, "\n");
        if (*next) *next++ = '\0';
        if (!take_line(s, p)) return bad_line(d, line);
    }
    return 0;
}

/* ---- nodes -------------------------------------------------------------------------- */

static int type_bounds(DType t, int *lo, int *hi)
{
    *lo = t == DT_I8 ? -128 : t == DT_I16 ? -32768 : 0;
    *hi = t == DT_I8 ? 127 : t == DT_I16 ? 32767 : t == DT_U16 ? 65535 : 255;
    return t == DT_I8 || t == DT_U8 || t == DT_I16 || t == DT_U16 ? 0 : -1;
}

static DType stored_type(const Node *n)
{
    return n->op == OP_QuantizeLinear ? n->out[0]->type.dtype : n->in[0]->type.dtype;
}

/* Whether scale and zero point are constants, positive, one or one per slice of `x`; *axis -1: one.
 */
static bool has_plain_grid(const Node *n, const Type *x, int *axis)
{
    const Value *s = node_in(n, 1), *z = node_in(n, 2);
    if (z && z->type.dtype != stored_type(n)) return false;
    if (!s || !value_is_const(s) || s->type.dtype != DT_F32 || s->type.rank > 1) return false;
    if (z && (!value_is_const(z) || type_count(&z->type) != type_count(&s->type))) return false;
    if (node_int(n, "block_size", 0) || x->rank < 0) return false;
    int64_t count = type_count(&s->type), at = node_int(n, "axis", 1);
    at += at < 0 ? x->rank : 0;
    const float *scale = s->data;
    for (int64_t i = 0; i < count; i++)
        if (!(scale[i] > 0) || !isfinite(scale[i])) return false;
    bool sliced = s->type.rank == 1 && at >= 0 && at < x->rank && x->dim[at] == count;
    *axis = sliced && (count > 1 || node_attr(n, "axis")) ? (int)at : -1;
    return sliced || count == 1;
}

static double element(const Value *v, int64_t i)
{
    switch (v->type.dtype) {
    case DT_I8:
        return ((const int8_t *)v->data)[i];
    case DT_U8:
        return ((const uint8_t *)v->data)[i];
    case DT_I16:
        return ((const int16_t *)v->data)[i];
    case DT_U16:
        return ((const uint16_t *)v->data)[i];
    default:
        return ((const int32_t *)v->data)[i];
    }
}

/* The name that a constant had before it was quantized: ours and ONNX Runtime's suffix goes. */
static const char *float_name(Arena *a, const char *name)
{
    static const char suffix[] = "_quantized";
    size_t n = strlen(name), k = sizeof suffix - 1;
    return n > k && strcmp(name + n - k, suffix) == 0 ? arena_printf(a, "%.*s", (int)(n - k), name)
                                                      : name;
}

/* The record's floats for the integers q, whose floats are x, if they round to them. */
static const float *exact_bias(const Strip *s, const char *name, const Value *q, const Value *scale,
                               const float *x)
{
    const Bias *b = names_get(s->biases, name);
    const float *step = scale->data;
    const int64_t n = type_count(&q->type), scales = type_count(&scale->type);
    const bool one = scales == 1;
    if (!b || q->type.dtype != DT_I32 || b->n != n || (!one && scales != n)) return x;
    for (int64_t i = 0; i < b->n; i++)
        if (!(fabsf(b->x[i] - x[i]) <= step[one ? 0 : i] + 1e-6f * fabsf(x[i]))) return x;
    return b->x;
}

/* scale[c] (q - zero[c]) of a constant q, as a constant. */
static Value *dequantized(Strip *s, const Node *dq, int axis)
{
    const Value *q = dq->in[0], *z = node_in(dq, 2);
    const char *name = float_name(s->a, q->name);
    int64_t n = type_count(&q->type), inner = 1;
    for (int i = axis < 0 ? q->type.rank : axis + 1; i < q->type.rank; i++) inner *= q->type.dim[i];
    int64_t channels = axis < 0 ? 1 : q->type.dim[axis];
    const float *scale = dq->in[1]->data;
    float *x = NEW_ARRAY(s->g->arena, float, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t c = i / inner % channels;
        x[i] = (float)(element(q, i) - (z ? element(z, c) : 0)) * scale[c];
    }
    return value_const(s->g, name, type_of(DT_F32, q->type.rank, q->type.dim),
                       exact_bias(s, name, q, dq->in[1], x));
}

/* Of integer weights, how many of the integers are used is what counts. */
static int largest_integer(const Value *q)
{
    double most = 0;
    for (int64_t i = 0, n = type_count(&q->type); i < n; i++)
        most = fmax(most, fabs(element(q, i)));
    return (int)most;
}

static void note_pair(Strip *s, Value *v, const Node *dq, int axis)
{
    const Value *q = dq->in[0], *z = node_in(dq, 2);
    int lo, hi;
    if (type_bounds(q->type.dtype, &lo, &hi) < 0) return; /* a bias */
    if (value_is_const(q) && axis >= 0) lo = -(hi = largest_integer(q));
    bool symmetric = true;
    for (int64_t i = 0; z && i < type_count(&z->type); i++) symmetric &= element(z, i) == 0;
    if (axis >= 0 && !symmetric) return;
    *add_grid(s) = (KnownGrid){.v = v,
                               .scale = dq->in[1]->data,
                               .n = type_count(&dq->in[1]->type),
                               .axis = axis,
                               .qmin = lo,
                               .qmax = hi,
                               .zero = z && axis < 0 ? (float)element(z, 0) : 0};
}

static void note_simulation(Strip *s, Value *v, const Node *fq)
{
    const float *zero = fq->in[2]->data;
    *add_grid(s) = (KnownGrid){.v = v,
                               .scale = fq->in[1]->data,
                               .n = type_count(&fq->in[1]->type),
                               .axis = (int)node_int(fq, "axis", -1),
                               .qmin = (int)node_int(fq, "qmin", 0),
                               .qmax = (int)node_int(fq, "qmax", 255),
                               .zero = *zero};
}

/* The QuantizeLinear whose result only DequantizeLinear nodes read. */
static bool is_paired(const Strip *s, const Node *q)
{
    int lo, hi, axis;
    bool ok = q && q->op == OP_QuantizeLinear && q->in[0]->type.dtype == DT_F32 &&
              type_bounds(stored_type(q), &lo, &hi) == 0 &&
              has_plain_grid(q, &q->in[0]->type, &axis);
    for (int k = 0; ok && k < s->uses.n[q->out[0]->id]; k++) {
        const Node *r = s->uses.at[q->out[0]->id][k];
        ok = r && r->op == OP_DequantizeLinear && r->in[0] == q->out[0] &&
             r->out[0]->type.dtype == DT_F32 && has_plain_grid(r, &q->in[0]->type, &axis);
    }
    return ok;
}

/* Whether what computes v tells that it is never negative. */
static bool never_negative(const Value *v)
{
    enum { DEEP = 16 };
    double lo;
    for (int k = 0; k < DEEP && v->def; k++, v = v->def->in[0]) {
        const Node *n = v->def;
        if (n->op == OP_Relu || n->op == OP_Sigmoid || n->op == OP_HardSigmoid ||
            n->op == OP_Softmax || n->op == OP_Abs || n->op == OP_Exp)
            return true;
        if (n->op == OP_Clip && node_in(n, 1) && value_scalar(n->in[1], &lo) && lo >= 0)
            return true;
        if (n->op != OP_MaxPool && n->op != OP_AveragePool && n->op != OP_GlobalAveragePool &&
            n->op != OP_Reshape && n->op != OP_Flatten && n->op != OP_Transpose &&
            n->op != OP_Squeeze && n->op != OP_Unsqueeze && n->op != OP_Slice &&
            n->op != OP_Identity)
            return false;
    }
    return !v->def; /* inputs are taken as they are meant */
}

/* Quantizers leave out a Relu or Clip where the grid behind it ends where that does; without the
 * grid it is missing. Ours do not, and say so by their record. */
static Value *with_limits(Strip *s, Value *v, const Node *q)
{
    Value **done = &s->clipped[q->out[0]->id];
    const KnownGrid *k = &s->known->grid[s->known->n - 1];
    if (s->known->target || k->axis >= 0 || k->zero != (float)k->qmin || never_negative(v))
        return v;
    if (*done) return *done;
    Graph *g = s->g;
    const float top = nextafterf(known_extent(k).hi, INFINITY); /* the grid must end inside */
    g->at = q;
    *done = build(g, OP_Clip, IN(v, const_f32(g, 0), const_f32(g, top)), NO_ATTRS);
    (*done)->def->name = arena_printf(g->arena, "%s_Clip", v->name);
    g->at = NULL;
    return *done;
}

/* The float value that stands for the result of dequantizing; NULL: the node stays. */
static Value *float_of(Strip *s, const Rewrite *r, const Node *n)
{
    int axis, lo, hi;
    const Value *q = n->in[0];
    Value *v;
    if (n->op == OP_FakeQuant) {
        v = rewrite_value(r, n->in[0]);
        note_simulation(s, v, n);
        return v;
    }
    if (n->op != OP_DequantizeLinear || n->out[0]->type.dtype != DT_F32) return NULL;
    if (!value_is_const(q) && !is_paired(s, q->def)) return NULL;
    bool stored = value_is_const(q);
    if (stored && q->type.dtype != DT_I32 && type_bounds(q->type.dtype, &lo, &hi) < 0) return NULL;
    if (!has_plain_grid(n, &q->type, &axis)) return NULL;
    v = stored ? dequantized(s, n, axis) : rewrite_value(r, q->def->in[0]);
    const int before = s->known->n;
    note_pair(s, v, n, axis);
    if (!stored && s->known->n > before) {
        v = with_limits(s, v, q->def);
        s->known->grid[before].v = v;
    }
    return v;
}

static void strip_nodes(Strip *s)
{
    Rewrite r = rewrite_begin(s->g);
    for (int i = 0; i < r.nold; i++) {
        Node *n = r.old[i];
        Value *v = float_of(s, &r, n);
        if (v)
            rewrite_replace(&r, n->out[0], v);
        else if (!is_paired(s, n)) {
            rewrite_map_inputs(&r, n);
            node_append(s->g, n);
        }
    }
    rewrite_end(&r);
}

static void put_first(Names *names, const char *name, KnownGrid *g)
{
    if (name && !names_get(names, name)) names_put(names, name, g);
}

/* A recorded range holds as far as the value's own grid does, which may have been learned. */
static void cut_to(KnownGrid *recorded, const KnownGrid *own, Arena *a)
{
    const Range r = known_extent(recorded), most = known_extent(own);
    const float step = *own->scale, lo = fmaxf(r.lo, most.lo), hi = fminf(r.hi, most.hi);
    if (r.lo >= most.lo - step && r.hi <= most.hi + step) return;
    const Grid grid = grid_of_range((Range){lo, hi}, RECORD_KIND);
    *recorded = (KnownGrid){.name = recorded->name,
                            .scale = arena_memdup(a, &grid.scale, sizeof grid.scale),
                            .n = 1,
                            .axis = -1,
                            .qmin = RECORD_KIND.qmin,
                            .qmax = RECORD_KIND.qmax,
                            .zero = grid.zero};
}

static void index_grids(Known *k, Value *const *map, Arena *a)
{
    k->own = names_new(a);
    k->other = names_new(a);
    for (int i = 0; i < k->n; i++) {
        KnownGrid *g = &k->grid[i];
        if (g->v && map[g->v->id]) g->name = map[g->v->id]->name;
        put_first(g->v ? k->own : k->other, g->name, g);
    }
    for (int i = 0; i < k->n; i++) {
        KnownGrid *g = &k->grid[i];
        const KnownGrid *own = g->v ? NULL : names_get(k->own, g->name);
        if (own && own->n == 1) cut_to(g, own, a);
    }
}

int strip_grids(Graph **out, Known *known, const Graph *g, Arena *a, Diag *d)
{
    Strip s = {.g = graph_clone(g, a, NULL), .known = known, .a = a, .biases = names_new(a)};
    Value **map;
    *known = (Known){0};
    TRY(read_record(&s, d));
    s.uses = graph_uses(s.g, a);
    s.clipped = NEW_ARRAY(a, Value *, s.g->nvalues);
    strip_nodes(&s);
    TRY(simplify_dce(s.g, a));
    *out = graph_clone(s.g, a, &map); /* names of what is gone are free again */
    index_grids(known, map, a);
    return 0;
}

const KnownGrid *known_grid(const Known *k, const char *name, GridKind kind)
{
    if (!k) return NULL;
    const KnownGrid *own = names_get(k->own, name), *other = names_get(k->other, name);
    return !other || (own && (kind.symmetric || !known_symmetric(own))) ? own : other;
}

bool known_symmetric(const KnownGrid *k) { return k->qmin < 0 && k->zero == 0; }

Range known_extent(const KnownGrid *k)
{
    Range r = {0, 0};
    for (int64_t c = 0; c < k->n; c++) {
        r.lo = fminf(r.lo, ((float)k->qmin - k->zero) * k->scale[c]);
        r.hi = fmaxf(r.hi, ((float)k->qmax - k->zero) * k->scale[c]);
    }
    return r;
}

bool known_as(const KnownGrid *k, GridKind kind, Grid *out)
{
    if (!k || k->n != 1 || k->axis >= 0 || *k->scale < kind.least_scale) return false;
    int shift = kind.qmin - k->qmin;
    *out = (Grid){*k->scale, k->zero + (float)shift};
    return k->qmax + shift == kind.qmax && (!kind.symmetric || out->zero == 0);
}
