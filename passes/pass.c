/* Runs passes: pass_run is the only caller of any, so that dumping, timing, verifying and
 * recording are in one place. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/process.h"
#include "ir/text.h"
#include "passes/checkpoint.h"

const Pass passes[] = {
#define SAMPLES 1
#define PASS(pass_name, function, runs, text, known)                                               \
    {.name = pass_name, .help = text, .options = known, .samples = runs, .run = function},
#include "passes/passes.def"
#undef PASS
    {0},
};

enum { PASS_COUNT = sizeof passes / sizeof *passes - 1 };

const Pass *pass_find(const char *name)
{
    for (const Pass *p = passes; p->name; p++)
        if (strcmp(p->name, name) == 0) return p;
    return NULL;
}

/* ---- dumps -------------------------------------------------------------------------- */

static bool asked_for(const char *which, const char *pass)
{
    return which && ranks_index() == 0 && (strcmp(which, "all") == 0 || strcmp(which, pass) == 0);
}

/* To DIR/03-pass.after.onnxtxt with the weights beside it, or to stderr without them. */
static int dump(Context *c, const char *pass, int number, const char *when)
{
    Arena *a = arena_new();
    int status = 0;
    if (c->opt.dump_dir)
        status = ir_save(
            c->graph, arena_printf(a, "%s/%02d-%s.%s.onnxtxt", c->opt.dump_dir, number, pass, when),
            c->diag);
    else
        fprintf(stderr, "# %s %s\n%s\n", when, pass, ir_print(c->graph, a, NULL));
    arena_free(a);
    return status;
}

/* ---- running ------------------------------------------------------------------------ */

static PassRecord *record_new(Context *c, const char *name)
{
    Report *r = &c->report;
    if (r->npasses == r->cap_passes) {
        int cap = r->cap_passes ? 2 * r->cap_passes : 16;
        PassRecord *p = NEW_ARRAY(c->arena, PassRecord, cap);
        if (r->npasses) memcpy(p, r->passes, (size_t)r->npasses * sizeof *p);
        r->passes = p;
        r->cap_passes = cap;
    }
    r->passes[r->npasses] = (PassRecord){.name = name};
    return &r->passes[r->npasses++];
}

/* A copy that the pass cannot spoil. */
static void keep_safe(Context *c)
{
    Context *safe = c->safe ? c->safe : NEW(c->arena, Context);
    *safe = *c;
    safe->report.npasses--; /* without the pass that is about to run */
    safe->graph = graph_clone(c->graph, c->arena, NULL);
    c->safe = safe;
}

/* A test's way to do something to a process in front of a pass, and to break an invariant in it. */
static bool test_asks(const char *variable, const char *pass)
{
    const char *where = getenv(variable);
    return where && strcmp(where, pass) == 0;
}

static int run_guarded(Context *c, const Pass *p, const char *opt)
{
    const Pass *outer = c->running;
    if (c->depth++ == 0) keep_safe(c);
    c->running = p;
    if (test_asks("EHAPC_TEST_STOP", p->name)) raise(SIGSTOP);
    int status = p->run(c, opt);
    if (test_asks("EHAPC_TEST_TRAP", p->name))
        trap(TRAP_INTERNAL, "pass '%s': a test's trap", p->name);
    c->running = outer;
    c->depth--;
    return status;
}

/* Counts a pass as done, here and in the folder. */
static int finish(Context *c)
{
    if (c->depth > 0) return 0;
    c->done++;
    if (!c->checkpoint || ranks_index() > 0) return 0;
    return checkpoint_save(c, c->checkpoint, c->checkpoint_key, c->done, c->diag);
}

int pass_run(Context *c, const Pass *p, const char *opt)
{
    if (c->depth == 0 && c->skip > 0) {
        c->skip--;
        c->done++;
        return 0;
    }
    int number = c->report.npasses;
    if (asked_for(c->opt.dump_before, p->name)) TRY(dump(c, p->name, number, "before"));
    record_new(c, p->name);
    size_t outer_peak = c->peak_bytes;
    c->peak_bytes = 0;
    double start = process_seconds();
    int status = run_guarded(c, p, opt);
    PassRecord *r = &c->report.passes[number]; /* a pass may run others: the array may have moved */
    r->seconds = process_seconds() - start;
    r->peak_bytes = c->peak_bytes;
    if (outer_peak > c->peak_bytes) c->peak_bytes = outer_peak;
    if (c->opt.time_passes) diag_remark(c->diag, "pass '%s': %.3f s", p->name, r->seconds);
    TRY(status);
    if (c->opt.verify && graph_verify(c->graph, c->diag) < 0)
        trap(TRAP_INTERNAL, "pass '%s' left an ill-formed graph", p->name);
    if (asked_for(c->opt.dump_after, p->name)) TRY(dump(c, p->name, number, "after"));
    if (status == 0) TRY(finish(c));
    return status;
}

static int unknown_pass(Context *c, const char *name)
{
    const char *names[PASS_COUNT + 1] = {NULL};
    for (int k = 0; k < PASS_COUNT; k++) names[k] = passes[k].name;
    const char *near = nearest_name(name, names);
    return near ? diag_error(c->diag, "unknown pass '%s'; did you mean '%s'?", name, near)
                : diag_error(c->diag, "unknown pass '%s'", name);
}

