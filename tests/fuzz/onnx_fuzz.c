/* Any bytes as an ONNX model: an error, or a graph that can be checked and written, read again and
 * inferred. What is written must be readable. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "frontend/frontend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reread(Arena *a, const Graph *g)
{
    Diag d = {0};
    Graph *h;
    void *p;
    size_t n;
    if (onnx_serialize(g, NULL, &p, &n, &d) < 0) {
        if (d.errors == 0) abort();
        return;
    }
    d = diag_stderr("what was written");
    if (onnx_read_memory(&h, a, p, n, NULL, &d) < 0) abort();
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Arena *a = arena_new();
    Graph *g;
    Diag d = {0};
    Trap t;
    if (trap_enter(&t) == 0) {
        if (onnx_read_memory(&g, a, data, size, NULL, &d) == 0) {
            if (graph_infer(g, &d) == 0) reread(a, g);
        } else if (d.errors == 0) {
            abort();
        }
        trap_leave(&t);
    } else if (t.kind != TRAP_NO_MEMORY) {
        fprintf(stderr, "%s\n", t.message);
        abort();
    }
    arena_free(a);
    return 0;
}
