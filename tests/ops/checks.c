/* The properties of one op: devices against ref, derivatives against differences. */
#include "tests/ops/checks.h"

#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "runtime/element.h"
#include "runtime/runtime.h"

/* ---- running ------------------------------------------------------------------------ */

/* Results of all outputs as doubles, one after the other. */
typedef struct Result {
    double *x;
    int64_t n;
} Result;

static int64_t total(const Graph *g)
{
    int64_t n = 0;
    for (int o = 0; o < g->noutputs; o++) n += type_count(&g->outputs[o]->type);
    return n;
}

static void read_outputs(const Graph *g, const Instance *i, Arena *a, Result *r)
{
    r->n = 0;
    r->x = NEW_ARRAY(a, double, total(g) + 1);
    for (int o = 0; o < g->noutputs; o++) {
        const int64_t n = type_count(&g->outputs[o]->type);
        const Tensor t = {.dtype = g->outputs[o]->type.dtype, .data = NEW_ARRAY(a, int64_t, n + 1)};
        instance_read(i, o, t.data);
        for (int64_t k = 0; k < n; k++) r->x[r->n++] = element_load(&t, k);
    }
}

/* Runs g with its inputs' data, by position. */
static int run(Result *r, const Graph *g, const char *device, void *const *data, Arena *a, Diag *d)
{
    Program *p;
    Instance *i;
    TRY(program_compile(&p, g, &(ProgramOptions){.device = device}, d));
    if (instance_new(&i, p, d) < 0) {
        program_free(p);
        return -1;
    }
    for (int k = 0; k < g->ninputs; k++) instance_bind(i, k, data[k]);
    instance_run_all(i);
    instance_run_all(i); /* again, over what the first run left in memory */
    read_outputs(g, i, a, r);
    instance_free(i);
    program_free(p);
    return 0;
}

/* The data of the graph inputs of case_graph(c, …, storage, constants). */
static void **input_data(const Case *c, Arena *a, DType storage, bool constants)
{
    void **data = NEW_ARRAY(a, void *, CASE_INPUTS * 3);
    int n = 0;
    for (int i = 0; i < c->nin; i++) {
        const CaseInput *in = &c->in[i];
        if (!in->name || in->constant || (constants && i > 0)) continue;
        data[n++] = case_data(in, storage, a);
    }
    return data;
}

static int compare(const Result *got, const Result *want, double tolerance, const char *what,
                   Diag *d)
{
    double scale = 1e-3;
    for (int64_t k = 0; k < want->n; k++)
        if (isfinite(want->x[k])) scale = fmax(scale, fabs(want->x[k]));
    if (got->n != want->n)
        return diag_error(d, "%s: %lld elements, %lld wanted", what, (long long)got->n,
                          (long long)want->n);
    for (int64_t k = 0; k < got->n; k++) {
        const double x = got->x[k], y = want->x[k];
        if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= tolerance * scale) continue;
        return diag_error(d, "%s: element %lld is %.9g, %.9g wanted", what, (long long)k, x, y);
    }
    return 0;
}

/* ---- devices ------------------------------------------------------------------------ */

const char *checks_device;

static const char *const devices[] = {"ref-last", "cpu"};

/* Whether this build has the device. */
bool has_device(const char *name)
{
    Diag silent = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, "none");
    Program *p;
    const int status = program_compile(&p, g, &(ProgramOptions){.device = name}, &silent);
    program_free(p);
    arena_free(a);
    return status == 0;
}

int check_devices(const Case *c, Arena *a, Diag *d)
{
    for (int constants = 0; constants < 2; constants++) {
        const Graph *g = case_graph(c, a, DT_F32, constants);
        void **data = input_data(c, a, DT_F32, constants);
        Result want, got;
        TRY(run(&want, g, "ref", data, a, d));
        for (size_t k = 0; k < sizeof devices / sizeof *devices; k++) {
            const char *device = checks_device ? checks_device : devices[k];
            if (!has_device(device)) continue;
            TRY(run(&got, g, device, data, a, d));
            TRY(compare(&got, &want, 1e-5, device, d));
        }
    }
    return 0;
}

static bool has_float(const Case *c)
{
    for (int i = 0; i < c->nin; i++)
        if (c->in[i].name && c->in[i].type.dtype == DT_F32) return true;
    return false;
}

