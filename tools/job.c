/* From a model that was read to one that a job can work on: half precision widened, what cannot be
 * planned set aside, the state of --resume taken up, the original in canonical form. */
#include <string.h>

#include "frontend/file.h"
#include "ir/digest.h"
#include "ir/text.h"
#include "passes/checkpoint.h"
#include "tools/session.h"

int job_key(ehap *e, uint64_t *key)
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

int need_model(ehap *e)
{
    if (e->c.graph) return EHAP_OK;
    diag_error(&e->diag, "no model has been loaded");
    return EHAP_USAGE;
}

int need_weights(ehap *e)
{
    int status = need_model(e);
    if (status || e->c.original) return status;
    return onnx_check_weights(e->c.graph, &e->diag) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
}

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
    if (job_key(e, &c->checkpoint_key) < 0) return EHAP_BAD_INPUT;
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
    for (const char *const *named = name_list(e->arena, e->c.opt.distill); *named; named++) {
        const char *name = *named;
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

int job_canonical(ehap *e)
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

int job_begin(ehap *e, const char *job, bool runs)
{
    int status = need_weights(e), detached = 0;
    if (status || e->c.original) return status;
    if ((status = branches_settle(e))) return status;
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
    return status ? status : job_canonical(e);
}

/* The original tells, as resumed work has removed some channels already. */
int job_begin_removal(ehap *e, const char *job)
{
    int status = job_begin(e, job, true);
    if (status || e->no_front) return status;
    e->front_fixed = !allocate_free(e->c.original, &e->c.opt);
    return e->front_fixed && !e->tail ? (allocate_possible(&e->c), EHAP_NOTHING) : EHAP_OK;
}
