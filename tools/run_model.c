/* Inference on arrays and on ONNX test-data folders. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passes/batches.h"
#include "tools/session.h"

/* The model with every symbolic dim as the given arrays have it. */
static Graph *bound_to(ehap *e, const NamedArray *in, int n)
{
    const Graph *g = e->c.graph;
    int64_t *dims = NEW_ARRAY(e->arena, int64_t, g->nsymbols);
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    for (int i = 0; i < n; i++) {
        const Type *have = &in[i].type, *want = &g->inputs[i]->type;
        char a[128], b[128];
        bool fits = have->dtype == want->dtype && (want->rank < 0 || have->rank == want->rank);
        for (int k = 0; fits && k < want->rank; k++) {
            int64_t *bound = dim_is_sym(want->dim[k]) ? &dims[want->dim[k] - DIM_SYM_BASE] : NULL;
            if (bound && *bound < 0) *bound = have->dim[k];
            fits = have->dim[k] == (bound ? *bound : want->dim[k]);
        }
        if (!fits) {
            diag_error(&e->diag, "input '%s' takes %s, the array given is %s", g->inputs[i]->name,
                       type_print(g, want, a, sizeof a), type_print(NULL, have, b, sizeof b));
            return NULL;
        }
    }
    return simplify_specialize(g, e->arena, dims, &e->diag);
}

/* Runs on in[] (one per graph input, in order); out[] borrows the arena. */
static int run_once(ehap *e, const NamedArray *in, NamedArray *out)
{
    Program *p;
    Instance *inst = NULL;
    const Graph *g = bound_to(e, in, e->c.graph->ninputs);
    if (!g || program_compile(&p, g, &(ProgramOptions){.device = e->c.opt.device}, &e->diag) < 0)
        return EHAP_BAD_INPUT;
    int64_t samples = g->ninputs && in[0].type.rank > 0 ? in[0].type.dim[0] : 1;
    if (memory_allows(&e->c.opt, program_peak_bytes(p), samples, &e->diag) < 0 ||
        instance_new(&inst, p, &e->diag) < 0) {
        program_free(p);
        return EHAP_BAD_INPUT;
    }
    for (int i = 0; i < g->ninputs; i++) instance_bind(inst, i, in[i].data);
    instance_run_all(inst);
    for (int o = 0; o < g->noutputs; o++) {
        const Type *t = &g->outputs[o]->type;
        void *data = arena_alloc(e->arena, (size_t)type_bytes(t));
        instance_read(inst, o, data);
        out[o] = (NamedArray){g->outputs[o]->name, *t, data};
    }
    instance_free(inst);
    program_free(p);
    return EHAP_OK;
}

int run_arrays(ehap *e, const char *in_npz, const char *out_npz)
{
    NamedArray *given;
    int n;
    const Graph *g = e->c.graph;
    NamedArray *in = NEW_ARRAY(e->arena, NamedArray, g->ninputs);
    NamedArray *out = NEW_ARRAY(e->arena, NamedArray, g->noutputs);
    if (npz_read(&given, &n, e->arena, in_npz, &e->diag) < 0) return EHAP_BAD_INPUT;
    for (int i = 0; i < g->ninputs; i++) {
        for (int k = 0; k < n && !in[i].data; k++)
            if (strcmp(given[k].name, g->inputs[i]->name) == 0) in[i] = given[k];
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

static double element(const NamedArray *x, int64_t i)
{
    switch (x->type.dtype) {
    case DT_F32:
        return ((const float *)x->data)[i];
    case DT_F64:
        return ((const double *)x->data)[i];
    case DT_F16:
        return f16_to_f32(((const uint16_t *)x->data)[i]);
    case DT_I64:
        return (double)((const int64_t *)x->data)[i];
    case DT_I32:
        return ((const int32_t *)x->data)[i];
    case DT_I8:
        return ((const int8_t *)x->data)[i];
    default:
        return ((const uint8_t *)x->data)[i];
    }
}

static int compare(ehap *e, const NamedArray *got, const NamedArray *want)
{
    double worst = 0;
    if (!type_equal(&got->type, &want->type)) {
        char a[128], b[128];
        diag_error(&e->diag, "output '%s' is %s, expected %s", got->name,
                   type_print(NULL, &got->type, a, sizeof a),
                   type_print(NULL, &want->type, b, sizeof b));
        return EHAP_BAD_INPUT;
    }
    for (int64_t i = 0; i < type_count(&got->type); i++) {
        double g = element(got, i), w = element(want, i), diff = fabs(g - w);
        if ((g != g) != (w != w)) diff = INFINITY;
        if (g == w || (g != g && w != w)) diff = 0;
        if (diff > worst) worst = diff;
        if (diff <= 1e-5 + 1e-3 * fabs(w)) continue;
        diag_error(&e->diag, "output '%s' [%lld] is %.9g, expected %.9g", got->name, (long long)i,
                   g, w);
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
