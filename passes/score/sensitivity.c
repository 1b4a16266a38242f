/* Scores every channel by the chosen criterion (criteria.def), which sees a Scoring: the model
 * with sizes bound, its coupled groups, the samples to use and what the loss is taken against.
 *
 * Against what: labels when there are any; else the original's own output (soft labels), which
 * for the original itself makes the gradient zero and the Hessian the Gauss-Newton matrix. */
#include <math.h>
#include <string.h>

#include "ir/process.h"
#include "passes/score/criteria.h"

const Criterion criteria[] = {
#define CRITERION(name, function, grouped, data, help) {name, function, grouped, data, help},
#include "passes/score/criteria.def"
#undef CRITERION
    {NULL, NULL, false, false, NULL},
};

const Criterion *criterion_find(const char *name)
{
    for (const Criterion *c = criteria; name && c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

/* ---- pieces ------------------------------------------------------------------------- */

void moments_add(Moments *m, double x)
{
    double delta = x - m->mean;
    m->mean += delta / (double)++m->n;
    m->m2 += delta * (x - m->mean);
}

double moments_error(const Moments *m)
{
    if (m->n < 2) return 0;
    return sqrt(m->m2 / (double)(m->n - 1) / (double)m->n);
}

/* Sum of |w|^power over the slice c of the weight's output axis. */
static double norm_power(const ScoredLayer *l, int64_t c, int power, int64_t *numel)
{
    const Type *t = &l->weight->type;
    const float *w = l->weight->data;
    int64_t inner = 1, outer = 1;
    double sum = 0;
    for (int k = 0; k < t->rank; k++)
        *(k < l->axis ? &outer : &inner) *= k == l->axis ? 1 : t->dim[k];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            double x = fabs((double)w[(o * l->channels + c) * inner + i]);
            sum += power == 1 ? x : x * x;
        }
    if (numel) *numel = outer * inner;
    return sum;
}

double channel_norm2(const ScoredLayer *l, int64_t c, int64_t *numel)
{
    return norm_power(l, c, 2, numel);
}

double channel_norm1(const ScoredLayer *l, int64_t c) { return norm_power(l, c, 1, NULL); }

const double *relative_norms(Scoring *s, double scale)
{
    const Groups *gr = s->groups;
    double *x = NEW_ARRAY(s->arena, double, gr->first[gr->nlayers]);
    for (int k = 0; k < gr->nlayers; k++)
        for (int64_t c = 0; c < gr->layers[k].channels; c++) {
            int64_t numel;
            double norm = channel_norm2(&gr->layers[k], c, &numel);
            x[gr->first[k] + c] = scale * norm / (double)numel;
        }
    return x;
}

/* ---- preparation -------------------------------------------------------------------- */

/* Samples in whole shards when there are enough for one, so that repeats weigh nothing. */
static int64_t samples_to_use(const Context *c, int wanted, int64_t shard)
{
    int64_t n = wanted > 0 ? wanted : samples_affordable(c->graph, &c->opt, 512);
    if (n > c->data->count) n = c->data->count;
    return n > shard ? n - n % shard : n;
}

/* The original's output over the samples: probabilities for classifiers. */
static int soft_targets(Scoring *s)
{
    const Context *c = s->c;
    Rows y;
    TRY(forward_rows(&y, s->arena, c->original ? c->original : c->graph, NULL, c->data, s->n, NULL,
                     &c->opt, c->diag));
    if (s->classifier) softmax_rows(y.x, s->n, y.row);
    s->soft = y.x;
    s->target_axis = y.axis;
    return 0;
}

static int prepare_data(Scoring *s, int batch)
{
    Context *c = s->c;
    if (!c->data || c->data->count == 0)
        return diag_error(c->diag, "the criterion needs samples and there are none");
    s->shard = shard_size(c->graph, c->data, 0);
    s->n = samples_to_use(c, batch, s->shard);
    TRY(shard_specialize(&s->model, c->graph, s->arena, c->data, -1, c->diag));
    const Value *y = graph_logits(s->model);
    s->classifier = y && y->type.rank == 2;
    if (s->classifier && c->data->labels) return 0;
    return soft_targets(s);
}

static const char *option_text(Context *c, const char *opt, const char *key, const char *given,
                               const char *otherwise)
{
    const char *text = pass_option(c, opt, key);
    return text ? text : given ? given : otherwise;
}

/* ---- results ------------------------------------------------------------------------ */

static Scores *scores_of(const Scoring *s, const Criterion *criterion)
{
    Arena *a = s->c->arena;
    Scores *out = NEW(a, Scores);
    const Groups *gr = s->groups;
    *out = (Scores){.criterion = criterion->name,
                    .precision = precision_name(s->precision),
                    .probes = s->used,
                    .peak_bytes = s->bytes,
                    .nlayers = gr->nlayers,
                    .layers = NEW_ARRAY(a, LayerScores, gr->nlayers)};
    for (int k = 0; k < gr->nlayers; k++) {
        const ScoredLayer *l = &gr->layers[k];
        size_t bytes = (size_t)l->channels * sizeof(double);
        out->layers[k] = (LayerScores){.node = arena_strdup(a, l->node->name ? l->node->name : ""),
                                       .weight = arena_strdup(a, l->weight->name),
                                       .n = (int)l->channels,
                                       .score = arena_memdup(a, s->score + gr->first[k], bytes),
                                       .error = arena_memdup(a, s->error + gr->first[k], bytes)};
    }
    return out;
}

static int score(Scoring *s, const Criterion *criterion, int batch)
{
    Context *c = s->c;
    s->model = c->graph;
    if (criterion->data) TRY(prepare_data(s, batch));
    s->groups = groups_find(s->model, &c->opt, s->arena);
    if (s->groups->nlayers == 0)
        return diag_error(c->diag, "the network has no convolution or product with a constant "
                                   "weight: there is nothing to score");
    int channels = s->groups->first[s->groups->nlayers];
    s->score = NEW_ARRAY(s->arena, double, channels);
    s->error = NEW_ARRAY(s->arena, double, channels);
    double start = process_seconds();
    TRY(criterion->run(s));
    c->scores = scores_of(s, criterion);
    c->scores->seconds = process_seconds() - start;
    if (s->bytes > c->peak_bytes) c->peak_bytes = s->bytes;
    return 0;
}

int pass_sensitivity(Context *c, const char *opt)
{
    const char *name = option_text(c, opt, "criterion", c->opt.criterion, "gate-ggn");
    const char *precision = option_text(c, opt, "precision", c->opt.precision, "fp32");
    const Criterion *criterion = criterion_find(name);
    if (!criterion) return diag_error(c->diag, "there is no criterion '%s'", name);
    const DType storage = precision_for(precision, PRECISION_SCORES, c->opt.device);
    if (storage == DT_NONE)
        return diag_error(c->diag, "precision is '%s', it must be fp32, fp16 or bf16", precision);
    int64_t probes = c->opt.probes, batch = c->opt.batch;
    TRY(pass_int(&probes, c, opt, "probes", 0));
    TRY(pass_int(&batch, c, opt, "batch", 0));
    Scoring s = {.c = c, .arena = arena_new(), .precision = storage, .probes = (int)probes};
    int status = score(&s, criterion, (int)batch);
    arena_free(s.arena);
    return status;
}
