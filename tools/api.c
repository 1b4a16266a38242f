/* The public API: every entry runs inside a trap, so that exhausted memory and broken
 * invariants end as a message and EHAP_INTERNAL instead of an abort. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/backend.h"
#include "frontend/file.h"
#include "ir/digest.h"
#include "ir/process.h"
#include "ir/text.h"
#include "passes/checkpoint.h"
#include "tools/session.h"

const char *ehap_version(void) { return EHAP_VERSION; }

static void sink(void *ctx, Severity sev, const char *text)
{
    ehap *e = ctx;
    if (e->on_message)
        e->on_message(e->message_ctx, (int)sev, text);
    else
        fprintf(stderr, "%s\n", text);
}

static void defaults(ehap *e)
{
    Options *o = &e->c.opt;
    o->steps = -1;
    o->criterion = "gate-ggn";
    o->precision = o->train_precision = "auto";
    o->target = "ort";
    o->device = e->device = "auto";
    e->preprocess = (Preprocess){.scale = 1};
    Report *r = &e->c.report;
    for (int k = 0; k < STAGES; k++) r->stage[k] = (StageReport){-1, -1};
    r->proof_max_diff = -1;
}

static Arena *arena_or_null(void)
{
    Trap t;
    if (trap_enter(&t)) return NULL;
    Arena *a = arena_new();
    trap_leave(&t);
    return a;
}

ehap *ehap_new(ehap_message_fn *on_message, void *ctx)
{
    ehap *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    if (!(e->arena = arena_or_null())) {
        free(e);
        return NULL;
    }
    e->on_message = on_message;
    e->message_ctx = ctx;
    e->diag = (Diag){.sink = sink, .ctx = e};
    e->c.arena = e->arena;
    e->c.diag = &e->diag;
    e->start = process_seconds();
    e->options = DIGEST_START;
    defaults(e);
    return e;
}

void ehap_free(ehap *e)
{
    if (!e) return;
    arena_free(e->arena);
    free(e);
}

void ehap_on_progress(ehap *e, ehap_progress_fn *f, void *ctx)
{
    e->c.progress = f;
    e->c.progress_ctx = ctx;
}

typedef int Entry(ehap *e, const char *a, const char *b);

/* Leaves the state as it was before the pass in which the invariant broke: with it, --resume
 * comes to the same place at once. */
static void dump_crash(ehap *e)
{
    static const char dir[] = "ehapc-crash";
    const Context *c = e->c.safe;
    Trap t;
    if (!c) diag_note(&e->diag, "this is a bug in ehapc; please report it with the model");
    if (!c || trap_enter(&t)) return;
    const char *pass = e->c.report.passes[c->report.npasses].name;
    uint64_t key;
    if (job_key(e, &key) == 0 && checkpoint_save(c, dir, key, c->done, &e->diag) == 0) {
        diag_note(&e->diag, "this is a bug in ehapc; the state before pass '%s' is in %s/", pass,
                  dir);
        e->crash = dir;
    }
    trap_leave(&t);
}

const char *ehap_crash_folder(const ehap *e) { return e->crash; }

static int guarded(ehap *e, Entry *f, const char *a, const char *b)
{
    Trap t;
    if (e->broken) {
        diag_error(&e->diag, "an earlier call broke off: nothing more can be done with this model");
        return EHAP_INTERNAL;
    }
    if (trap_enter(&t)) {
        e->broken = true;
        diag_error(&e->diag, "%s", t.message);
        if (t.kind == TRAP_INTERNAL)
            dump_crash(e);
        else if (t.kind == TRAP_INPUT)
            return EHAP_BAD_INPUT;
        else if (t.kind == TRAP_DEVICE)
            diag_note(&e->diag, "--device cpu computes without the GPU");
        else
            diag_note(&e->diag, "--memory or a smaller --batch may help");
        return EHAP_INTERNAL;
    }
    int status = f(e, a, b);
    trap_leave(&t);
    return status;
}

static int64_t size_of_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : 0;
}

static int do_set(ehap *e, const char *name, const char *value)
{
    return option_set(e, name, value);
}

int ehap_set(ehap *e, const char *option, const char *value)
{
    return guarded(e, do_set, option, value);
}

static int do_load(ehap *e, const char *path, const char *unused)
{
    (void)unused;
    Context *c = &e->c;
    if (c->graph) {
        diag_error(&e->diag, "a model has been loaded already");
        return EHAP_USAGE;
    }
    e->in_path = e->diag.file = arena_strdup(e->arena, path);
    if (onnx_read(&c->graph, e->arena, path, &e->diag) < 0) return EHAP_BAD_INPUT;
    e->external = c->graph->info.external_stamp;
    e->input = (ModelStats){e->in_path, graph_params(c->graph), graph_flops(c->graph),
                            size_of_file(path) + c->graph->info.external_bytes};
    return EHAP_OK;
}

int ehap_load(ehap *e, const char *path) { return guarded(e, do_load, path, NULL); }

static bool front_stays(const ehap *e) { return e->no_front || e->front_fixed; }

