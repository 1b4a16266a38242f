/* Chains of element-wise nodes and of sums over them (runtime/fuse.c), and such nodes alone.
 *
 * The shape is walked in tiles of at most BLOCK elements. For each tile every member's loop runs
 * over floats that stay in the first-level cache: results that only members read live in scratch,
 * half storage is converted once when it is read and once when it is written. In FP32 a chain
 * computes bit for bit what its nodes compute one by one; sums add up in double. */
#include "runtime/cpu/chain.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/cpu/cpu.h"
#include "runtime/program.h"

typedef struct Member {
    MapFn *map, *term; /* as in MapLoop */
    PairFn *both;
    LoopNumbers with;
    int operands;
    int x[LOOP_OPERANDS]; /* operand of the walk; -1 - m: what member m makes */
    int temp;             /* where the map's result goes … */
    int result;           /* … and the operand that it is stored to; -1: none */
    int places;           /* of the sums, as an operand; -1: nobody wants them */
    int sum;              /* the step's output that they are */
    int64_t first, sums;  /* accumulators, in doubles */
    SumFinish *finish;
} Member;

/* Operand 0 of the walk is the shape itself, without data. */
typedef struct Chain {
    int members, operands, nin, temps, buffers;
    int64_t sums;
    Member *member;
    Tensor *t;   /* by operand: how it is seen */
    int *from;   /* the step's operand; -1: its own data, or none */
    int *buffer; /* number among the buffers for what does not lie as dense floats; -1 */
} Chain;

/* While it is being made. */
typedef struct Making {
    Chain c;
    Member member[FUSION_MEMBERS];
    Tensor t[NEST_OPERANDS];
    int from[NEST_OPERANDS], buffer[NEST_OPERANDS];
} Making;

int loop_over(MapLoop *l, MapFn *f, const Prepare *p, int n)
{
    l->map = f;
    for (int i = 0; i < n; i++) loop_operand(l, p->in[i], i);
    return 1;
}

void loop_operand(MapLoop *l, Tensor x, int from)
{
    l->x[l->operands] = x;
    l->from[l->operands++] = from;
}

static int apply_rule(MapLoop *l, const Prepare *p)
{
    memset(l, 0, sizeof *l);
    return device_cpu.kernels[p->node->op].map(l, p);
}

bool cpu_can_fuse(const Prepare *p)
{
    Diag quiet = {0};
    Prepare asked = *p;
    MapLoop l;
    asked.diag = &quiet;
    return device_cpu.kernels[p->node->op].map && apply_rule(&l, &asked) > 0;
}

/* ---- making ------------------------------------------------------------------------------- */

static bool same_view(const Tensor *a, const Tensor *b)
{
    if (a->rank != b->rank || a->dtype != b->dtype || a->data != b->data) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i] || (a->dim[i] != 1 && a->stride[i] != b->stride[i]))
            return false;
    return true;
}

static int operand(Making *m, Tensor t, int from)
{
    const Tensor *lead = &m->t[0];
    Chain *c = &m->c;
    for (int k = 1; k < c->operands; k++)
        if (m->from[k] == from && same_view(&m->t[k], &t)) return k;
    if (c->operands == NEST_OPERANDS) trap(TRAP_INTERNAL, "a chain with too many operands");
    const bool dense = t.dtype == DT_F32 && tensor_same_layout(&t, lead);
    m->t[c->operands] = t;
    m->from[c->operands] = from;
    m->buffer[c->operands] = dense || !c->operands ? -1 : c->buffers++;
    return c->operands++;
}

/* Node by node as the step's operands name it. */
static Prepare of_member(const Prepare *p, const FusionMember *f, Tensor *in)
{
    Prepare own = *p;
    for (int i = 0; i < f->nin; i++) {
        const int src = f->src[i];
        in[i] = src == FUSION_OMITTED ? (Tensor){.rank = -1}
                : src >= 0            ? p->in[src]
                                      : p->fusion->members[-1 - src].out[0];
    }
    own.node = f->node;
    own.fusion = NULL;
    own.in = in;
    own.out = (Tensor *)(uintptr_t)f->out; /* only read */
    own.nin = f->nin;
    own.nout = f->nout;
    return own;
}

/* Which output of the step is output o of member m; -1: none. */
static int result_of(const Prepare *p, int m, int o)
{
    for (int r = 0; r < p->nout; r++)
        if (p->fusion->result[r].member == m && p->fusion->result[r].output == o) return r;
    return -1;
}

static void add_sum(Making *m, const Prepare *p, int k, const MapLoop *l)
{
    Member *e = &m->member[k];
    Chain *c = &m->c;
    e->places = -1;
    e->sum = l->sums ? result_of(p, k, l->map ? 1 : 0) : -1;
    if (e->sum < 0) return;
    if (c->operands == NEST_OPERANDS) trap(TRAP_INTERNAL, "a chain with too many operands");
    e->places = c->operands++; /* never shared */
    m->t[e->places] = dense_like(&l->kept, DT_F64, NULL);
    m->from[e->places] = m->buffer[e->places] = -1;
    e->first = c->sums;
    e->sums = tensor_count(&l->kept);
    c->sums += e->sums;
}

