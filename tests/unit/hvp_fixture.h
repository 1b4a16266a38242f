/* For tests of the curvature programs: networks in text whose inputs behind the first become
 * constants, random data for them, and running a program of hvp.h. */
#ifndef EHAP_TESTS_HVP_FIXTURE_H
#define EHAP_TESTS_HVP_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ir/text.h"
#include "passes/derive/hvp.h"

enum { CLASSES = 3 };

typedef struct Net {
    Arena *a;
    Diag d;
    Graph *g;
    int64_t batch;
    float *x, *target;
} Net;

static inline float fixture_uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*seed >> 40) / (double)(1 << 24));
}

/* Weights are uniform, of variance 1 / fan-in (`gain` 1); scales and variances (names in s, v)
 * around 1. Class k % CLASSES for sample k. */
static inline Net net_new(const char *text, int64_t batch)
{
    Net n = {.a = arena_new(), .d = diag_stderr("net"), .batch = batch};
    uint64_t seed = 7;
    if (ir_parse(&n.g, n.a, text, strlen(text), NULL, &n.d) < 0) fail();
    for (int i = 1; i < n.g->ninputs; i++) {
        Value *w = n.g->inputs[i];
        int64_t count = type_count(&w->type), fan = count / w->type.dim[0];
        float *data = NEW_ARRAY(n.a, float, count);
        float width = fan > 1 ? sqrtf(12.f / (float)fan) : 1;
        for (int64_t k = 0; k < count; k++)
            data[k] = w->name[0] == 'v' || w->name[0] == 's'
                          ? 0.5f + fixture_uniform(&seed)
                          : (fixture_uniform(&seed) - 0.5f) * width;
        w->data = data;
    }
    n.g->ninputs = 1;
    int64_t sample = 1;
    for (int i = 1; i < n.g->inputs[0]->type.rank; i++) sample *= n.g->inputs[0]->type.dim[i];
    n.x = NEW_ARRAY(n.a, float, batch *sample);
    n.target = NEW_ARRAY(n.a, float, batch *CLASSES);
    for (int64_t k = 0; k < batch * sample; k++) n.x[k] = 2 * fixture_uniform(&seed) - 1;
    for (int64_t k = 0; k < batch; k++) n.target[k * CLASSES + k % CLASSES] = 1;
    return n;
}

/* What a program is run with; entries that it has no input for are not used. */
typedef struct Binding {
    int64_t key[2];
    float cls[CLASSES], loss_scale, probe_scale;
} Binding;

static const Binding plain = {.key = {11, 5}, .loss_scale = 1, .probe_scale = 1};

typedef struct Runner {
    Program *p;
    Instance *i;
} Runner;

static inline Runner runner_new(const Hvp *h, const char *device, Diag *d)
{
    Runner r;
    ProgramOptions o = {.device = device, .stage = h->stage};
    assert_int_equal(program_compile(&r.p, h->g, &o, d), 0);
    assert_int_equal(instance_new(&r.i, r.p, d), 0);
    return r;
}

static inline void runner_free(Runner r)
{
    instance_free(r.i);
    program_free(r.p);
}

static inline void bind(Runner r, int input, const void *p)
{
    if (input >= 0) instance_bind(r.i, input, p);
}

/* Runs and reads the layers' outputs, end to end. */
static inline void run(Runner r, const Hvp *h, const Net *n, const Binding *b, float *out)
{
    bind(r, 0, n->x);
    bind(r, h->in_target, n->target);
    bind(r, h->in_key, b->key);
    bind(r, h->in_class, b->cls);
    bind(r, h->in_loss_scale, &b->loss_scale);
    bind(r, h->in_probe_scale, &b->probe_scale);
    instance_run_all(r.i);
    for (int i = 0; i < h->nlayers; i++) {
        instance_read(r.i, h->out_layer[i], out);
        out += type_count(&h->g->outputs[h->out_layer[i]]->type);
    }
}

/* Within tol of the largest of want[], which are not all zero. */
static inline void check_close(const char *what, const float *got, const float *want, int n,
                               double tol)
{
    double largest = 0;
    for (int k = 0; k < n; k++) largest = fmax(largest, fabs((double)want[k]));
    if (largest == 0) fail_msg("%s: all zeros", what);
    for (int k = 0; k < n; k++)
        if (!(fabs((double)got[k] - (double)want[k]) <= tol * largest))
            fail_msg("%s[%d] is %g, should be %g", what, k, (double)got[k], (double)want[k]);
}

#endif