/* Compresses the tail, where there is one; to remove nothing at all is EHAP_NOTHING. */
static int compress_tail(ehap *e, int what)
{
    int status = e->tail ? behind_compress(&e->behind, &e->c, e->tail, what) : STATUS_NOTHING;
    if (status < 0) return EHAP_BAD_INPUT;
    if (status == 0 || !front_stays(e)) return EHAP_OK;
    if (e->front_fixed)
        allocate_possible(&e->c);
    else
        behind_explain(e->behind);
    return EHAP_NOTHING;
}

static int do_prune(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = job_begin_removal(e, "prune");
    if (!status) status = compress_tail(e, BEHIND_PRUNE);
    if (status || front_stays(e)) return status;
    status = pipeline_prepare(e);
    if (!status) status = pipeline_prune(e);
    if (!status && (e->c.opt.steps > 0 || e->c.opt.epochs > 0 || e->c.opt.seconds > 0))
        status = pipeline_train(e);
    return status;
}

int ehap_prune(ehap *e) { return guarded(e, do_prune, NULL, NULL); }

/* What is on grids stays there: who wants others is told how. */
static void remark_integers(ehap *e)
{
    int grids = 0;
    for (int i = 0; i < e->c.graph->nnodes; i++)
        grids += e->c.graph->nodes[i]->op == OP_DequantizeLinear;
    if (grids)
        diag_remark(&e->diag,
                    "the model is quantized already, in %d places, which stay as they are "
                    "(ehapc requantize lays it out for another --target)",
                    grids);
}

static int do_quantize(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = need_weights(e);
    if (status) return status;
    remark_integers(e);
    status = job_begin(e, "quantize", true);
    if (!status && e->no_front) {
        diag_error(&e->diag, "nothing can be quantized: nothing that can be run, behind inputs of "
                             "the model, has a float result");
        return EHAP_NOTHING;
    }
    if (!status && allocate_layers(e->c.original) == 0) {
        diag_error(&e->diag, "nothing can be quantized: no node that is understood has a constant "
                             "weight");
        status = EHAP_NOTHING;
    }
    if (!status) status = pipeline_prepare(e);
    return status ? status : pipeline_quantize(e);
}

int ehap_quantize(ehap *e) { return guarded(e, do_quantize, NULL, NULL); }

static int do_requantize(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = job_begin(e, "requantize", true);
    if (!status && e->data) status = pipeline_prepare(e);
    return status ? status : pipeline_requantize(e);
}

int ehap_requantize(ehap *e) { return guarded(e, do_requantize, NULL, NULL); }

static int do_compress(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = need_weights(e);
    if (status) return status;
    remark_integers(e);
    status = job_begin_removal(e, "compress");
    if (!status) status = compress_tail(e, BEHIND_PRUNE);
    if (status || e->no_front || allocate_layers(e->c.original) == 0) return status;
    status = pipeline_prepare(e);
    if (!status && !e->front_fixed) status = pipeline_prune(e);
    if (!status && !e->front_fixed && e->c.opt.steps != 0) status = pipeline_train(e);
    return status ? status : pipeline_quantize(e);
}

int ehap_compress(ehap *e) { return guarded(e, do_compress, NULL, NULL); }

static int do_passes(ehap *e, const char *pipeline, const char *unused)
{
    (void)unused;
    PassCall *calls;
    bool runs = e->data || e->eval;
    int n = pipeline_parse(&e->c, pipeline, &calls);
    if (n < 0) return EHAP_USAGE;
    for (int k = 0; k < n; k++) runs |= calls[k].pass->samples;
    int status = job_begin(e, pipeline, runs);
    if (!status && runs) status = pipeline_prepare(e);
    if (!status && e->scores && !e->c.skip &&
        scores_read(&e->c.scores, e->arena, e->scores, &e->diag) < 0)
        status = EHAP_BAD_INPUT;
    if (status) return status;
    int ran = pass_run_pipeline(&e->c, pipeline);
    return ran < 0 ? EHAP_BAD_INPUT : ran > 0 ? EHAP_NOTHING : EHAP_OK;
}

int ehap_run_passes(ehap *e, const char *pipeline) { return guarded(e, do_passes, pipeline, NULL); }

static int do_score(ehap *e, const char *path, const char *unused)
{
    (void)unused;
    int status = job_begin_removal(e, "score");
    if (!status && front_stays(e)) {
        status = compress_tail(e, BEHIND_SCORE);
        if (status) return status;
        return scores_write(e->behind->scores, path, &e->diag) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
    }
    if (!status) status = pipeline_prepare(e);
    if (status) return status;
    if (pass_run(&e->c, pass_find("sensitivity"), "") < 0) return EHAP_BAD_INPUT;
    return scores_write(e->c.scores, path, &e->diag) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
}

int ehap_score(ehap *e, const char *path) { return guarded(e, do_score, path, NULL); }

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool has_quantized(const Graph *g)
{
    for (int k = 0; k < g->nnodes; k++)
        if (g->nodes[k]->op == OP_QuantizeLinear || g->nodes[k]->op == OP_DequantizeLinear)
            return true;
    return false;
}