/* Adds member k; the first one's shape is the chain's. */
static int add_member(Making *m, const Prepare *p, int k)
{
    const FusionMember *f = &p->fusion->members[k];
    Tensor in[FUSION_OPERANDS];
    const Prepare own = of_member(p, f, in);
    Member *e = &m->member[k];
    MapLoop l;
    TRY(apply_rule(&l, &own));
    *e = (Member){.map = l.map, .term = l.term, .with = l.with, .operands = l.operands};
    e->finish = l.finish;
    e->both = l.both;
    if (k == 0) {
        Tensor lead = l.map ? own.out[0] : own.in[0];
        lead.data = NULL;
        operand(m, lead, -1);
    }
    for (int i = 0; i < l.operands; i++) {
        const int src = l.from[i] < 0 ? 0 : f->src[l.from[i]];
        e->x[i] = src < 0 ? src : operand(m, l.x[i], l.from[i] < 0 ? -1 : src);
    }
    const int r = l.map ? result_of(p, k, 0) : -1;
    e->result = r < 0 ? -1 : operand(m, p->out[r], p->nin + r);
    add_sum(m, p, k, &l);
    return 0;
}

/* Results that only members read share temporaries; the others are stored when the tile is done. */
static void assign_temporaries(Making *m)
{
    int user[FUSION_MEMBERS], last[FUSION_MEMBERS]; /* of a temporary: its result; of a result */
    Chain *c = &m->c;
    for (int k = 0; k < c->members; k++) {
        last[k] = m->member[k].result >= 0 ? FUSION_MEMBERS : k;
        for (int i = 0; i < m->member[k].operands; i++) {
            const int made = -1 - m->member[k].x[i];
            if (made >= 0 && last[made] < k) last[made] = k;
        }
    }
    for (int k = 0; k < c->members; k++) {
        int t = 0;
        while (t < c->temps && last[user[t]] >= k) t++;
        if (!m->member[k].map) continue;
        if (t == c->temps) c->temps++;
        user[t] = k;
        m->member[k].temp = t;
    }
}

/* In one block, which cpu_free_release frees. */
static Chain *keep(const Making *m)
{
    const size_t nm = (size_t)m->c.members, nt = (size_t)m->c.operands;
    Chain *s = malloc(sizeof *s + nm * sizeof(Member) + nt * (sizeof(Tensor) + 2 * sizeof(int)));
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a kernel");
    *s = m->c;
    s->member = (Member *)(void *)(s + 1);
    s->t = (Tensor *)(void *)(s->member + nm);
    s->from = (int *)(void *)(s->t + nt);
    s->buffer = s->from + nt;
    memcpy(s->member, m->member, nm * sizeof(Member));
    memcpy(s->t, m->t, nt * sizeof(Tensor));
    memcpy(s->from, m->from, nt * sizeof(int));
    memcpy(s->buffer, m->buffer, nt * sizeof(int));
    return s;
}

static int make(Prepare *p)
{
    Making m = {.c = {.members = p->fusion->nmembers, .nin = p->nin}};
    for (int k = 0; k < m.c.members; k++) TRY(add_member(&m, p, k));
    assign_temporaries(&m);
    p->state = keep(&m);
    const int blocks = m.c.buffers + m.c.temps + (m.c.sums > 0);
    p->scratch = (size_t)blocks * BLOCK * sizeof(float) + (size_t)m.c.sums * sizeof(double);
    return 0;
}

int cpu_map_prepare(Prepare *p)
{
    int src[FUSION_OPERANDS];
    FusionMember alone = {p->node, src, p->out, p->nin, p->nout};
    FusionResult result[2] = {{0, 0}, {0, 1}};
    const Fusion one = {&alone, 1, result};
    MapLoop l;
    Prepare single = *p;
    if (p->fusion) return make(p);
    const int carried = p->nin > FUSION_OPERANDS || p->nout > 2 ? 0 : apply_rule(&l, p);
    if (carried <= 0) return carried < 0 ? -1 : cpu_naive_prepare(p);
    for (int i = 0; i < p->nin; i++) src[i] = p->in[i].rank < 0 ? FUSION_OMITTED : i;
    if (p->nout == 2 && p->out[1].rank < 0) single.nout = 1;
    single.fusion = &one;
    const int status = make(&single);
    p->state = single.state;
    p->scratch = single.scratch;
    return status;
}

/* ---- running ------------------------------------------------------------------------------ */

typedef struct Running {
    const Chain *c;
    float *temps, *terms;
    double *sums;
    bool in_place[FUSION_MEMBERS]; /* results that may go where they belong at once */
} Running;

