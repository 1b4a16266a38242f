/* SGD with Nesterov momentum (Sutskever et al. 2013, in the form that evaluates the gradient at the
 * current point) and AdamW (Loshchilov and Hutter 2019). Learned scales take Adam steps of their
 * logarithm: gradients of a quantizer's scale grow with the number of elements that it rounds, and
 * the normalized step is free of that. */
#include "passes/train/optimizer.h"

#include <math.h>

#include "ir/simd.h"

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

/* In as many sums as a vector holds. */
CLONES static double square_sum(const float *x, int64_t n)
{
    enum { SUMS = 16 };
    double sum[SUMS] = {0}, all = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int k = 0; k < SUMS; k++) sum[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++) all += (double)x[i] * (double)x[i];
    for (int k = 0; k < SUMS; k++) all += sum[k];
    return all;
}

/* Of the parameters that share the learning rate; scales have a step of their own. */
static double gradient_norm(const Parameter *p, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const double part = square_sum(p[i].grad, p[i].count);
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

/* Adam's numbers for one parameter and step; m and v: what makes moments those of all steps. */
typedef struct Adam {
    float beta1, beta2, m, v, lr, decay;
} Adam;

static Adam adam_of(const Optimizer *o, const Parameter *p, float lr)
{
    const double t = (double)o->step;
    return (Adam){.beta1 = o->momentum,
                  .beta2 = o->beta2,
                  .m = (float)(1 / (1 - pow(o->momentum, t))),
                  .v = (float)(1 / (1 - pow(o->beta2, t))),
                  .lr = lr,
                  .decay = p->decay ? o->weight_decay : 0};
}

/* The bias-corrected direction m^ / (sqrt(v^) + eps) for gradient g, moments updated. */
static inline float adam_direction(Adam a, float *m, float *v, float g)
{
    *m = a.beta1 * *m + (1 - a.beta1) * g;
    *v = a.beta2 * *v + (1 - a.beta2) * g * g;
    return *m * a.m / (sqrtf(*v * a.v) + 1e-8f);
}

CLONES static void step_adamw(Adam a, int64_t n, float *restrict w, float *restrict m,
                              float *restrict v, const float *restrict g)
{
    for (int64_t k = 0; k < n; k++)
        w[k] -= a.lr * (adam_direction(a, m + k, v + k, g[k]) + a.decay * w[k]);
}

/* d loss / d log s = s d loss / d s */
static void step_positive(Adam a, Parameter *p)
{
    for (int64_t k = 0; k < p->count; k++) {
        const float d = adam_direction(a, p->m + k, p->v + k, p->grad[k] * p->data[k]);
        p->data[k] *= expf(-a.lr * d);
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
            step_positive(adam_of(o, &p[i], (float)positive_lr), &p[i]);
            continue;
        }
        if (shrink < 1)
            for (int64_t k = 0; k < p[i].count; k++) p[i].grad[k] *= shrink;
        if (o->kind == OPTIMIZER_SGD)
            step_sgd(o, &p[i], (float)lr);
        else
            step_adamw(adam_of(o, &p[i], (float)lr), p[i].count, p[i].data, p[i].m, p[i].v,
                       p[i].grad);
    }
    return norm;
}

double schedule_cosine(double progress, double warmup)
{
    if (progress < warmup) return progress / warmup;
    double rest = (progress - warmup) / (1 - warmup);
    return 0.5 * (1 + cos(3.14159265358979323846 * (rest < 1 ? rest : 1)));
}
