/* SGD with Nesterov momentum (Sutskever et al. 2013, in the form that evaluates the gradient at the
 * current point) and AdamW (Loshchilov and Hutter 2019). Learned scales take Adam steps of their
 * logarithm: gradients of a quantiser's scale grow with the number of elements that it rounds, and
 * the normalised step is free of that. */
#include "passes/optimizer.h"

#include <math.h>

Optimizer optimizer_new(OptimizerKind kind)
{
    return (Optimizer){.kind = kind,
                       .momentum = 0.9f,
                       .beta2 = 0.999f,
                       .weight_decay = kind == OPTIMIZER_SGD ? 5e-4f : 1e-2f,
                       .clip_norm = 5.0f};
}

void optimizer_init(Parameter *p, int n, Arena *a)
{
    for (int i = 0; i < n; i++) {
        p[i].m = NEW_ARRAY(a, float, p[i].count);
        p[i].v = NEW_ARRAY(a, float, p[i].count);
    }
}

/* Of the parameters that share the learning rate; scales have a step of their own. */
static double gradient_norm(const Parameter *p, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double part = 0;
        for (int64_t k = 0; k < p[i].count; k++) part += (double)p[i].grad[k] * p[i].grad[k];
        if (!p[i].positive || !isfinite(part)) sum += part;
    }
    return sqrt(sum);
}

/* v <- mu v + g;  w <- w - lr (g + mu v) */
static void step_sgd(const Optimizer *o, Parameter *p, float lr)
{
    float mu = o->momentum, decay = p->decay ? o->weight_decay : 0;
    for (int64_t k = 0; k < p->count; k++) {
        float g = p->grad[k] + decay * p->data[k];
        p->m[k] = mu * p->m[k] + g;
        p->data[k] -= lr * (g + mu * p->m[k]);
    }
}

/* What divides Adam's moments at this step, so that they are those of all steps: m^ and v^. */
typedef struct Bias {
    double m, v;
} Bias;

static Bias adam_bias(const Optimizer *o)
{
    const double t = (double)o->step;
    return (Bias){1 - pow(o->momentum, t), 1 - pow(o->beta2, t)};
}

/* The bias-corrected Adam direction m^ / (sqrt(v^) + eps) of element k, moments updated. */
static float adam_direction(const Optimizer *o, Bias b, Parameter *p, int64_t k, float g)
{
    p->m[k] = o->momentum * p->m[k] + (1 - o->momentum) * g;
    p->v[k] = o->beta2 * p->v[k] + (1 - o->beta2) * g * g;
    return (float)(p->m[k] / b.m / (sqrt(p->v[k] / b.v) + 1e-8));
}

static void step_adamw(const Optimizer *o, Parameter *p, float lr)
{
    float decay = p->decay ? o->weight_decay : 0;
    const Bias b = adam_bias(o);
    for (int64_t k = 0; k < p->count; k++) {
        float d = adam_direction(o, b, p, k, p->grad[k]);
        p->data[k] -= lr * (d + decay * p->data[k]);
    }
}

/* d loss / d log s = s d loss / d s */
static void step_positive(const Optimizer *o, Parameter *p, float lr)
{
    const Bias b = adam_bias(o);
    for (int64_t k = 0; k < p->count; k++) {
        float d = adam_direction(o, b, p, k, p->grad[k] * p->data[k]);
        p->data[k] *= expf(-lr * d);
        if (p->least > 0) p->data[k] = fmaxf(p->data[k], p->least);
        if (p->most > 0) p->data[k] = fminf(p->data[k], p->most);
    }
}

double optimizer_step(Optimizer *o, Parameter *p, int n, double lr, double positive_lr)
{
    double norm = gradient_norm(p, n);
    if (!isfinite(norm)) return norm;
    float shrink = o->clip_norm > 0 && norm > o->clip_norm ? (float)(o->clip_norm / norm) : 1;
    o->step++;
    for (int i = 0; i < n; i++) {
        if (p[i].positive) {
            step_positive(o, &p[i], (float)positive_lr);
            continue;
        }
        if (shrink < 1)
            for (int64_t k = 0; k < p[i].count; k++) p[i].grad[k] *= shrink;
        if (o->kind == OPTIMIZER_SGD)
            step_sgd(o, &p[i], (float)lr);
        else
            step_adamw(o, &p[i], (float)lr);
    }
    return norm;
}

double schedule_cosine(double progress, double warmup)
{
    if (progress < warmup) return progress / warmup;
    double rest = (progress - warmup) / (1 - warmup);
    return 0.5 * (1 + cos(3.14159265358979323846 * (rest < 1 ? rest : 1)));
}
