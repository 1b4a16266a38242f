/* The report: what went in, what came out, what each pass took, which channels stayed. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "ir/lanes.h"
#include "ir/op.h"
#include "ir/process.h"
#include "tools/session.h"

/* The axis of a product's output that its weight's channels make; -1: not a product of an
 * activation and a constant. */
static int channel_axis(const Node *n)
{
    bool conv = n->op == OP_Conv || n->op == OP_ConvTranspose;
    bool product = n->op == OP_Gemm || n->op == OP_MatMul;
    if (!(conv || product) || !n->in[1] || !value_is_const(n->in[1])) return -1;
    return conv ? 1 : n->out[0]->type.rank - 1;
}

static const Node *node_named(const Graph *g, const char *name)
{
    for (int i = 0; name && i < g->nnodes; i++)
        if (g->nodes[i]->name && strcmp(g->nodes[i]->name, name) == 0) return g->nodes[i];
    return NULL;
}

void report_layers(ehap *e)
{
    Arena *a = e->arena;
    Graph *before = graph_clone(e->c.original, a, NULL);
    const Graph *sized = graph_sized(e->c.original, &e->c.opt, a, NULL);
    Lanes *l = lanes_new(before, a);
    Report *r = &e->c.report;
    lanes_run(l);
    r->layers = NEW_ARRAY(a, LayerReport, before->nnodes);
    r->nlayers = 0;
    for (int i = 0; i < before->nnodes; i++) {
        const Node *n = before->nodes[i];
        int axis = channel_axis(n);
        if (axis < 0) continue;
        const Node *now = node_named(e->c.graph, n->name);
        int now_axis = now ? (now->op == n->op ? axis : -1) : -1;
        int64_t was = n->out[0]->type.dim[axis];
        r->layers[r->nlayers++] = (LayerReport){
            .node = node_label(n),
            .before = was,
            .flops = node_flops(sized->nodes[i]),
            .after = now_axis >= 0 ? now->out[0]->type.dim[now_axis] : was,
            .pinned_by = lanes_keep(l, n->out[0], axis, a),
        };
    }
}

static cJSON *stats_json(const ModelStats *s)
{
    cJSON *o = cJSON_CreateObject();
    if (s->path) cJSON_AddStringToObject(o, "path", s->path);
    cJSON_AddNumberToObject(o, "params", (double)s->params);
    cJSON_AddNumberToObject(o, "flops", (double)s->flops);
    cJSON_AddNumberToObject(o, "bytes", (double)s->bytes);
    return o;
}

static const char *const stage_name[STAGES] = {"input", "pruned", "reconstructed", "trained",
                                               "output"};

/* Either number of all stages; NULL where none has it. */
static cJSON *stages_json(const Report *r, bool error)
{
    cJSON *o = NULL;
    for (int k = 0; k < STAGES; k++) {
        const double x = error ? r->stage[k].error : r->stage[k].accuracy;
        if (x < 0) continue;
        if (!o) o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, stage_name[k], x);
    }
    return o;
}

static void add_stages(cJSON *root, const Report *r)
{
    cJSON *accuracy = stages_json(r, false), *error = stages_json(r, true);
    if (accuracy) {
        cJSON_AddStringToObject(accuracy, "kind", r->labelled ? "top-1" : "agreement");
        cJSON_AddItemToObject(root, "accuracy", accuracy);
    }
    if (error) cJSON_AddItemToObject(root, "relative_error", error);
}

static cJSON *scoring_json(const Scores *s)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "criterion", s->criterion);
    cJSON_AddStringToObject(o, "precision", s->precision);
    cJSON_AddNumberToObject(o, "probes", s->probes);
    cJSON_AddNumberToObject(o, "seconds", s->seconds);
    return o;
}

static void add_training(cJSON *o, const TrainRecord *t)
{
    if (!t->samples) return;
    cJSON_AddNumberToObject(o, "steps", (double)t->steps);
    cJSON_AddNumberToObject(o, "kept_step", (double)t->kept);
    cJSON_AddNumberToObject(o, "held_out", (double)t->samples);
    cJSON_AddNumberToObject(o, "loss_before", t->before);
    cJSON_AddNumberToObject(o, "loss_after", t->after);
}

static cJSON *passes_json(const Report *r)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < r->npasses; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", r->passes[i].name);
        cJSON_AddNumberToObject(o, "seconds", r->passes[i].seconds);
        cJSON_AddNumberToObject(o, "peak_bytes", (double)r->passes[i].peak_bytes);
        add_training(o, &r->passes[i].train);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static cJSON *layers_json(const Report *r)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < r->nlayers; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "node", r->layers[i].node);
        cJSON_AddNumberToObject(o, "before", (double)r->layers[i].before);
        cJSON_AddNumberToObject(o, "after", (double)r->layers[i].after);
        cJSON_AddNumberToObject(o, "flops", (double)r->layers[i].flops);
        if (r->layers[i].pinned_by) cJSON_AddStringToObject(o, "pinned_by", r->layers[i].pinned_by);
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

