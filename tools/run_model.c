/* Inference on arrays and on ONNX test-data folders. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ir/process.h"
#include "passes/batches.h"
#include "passes/simplify/simplify.h"
#include "runtime/element.h"
#include "tools/session.h"

typedef struct Limit {
    const Options *options;
    int64_t samples;
} Limit;

static int allow(const void *ctx, size_t bytes, Diag *d)
{
    const Limit *l = ctx;
    return memory_allows(l->options, process_resident() + bytes, l->samples, d);
}

/* The same in the form that is fastest to run. */
static const Graph *simplified(const Graph *g, Arena *a)
{
    Diag quiet = {0};
    Graph *s = graph_clone(g, a, NULL);
    return simplify_canonicalize(s, &quiet) < 0 ? g : s;
}

/* Runs on in[] (one per graph input, in order); out[] borrows the arena. The arrays decide which
 * branches are taken, in a copy: others may decide otherwise. */
static int run_once(ehap *e, const NamedArray *in, NamedArray *out)
{
    Inference *r;
    Graph *g = graph_clone(e->c.graph, e->arena, NULL);
    Type *types = NEW_ARRAY(e->arena, Type, g->ninputs);
    const void **data = NEW_ARRAY(e->arena, const void *, g->ninputs);
    const Limit limit = {&e->c.opt, g->ninputs && in[0].type.rank > 0 ? in[0].type.dim[0] : 1};
    for (int i = 0; i < g->ninputs; i++) {
        types[i] = in[i].type;
        data[i] = in[i].data;
    }
    const InferenceOptions o = {.device = e->c.opt.device, .allow = allow, .ctx = &limit};
    if (branches_decide(g, types, data, &o, &e->diag) < 0 ||
        inference_new(&r, simplified(g, e->arena), &o, &e->diag) < 0)
        return EHAP_BAD_INPUT;
    const int status = inference_run(r, types, data, &e->diag);
    for (int k = 0; k < g->noutputs && status == 0; k++) {
        Type t;
        const void *p = inference_output(r, k, &t);
        out[k] =
            (NamedArray){g->outputs[k]->name, t, arena_memdup(e->arena, p, (size_t)type_bytes(&t))};
    }
    inference_free(r);
    return status < 0 ? EHAP_BAD_INPUT : EHAP_OK;
}

/* Zeros for an input that nobody reads, of the sizes that the arrays given have. */
static NamedArray unread(ehap *e, const Value *v, const NamedArray *in)
{
    const Graph *g = e->c.graph;
    NamedArray a = {v->name, v->type, NULL};
    for (int k = 0; k < a.type.rank; k++) {
        const int64_t open = v->type.dim[k];
        for (int i = 0; i < g->ninputs && dim_is_sym(a.type.dim[k]); i++)
            for (int m = 0; m < g->inputs[i]->type.rank && m < in[i].type.rank; m++)
                if (in[i].data && g->inputs[i]->type.dim[m] == open)
                    a.type.dim[k] = in[i].type.dim[m];
        if (dim_is_sym(a.type.dim[k])) a.type.dim[k] = 1;
    }
    const int64_t bytes = a.type.rank < 0 ? -1 : type_bytes(&a.type);
    if (bytes >= 0) a.data = arena_alloc(e->arena, (size_t)bytes + 8);
    return a;
}

int run_arrays(ehap *e, const char *in_npz, const char *out_npz)
{
    NamedArray *given;
    int n;
    const Graph *g = e->c.graph;
    NamedArray *in = NEW_ARRAY(e->arena, NamedArray, g->ninputs);
    NamedArray *out = NEW_ARRAY(e->arena, NamedArray, g->noutputs);
    if (npz_read(&given, &n, e->arena, in_npz, &e->diag) < 0) return EHAP_BAD_INPUT;
    for (int i = 0; i < g->ninputs; i++)
        for (int k = 0; k < n && !in[i].data; k++)
            if (strcmp(given[k].name, g->inputs[i]->name) == 0) in[i] = given[k];
    for (int i = 0; i < g->ninputs; i++) {
        if (!in[i].data && !value_is_read(g, g->inputs[i])) in[i] = unread(e, g->inputs[i], in);
        if (in[i].data) continue;
        diag_error(&e->diag, "'%s' has no array named '%s'", in_npz, g->inputs[i]->name);
        return EHAP_BAD_INPUT;
    }
    int status = run_once(e, in, out);
    if (status) return status;
    return npz_write(out_npz, out, g->noutputs, &e->diag) < 0 ? EHAP_BAD_INPUT : EHAP_OK;
}

static int read_numbered(ehap *e, NamedArray *out, int n, const char *dir, const char *kind)
{
    for (int k = 0; k < n; k++) {
        Value *v;
        const char *path = arena_printf(e->arena, "%s/%s_%d.pb", dir, kind, k);
        if (onnx_read_tensor(&v, graph_new(e->arena, NULL), path, &e->diag) < 0) return -1;
        out[k] = (NamedArray){v->name, v->type, v->data};
    }
    return 0;
}

static Tensor tensor_of(const NamedArray *x)
{
    return (Tensor){.dtype = x->type.dtype, .data = (void *)(uintptr_t)x->data};
}

static int compare(ehap *e, const NamedArray *got, const NamedArray *want)
{
    const Tensor g = tensor_of(got), w = tensor_of(want);
    double worst = 0;
    if (!type_equal(&got->type, &want->type)) {
        char a[128], b[128];
        diag_error(&e->diag, "output '%s' is %s, expected %s", got->name,
                   type_print(NULL, &got->type, a, sizeof a),
                   type_print(NULL, &want->type, b, sizeof b));
        return EHAP_BAD_INPUT;
    }
    for (int64_t i = 0; i < type_count(&got->type); i++) {
        const double x = element_load(&g, i), y = element_load(&w, i);
        double diff = fabs(x - y);
        if (isnan(x) != isnan(y)) diff = INFINITY;
        if (x == y || (isnan(x) && isnan(y))) diff = 0;
        if (diff > worst) worst = diff;
        if (diff <= 1e-5 + 1e-3 * fabs(y)) continue;
        diag_error(&e->diag, "output '%s' [%lld] is %.9g, expected %.9g", got->name, (long long)i,
                   x, y);
        return EHAP_BAD_INPUT;
    }
    printf("output '%s': max difference %.3g\n", got->name, worst);
    return EHAP_OK;
}

int run_test_data(ehap *e, const char *dir)
{
    const Graph *g = e->c.graph;
    NamedArray *in = NEW_ARRAY(e->arena, NamedArray, g->ninputs);
    NamedArray *out = NEW_ARRAY(e->arena, NamedArray, g->noutputs);
    NamedArray *want = NEW_ARRAY(e->arena, NamedArray, g->noutputs);
    if (read_numbered(e, in, g->ninputs, dir, "input") < 0 ||
        read_numbered(e, want, g->noutputs, dir, "output") < 0)
        return EHAP_BAD_INPUT;
    int status = run_once(e, in, out);
    for (int o = 0; !status && o < g->noutputs; o++) status = compare(e, &out[o], &want[o]);
    return status;
}
