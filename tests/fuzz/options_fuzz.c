/* Any bytes as the words of a command line, one a line. After `inspect`, which runs nothing but
 * what
 * --shape and the model ask for; or, where the first line is a pipeline in braces or of several
 * names, as --passes, as long as it names nothing that computes. No word may name a path.
 * A status other than bad input, usage and nothing-to-remove is a bug, and so is one without a
 * message. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "ehap.h"
#include "frontend/frontend.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int ehapc_main(int argc, char **argv); /* tools/ehapc.c, its main renamed */

enum { MOST_WORDS = 24 };

/* A model with open dimensions, and a few samples. */
static void write_model(void)
{
    Arena *a = arena_new();
    Diag d = diag_stderr("options");
    Graph *g = graph_new(a, "open");
    Type t =
        type_of(DT_F32, 4,
                (int64_t[]){graph_symbol(g, "N"), 3, graph_symbol(g, "H"), graph_symbol(g, "W")});
    float w[16 * 3];
    for (int i = 0; i < 16 * 3; i++) w[i] = (float)(i % 7 - 3);
    Value *x = graph_add_input(g, "x", t);
    for (int k = 0; k < 3; k++) {
        Value *c = value_const(g, "w", type_of(DT_F32, 4, (int64_t[]){k ? 3 : 8, k ? 8 : 3, 1, 1}),
                               arena_memdup(a, w, sizeof w));
        if (k < 2) x = build(g, OP_Conv, IN(x, c), NO_ATTRS);
        x = build(g, OP_Relu, IN(x), NO_ATTRS);
    }
    graph_add_output(g, build(g, OP_GlobalAveragePool, IN(x), NO_ATTRS));
    float samples[4 * 3 * 16] = {1, 2, 3};
    NamedArray few = {"x", type_of(DT_F32, 4, (int64_t[]){4, 3, 4, 4}), samples};
    if (npz_write("d.npz", &few, 1, &d) < 0 || onnx_write(g, "in.onnx", NULL, &d) < 0) abort();
    arena_free(a);
}

/* Into a folder of its own, and back: the fuzzer's paths may be relative. */
static void enter_folder(void)
{
    static bool made;
    if (chdir(scratch_folder()) < 0) abort();
    if (!made) write_model();
    made = true;
}

static bool allowed(const char *s)
{
    static const char *const slow[] = {"train", "hvp",   "gate",   "ehap",   "taylor", "apoz",
                                       "grad",  "quant", "recons", "resume", "cuda"};
    for (size_t k = 0; k < sizeof slow / sizeof *slow; k++)
        if (strstr(s, slow[k])) return false;
    return !strchr(s, '/') && !strstr(s, "..");
}

static int run_pipeline(char *text)
{
    ehap *e = ehap_new(NULL, NULL);
    int status = ehap_set(e, "device", "ref");
    if (!status) status = ehap_set(e, "threads", "1");
    if (!status) status = ehap_set(e, "criterion", "l1");
    if (!status) status = ehap_set(e, "data", "d.npz");
    if (!status) status = ehap_load(e, "in.onnx");
    if (!status) status = ehap_run_passes(e, text);
    ehap_free(e);
    return status;
}

static int run_words(char **word, int n)
{
    static char program[] = "ehapc", inspect[] = "inspect", in[] = "in.onnx";
    char *argv[MOST_WORDS + 4] = {program, inspect, in};
    memcpy(argv + 3, word, (size_t)n * sizeof *word);
    return ehapc_main(3 + n, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enter_folder();
    char *text = malloc(size + 1), *rest = text, *word[MOST_WORDS], *one;
    int n = 0, status = 0;
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    while (n < MOST_WORDS && (one = strsep(&rest, "\n")))
        if (*one) word[n++] = one;
    bool fine = true;
    for (int k = 0; k < n; k++) fine &= allowed(word[k]);
    if (fine && n)
        status = strpbrk(word[0], "{,") && word[0][0] != '-' ? run_pipeline(word[0])
                                                             : run_words(word, n);
    free(text);
    if (fchdir(home) < 0) abort();
    close(home);
    if (status == EHAP_INTERNAL) abort();
    return 0;
}