/* Layers of the model, then of what lies behind unknown operators. */
static cJSON *all_layers_json(const ehap *e)
{
    cJSON *list = layers_json(&e->c.report), *o;
    if (!e->behind) return list;
    cJSON *more = layers_json(&e->behind->report);
    while ((o = cJSON_DetachItemFromArray(more, 0))) {
        cJSON_AddStringToObject(o, "criterion", e->behind->opt.criterion);
        cJSON_AddItemToArray(list, o);
    }
    cJSON_Delete(more);
    return list;
}

static cJSON *quantized_json(const Report *r)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < r->nquantized; i++) {
        const QuantReport *q = &r->quantized[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "node", q->node);
        cJSON_AddNumberToObject(o, "sqnr_db", q->sqnr);
        cJSON_AddNumberToObject(o, "own_sqnr_db", q->own);
        if (q->cost >= 0) cJSON_AddNumberToObject(o, "cost", q->cost);
        if (q->in_float) cJSON_AddTrueToObject(o, "in_float");
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

/* Outputs that nothing can be learned from, and those that are set aside with the tail. */
static cJSON *ignored_json(const ehap *e)
{
    cJSON *list = cJSON_CreateArray();
    const Graph *g = e->c.original;
    for (int o = 0; o < g->noutputs; o++)
        if (!dtype_is_float(g->outputs[o]->type.dtype))
            cJSON_AddItemToArray(list, cJSON_CreateString(g->outputs[o]->name));
    for (int o = 0; e->tail && o < e->tail->noutputs; o++) {
        bool kept = false;
        for (int k = 0; k < g->noutputs; k++)
            kept |= strcmp(g->outputs[k]->name, e->tail->outputs[o]) == 0;
        if (!kept) cJSON_AddItemToArray(list, cJSON_CreateString(e->tail->outputs[o]));
    }
    return list;
}

int report_write(ehap *e, const char *path)
{
    const Report *r = &e->c.report;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "ehapc", EHAP_VERSION);
    cJSON_AddItemToObject(root, "input", stats_json(&e->input));
    if (e->output.params) cJSON_AddItemToObject(root, "output", stats_json(&e->output));
    add_stages(root, r);
    if (r->proof_max_diff >= 0) cJSON_AddNumberToObject(root, "proof_max_diff", r->proof_max_diff);
    if (e->c.chosen_by) cJSON_AddItemToObject(root, "scoring", scoring_json(e->c.chosen_by));
    if (e->c.original) cJSON_AddItemToObject(root, "outputs_ignored", ignored_json(e));
    if (e->c.data) cJSON_AddStringToObject(root, "data", e->c.data->source);
    cJSON_AddItemToObject(root, "passes", passes_json(r));
    cJSON_AddItemToObject(root, "layers", all_layers_json(e));
    if (r->nquantized) cJSON_AddItemToObject(root, "quantized", quantized_json(r));
    cJSON_AddNumberToObject(root, "seconds", process_seconds() - e->start);
    cJSON_AddNumberToObject(root, "peak_rss_bytes", (double)process_peak_resident());
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    int status = text ? text_write(path, text, &e->diag) : diag_error(&e->diag, "out of memory");
    free(text);
    return status;
}

static void print_row(FILE *to, const char *what, int64_t before, int64_t after)
{
    fprintf(to, "  %-12s %14lld %14lld   %5.1f %%\n", what, (long long)before, (long long)after,
            before ? 100.0 * (double)after / (double)before : 0);
}

/* A line with either number of all stages in percent, if one has it. */
static void print_stages(FILE *to, const Report *r, const char *what, bool error)
{
    bool any = false;
    for (int k = 0; k < STAGES; k++) {
        const double x = error ? r->stage[k].error : r->stage[k].accuracy;
        if (x < 0) continue;
        if (!any) fprintf(to, "  %s:", what);
        any = true;
        fprintf(to, "  %s %.*f %%", stage_name[k], error && x < 0.1 ? 3 : 2, 100 * x);
    }
    if (any) fprintf(to, "\n");
}

void report_print(ehap *e, FILE *to)
{
    const Report *r = &e->c.report;
    fprintf(to, "  %-12s %14s %14s\n", "", "before", "after");
    print_row(to, "parameters", e->input.params, e->output.params);
    print_row(to, "FLOPs", e->input.flops, e->output.flops);
    print_row(to, "file bytes", e->input.bytes, e->output.bytes);
    print_stages(to, r, r->labelled ? "top-1 accuracy" : "agreement with the original", false);
    print_stages(to, r, "error of the outputs", true);
    const QuantReport *worst = NULL;
    for (int i = 0; i < r->nquantized; i++)
        if (!r->quantized[i].in_float && (!worst || r->quantized[i].sqnr < worst->sqnr))
            worst = &r->quantized[i];
    if (worst)
        fprintf(to, "  least signal to quantization noise: %.1f dB at '%s'\n", worst->sqnr,
                worst->node);
    fprintf(to, "  %.1f s, peak memory %.0f MiB\n", process_seconds() - e->start,
            (double)process_peak_resident() / 1048576);
}
