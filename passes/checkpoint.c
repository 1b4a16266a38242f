/* A checkpoint is
 *   DIR/state                      what is small, as lengths and bytes; renamed into place last
 *   DIR/NN-graph.onnxtxt(.bin)     the graph after NN passes, in the text form
 *   DIR/NN-original.onnxtxt(.bin)  the teacher
 *   DIR/part                       the state inside the pass that was running
 * Numbers are in the machine's own order: a checkpoint is for the machine that wrote it. */
#include "passes/checkpoint.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ir/outfile.h"
#include "ir/text.h"
#include "passes/score/scores.h"

static const char magic[16] = "ehapc state 3\n";

/* ---- lengths and bytes -------------------------------------------------------------- */

static void put_int(Text *t, int64_t x) { text_put(t, &x, sizeof x); }
static void put_double(Text *t, double x) { text_put(t, &x, sizeof x); }

/* n < 0: NULL */
static void put_bytes(Text *t, const void *p, int64_t n)
{
    put_int(t, p ? n : -1);
    if (p) text_put(t, p, (size_t)n);
}

static void put_string(Text *t, const char *s) { put_bytes(t, s, s ? (int64_t)strlen(s) + 1 : -1); }

/* Reading stops at the first thing that cannot be. */
typedef struct Source {
    Arena *a;
    const char *p;
    size_t n;
    bool bad;
} Source;

static void take(Source *s, void *to, size_t n)
{
    s->bad |= n > s->n;
    if (s->bad) {
        memset(to, 0, n);
        return;
    }
    memcpy(to, s->p, n);
    s->p += n;
    s->n -= n;
}

static int64_t take_int(Source *s)
{
    int64_t x;
    take(s, &x, sizeof x);
    return x;
}

static double take_double(Source *s)
{
    double x;
    take(s, &x, sizeof x);
    return x;
}

/* How many things of at least `size` bytes follow. */
static int take_count(Source *s, size_t size)
{
    int64_t n = take_int(s);
    s->bad |= n < 0 || n > INT32_MAX || (size_t)n > s->n / size;
    return s->bad ? 0 : (int)n;
}

static void *take_bytes(Source *s, int64_t *n)
{
    *n = take_int(s);
    if (*n < 0 || (size_t)*n > s->n) {
        s->bad |= *n != -1;
        return NULL;
    }
    void *p = arena_alloc(s->a, (size_t)*n);
    take(s, p, (size_t)*n);
    return p;
}

static const char *take_string(Source *s)
{
    int64_t n;
    const char *p = take_bytes(s, &n);
    s->bad |= p && (n == 0 || p[n - 1]);
    return s->bad ? NULL : p;
}

/* ---- the parts of a context --------------------------------------------------------- */

static void put_report(Text *t, const Report *r)
{
    put_double(t, r->proof_max_diff);
    for (int k = 0; k < STAGES; k++) {
        put_double(t, r->stage[k].accuracy);
        put_double(t, r->stage[k].error);
    }
    put_int(t, r->labelled);
    put_int(t, r->npasses);
    for (int k = 0; k < r->npasses; k++) {
        put_string(t, r->passes[k].name);
        put_double(t, r->passes[k].seconds);
        put_int(t, (int64_t)r->passes[k].peak_bytes);
        text_put(t, &r->passes[k].train, sizeof r->passes[k].train);
    }
    put_int(t, r->nlayers);
    for (int k = 0; k < r->nlayers; k++) {
        put_string(t, r->layers[k].node);
        put_int(t, r->layers[k].before);
        put_int(t, r->layers[k].after);
        put_string(t, r->layers[k].pinned_by);
    }
    put_int(t, r->nquantized);
    for (int k = 0; k < r->nquantized; k++) {
        put_string(t, r->quantized[k].node);
        put_double(t, r->quantized[k].sqnr);
        put_double(t, r->quantized[k].own);
        put_double(t, r->quantized[k].cost);
        put_int(t, r->quantized[k].in_float);
    }
}

static void take_report(Source *s, Report *r)
{
    *r = (Report){.proof_max_diff = take_double(s)};
    for (int k = 0; k < STAGES; k++) {
        r->stage[k].accuracy = take_double(s);
        r->stage[k].error = take_double(s);
    }
    r->labelled = take_int(s) != 0;
    r->npasses = r->cap_passes = take_count(s, 24);
    r->passes = NEW_ARRAY(s->a, PassRecord, r->npasses);
    for (int k = 0; k < r->npasses; k++) {
        r->passes[k].name = take_string(s);
        r->passes[k].seconds = take_double(s);
        r->passes[k].peak_bytes = (size_t)take_int(s);
        take(s, &r->passes[k].train, sizeof r->passes[k].train);
        s->bad |= !r->passes[k].name;
    }
    r->nlayers = take_count(s, 32);
    r->layers = NEW_ARRAY(s->a, LayerReport, r->nlayers);
    for (int k = 0; k < r->nlayers; k++) {
        LayerReport *l = &r->layers[k];
        l->node = take_string(s);
        l->before = take_int(s);
        l->after = take_int(s);
        l->pinned_by = take_string(s);
    }
    r->nquantized = take_count(s, 32);
    r->quantized = NEW_ARRAY(s->a, QuantReport, r->nquantized);
    for (int k = 0; k < r->nquantized; k++) {
        QuantReport *q = &r->quantized[k];
        q->node = take_string(s);
        q->sqnr = take_double(s);
        q->own = take_double(s);
        q->cost = take_double(s);
        q->in_float = take_int(s) != 0;
        s->bad |= !q->node;
    }
}

