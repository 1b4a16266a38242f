/* The main job, pass by pass:
 *
 *   prepare     read samples (or make them from the model), measure the input
 *   prune       per round: sensitivity, allocate, remove-channels; then reconstruct
 *   train       fold BatchNormalization, fine-tune in float
 *   quantize    fake-quant, fine-tune on the grid, QuantizeLinear/DequantizeLinear */
#include <math.h>
#include <string.h>

#include "passes/synthesize.h"
#include "tools/session.h"

/* How many samples agreement is measured on, where there is no --eval. */
enum { AGREEMENT = 2000 };

static int status_of(int pass_status)
{
    return pass_status < 0 ? EHAP_BAD_INPUT : pass_status > 0 ? EHAP_NOTHING : EHAP_OK;
}

static int run(ehap *e, const char *pass, const char *opt)
{
    const Pass *p = pass_find(pass);
    if (!p) trap(TRAP_INTERNAL, "no pass '%s'", pass);
    return status_of(pass_run(&e->c, p, opt));
}

/* Whether the outputs may be scores of classes: one row of several for every sample, and, where
 * there are several outputs, a Softmax. */
static bool may_classify(const Graph *g)
{
    const Value *z = graph_logits(g);
    bool is_output = false;
    for (int o = 0; o < g->noutputs; o++) is_output |= g->outputs[o] == z;
    return z && z->type.rank == 2 && z->type.dim[1] > 1 && (g->noutputs == 1 || !is_output);
}

/* Top-1 on the evaluation samples; without labels, agreement with the original and the error
 * against its outputs. */
static int measure(ehap *e, Stage stage)
{
    Context *c = &e->c;
    Samples some = *(c->eval ? c->eval : c->data);
    bool labels = c->eval && c->eval->labels;
    Eval ev;
    if (c->skip) return EHAP_OK; /* an earlier process has measured it: it is in the report */
    const int64_t most = samples_affordable(c->original, &c->opt, AGREEMENT);
    if (!c->eval && some.count > most) some.count = most;
    e->answers.arena = e->arena;
    if (evaluate(&ev, c->graph, labels ? NULL : c->original, &e->answers, &some, &c->opt,
                 &e->diag) < 0)
        return EHAP_BAD_INPUT;
    const double agreement = may_classify(c->original) ? ev.agreement : -1;
    c->report.stage[stage] = (StageReport){labels ? ev.accuracy : agreement, ev.error};
    c->report.labelled = labels;
    return EHAP_OK;
}

/* Nothing has changed yet: without labels, the network agrees with itself. */
static int measure_input(ehap *e)
{
    Context *c = &e->c;
    if (c->eval && c->eval->labels) return measure(e, STAGE_INPUT);
    c->report.stage[STAGE_INPUT].accuracy = may_classify(c->original) ? 1 : -1;
    return EHAP_OK;
}

static void remark_work(const Context *c)
{
    const int64_t most = samples_affordable(c->original, &c->opt, AGREEMENT);
    double elements;
    graph_work_at(c->original, &c->opt, &elements);
    if (most < AGREEMENT && most < c->data->count)
        diag_remark(c->diag,
                    "a sample takes %.3g GFLOPs and %.3g million elements: scores, ranges and "
                    "refits see %lld samples%s",
                    (double)graph_flops_at(c->original, &c->opt) * 1e-9, elements * 1e-6,
                    (long long)most, c->opt.made_up ? ", as they are made up" : "");
}

int pipeline_prepare(ehap *e)
{
    Context *c = &e->c;
    Samples *s;
    if (c->data) return EHAP_OK;
    e->preprocess.dims = c->opt.dims;
    e->preprocess.ndims = c->opt.ndims;
    e->preprocess.memory = c->opt.memory;
    if (e->eval) {
        if (samples_read(&s, e->arena, e->eval, &e->preprocess, c->original, &e->diag) < 0)
            return EHAP_BAD_INPUT;
        c->eval = s;
    }
    if (e->data) {
        if (samples_read(&s, e->arena, e->data, &e->preprocess, c->original, &e->diag) < 0)
            return EHAP_BAD_INPUT;
    } else {
        c->opt.made_up = true;
        if (synthesize(&s, c, 0) < 0) return EHAP_BAD_INPUT;
        diag_remark(&e->diag, "no --data given: %s", s->source);
    }
    c->data = s;
    sizes_of_samples(c, s);
    remark_work(c);
    e->input.flops = graph_flops_at(c->original, &c->opt) + e->apart.flops;
    return measure_input(e);
}