/* With what was set aside, in the types that it had; NULL after an error. */
static Graph *whole_model(ehap *e)
{
    Graph *g = e->c.graph;
    if (!e->tail && !e->halves) return g;
    g = graph_clone(g, e->arena, NULL);
    if (e->tail && tail_attach(g, e->tail, &e->diag) < 0) return NULL;
    if (e->tail) tail_free_bodies(g);
    if (e->halves && halves_narrow(g, e->halves, !has_quantized(g), &e->diag) < 0) return NULL;
    return g;
}

/* Metadata alone may be as much. */
enum { SMALL_GROWTH = 4096 };

/* A file that has become larger: where its bytes are. */
static void remark_growth(ehap *e, const Graph *g, int64_t written)
{
    bool *seen = NEW_ARRAY(e->arena, bool, g->nvalues);
    int64_t bytes = 0;
    int quantizing = 0;
    if (written <= e->input.bytes + SMALL_GROWTH) return;
    for (int i = 0; i < g->nnodes; i++) {
        const Node *n = g->nodes[i];
        quantizing += n->op == OP_QuantizeLinear || n->op == OP_DequantizeLinear;
        for (int k = 0; k < n->nin; k++) {
            const Value *v = n->in[k];
            if (!v || !v->data || seen[v->id]) continue;
            seen[v->id] = true;
            bytes += type_bytes(&v->type) > 0 ? type_bytes(&v->type) : 0;
        }
    }
    diag_remark(&e->diag,
                "the file is larger than the input: %lld bytes are constants (folded ones among "
                "them), %lld its %d nodes, of which %d quantize",
                (long long)bytes, (long long)(written - bytes), g->nnodes, quantizing);
}

static int do_save(ehap *e, const char *path, const char *unused)
{
    (void)unused;
    Context *c = &e->c;
    int status = need_model(e);
    if (status) return status;
    if (same_file(e->in_path, path)) {
        diag_error(&e->diag, "'%s' is the input: it is never written to", path);
        return EHAP_BAD_INPUT;
    }
    KeyValue props[] = {
        {"ehapc.version", EHAP_VERSION},
        {"ehapc.target", c->opt.target},
        {"ehapc.criterion", c->chosen_by ? c->chosen_by->criterion : ""},
        {"ehapc.seed", arena_printf(e->arena, "%lld", (long long)c->opt.seed)},
        {"ehapc.scores", scores_digest(e->arena, c->chosen_by)},
    };
    int64_t written = 0;
    EmitOptions o = {.external_data = c->graph->info.external_data,
                     .props = props,
                     .nprops = sizeof props / sizeof *props,
                     .written = &written};
    if (ranks_index() > 0) return EHAP_OK; /* rank 0 writes for all */
    Graph *whole = whole_model(e);
    if (!whole || onnx_write(whole, path, &o, &e->diag) < 0) return EHAP_BAD_INPUT;
    remark_growth(e, whole, written);
    e->output = (ModelStats){arena_strdup(e->arena, path), graph_params(c->graph),
                             graph_flops_at(c->graph, &c->opt), written};
    if (e->tail) e->output.params += graph_params(e->tail->nodes);
    if (e->tail) e->output.flops += graph_flops(e->tail->nodes);
    return EHAP_OK;
}

int ehap_save(ehap *e, const char *path) { return guarded(e, do_save, path, NULL); }

static int do_report(ehap *e, const char *path, const char *unused)
{
    (void)unused;
    if (e->c.original) report_layers(e);
    return report_write(e, path) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
}

int ehap_write_report(ehap *e, const char *path) { return guarded(e, do_report, path, NULL); }

static int do_summary(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    report_print(e, stdout);
    return EHAP_OK;
}

int ehap_print_summary(ehap *e) { return guarded(e, do_summary, NULL, NULL); }

static int do_inspect(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = need_model(e); /* weights stay unread */
    if (!status) status = branches_settle(e);
    if (!status && !e->c.original) status = job_canonical(e);
    if (status) return status;
    report_layers(e);
    inspect_print(e, stdout);
    return EHAP_OK;
}

int ehap_inspect(ehap *e) { return guarded(e, do_inspect, NULL, NULL); }

static int do_lint(ehap *e, const char *a, const char *b)
{
    (void)a, (void)b;
    int status = need_model(e);
    return status ? status : lint_print(e, stdout);
}

int ehap_lint(ehap *e) { return guarded(e, do_lint, NULL, NULL); }

static int do_infer(ehap *e, const char *in, const char *out)
{
    int status = need_weights(e);
    if (!status) status = branches_settle(e);
    return status ? status : run_arrays(e, in, out);
}

int ehap_infer(ehap *e, const char *in_npz, const char *out_npz)
{
    return guarded(e, do_infer, in_npz, out_npz);
}

static int do_test_data(ehap *e, const char *dir, const char *unused)
{
    (void)unused;
    int status = need_weights(e);
    if (!status) status = branches_settle(e);
    return status ? status : run_test_data(e, dir);
}

int ehap_check_test_data(ehap *e, const char *dir) { return guarded(e, do_test_data, dir, NULL); }
