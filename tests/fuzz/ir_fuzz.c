/* Any bytes as the text of a graph: an error, or a graph that, if it verifies, prints as text that
 * reads as the same graph, and stays well formed through the simplifications. A text may hold
 * several graphs, as the text tests do, under `# === ` headings. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text.h"
#include "passes/passes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(Arena *a, const Graph *g)
{
    PrintOptions all = {.max_inline = -1};
    Diag d = diag_stderr("what was printed");
    char why[512];
    Graph *again;
    const char *text = ir_print(g, a, &all);
    if (ir_parse(&again, a, text, strlen(text), NULL, &d) < 0) abort();
    if (graph_equal(g, again, why, sizeof why)) return;
    fprintf(stderr, "%s\n%s", why, text);
    abort();
}

static void simplify(Arena *a, Graph *g)
{
    Diag d = {0};
    Context c = {.arena = a, .graph = g, .diag = &d, .opt = {.verify = true}};
    if (pass_run_pipeline(&c, "canonicalize,fold-bn,insert-bn,canonicalize") < 0) {
        if (d.errors == 0) abort();
        return;
    }
    check_same(a, c.graph);
}

static void run_text(Arena *a, const char *text, size_t n)
{
    Diag d = {0};
    Graph *g;
    if (ir_parse(&g, a, text, n, NULL, &d) < 0) {
        if (d.errors == 0) abort();
        return;
    }
    if (graph_verify(g, &d) < 0) return;
    check_same(a, g);
    simplify(a, g);
}

static void run_guarded(const char *text, size_t n)
{
    Arena *a = arena_new();
    Trap t;
    if (trap_enter(&t) == 0) {
        run_text(a, text, n);
        trap_leave(&t);
    } else if (t.kind != TRAP_NO_MEMORY) {
        fprintf(stderr, "%s\n", t.message);
        abort();
    }
    arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char heading[] = "\n# === ";
    const char *s = (const char *)data, *end = s + size;
    while (s < end) {
        const char *next = memmem(s, (size_t)(end - s), heading, sizeof heading - 1);
        size_t n = next ? (size_t)(next - s) + 1 : (size_t)(end - s);
        run_guarded(s, n);
        s += n;
    }
    return 0;
}