int check_half(const Case *c, Arena *a, Diag *d)
{
    static const struct {
        DType storage;
        double tolerance;
        const char *what;
    } halves[] = {{DT_F16, 2e-3, "in f16"}, {DT_BF16, 1.6e-2, "in bf16"}};
    const char *device = checks_device ? checks_device : "cpu";
    if (!has_float(c) || !has_device(device)) return 1;
    for (int k = 0; k < 2; k++) {
        Result want, got;
        const Graph *g = case_graph(c, a, halves[k].storage, false);
        void **data = input_data(c, a, halves[k].storage, false);
        TRY(run(&want, g, "ref", data, a, d));
        TRY(run(&got, g, device, data, a, d));
        TRY(compare(&got, &want, halves[k].tolerance, halves[k].what, d));
    }
    return 0;
}

/* ---- derivatives -------------------------------------------------------------------- */

/* A case with the operands of a derivative: its variable float inputs x, tangents v, cotangents of
 * the float outputs w. */
typedef struct Problem {
    Graph *g;
    int nx, ny;
    Value *x[CASE_INPUTS], *v[CASE_INPUTS], *y[CASE_INPUTS], *w[CASE_INPUTS];
    int at[CASE_INPUTS]; /* which graph input x[k] is */
    void *data[4 * CASE_INPUTS];
    int ndata;
} Problem;

static void add_operand(Problem *p, Value **v, const Value *like, Arena *a, uint64_t seed)
{
    const int64_t n = type_count(&like->type);
    float *data = NEW_ARRAY(a, float, n + 1);
    Rng r = rng_new(seed, 3);
    for (int64_t k = 0; k < n; k++) data[k] = 2 * rng_uniform(&r) - 1;
    *v = graph_add_input(p->g, NULL, like->type);
    p->data[p->ndata++] = data;
}

static bool is_fixed(const Case *c, const Value *v)
{
    for (int i = 0; i < c->nin; i++)
        if (c->in[i].name && strcmp(c->in[i].name, v->name) == 0) return c->in[i].fixed;
    return false;
}

/* False if nothing can be differentiated. */
static bool problem_init(Problem *p, const Case *c, Arena *a)
{
    *p = (Problem){.g = case_graph(c, a, DT_F32, false)};
    void **data = input_data(c, a, DT_F32, false);
    const int ninputs = p->g->ninputs, noutputs = p->g->noutputs;
    p->ndata = ninputs;
    for (int k = 0; k < ninputs; k++) p->data[k] = data[k];
    for (int k = 0; k < ninputs; k++) {
        if (!dtype_is_float(p->g->inputs[k]->type.dtype) || is_fixed(c, p->g->inputs[k])) continue;
        p->at[p->nx] = k;
        p->x[p->nx++] = p->g->inputs[k];
    }
    for (int o = 0; o < noutputs && o < c->nsmooth; o++)
        if (dtype_is_float(p->g->outputs[o]->type.dtype)) p->y[p->ny++] = p->g->outputs[o];
    for (int k = 0; k < p->nx; k++) add_operand(p, &p->v[k], p->x[k], a, 11 + (uint64_t)k);
    for (int k = 0; k < p->ny; k++) add_operand(p, &p->w[k], p->y[k], a, 31 + (uint64_t)k);
    return p->nx > 0 && p->ny > 0;
}

static void set_outputs(Problem *p, int n, Value *const *v)
{
    p->g->noutputs = 0;
    for (int k = 0; k < n; k++) graph_add_output(p->g, v[k] ? v[k] : const_f32(p->g, 0));
}

/* Moves the inputs x by step * v. */
static void moved_data(const Problem *p, double step, Arena *a, void **data)
{
    memcpy(data, p->data, sizeof p->data);
    for (int k = 0; k < p->nx; k++) {
        const int64_t n = type_count(&p->x[k]->type);
        const float *x = p->data[p->at[k]], *v = p->data[p->g->ninputs - p->nx - p->ny + k];
        float *y = NEW_ARRAY(a, float, n + 1);
        for (int64_t i = 0; i < n; i++) y[i] = (float)((double)x[i] + step * (double)v[i]);
        data[p->at[k]] = y;
    }
}

/* (g(x + h v) - g(x - h v)) / 2h of outputs as set. h is far below the spacing of case data. */
static int differences(Result *out, const Problem *p, Arena *a, Diag *d)
{
    int64_t most = 1;
    for (int k = 0; k < p->nx; k++) {
        const int64_t n = type_count(&p->x[k]->type);
        most = n > most ? n : most;
    }
    const double h = fmin(1e-3, 0.25 / (double)most);
    void *data[4 * CASE_INPUTS];
    Result minus;
    moved_data(p, -h, a, data);
    TRY(run(&minus, p->g, "ref", data, a, d));
    moved_data(p, h, a, data);
    TRY(run(out, p->g, "ref", data, a, d));
    for (int64_t k = 0; k < out->n; k++) out->x[k] = (out->x[k] - minus.x[k]) / (2 * h);
    return 0;
}

