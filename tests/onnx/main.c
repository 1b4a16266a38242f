/* ONNX's own backend tests, run on every device.
 *
 *   run_onnx UNSUPPORTED DIR…         each DIR holds folders test_NAME (model.onnx,
 *                                     test_data_set_0)
 *   run_onnx --list UNSUPPORTED DIR…  prints the list anew: what fails, with the reason that
 *                                     UNSUPPORTED gives, or else the first error
 *
 * UNSUPPORTED names the cases that are known to fail, one a line, then the reason. It is kept true
 * in both directions: a listed case that passes is a failure too. Of the cases whose reason is not
 * that they hold no numbers (strings, sequences), 95 % must pass. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "runtime/element.h"
#include "runtime/runtime.h"

enum { MAX_TENSORS = 32, MAX_CASES = 4096, SKIP = 77, PERCENT = 95 };

/* ---- one case ----------------------------------------------------------------------- */

typedef struct Reason {
    char text[256];
} Reason;

static void keep_first(void *ctx, Severity sev, const char *text)
{
    Reason *r = ctx;
    if (sev == SEV_ERROR && !r->text[0]) snprintf(r->text, sizeof r->text, "%s", text);
}

/* Reads NAME_0.pb, NAME_1.pb … into constants of g; their number. */
static int read_tensors(Value **out, Graph *g, const char *dir, const char *name, Diag *d)
{
    int n = 0;
    for (; n < MAX_TENSORS; n++) {
        const char *path = arena_printf(g->arena, "%s/test_data_set_0/%s_%d.pb", dir, name, n);
        if (access(path, R_OK) != 0) break;
        if (onnx_read_tensor(&out[n], g, path, d) < 0) return -1;
    }
    return n;
}

/* These files store bfloat16 as uint16. */
static Type data_type(const Value *declared, const Value *data)
{
    Type t = data->type;
    if (declared->type.dtype == DT_BF16 && t.dtype == DT_U16) t.dtype = DT_BF16;
    return t;
}

/* To 1e-3 and 1e-7, as ONNX's own runner compares, and two units in the last place of the largest
 * element: what rounding leaves of floats that cancel. */
static int compare(const Tensor *got, const Value *want, int output, Diag *d)
{
    const Tensor w = {.dtype = got->dtype, .data = (void *)(uintptr_t)want->data};
    const int64_t n = type_count(&want->type);
    double most = 0;
    for (int64_t k = 0; k < n; k++)
        if (isfinite(element_load(&w, k))) most = fmax(most, fabs(element_load(&w, k)));
    for (int64_t k = 0; k < n; k++) {
        const double x = element_load(got, k), y = element_load(&w, k);
        const double allowed = 1e-7 + 1e-3 * fabs(y) + 2 * (double)FLT_EPSILON * most;
        if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= allowed) continue;
        return diag_error(d, "output %d: element %lld is %.9g, %.9g wanted", output, (long long)k,
                          x, y);
    }
    return 0;
}

static int compare_outputs(const Graph *g, const Inference *r, Value *const *want, int n, Diag *d)
{
    char a[128], b[128];
    for (int o = 0; o < n; o++) {
        Type t, expected = data_type(g->outputs[o], want[o]);
        const void *data = inference_output(r, o, &t);
        if (!type_equal(&t, &expected))
            return diag_error(d, "output %d is %s, %s wanted", o, type_print(g, &t, a, sizeof a),
                              type_print(g, &expected, b, sizeof b));
        const Tensor got = {.dtype = t.dtype, .data = (void *)(uintptr_t)data};
        if (compare(&got, want[o], o, d) < 0) return -1;
    }
    return 0;
}

static int run_graph(const Graph *g, const char *device, Value *const *in, Value *const *want,
                     int n, Diag *d)
{
    Type types[MAX_TENSORS];
    const void *data[MAX_TENSORS];
    Inference *r;
    for (int k = 0; k < g->ninputs; k++) {
        types[k] = data_type(g->inputs[k], in[k]);
        data[k] = in[k]->data;
    }
    TRY(inference_new(&r, g, &(InferenceOptions){.device = device}, d));
    int status = inference_run(r, types, data, d);
    if (status == 0) status = inference_run(r, types, data, d); /* again, as planned before */
    if (status == 0) status = compare_outputs(g, r, want, n, d);
    inference_free(r);
    return status;
}

/* Many of these models say opset 1 to 6, which the reader refuses, but hold nothing that opset 7
 * reads otherwise: their opset_import (field 8 of ModelProto: an empty domain and the version) is
 * raised. */
static void raise_opset(unsigned char *bytes, size_t n)
{
    static const unsigned char form[2][5] = {{0x42, 2, 0x10}, {0x42, 4, 0x0a, 0, 0x10}};
    for (int k = 0; k < 2; k++) {
        const size_t last = form[k][1] + 1u;
        for (size_t i = 0; i + last < n; i++) {
            unsigned char *version = &bytes[i + last];
            if (memcmp(bytes + i, form[k], last) == 0 && *version >= 1 && *version < 7)
                *version = 7;
        }
    }
}

