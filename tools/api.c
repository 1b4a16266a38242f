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
    o->precision = "auto";
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

/* What makes a run this one: version, job, options, the model, the files it takes data from. Reads
 * all of the model, so only who needs it asks. */
static int run_key(ehap *e, uint64_t *key)
{
    Bytes b;
    Arena *a = arena_new();
    int status = file_bytes(&b, a, e->in_path, &e->diag);
    *key = digest(e->options, EHAP_VERSION, sizeof EHAP_VERSION);
    *key = digest(*key, e->job, strlen(e->job));
    *key = digest(*key, &e->external, sizeof e->external);
    *key = samples_stamp(samples_stamp(*key, e->data), e->eval);
    if (e->scores) *key = file_stamp(*key, e->scores);
    if (status == 0) *key = digest(*key, b.p, b.n);
    arena_free(a);
    return status;
}

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
    if (run_key(e, &key) == 0 && checkpoint_save(c, dir, key, c->done, &e->diag) == 0) {
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

static int need_model(ehap *e)
{
    if (e->c.graph) return EHAP_OK;
    diag_error(&e->diag, "no model has been loaded");
    return EHAP_USAGE;
}

/* A model to compute with. */
static int need_weights(ehap *e)
{
    int status = need_model(e);
    if (status || e->c.original) return status;
    return onnx_check_weights(e->c.graph, &e->diag) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
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

/* Half the work, where there are samples to learn with; drawings teach less than that needs. */
static double default_budget(const ehap *e) { return e->data ? 0.5 : 0.85; }

/* All ranks have read the same state; only then may rank 0 write the next one. */
static int agree_on_state(ehap *e)
{
    int64_t mine[8] = {e->c.skip}, *all = arena_array(e->arena, (size_t)ranks_count(), sizeof mine);
    ranks_exchange(mine, sizeof mine, all);
    for (int k = 0; k < ranks_count(); k++) {
        if (all[8 * k] == mine[0]) continue;
        diag_error(&e->diag, "'%s': not all ranks find the same state there", e->resume);
        diag_note(&e->diag, "the folder must be the same on all machines");
        return EHAP_BAD_INPUT;
    }
    return EHAP_OK;
}

/* Goes on from the state in the --resume folder, if there is one. */
static int resume(ehap *e)
{
    Context *c = &e->c;
    c->checkpoint = e->resume;
    if (!e->resume) return EHAP_OK;
    if (run_key(e, &c->checkpoint_key) < 0) return EHAP_BAD_INPUT;
    if (checkpoint_load(c, e->resume, c->checkpoint_key, &c->skip) < 0) return EHAP_BAD_INPUT;
    if (c->skip)
        diag_remark(&e->diag, "'%s': %d passes are done, going on after '%s'", e->resume, c->skip,
                    c->report.passes[c->report.npasses - 1].name);
    return agree_on_state(e);
}

/* Where folding BatchNormalization leaves no such value, the first behind it that stays. */
static const char *absorbed(ehap *e, const Value *v)
{
    Diag quiet = {0};
    Context c = {.arena = e->arena, .diag = &quiet, .opt = e->c.opt};
    c.graph = graph_clone(e->c.original, e->arena, NULL);
    const Uses uses = graph_uses(e->c.original, e->arena);
    if (pass_fold_bn(&c, "") < 0 || graph_computed(c.graph, v->name)) return NULL;
    while (v && !graph_computed(c.graph, v->name)) {
        const Node *n = only_reader(&uses, v);
        v = n ? n->out[0] : NULL;
    }
    return v ? v->name : NULL;
}

/* Before hours of work: what --distill names is there. */
static int check_distill(ehap *e)
{
    const char *rest = e->c.opt.distill;
    size_t n;
    for (const char *p; (p = next_name(&rest, &n));) {
        const char *name = arena_printf(e->arena, "%.*s", (int)n, p);
        const Value *v = graph_computed(e->c.original, name);
        const char *instead = v ? absorbed(e, v) : NULL;
        if (instead) {
            diag_error(&e->diag,
                       "--distill: '%s' goes into the node that makes it, with the "
                       "BatchNormalization behind",
                       name);
            diag_note(&e->diag, "name '%s' instead", instead);
            return EHAP_USAGE;
        }
        if (v && dtype_is_float(v->type.dtype)) continue;
        diag_error(&e->diag,
                   v ? "--distill: '%s' is %s, and only floats can be learned"
                     : "--distill: the model has no value '%s'",
                   name, v ? dtype_name(v->type.dtype) : "");
        diag_note(&e->diag,
                  "ehapc inspect lists the nodes; --print-ir-after=canonicalize shows all "
                  "values");
        return EHAP_USAGE;
    }
    return EHAP_OK;
}

/* The reference that everything is held against: the model in canonical form. */
static int canonical(ehap *e)
{
    Context *c = &e->c;
    if (pass_run(c, pass_find("canonicalize"), "") < 0) return EHAP_BAD_INPUT;
    Graph *original = graph_clone(c->original ? c->original : c->graph, e->arena, NULL);
    if (e->tail) tail_name_readers(c->graph, e->tail);
    if (e->tail) tail_name_readers(original, e->tail);
    c->original = original;
    e->input.params = graph_params(c->original) + e->apart.params;
    if (sizes_choose(c) < 0) return EHAP_USAGE;
    e->input.flops = graph_flops_at(c->original, &c->opt) + e->apart.flops;
    return check_distill(e);
}

/* What the tail counts for in the statistics. */
static void set_apart(ehap *e)
{
    if (!e->tail) return;
    e->c.apart = e->tail->nodes;
    e->apart.params = graph_params(e->tail->nodes);
    e->apart.flops = graph_flops(e->tail->nodes);
}

/* `runs`: the job runs the network, so that what cannot be planned has to be set aside. */
static int begin(ehap *e, const char *job, bool runs)
{
    int status = need_weights(e), detached = 0;
    if (status || e->c.original) return status;
    e->c.opt.whole_process = true;
    const bool integers = !strstr(job, "requantize"); /* which makes floats of them */
    if (runs && halves_widen(&e->halves, e->c.graph, e->arena, &e->diag) < 0) return EHAP_BAD_INPUT;
    if (runs) detached = tail_detach(&e->tail, e->c.graph, integers, e->arena, &e->diag);
    if (detached < 0) return EHAP_BAD_INPUT;
    e->no_front = detached == STATUS_NOTHING;
    set_apart(e);
    if (e->c.opt.keep <= 0) e->c.opt.keep = default_budget(e);
    e->job = arena_strdup(e->arena, job);
    status = resume(e);
    return status ? status : canonical(e);
}

/* For jobs that remove channels: samples are only wanted where some can go. The original tells, as
 * resumed work has removed some already. */
static int begin_removal(ehap *e, const char *job)
{
    int status = begin(e, job, true);
    if (status || e->no_front) return status;
    e->front_fixed = !allocate_free(e->c.original, &e->c.opt);
    return e->front_fixed && !e->tail ? (allocate_possible(&e->c), EHAP_NOTHING) : EHAP_OK;
}

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
    int status = begin_removal(e, "prune");
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
    status = begin(e, "quantize", true);
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
    int status = begin(e, "requantize", true);
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
    status = begin_removal(e, "compress");
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
    if (n < 0) return EHAP_BAD_INPUT;
    for (int k = 0; k < n; k++) runs |= calls[k].pass->samples;
    int status = begin(e, pipeline, runs);
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
    int status = begin_removal(e, "score");
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
    if (!status && !e->c.original) status = canonical(e);
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
    return status ? status : run_test_data(e, dir);
}

int ehap_check_test_data(ehap *e, const char *dir) { return guarded(e, do_test_data, dir, NULL); }
