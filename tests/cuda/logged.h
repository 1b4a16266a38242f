/* The log of the emulated device, and programs that run on it. */
#ifndef EHAP_TESTS_CUDA_LOGGED_H
#define EHAP_TESTS_CUDA_LOGGED_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "passes/batches.h"
#include "tests/types.h"
#include "tests/unit/small_net.h"

static char path[] = "/tmp/ehap_log_XXXXXX", last_message[512];

static inline void keep_message(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev;
    strncpy(last_message, text, sizeof last_message - 1);
}

static inline void forget(void) { assert_int_equal(truncate(path, 0), 0); }

/* The log since the last forget(); static. */
static inline const char *logged(void)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static inline int count(const char *what)
{
    int n = 0;
    for (const char *s = logged(); (s = strstr(s, what)); s += strlen(what)) n++;
    return n;
}

static inline void must_say(const char *text)
{
    if (!count(text)) fail_msg("'%s' is not in:\n%s", text, logged());
}

static inline Value *param(Graph *g, Type t, float scale)
{
    const int64_t n = type_count(&t);
    float *x = NEW_ARRAY(g->arena, float, n);
    Rng r = rng_new(5, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) x[i] = scale * rng_normal(&r);
    return value_const(g, "p", t, x);
}

static inline Value *cast(Value *v, DType to)
{
    return build(v->graph, OP_Cast, IN(v), ATTRS(attr_int("to", to)));
}

typedef struct Running {
    Program *p;
    Instance *i;
} Running;

static inline Running start(const Graph *g, const char *device, const uint8_t *stage)
{
    Diag d = diag_stderr(NULL);
    Running r;
    assert_int_equal(
        program_compile(&r.p, g, &(ProgramOptions){.device = device, .stage = stage}, &d), 0);
    assert_int_equal(instance_new(&r.i, r.p, &d), 0);
    return r;
}

static inline void stop(Running r)
{
    instance_free(r.i);
    program_free(r.p);
}

/* w = z * v + y over three stages, as training and probing run them. */
static inline Graph *staged_graph(Arena *a)
{
    Graph *g = graph_new(a, "stages");
    const Type t = TYPE(DT_F32, 4);
    Value *x = graph_add_input(g, "x", t), *b = graph_add_input(g, "b", t);
    Value *key = graph_add_input(g, "key", TYPE(DT_I64, 2));
    Value *z = build(g, OP_Add, IN(build(g, OP_Mul, IN(x, x), NO_ATTRS), b), NO_ATTRS);
    Value *v = build(g, OP_Rademacher, IN(key), ATTRS(attr_ints("shape", 1, (int64_t[]){4})));
    Value *y = build(g, OP_Mul, IN(z, v), NO_ATTRS);
    graph_add_output(g, y);
    graph_add_output(g, build(g, OP_ReduceSum, IN(y, CONST_INTS(g, 0)), NO_ATTRS));
    return g;
}

static const uint8_t stages[] = {0, 1, 2};
static const float xs[4] = {1, 2, 3, 4}, bs[4] = {0.5F, 1, 1, -1};

static inline void bind_staged(Running r, const int64_t *key)
{
    instance_bind(r.i, 0, xs);
    instance_bind(r.i, 1, bs);
    instance_bind(r.i, 2, key);
}

/* Runs the tests with a log of their own. */
#define RUN_LOGGED(tests)                                                                          \
    do {                                                                                           \
        if (mkstemp(path) < 0) return 1;                                                           \
        setenv("EHAP_EMULATED_LOG", path, 1);                                                      \
        const int failures = cmocka_run_group_tests(tests, NULL, NULL);                            \
        unlink(path);                                                                              \
        return failures;                                                                           \
    } while (0)

#endif