static int read_model(Graph **g, Arena *a, const char *dir, Diag *d)
{
    const char *path = arena_printf(a, "%s/model.onnx", dir);
    FILE *f = fopen(path, "rb");
    if (!f) return diag_error(d, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    const long size = ftell(f);
    rewind(f);
    unsigned char *bytes = arena_alloc(a, (size_t)size);
    const size_t n = fread(bytes, 1, (size_t)size, f);
    fclose(f);
    raise_opset(bytes, n);
    return onnx_read_memory(g, a, bytes, n, dir, d);
}

static int run_case(const char *dir, const char *device, Arena *a, Diag *d)
{
    Graph *g, *tensors = graph_new(a, "tensors");
    Value *in[MAX_TENSORS], *out[MAX_TENSORS];
    TRY(read_model(&g, a, dir, d));
    const int nin = read_tensors(in, tensors, dir, "input", d);
    const int nout = read_tensors(out, tensors, dir, "output", d);
    if (nin < 0 || nout < 0) return -1;
    if (g->noutputs != nout)
        return diag_error(d, "the model has %d outputs, the data %d", g->noutputs, nout);
    if (g->ninputs != nin)
        return diag_error(d, "the model has %d inputs, the data %d", g->ninputs, nin);
    for (int k = 0; k < nin; k++) /* what the data is, whatever the model declares */
        g->inputs[k]->type = data_type(g->inputs[k], in[k]);
    return run_graph(g, device, in, out, nout, d);
}

static int guarded(const char *dir, const char *device, Reason *why)
{
    Trap t;
    Diag d = {.sink = keep_first, .ctx = why};
    Arena *a = arena_new();
    why->text[0] = '\0';
    if (trap_enter(&t) == 0) {
        const int status = run_case(dir, device, a, &d);
        trap_leave(&t);
        arena_free(a);
        return status;
    }
    snprintf(why->text, sizeof why->text, "internal: %.200s", t.message);
    arena_free(a);
    return -1;
}

static int check_case(const char *dir, Reason *why)
{
    static const char *const devices[] = {"ref", "ref-last", "cpu"};
    for (size_t k = 0; k < sizeof devices / sizeof *devices; k++)
        if (guarded(dir, devices[k], why) < 0 && !strstr(why->text, "there is no device"))
            return -1;
    return 0;
}

/* ---- the list ----------------------------------------------------------------------- */

typedef struct List {
    char *name[MAX_CASES], *reason[MAX_CASES];
    int n;
    bool renew; /* the list is printed anew, comments first */
} List;

/* Whether the case is about tensors of numbers, by the reason why it fails. */
static bool is_numeric(const char *reason)
{
    return strncmp(reason, "strings", 7) != 0 && strncmp(reason, "sequences", 9) != 0;
}

static int read_list(List *l, const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "cannot open %s\n", path);
        return -1;
    }
    while (l->n < MAX_CASES && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' && l->renew) printf("%s\n", line);
        if (!line[0] || line[0] == '#') continue;
        const size_t name = strcspn(line, " \t"), gap = strspn(line + name, " \t");
        l->name[l->n] = strndup(line, name);
        l->reason[l->n++] = strdup(line + name + gap);
    }
    fclose(f);
    return 0;
}

static int listed(const List *l, const char *name)
{
    for (int k = 0; k < l->n; k++)
        if (strcmp(l->name[k], name) == 0) return k;
    return -1;
}

static int is_test(const struct dirent *e) { return strncmp(e->d_name, "test_", 5) == 0; }

typedef struct Totals {
    int passed, failed, unsupported, numeric; /* numeric: of the unsupported */
} Totals;

static void judge(const char *dir, const char *name, const List *known, Totals *t)
{
    Reason why;
    const bool good = check_case(dir, &why) == 0;
    const int at = listed(known, name);
    t->passed += good;
    if (known->renew) {
        if (!good) printf("%s %s\n", name, at >= 0 ? known->reason[at] : why.text);
        return;
    }
    const bool expected = at >= 0;
    t->unsupported += expected && !good;
    t->numeric += expected && !good && is_numeric(known->reason[at]);
    if (good == !expected) return;
    t->failed++;
    printf(good ? "%s passes, but is listed as unsupported%s\n" : "%s: %s\n", name,
           good ? "" : why.text);
}

static void run_folder(const char *folder, const List *known, Totals *t)
{
    struct dirent **entry;
    const char *part = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    const int n = scandir(folder, &entry, is_test, alphasort);
    for (int k = 0; k < n; k++) {
        char dir[1024], name[512];
        snprintf(dir, sizeof dir, "%s/%s", folder, entry[k]->d_name);
        snprintf(name, sizeof name, "%s/%s", part, entry[k]->d_name);
        judge(dir, name, known, t);
        free(entry[k]);
    }
    if (n >= 0) free(entry);
}

/* The numbers, and whether they are good enough. */
static bool report(const Totals *t)
{
    const int numeric = t->passed + t->failed + t->numeric;
    const bool enough = 100 * t->passed >= PERCENT * numeric;
    printf("%d pass, %d unsupported, %d wrong: %.1f %% of the %d cases of numbers%s\n", t->passed,
           t->unsupported, t->failed, 100.0 * t->passed / (numeric ? numeric : 1), numeric,
           enough ? "" : ", too few");
    return t->failed == 0 && enough;
}

int main(int argc, char **argv)
{
    static List list;
    Totals t = {0};
    list.renew = argc > 1 && strcmp(argv[1], "--list") == 0;
    char **arg = argv + 1 + list.renew, **end = argv + argc;
    if (end - arg < 2 || read_list(&list, *arg++) < 0) return 2;
    if (access(*arg, R_OK) != 0) {
        fprintf(stderr, "skipped: %s is not there (Debian package libonnx-testdata)\n", *arg);
        return SKIP;
    }
    for (; arg < end; arg++) run_folder(*arg, &list, &t);
    const bool good = list.renew || report(&t);
    for (int k = 0; k < list.n; k++) {
        free(list.name[k]);
        free(list.reason[k]);
    }
    return !good;
}
