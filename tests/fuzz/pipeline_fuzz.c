/* Any bytes as a small network (random_net.h), by way of its ONNX file through the whole job. All
 * that is made is well formed; what is removed equals what is zeroed; what is written is readable.
 * Such networks are valid, so an error is a bug, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "frontend/frontend.h"
#include "ir/digest.h"
#include "ir/text.h"
#include "passes/halves.h"
#include "passes/prune/remove_channels.h"
#include "passes/synthesize.h"
#include "passes/tail.h"
#include "tests/fuzz/random_net.h"
#include "tests/removal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SAMPLES = 6 };

static void check(bool good, const char *what, const Graph *g)
{
    if (good) return;
    Arena *a = arena_new();
    fprintf(stderr, "%s\n%s", what, ir_print(g, a, &(PrintOptions){.max_inline = 8}));
    abort();
}

/* What is read from g's file. */
static Graph *reread(Arena *a, const Graph *g, Diag *d)
{
    Graph *h = NULL;
    void *p;
    size_t n;
    check(onnx_serialize(g, NULL, &p, &n, d) == 0, "cannot be written", g);
    Bytes b = {arena_memdup(a, p, n), n};
    free(p);
    check(onnx_read_memory(&h, a, b.p, b.n, NULL, d) == 0, "what was written", g);
    check(graph_verify(h, d) == 0 && onnx_check_weights(h, d) == 0, "what was read", g);
    return h;
}

static void remove_at_random(Arena *a, const Graph *original, uint64_t seed, Diag *d)
{
    int chosen;
    double worst = 0;
    Graph *g = graph_clone(original, a, NULL);
    Lanes *l = lanes_new(g, a);
    if (seed % 2) lanes_prefer_heads(l);
    lanes_run(l);
    const bool *removed = random_removal(l, a, seed, &chosen);
    Graph *zeroed = channels_masked(g, l, removed, a);
    Diag quiet = {0}; /* the last channel of an axis stays */
    if (channels_remove(g, l, removed, &quiet) < 0) return;
    check(graph_verify(g, d) == 0, "after removal", original);
    check(graphs_differ(&worst, zeroed, g, NULL, seed, d) == 0, "comparison", original);
    if (!(worst < 1e-4)) fprintf(stderr, "removed and zeroed differ by %g\n", worst);
    check(worst < 1e-4, "removal", original);
    reread(a, g, d);
}

static int job(Context *c, uint64_t seed)
{
    static const char *const criteria[] = {"l1", "gate-ggn", "random", "ehap-ggn", "taylor"};
    const Value *y = graph_logits(c->graph); /* the last two want [batch, classes] */
    c->opt.criterion = criteria[seed / 2 % (y && y->type.rank == 2 ? 5 : 3)];
    if (allocate_possible(c) == 0) {
        TRY(pass_run_pipeline(c, "sensitivity"));
        TRY(pass_run_pipeline(c, "allocate{channels=0.6;align=1}"));
        if (c->removed) TRY(pass_run_pipeline(c, "remove-channels,reconstruct"));
    }
    TRY(pass_run_pipeline(c, "fold-bn,fake-quant"));
    if (seed % 3 == 0 && allocate_layers(c->graph) > 0) TRY(pass_run_pipeline(c, "train{steps=2}"));
    return pass_run_pipeline(c, "quantize");
}

/* The whole model again, with what was set aside. */
static void put_together(Arena *a, Graph *g, const Tail *tail, const Halves *halves, Diag *d)
{
    Graph *whole = graph_clone(g, a, NULL);
    if (tail) check(tail_attach(whole, tail, d) == 0, "putting the tail back", g);
    if (tail) tail_free_bodies(whole);
    if (halves) check(halves_narrow(whole, halves, false, d) == 0, "halves again", g);
    reread(a, whole, d);
}

/* --shape for sizes that are open: small ones. */
static const char *small_shape(Arena *a, const Graph *g)
{
    const Type *t = &g->inputs[0]->type;
    const char *text = "x=";
    for (int i = 0; i < t->rank; i++)
        text = arena_printf(a, "%s%s%lld", text, i ? "x" : "",
                            (long long)(t->dim[i] >= 0 ? t->dim[i]
                                        : i            ? 6
                                                       : 1));
    return text;
}

static void run_job(Arena *a, Graph *g, uint64_t seed, Diag *d)
{
    static const char *const targets[] = {"ort", "tensorrt", "openvino", "qnn", "portable"};
    Samples *s = NULL;
    Context c = {.arena = a, .graph = g, .diag = d};
    c.opt = (Options){.device = seed % 5 ? "cpu" : "ref",
                      .threads = 1,
                      .batch = 3,
                      .probes = 4,
                      .precision = "fp32",
                      .target = targets[seed % 5],
                      .shape = small_shape(a, g),
                      .verify = true};
    Tail *tail;
    Diag quiet = {0};
    Halves *halves;
    check(halves_widen(&halves, g, a, d) == 0, "halves to float", g);
    int set_aside = tail_detach(&tail, g, true, a, &quiet);
    check(set_aside >= 0, "setting aside", g);
    if (set_aside == STATUS_NOTHING) return;
    check(pass_run(&c, pass_find("canonicalize"), "") == 0, "canonicalize", g);
    c.original = graph_clone(c.graph, a, NULL);
    remove_at_random(a, c.original, seed, d);
    check(sizes_choose(&c) == 0 && synthesize(&s, &c, SAMPLES) == 0, "samples", g);
    c.data = s;
    sizes_of_samples(&c, s);
    check(job(&c, seed) >= 0, "the job", c.original);
    put_together(a, c.graph, tail, halves, d);
}

/* Only errors matter, and only when they come from a bug: they are held until then. */
static void print_errors(void *ctx, Severity sev, const char *text)
{
    (void)ctx;
    if (sev == SEV_ERROR) fprintf(stderr, "%s\n", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Arena *a = arena_new();
    Diag d = {.sink = print_errors};
    Trap t;
    if (trap_enter(&t) == 0) {
        Graph *g = random_net(a, data, size);
        check(graph_verify(g, &d) == 0, "the generator", g);
        run_job(a, reread(a, g, &d), digest(DIGEST_START, data, size), &d);
        trap_leave(&t);
    } else {
        fprintf(stderr, "%s\n", t.message);
        abort();
    }
    arena_free(a);
    return 0;
}
