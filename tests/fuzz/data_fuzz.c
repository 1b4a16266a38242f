/* Any bytes as sample files: an error, or samples all of which can be drawn as batches. The first
 * byte picks the format (images from 60 on, of 64), the second the model's input; a format byte of
 * 64 or more gives a
 * --preprocess text, of which the next byte is the length. The rest is the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"a.bin", "a-images-idx3-ubyte", "a.npy", "a.npz", "input_0.pb"};
enum { FORMATS = sizeof names / sizeof *names, MOST_ELEMENTS = 1 << 16 };

static void put(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n) abort();
    fclose(f);
}

static Graph *model(Arena *a, int which)
{
    static const DType types[] = {DT_F32, DT_F32, DT_I64, DT_U8, DT_F16};
    Graph *g = graph_new(a, "samples");
    int64_t n = graph_symbol(g, "N"), s = graph_symbol(g, "S");
    Type shapes[] = {type_of(DT_F32, 4, (int64_t[]){n, 1, 2, 3}),
                     type_of(DT_F32, 4, (int64_t[]){n, 2, 2, 3}),
                     type_of(DT_F32, 2, (int64_t[]){n, s}), type_of(DT_F32, 1, (int64_t[]){n}),
                     type_of(DT_F32, 0, NULL)};
    Type t = shapes[which % 5];
    t.dtype = types[which / 5 % 5];
    graph_add_input(g, "x", t);
    return g;
}

/* Every sample, as the network would get it. */
static void gather_all(Arena *a, const Graph *g, const Samples *s)
{
    const DType want = g->inputs[0]->type.dtype;
    const int64_t each = type_count(&s->inputs[0].type);
    if (each < 0) abort();
    void *row = arena_array(a, (size_t)each, 8);
    for (int64_t i = 0; i < s->count && i * each < MOST_ELEMENTS; i++) {
        samples_gather(s, 0, &i, 1, want, row);
        if (s->labels && (s->labels[i] < 0 || s->labels[i] >= s->nclasses)) abort();
    }
}

static void read_samples(Arena *a, const uint8_t *p, size_t n, Diag *d)
{
    const int kind = p[0], which = p[1];
    Preprocess pre = {.scale = 1};
    p += 2, n -= 2;
    if (kind >= 64 && n > 0) {
        size_t length = p[0] < n ? p[0] : n - 1;
        char *text = arena_alloc(a, length + 1);
        memcpy(text, p + 1, length);
        text[length] = '\0';
        if (preprocess_parse(&pre, text, d) < 0) return;
        p += length + 1, n -= length + 1;
    }
    char *path = arena_printf(a, "%s/%s", scratch_folder(),
                              kind % 64 < 60 ? names[kind % FORMATS] : "a.png");
    Samples *s;
    Graph *g = model(a, which);
    put(path, p, n);
    if (samples_read(&s, a, path, &pre, g, d) == 0) gather_all(a, g, s);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    Arena *a = arena_new();
    Diag d = {0};
    Trap t;
    if (trap_enter(&t) == 0) {
        read_samples(a, data, size, &d);
        trap_leave(&t);
    } else if (t.kind != TRAP_NO_MEMORY && t.kind != TRAP_INPUT) {
        fprintf(stderr, "%s\n", t.message);
        abort();
    }
    arena_free(a);
    return 0;
}
