/* The memory that passes announce before they run, against the largest resident set that they
 * came to: within 5 % of what they took above the program with its model loaded. Each pass runs in
 * a process of its own, as peaks do not go down. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/frontend.h"
#include "ir/process.h"
#include "passes/passes.h"

enum { PIXELS = 28 * 28, COUNT = 2048 };

static void print(void *ctx, Severity sev, const char *text)
{
    (void)ctx, (void)sev;
    fprintf(stderr, "%s\n", text);
}

static Samples *noise(Arena *a)
{
    Samples *s = NEW(a, Samples);
    uint8_t *x = arena_alloc(a, (size_t)COUNT * PIXELS);
    float *factor = NEW(a, float), *shift = NEW(a, float);
    Rng r = rng_new(1, 1);
    for (int64_t i = 0; i < (int64_t)COUNT * PIXELS; i++) x[i] = (uint8_t)rng_below(&r, 256);
    *factor = 1.0F / 64;
    *shift = 128;
    s->count = COUNT;
    s->ninputs = 1;
    s->inputs = NEW(a, SampleInput);
    s->inputs[0] = (SampleInput){.type = type_of(DT_U8, 3, (int64_t[]){1, 28, 28}),
                                 .data = x,
                                 .channel_axis = -1,
                                 .factor = factor,
                                 .shift = shift};
    s->source = "noise";
    return s;
}

/* Runs the pipeline, of which the last pass counts. */
static int run(const char *pipeline, int threads, size_t memory)
{
    Arena *a = arena_new();
    Diag d = {.sink = print};
    Context c = {.arena = a, .diag = &d};
    c.opt = (Options){.device = "cpu",
                      .threads = threads,
                      .seed = 1,
                      .memory = memory,
                      .keep = 0.5,
                      .whole_process = true};
    if (onnx_read(&c.graph, a, TEST_DIR "/../examples/fashion_resnet.onnx", &d) < 0) return 2;
    if (pass_run(&c, pass_find("canonicalize"), "") < 0) return 2;
    c.original = graph_clone(c.graph, a, NULL);
    c.data = noise(a);
    const double rest = (double)process_resident();
    if (pass_run_pipeline(&c, pipeline) != 0) return 2;
    const PassRecord *last = &c.report.passes[c.report.npasses - 1];
    const double said = (double)last->peak_bytes, took = (double)process_peak_resident();
    printf("%s, %d threads: at rest %.1f MiB, announced %.1f, took %.1f: %.3f\n", last->name,
           threads, rest / 1048576, said / 1048576, took / 1048576, (took - rest) / (said - rest));
    fflush(stdout);
    if (memory && took > 1.02 * (double)memory) return 1;
    return fabs(took - said) <= 0.05 * (took - rest) ? 0 : 1;
}

static void check(const char *pipeline, int threads, size_t memory)
{
    int status;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(run(pipeline, threads, memory));
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("%s: status %d", pipeline, status);
}

static void it_is_what_passes_take(void **state)
{
    (void)state;
    static const char *const pipeline[] = {
        "sensitivity{criterion=ehap;precision=fp16;probes=2;batch=128}",
        "sensitivity{criterion=ehap;precision=fp16;probes=1;batch=512}",
        "sensitivity{criterion=gate-ggn}",
        "train{steps=2}",
        "fake-quant",
        "sensitivity{criterion=l1},allocate{flops=0.5},remove-channels,reconstruct{samples=512}",
    };
    for (size_t k = 0; k < sizeof pipeline / sizeof *pipeline; k++) check(pipeline[k], 2, 0);
    check(pipeline[0], 1, 0);
    check(pipeline[0], 4, 0);
}

/* --memory is kept by the process, not just by what it plans. */
static void limits_hold(void **state)
{
    (void)state;
    check("train{steps=2}", 4, (size_t)96 << 20);
    check("sensitivity{criterion=ehap;precision=fp16;probes=2;batch=128}", 8, (size_t)64 << 20);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    puts("skipped: the sanitizer's own memory counts");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_passes_take),
        cmocka_unit_test(limits_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
