/* The runner of text-IR tests. A file holds cases separated by lines `# === what it shows`:
 *
 *   # === a comment
 *   # RUN: canonicalize,dce          a pipeline of passes; without it the graph is only read
 *   # TARGET: tensorrt               whose layout the passes follow; the default otherwise
 *   # SAMPLES: 8                     so many samples, normally distributed, for passes that need
 * data g (float[N,3] x) => (float[N,3] y) { y = Cnov (x)  # error: unknown op 'Cnov'
 *   }
 *   # --- expected
 *   g (float[N,3] x) => ...          what the printer gives afterwards
 *
 * A comment `# error: TEXT` expects a message that contains TEXT; behind other text, it also
 * expects the message to name that line. A case that expects errors must fail, and has no
 * expected graph. Graphs are verified after reading and after every pass, and before and after
 * the passes parse(print(g)) == g must hold, with all constants in the text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text.h"
#include "passes/passes.h"

static const char separator[] = "# --- expected\n", heading[] = "# === ";

typedef struct Case {
    const char *text; /* of the case, NUL-terminated */
    int line;         /* of the file, where it starts */
    const char *file;
    Arena *arena;
    char *messages; /* all that were reported, one a line */
} Case;

/* ---- reading the case --------------------------------------------------------------- */

static const char *input_of(const Case *c)
{
    const char *cut = strstr(c->text, separator);
    return cut ? arena_printf(c->arena, "%.*s", (int)(cut - c->text), c->text) : c->text;
}

static const char *expected_of(const Case *c)
{
    const char *cut = strstr(c->text, separator);
    return cut ? cut + strlen(separator) : "";
}

/* The rest of the line that starts with `key`, or NULL. */
static const char *line_of(const Case *c, const char *key)
{
    const char *at = strstr(input_of(c), key);
    if (!at) return NULL;
    at += strlen(key);
    return arena_printf(c->arena, "%.*s", (int)strcspn(at, "\n"), at);
}

/* Samples for inputs whose dimensions but the first are numbers. */
static Samples *samples_for(const Case *c, const Graph *g, int64_t count)
{
    Samples *s = NEW(c->arena, Samples);
    s->inputs = NEW_ARRAY(c->arena, SampleInput, g->ninputs);
    s->count = count;
    s->ninputs = g->ninputs;
    s->source = "drawn";
    for (int k = 0; k < g->ninputs; k++) {
        const Type *t = &g->inputs[k]->type;
        Type one = type_of(t->dtype, t->rank - 1, t->dim + 1);
        int64_t n = type_count(&one) * count;
        float *x = NEW_ARRAY(c->arena, float, n);
        Rng r = rng_new(1, (uint64_t)k);
        for (int64_t i = 0; i < n; i++) x[i] = rng_normal(&r);
        s->inputs[k] = (SampleInput){.type = one, .data = x, .channel_axis = -1};
    }
    return s;
}

/* ---- running ------------------------------------------------------------------------ */

static void collect(void *ctx, Severity sev, const char *text)
{
    Case *c = ctx;
    if (sev == SEV_ERROR) c->messages = arena_printf(c->arena, "%s%s\n", c->messages, text);
}

static int check_round_trip(Case *c, const Graph *g, Diag *d)
{
    PrintOptions all = {.max_inline = -1};
    char why[512];
    Graph *again;
    const char *text = ir_print(g, c->arena, &all);
    TRY(ir_parse(&again, c->arena, text, strlen(text), NULL, d));
    if (graph_equal(g, again, why, sizeof why)) return 0;
    return diag_error(d, "reading what was printed gives another graph: %s", why);
}

static int run(Case *c, const char *input, Graph **out, Diag *d)
{
    const char *run = line_of(c, "# RUN: "), *samples = line_of(c, "# SAMPLES: ");
    Options o = {.verify = true, .device = "ref", .threads = 1, .target = line_of(c, "# TARGET: ")};
    Context ctx = {.arena = c->arena, .diag = d, .opt = o};
    TRY(ir_parse(&ctx.graph, c->arena, input, strlen(input), NULL, d));
    TRY(graph_verify(ctx.graph, d));
    TRY(check_round_trip(c, ctx.graph, d));
    ctx.original = graph_clone(ctx.graph, c->arena, NULL);
    if (samples) ctx.data = samples_for(c, ctx.graph, strtol(samples, NULL, 10));
    TRY(pass_run_pipeline(&ctx, run ? run : ""));
    TRY(graph_verify(ctx.graph, d));
    TRY(check_round_trip(c, ctx.graph, d));
    *out = ctx.graph;
    return 0;
}