static void put_scores(Text *t, const Scores *s)
{
    put_int(t, s ? s->nlayers : -1);
    if (!s) return;
    put_string(t, s->criterion);
    put_string(t, s->precision);
    put_int(t, s->probes);
    put_double(t, s->seconds);
    put_int(t, (int64_t)s->peak_bytes);
    for (int k = 0; k < s->nlayers; k++) {
        const LayerScores *l = &s->layers[k];
        put_string(t, l->node);
        put_string(t, l->weight);
        put_bytes(t, l->score, (int64_t)sizeof(double) * l->n);
        put_bytes(t, l->error, (int64_t)sizeof(double) * l->n);
    }
}

static Scores *take_scores(Source *src)
{
    int64_t layers = take_int(src), n, m;
    Scores *s = NEW(src->a, Scores);
    src->bad |= layers < -1 || layers > (int64_t)src->n;
    if (layers < 0 || src->bad) return NULL;
    s->nlayers = (int)layers;
    s->layers = NEW_ARRAY(src->a, LayerScores, layers);
    s->criterion = take_string(src);
    s->precision = take_string(src);
    s->probes = (int)take_int(src);
    s->seconds = take_double(src);
    s->peak_bytes = (size_t)take_int(src);
    for (int k = 0; k < s->nlayers && !src->bad; k++) {
        LayerScores *l = &s->layers[k];
        l->node = take_string(src);
        l->weight = take_string(src);
        l->score = take_bytes(src, &n);
        l->error = take_bytes(src, &m);
        l->n = (int)(n / (int64_t)sizeof(double));
        src->bad |= !l->weight || !l->score || !l->error || n != m || n % (int)sizeof(double);
    }
    return s;
}

static void put_survivors(Text *t, const Context *c)
{
    put_int(t, c->nsurvivors);
    for (int k = 0; k < c->nsurvivors; k++) {
        const Survivors *s = &c->survivors[k];
        put_string(t, s->name);
        put_int(t, s->axis);
        put_bytes(t, s->index, (int64_t)sizeof(int64_t) * s->n);
    }
}

static void take_survivors(Source *s, Context *c)
{
    int64_t n;
    c->nsurvivors = take_count(s, 24);
    c->survivors = NEW_ARRAY(s->a, Survivors, c->nsurvivors);
    for (int k = 0; k < c->nsurvivors && !s->bad; k++) {
        Survivors *v = &c->survivors[k];
        v->name = take_string(s);
        v->axis = (int)take_int(s);
        v->index = take_bytes(s, &n);
        v->n = n / (int64_t)sizeof(int64_t);
        s->bad |= !v->name || !v->index || n % (int64_t)sizeof(int64_t);
    }
}

/* What allocate chose and remove-channels has not done: flags by lane class, which the graph
 * alone determines. */
static void put_choice(Text *t, const Context *c)
{
    bool chosen = c->lanes && c->removed;
    put_bytes(t, chosen ? c->removed : NULL, chosen ? lanes_count_classes(c->lanes) : 0);
}

static void take_choice(Source *s, Context *c)
{
    int64_t n;
    const bool *removed = take_bytes(s, &n);
    if (!removed) return;
    Groups *gr = groups_find(c->graph, &c->opt, c->arena);
    s->bad |= n != lanes_count_classes(gr->lanes);
    if (s->bad) return;
    c->lanes = gr->lanes;
    c->removed = removed;
    lanes_set_removed(c->lanes, c->removed);
}

/* ---- files -------------------------------------------------------------------------- */

static const char *graph_path(Arena *a, const char *dir, int64_t number, const char *which)
{
    return arena_printf(a, "%s/%02lld-%s.onnxtxt", dir, (long long)number, which);
}

static void remove_graphs(Arena *a, const char *dir, int64_t number)
{
    static const char *const which[] = {"graph", "original"};
    for (int k = 0; k < 2; k++) {
        const char *path = graph_path(a, dir, number, which[k]);
        unlink(path);
        unlink(arena_printf(a, "%s.bin", path));
    }
}