/* Dense floats that no later member reads as an operand. */
static bool goes_in_place(const Chain *c, const Tensor *t, int k)
{
    const int to = c->member[k].result;
    if (to < 0 || c->buffer[to] >= 0) return false;
    for (int j = k + 1; j < c->members; j++)
        for (int i = 0; i < c->member[j].operands; i++) {
            const int x = c->member[j].x[i];
            if (x >= 0 && t[x].data == t[to].data) return false;
        }
    return true;
}

/* Terms before the map's result, which may take the place of an operand. */
static void compute(const Running *r, const Walk *w, const Member *e, float *y,
                    const float *const *x, const int64_t *at, int rows, int cols)
{
    const int n = rows * cols;
    const bool both = e->both && e->places >= 0;
    const float *terms = both || e->term ? r->terms : x[0];
    if (both)
        e->both(&e->with, n, y, r->terms, x);
    else if (e->places >= 0 && e->term)
        e->term(&e->with, n, r->terms, x);
    if (e->places >= 0)
        cpu_sum_block(r->sums + e->first + at[e->places], terms, rows, cols,
                      w->src[e->places].inner, w->src[e->places].outer);
    if (e->map && !both) e->map(&e->with, n, y, x);
}

/* The next tile on its way to the cache while this one is computed: several streams in turns are
 * more than hardware foresees. Beyond the end it asks for nothing that matters. */
static void fetch_next(const Walk *w, const Chain *c, const int64_t *at, int rows, int cols)
{
    for (int k = 1; k < c->operands; k++) {
        const Source *s = &w->src[k];
        const int64_t size = (int64_t)dtype_size(s->t->dtype), n = (int64_t)rows * cols;
        if (c->from[k] < 0 || s->inner != 1 || (rows > 1 && s->outer != cols)) continue;
        const char *next = (const char *)s->t->data + (at[k] + n) * size;
        for (int64_t i = 0; i < n * size; i += 64) __builtin_prefetch(next + i);
    }
}

static void run_block(Walk *w, void *ctx, const int64_t *at, int rows, int cols)
{
    const Running *r = ctx;
    const Chain *c = r->c;
    float *made[FUSION_MEMBERS];
    fetch_next(w, c, at, rows, cols);
    for (int k = 0; k < c->members; k++) {
        const Member *e = &c->member[k];
        const float *x[LOOP_OPERANDS];
        for (int i = 0; i < e->operands; i++)
            x[i] = e->x[i] < 0 ? made[-1 - e->x[i]]
                               : source_block(&w->src[e->x[i]], at[e->x[i]], rows, cols);
        made[k] = r->in_place[k] ? (float *)w->src[e->result].t->data + at[e->result]
                                 : r->temps + (int64_t)e->temp * BLOCK;
        compute(r, w, e, made[k], x, at, rows, cols);
    }
    for (int k = 0; k < c->members; k++) {
        const int to = c->member[k].result;
        if (to >= 0 && !r->in_place[k]) source_store(&w->src[to], at[to], made[k], rows, cols);
    }
}

static void finish_sums(const Running *r, const Tensor *out, int64_t walked)
{
    for (int k = 0; k < r->c->members; k++) {
        const Member *e = &r->c->member[k];
        if (e->places < 0) continue;
        double *sum = r->sums + e->first;
        const double each = e->sums > 0 ? (double)walked / (double)e->sums : 1;
        for (int64_t i = 0; i < e->sums && e->finish; i++) sum[i] = e->finish(sum[i], each);
        store_doubles(&out[e->sum], sum);
    }
}

void cpu_map_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                 void *scratch)
{
    const Chain *c = state;
    Tensor t[NEST_OPERANDS];
    const Tensor *views[NEST_OPERANDS];
    float *buffers = scratch;
    Nest nest;
    Walk w;
    if (!c) {
        cpu_whole_run(n, NULL, in, out, scratch);
        return;
    }
    Running r = {.c = c, .temps = buffers + (int64_t)c->buffers * BLOCK};
    r.terms = r.temps + (int64_t)c->temps * BLOCK;
    r.sums = (double *)(void *)(r.terms + (c->sums > 0 ? BLOCK : 0));
    for (int k = 0; k < c->operands; k++) {
        t[k] = c->t[k];
        views[k] = &t[k];
        if (c->from[k] >= 0)
            t[k].data = c->from[k] < c->nin ? in[c->from[k]].data : out[c->from[k] - c->nin].data;
    }
    for (int k = 0; k < c->members; k++) r.in_place[k] = goes_in_place(c, t, k);
    memset(r.sums, 0, (size_t)c->sums * sizeof(double));
    nest_make(&nest, c->operands, views);
    walk_begin(&w, &nest, views, NULL);
    for (int k = 0; k < c->operands; k++)
        if (c->buffer[k] >= 0) w.src[k].buffer = buffers + (int64_t)c->buffer[k] * BLOCK;
    walk(&w, run_block, &r);
    finish_sums(&r, out, tensor_count(&t[0]));
}