static const char *const budget_name[] = {"flops", "params", "channels"};

/* What the part in front has to keep for the whole to keep the fraction asked for: what is set
 * aside behind it has been compressed, and may have been too fixed to give its part. Its figures
 * are of the shapes that are known there (others count as 1), as in the report. No more is taken
 * than twice over. */
static double keep_in_front(const ehap *e)
{
    const Context *c = &e->c;
    const double keep = c->opt.keep;
    if (!e->tail || c->opt.budget == BUDGET_CHANNELS) return keep;
    const bool flops = c->opt.budget == BUDGET_FLOPS;
    const double front = (double)(flops ? graph_flops_at(c->original, &c->opt)
                                        : graph_params(c->original)),
                 before = (double)(flops ? e->apart.flops : e->apart.params),
                 after =
                     (double)(flops ? graph_flops(e->tail->nodes) : graph_params(e->tail->nodes)),
                 left = (keep * (front + before) - after) / fmax(front, 1);
    return fmin(keep, fmax(keep / 2, left));
}

static void remark_front(const ehap *e, double keep)
{
    if (keep < e->c.opt.keep)
        diag_remark(
            e->c.diag,
            "what lies behind %s gives less than its part: in front of it %.1f %% of %s stay",
            e->tail->first, 100 * keep, budget_name[e->c.opt.budget]);
}

/* One round's share of the way: what remains shrinks by the same factor each time. */
static int prune_round(ehap *e, int round, int rounds)
{
    Context *c = &e->c;
    const double all = keep_in_front(e);
    double keep = pow(all, (double)(round + 1) / rounds);
    int status = e->scores ? EHAP_OK : run(e, "sensitivity", "");
    if (round == 0) remark_front(e, all);
    if (status == EHAP_OK)
        status =
            run(e, "allocate", arena_printf(e->arena, "%s=%.9g", budget_name[c->opt.budget], keep));
    return status ? status : run(e, "remove-channels", "");
}

/* Where attention heads shall go and widths, rounds take them by turns: heads are found again once
 * some are narrower, but not in scores that were given. */
static int prune_rounds(ehap *e)
{
    Options *o = &e->c.opt;
    const char *attention = o->attention;
    const bool both = attention && strcmp(attention, "both") == 0;
    int rounds = o->rounds && !e->scores ? o->rounds : 1, status = EHAP_OK;
    if (both && e->scores) {
        diag_error(&e->diag, "--attention both scores twice, which --scores cannot");
        return EHAP_USAGE;
    }
    if (both && rounds < 2) rounds = 2;
    for (int r = 0; r < rounds && status == EHAP_OK; r++) {
        if (both) o->attention = r % 2 ? "widths" : "heads";
        if (r + 1 == rounds || allocate_free(e->c.graph, o)) status = prune_round(e, r, rounds);
    }
    o->attention = attention;
    return status;
}

int pipeline_prune(ehap *e)
{
    Context *c = &e->c;
    int status;
    if (e->scores && !c->skip && scores_read(&c->scores, e->arena, e->scores, &e->diag) < 0)
        return EHAP_BAD_INPUT;
    if ((status = prune_rounds(e))) return status;
    if ((status = measure(e, STAGE_PRUNED))) return status;
    if ((status = run(e, "reconstruct", ""))) return status;
    return measure(e, STAGE_RECONSTRUCTED);
}

int pipeline_train(ehap *e)
{
    int status = run(e, "fold-bn", "");
    return status ? status : run(e, "train", "");
}

int pipeline_quantize(ehap *e)
{
    Context *c = &e->c;
    int status = run(e, "fold-bn", "");
    if (!status) status = run(e, "fake-quant", "");
    if (!status && c->opt.steps != 0) status = run(e, "train", "");
    if (!status) status = measure(e, STAGE_TRAINED);
    if (!status) status = run(e, "record-ranges", "");
    if (!status) status = run(e, "quantize", "");
    if (!status) status = measure(e, STAGE_OUTPUT);
    return status;
}

int pipeline_requantize(ehap *e)
{
    Context *c = &e->c;
    int status = run(e, "requantize", "");
    return status || !c->data ? status : measure(e, STAGE_OUTPUT);
}