/* The graph's text, or NULL after an error. */
static const char *result_of(Case *c)
{
    Diag d = {.file = "case", .sink = collect, .ctx = c};
    Graph *g = NULL;
    Trap t;
    c->messages = arena_strdup(c->arena, "");
    if (trap_enter(&t) == 0) {
        int status = run(c, input_of(c), &g, &d);
        trap_leave(&t);
        if (status < 0 && !d.errors) collect(c, SEV_ERROR, "error: failed without a message");
        return status < 0 ? NULL : ir_print(g, c->arena, NULL);
    }
    collect(c, SEV_ERROR, arena_printf(c->arena, "error: trap: %s", t.message));
    return NULL;
}

/* ---- judging ------------------------------------------------------------------------ */

static bool fail(const Case *c, const char *what, const char *detail)
{
    fprintf(stderr, "%s:%d: %s\n%s\n", c->file, c->line, what, detail);
    return false;
}

/* Whether some message contains the text, at that line of the case if line > 0. */
static bool was_reported(const Case *c, const char *text, int line)
{
    const char *place = arena_printf(c->arena, "case:%d:", line);
    for (const char *m = c->messages; *m; m += strcspn(m, "\n") + 1) {
        const char *one = arena_printf(c->arena, "%.*s", (int)strcspn(m, "\n"), m);
        if (strstr(one, text) && (!line || strstr(one, place))) return true;
    }
    return false;
}

/* Every `# error:` of the input; *n counts them. */
static bool check_errors(const Case *c, int *n)
{
    static const char mark[] = "# error: ";
    int line = 1;
    bool good = true;
    for (const char *s = input_of(c); *s; line++) {
        size_t length = strcspn(s, "\n");
        const char *one = arena_printf(c->arena, "%.*s", (int)length, s);
        const char *at = strstr(one, mark);
        if (at) {
            const char *text = at + strlen(mark);
            ++*n;
            if (!was_reported(c, text, at == one ? 0 : line))
                good = fail(c, arena_printf(c->arena, "expected at line %d: %s", line, text),
                            c->messages);
        }
        s += length + (s[length] == '\n');
    }
    return good;
}

static bool judge(const Case *c, const char *result)
{
    int wanted = 0;
    if (!check_errors(c, &wanted)) return false;
    if (wanted) return !result || fail(c, "this should have failed", result);
    if (!result) return fail(c, "this failed", c->messages);
    if (strcmp(result, expected_of(c)) == 0) return true;
    return fail(c, "the result is not the expected one; it is", result);
}

/* ---- files -------------------------------------------------------------------------- */

/* The case with its expectation replaced by what happened. */
static const char *blessed(const Case *c, const char *result)
{
    if (!result || strstr(c->text, "# error: ")) return c->text;
    return arena_printf(c->arena, "%s%s%s", input_of(c), separator, result);
}

static int count_lines(const char *s, const char *end)
{
    int n = 0;
    for (; s < end; s++) n += *s == '\n';
    return n;
}

static int write_back(const char *path, const Text *t)
{
    FILE *f = fopen(path, "wb");
    if (!f) return -1;
    bool written = fwrite(t->p, 1, t->n, f) == t->n;
    if (fclose(f) != 0 || !written) return -1;
    printf("blessed %s\n", path);
    return 0;
}

/* The number of cases that failed. */
static int check_file(const char *path, bool bless)
{
    Arena *a = arena_new();
    Diag d = diag_stderr(NULL);
    Bytes file;
    Text out = {.arena = a};
    int failed = file_read(&file, a, path, &d) < 0;
    for (const char *s = failed ? "" : file.p; *s;) {
        const char *next = strstr(s + 1, heading);
        size_t n = next ? (size_t)(next - s) : strlen(s);
        Case c = {arena_printf(a, "%.*s", (int)n, s), count_lines(file.p, s) + 1, path, a, NULL};
        const char *result = result_of(&c);
        failed += !bless && !judge(&c, result);
        text_printf(&out, "%s", blessed(&c, result));
        s += n;
    }
    if (bless && !failed && strcmp(out.p, file.p) != 0) failed = write_back(path, &out) < 0;
    arena_free(a);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    bool bless = argc > 1 && strcmp(argv[1], "--bless") == 0;
    for (int i = 1 + bless; i < argc; i++) failed += check_file(argv[i], bless);
    if (failed) fprintf(stderr, "%d failed\n", failed);
    return failed != 0;
}