/* Length of the first item of a pipeline: up to a comma outside braces. */
static size_t item_length(const char *s)
{
    size_t n = 0;
    for (int depth = 0; s[n] && (depth > 0 || s[n] != ','); n++)
        depth += (s[n] == '{') - (s[n] == '}');
    return n;
}

/* Length of the first of "a=1;b=2". */
static size_t option_length(const char *s) { return strcspn(s, ";"); }

/* Whether the pass lists an option whose name is key[n]. */
static bool has_option(const Pass *p, const char *key, size_t n)
{
    for (const char *s = p->options; s && *s;) {
        if (strncmp(s, key, n) == 0 && s[n] == '=') return true;
        s += option_length(s);
        s += *s == ';';
    }
    return false;
}

static int check_options(Context *c, const Pass *p, const char *opt)
{
    for (const char *s = opt; *s;) {
        const size_t length = option_length(s), key = strcspn(s, "=;");
        if (length && (key == length || !has_option(p, s, key))) {
            diag_error(c->diag, "pass '%s' has no option '%.*s'", p->name, (int)length, s);
            if (*p->options) diag_note(c->diag, "it takes %s", p->options);
            return -1;
        }
        s += length + (s[length] == ';');
    }
    return 0;
}

/* "name{options}" into its parts. */
static int split_item(Context *c, const char *s, size_t n, const Pass **pass, const char **opt)
{
    char *name = arena_printf(c->arena, "%.*s", (int)n, s);
    name += strspn(name, " ");
    size_t length = strcspn(name, "{ "), end = strlen(name);
    while (end > length && name[end - 1] == ' ') end--;
    *opt = "";
    if (end > length && (name[length] != '{' || name[end - 1] != '}'))
        return diag_error(c->diag, "bad options in '%s': they are written name{key=value;…}", name);
    if (end > length)
        *opt = arena_printf(c->arena, "%.*s", (int)(end - length) - 2, name + length + 1);
    name[length] = 0;
    *pass = pass_find(name);
    return *pass ? check_options(c, *pass, *opt) : unknown_pass(c, name);
}

int pipeline_parse(Context *c, const char *text, PassCall **calls)
{
    int count = 0;
    *calls = NEW_ARRAY(c->arena, PassCall, strlen(text));
    for (const char *s = text; *s;) {
        size_t n = item_length(s);
        PassCall *call = &(*calls)[count++];
        TRY(split_item(c, s, n, &call->pass, &call->opt));
        s += n + (s[n] == ',');
    }
    return count;
}

int pass_run_pipeline(Context *c, const char *pipeline)
{
    PassCall *calls;
    int n = pipeline_parse(c, pipeline, &calls), status = n < 0 ? n : 0;
    for (int k = 0; k < n && status == 0; k++) status = pass_run(c, calls[k].pass, calls[k].opt);
    return status;
}

const char *pass_option(Context *c, const char *opt, const char *key)
{
    size_t n = strlen(key);
    if (c->running && !has_option(c->running, key, n))
        trap(TRAP_INTERNAL, "passes.def does not list option '%s' of '%s'", key, c->running->name);
    for (const char *s = opt; *s;) {
        size_t length = option_length(s);
        if (length > n && strncmp(s, key, n) == 0 && s[n] == '=')
            return arena_printf(c->arena, "%.*s", (int)(length - n - 1), s + n + 1);
        s += length + (s[length] == ';');
    }
    return NULL;
}

/* Whom messages name. */
static const char *running_name(const Context *c)
{
    return c->running ? c->running->name : "the pass";
}

static int bad_number(Context *c, const char *key, const char *kind, double least, double most)
{
    const char *pass = running_name(c);
    return isfinite(most) ? diag_error(c->diag, "%s: %s must be a %s from %.10g to %.10g", pass,
                                       key, kind, least, most)
                          : diag_error(c->diag, "%s: %s must be a %s of at least %.10g", pass, key,
                                       kind, least);
}

int pass_number(double *x, Context *c, const char *opt, const char *key, double least, double most)
{
    const char *text = pass_option(c, opt, key);
    char *end;
    if (!text) return 0;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most) || !isfinite(value))
        return bad_number(c, key, "number", least, most);
    *x = value;
    return 0;
}

int pass_int(int64_t *x, Context *c, const char *opt, const char *key, int64_t least)
{
    const char *text = pass_option(c, opt, key);
    char *end;
    if (!text) return 0;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < least || value > INT32_MAX)
        return bad_number(c, key, "whole number", (double)least, INT32_MAX);
    *x = value;
    return 0;
}

int pass_choice(int *k, Context *c, const char *opt, const char *key, const char *const *names)
{
    const char *text = pass_option(c, opt, key), *all = "";
    if (!text) return 0;
    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) return *k = i, 0;
        all = arena_printf(c->arena, "%s%s%s", all, i ? ", " : "", names[i]);
    }
    return diag_error(c->diag, "%s: %s is '%s', it must be one of %s", running_name(c), key, text,
                      all);
}

void pass_progress(Context *c, double fraction, const char *fmt, ...)
{
    char text[256];
    if (!c->progress) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->progress(c->progress_ctx, c->running ? c->running->name : "", fraction, text);
}