/* The number in DIR/state; -1: there is none, or it cannot be read. */
static int64_t present_number(Arena *a, const char *dir)
{
    Bytes b;
    Diag quiet = {0};
    const char *path = arena_printf(a, "%s/state", dir);
    if (access(path, F_OK) < 0 || file_read(&b, a, path, &quiet) < 0) return -1;
    Source s = {.a = a, .p = b.p, .n = b.n};
    char head[sizeof magic];
    take(&s, head, sizeof head);
    take_int(&s);
    int64_t number = take_int(&s);
    return s.bad || memcmp(head, magic, sizeof magic) != 0 ? -1 : number;
}

static int save(Arena *a, const Context *c, const char *dir, uint64_t key, int done, Diag *d)
{
    Text t = {.arena = a};
    if (mkdir(dir, 0777) < 0 && errno != EEXIST)
        return diag_error(d, "cannot make folder '%s': %s", dir, strerror(errno));
    int64_t before = present_number(a, dir);
    TRY(ir_save(c->graph, graph_path(a, dir, done, "graph"), d));
    if (c->original) TRY(ir_save(c->original, graph_path(a, dir, done, "original"), d));
    text_put(&t, magic, sizeof magic);
    put_int(&t, (int64_t)key);
    put_int(&t, done);
    put_int(&t, c->original != NULL);
    put_report(&t, &c->report);
    put_scores(&t, c->scores);
    put_scores(&t, c->chosen_by);
    put_survivors(&t, c);
    put_choice(&t, c);
    TRY(outfile_whole(arena_printf(a, "%s/state", dir), t.p, t.n, d));
    if (before >= 0 && before != done) remove_graphs(a, dir, before);
    unlink(arena_printf(a, "%s/part", dir)); /* of the pass that is done now */
    return 0;
}

int checkpoint_save(const Context *c, const char *dir, uint64_t key, int done, Diag *d)
{
    Arena *a = arena_new();
    int status = save(a, c, dir, key, done, d);
    arena_free(a);
    return status;
}

static int damaged(Context *c, const char *dir)
{
    diag_error(c->diag, "'%s' holds no state that can be continued: it is damaged", dir);
    diag_note(c->diag, "remove it, or give --resume another folder");
    return -1;
}

int checkpoint_load(Context *c, const char *dir, uint64_t key, int *done)
{
    Bytes b;
    char head[sizeof magic];
    Arena *a = c->arena;
    Graph *original;
    const char *path = arena_printf(a, "%s/state", dir);
    *done = 0;
    if (access(path, F_OK) < 0 && errno == ENOENT) return 0;
    TRY(file_read(&b, a, path, c->diag));
    Source s = {.a = a, .p = b.p, .n = b.n};
    take(&s, head, sizeof head);
    uint64_t stored = (uint64_t)take_int(&s);
    if (s.bad || memcmp(head, magic, sizeof magic) != 0) return damaged(c, dir);
    if (stored != key) {
        diag_error(c->diag, "'%s' holds the state of another model, other data or other options",
                   dir);
        diag_note(c->diag, "give the same ones, or --resume another folder");
        return -1;
    }
    int64_t number = take_int(&s);
    bool has_original = take_int(&s) != 0;
    TRY(ir_load(&c->graph, a, graph_path(a, dir, number, "graph"), c->diag));
    if (has_original) {
        TRY(ir_load(&original, a, graph_path(a, dir, number, "original"), c->diag));
        c->original = original;
    }
    take_report(&s, &c->report);
    c->scores = take_scores(&s);
    c->chosen_by = take_scores(&s);
    take_survivors(&s, c);
    if (!s.bad) take_choice(&s, c);
    s.bad |= number < 1 || number > c->report.npasses;
    if (s.bad || s.n) return damaged(c, dir);
    *done = (int)number;
    return 0;
}

/* ---- inside a pass ------------------------------------------------------------------ */

typedef struct PartHead {
    uint64_t key;
    int64_t done;
    uint64_t bytes;
} PartHead;

static PartHead part_head(const Context *c, size_t n)
{
    return (PartHead){c->checkpoint_key, c->done, n};
}

int checkpoint_save_part(const Context *c, const void *bytes, size_t n)
{
    if (ranks_index() > 0) return 0; /* rank 0 writes for all */
    Arena *a = arena_new();
    PartHead head = part_head(c, n);
    OutFile *f = outfile_new(a, arena_printf(a, "%s/part", c->checkpoint), c->diag);
    int status = f ? 0 : -1;
    if (f) {
        outfile_write(f, &head, sizeof head);
        outfile_write(f, bytes, n);
        status = outfile_close(f, c->diag);
        if (status == 0) status = outfile_publish(f, c->diag);
    }
    arena_free(a);
    return status;
}

bool checkpoint_load_part(const Context *c, void *bytes, size_t n)
{
    Arena *a = arena_new();
    Bytes b;
    Diag quiet = {0};
    PartHead want = part_head(c, n);
    bool found = file_read(&b, a, arena_printf(a, "%s/part", c->checkpoint), &quiet) == 0 &&
                 b.n == sizeof want + n && memcmp(b.p, &want, sizeof want) == 0;
    if (found) memcpy(bytes, (const char *)b.p + sizeof want, n);
    arena_free(a);
    return found;
}