/* Ops that promise nothing: rounding, comparisons, integers (no rules); straight-through ones. */
static bool differentiable(Op op)
{
    return op_info[op].jvp && op != OP_FakeQuant && op != OP_FakeQuantGrad;
}

int check_jvp(const Case *c, Arena *a, Diag *d)
{
    Problem p;
    Value *dy[CASE_INPUTS];
    Result want, got;
    if (!differentiable(c->op) || !problem_init(&p, c, a)) return 1;
    set_outputs(&p, p.ny, p.y);
    TRY(differences(&want, &p, a, d));
    TRY(ad_jvp(p.g, p.nx, p.x, p.v, p.ny, p.y, dy, d));
    set_outputs(&p, p.ny, dy);
    for (int k = 0; k < p.ny; k++)
        if (!dy[k]) return compare(&(Result){NEW(a, double), 1}, &(Result){want.x, 1}, 0, "jvp", d);
    TRY(run(&got, p.g, "ref", p.data, a, d));
    return compare(&got, &want, 3e-3, "jvp", d);
}

static double dot(const Result *r, int64_t from, const float *w, int64_t n)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += r->x[from + k] * (double)w[k];
    return sum;
}

/* sum over k of <value[k], operand[k]>, values lying one after the other in r. */
static double dot_all(const Problem *p, const Result *r, int n, Value *const *value, int first)
{
    double sum = 0;
    int64_t from = 0;
    for (int k = 0; k < n; k++) {
        const int64_t count = value[k] ? type_count(&value[k]->type) : 1;
        if (value[k])
            sum += dot(r, from, p->data[p->g->ninputs - p->nx - p->ny + first + k], count);
        from += count;
    }
    return sum;
}

/* Against the tangent by differences, so that ops with a VJP alone are checked too. */
int check_vjp(const Case *c, Arena *a, Diag *d)
{
    Problem p;
    Value *dx[CASE_INPUTS];
    Result tangent, cotangent;
    if (!op_info[c->op].vjp || op_info[c->op].vjp == op_info[OP_FakeQuant].vjp ||
        !problem_init(&p, c, a))
        return 1;
    set_outputs(&p, p.ny, p.y);
    TRY(differences(&tangent, &p, a, d));
    TRY(ad_vjp(p.g, p.ny, p.y, p.w, p.nx, p.x, dx, d));
    const double forward = dot_all(&p, &tangent, p.ny, p.y, p.nx);
    set_outputs(&p, p.nx, dx);
    TRY(run(&cotangent, p.g, "ref", p.data, a, d));
    const double backward = dot_all(&p, &cotangent, p.nx, dx, 0);
    double scale = 1e-2;
    for (int64_t k = 0; k < tangent.n; k++) scale += fabs(tangent.x[k]);
    if (fabs(forward - backward) <= 2e-3 * scale) return 0;
    return diag_error(d, "vjp: <w, J v> = %.6g, <J' w, v> = %.6g", forward, backward);
}

int check_second(const Case *c, Arena *a, Diag *d)
{
    Problem p;
    Value *dx[CASE_INPUTS], *ddx[CASE_INPUTS];
    Result want, got;
    if (!differentiable(c->op) || !op_info[c->op].vjp || !problem_init(&p, c, a)) return 1;
    TRY(ad_vjp(p.g, p.ny, p.y, p.w, p.nx, p.x, dx, d));
    for (int k = 0; k < p.g->nnodes; k++)
        if (!differentiable(p.g->nodes[k]->op)) return 1;
    if (c->op == OP_Derivative) return 1; /* third derivatives are not offered */
    int n = 0;
    for (int k = 0; k < p.nx; k++)
        if (dx[k]) dx[n++] = dx[k];
    TRY(ad_jvp(p.g, p.nx, p.x, p.v, n, dx, ddx, d));
    int m = 0;
    for (int k = 0; k < n; k++) {
        if (!ddx[k]) continue;
        dx[m] = dx[k];
        ddx[m++] = ddx[k];
    }
    set_outputs(&p, m, dx);
    TRY(differences(&want, &p, a, d));
    set_outputs(&p, m, ddx);
    TRY(run(&got, p.g, "ref", p.data, a, d));
    return compare(&got, &want, 5e-3, "second derivative", d);
}
