/* From loops and a body to a kernel: the text of a thread that finds its element, loads operands,
 * computes and stores; or several elements at a time, in accesses of up to 16 bytes, where all
 * operands run on or repeat along the innermost loop and lie at multiples of that many. Sizes and
 * strides are arguments, so the text depends only on the body, the types and the number of loops,
 * and few texts serve many nodes. */
#include "runtime/cuda/codegen.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/loops.h"

typedef struct Text {
    char *p;
    size_t n, cap;
} Text;

__attribute__((format(printf, 2, 3))) static void put(Text *t, const char *format, ...)
{
    for (;;) {
        va_list ap;
        va_start(ap, format);
        const size_t room = t->cap - t->n;
        const int n = vsnprintf(t->p ? t->p + t->n : NULL, room, format, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < room) {
            t->n += (size_t)n;
            return;
        }
        t->cap = 2 * t->cap + (size_t)n + 1024;
        char *grown = realloc(t->p, t->cap);
        if (!grown) {
            free(t->p);
            trap(TRAP_NO_MEMORY, "out of memory for generated code");
        }
        t->p = grown;
    }
}

/* o<k>: where thread i finds its element in operand k. 32-bit divisions where numbers allow. */
static void put_offsets(Text *t, const Loops *l)
{
    const char *type = loops_count(l) <= INT32_MAX ? "uint32_t" : "int64_t";
    put(t, "    %s r = (%s)i, q;\n", type, type);
    for (int k = 0; k < l->operands; k++) put(t, "    int64_t o%d = 0;\n", k);
    for (int i = l->n - 1; i >= 0; i--) {
        if (i > 0)
            put(t, "    q = r / (%s)a->dim[%d]; r -= q * (%s)a->dim[%d];\n", type, i, type, i);
        else
            put(t, "    q = 0;\n");
        for (int k = 0; k < l->operands; k++)
            put(t, "    o%d += (int64_t)r * a->stride[%d][%d];\n", k, k, i);
        put(t, "    r = q;\n");
    }
}

static bool repeats(const Loops *l, int k) { return l->stride[k][l->n - 1] == 0; }

static void put_element(Text *t, const Loops *l, int nout, const Tensor *const *v, const char *body)
{
    for (int k = nout; k < l->operands; k++)
        put(t, "    const float x%d = gpu_load(a->data[%d], %d, o%d);\n", k - nout, k,
            (int)v[k]->dtype, k);
    put(t, "%s", body);
    for (int k = 0; k < nout; k++)
        put(t, "    gpu_store(a->data[%d], %d, o%d, y%d);\n", k, (int)v[k]->dtype, k, k);
}

/* `wide` elements: w<k> holds those of operand k. */
static void put_elements(Text *t, const Loops *l, int nout, const Tensor *const *v,
                         const char *body, int wide)
{
    for (int k = 0; k < l->operands; k++) {
        const int type = (int)v[k]->dtype;
        if (k >= nout && repeats(l, k))
            put(t, "    const float x%d = gpu_load(a->data[%d], %d, o%d);\n", k - nout, k, type, k);
        else
            put(t, "    float w%d[%d];\n", k, wide);
        if (k >= nout && !repeats(l, k))
            put(t, "    gpu_load_wide(a->data[%d], %d, o%d, %d, w%d);\n", k, type, k, wide, k);
    }
    put(t, "    for (int e = 0; e < %d; e++) {\n", wide);
    for (int k = nout; k < l->operands; k++)
        if (!repeats(l, k)) put(t, "    const float x%d = w%d[e];\n", k - nout, k);
    put(t, "%s", body);
    for (int k = 0; k < nout; k++) put(t, "    w%d[e] = y%d;\n", k, k);
    put(t, "    }\n");
    for (int k = 0; k < nout; k++)
        put(t, "    gpu_store_wide(a->data[%d], %d, o%d, %d, w%d);\n", k, (int)v[k]->dtype, k, wide,
            k);
}

static void put_kernel(Text *t, const Loops *l, int nout, const Tensor *const *v, const char *body,
                       int wide)
{
    put(t, "SCALAR_FN void map_thread(const MapArgs *a, int64_t i)\n{\n");
    put_offsets(t, l);
    if (wide > 1)
        put_elements(t, l, nout, v, body, wide);
    else
        put_element(t, l, nout, v, body);
    put(t, "}\n#ifdef __CUDACC__\n"
           "extern \"C\" __global__ void __launch_bounds__(256) generated(const __grid_constant__ "
           "MapArgs a)\n{\n"
           "    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;\n"
           "    if (i < a.threads) map_thread(&a, i);\n}\n#else\n"
           "void generated(const MapArgs *a);\nvoid generated(const MapArgs *a)\n{\n"
           "    for (int64_t i = 0; i < a->threads; i++) map_thread(a, i);\n}\n#endif\n");
}

/* ---- what has been compiled ----------------------------------------------------------- */

typedef struct Built {
    char *source;
    void *handle;
    struct Built *next;
} Built;

/* Takes over the text. Kept for the life of the process. */
static void *built_of(char *source)
{
    static Built *all;
    for (Built *b = all; b; b = b->next)
        if (strcmp(b->source, source) == 0) {
            free(source);
            return b->handle;
        }
    Built *b = malloc(sizeof *b);
    if (!b) trap(TRAP_NO_MEMORY, "out of memory for generated code");
    *b = (Built){source, gpu_build(source), all};
    all = b;
    return b->handle;
}

/* Elements per thread: 16 bytes of the narrowest operand that runs on, where all allow it. */
static int width_of(const Loops *l, int nout, const Tensor *const *v)
{
    const int in = l->n - 1;
    int wide = 4;
    for (int k = 0; k < l->operands; k++)
        if (!repeats(l, k) && dtype_size(v[k]->dtype) < sizeof(float)) wide = GPU_WIDE;
    while (wide > 1 && l->dim[in] % wide) wide /= 2;
    for (int k = 0; k < l->operands; k++) {
        if (l->stride[k][in] != 1 && (k < nout || !repeats(l, k))) return 1;
        for (int i = 0; i < in && !repeats(l, k); i++)
            while (wide > 1 && l->stride[k][i] % wide) wide /= 2;
    }
    return wide;
}

static void make(Map *m, int nout, const Tensor *const *out, int nin, const Tensor *const *in,
                 const char *body, int nparams, const float *params, bool aligned);

void map_make(Map *m, int nout, const Tensor *const *out, int nin, const Tensor *const *in,
              const char *body, int nparams, const float *params)
{
    make(m, nout, out, nin, in, body, nparams, params, true);
}

void map_make_anywhere(Map *m, const Tensor *out, const Tensor *in, const char *body)
{
    make(m, 1, &out, 1, &in, body, 0, NULL, false);
}

static void make(Map *m, int nout, const Tensor *const *out, int nin, const Tensor *const *in,
                 const char *body, int nparams, const float *params, bool aligned)
{
    const Tensor *t[MAP_OPERANDS];
    Text text = {0};
    Loops l;
    if (nout + nin > MAP_OPERANDS || nparams > MAP_PARAMS)
        trap(TRAP_INTERNAL, "a map of %d operands and %d numbers", nout + nin, nparams);
    for (int k = 0; k < nout + nin; k++) t[k] = k < nout ? out[k] : in[k - nout];
    loops_make(&l, nout + nin, t);
    memset(m, 0, sizeof *m);
    m->operands = nout + nin;
    const int wide = aligned ? width_of(&l, nout, t) : 1;
    if (wide > 1) {
        l.dim[l.n - 1] /= wide;
        for (int k = 0; k < m->operands; k++) l.stride[k][l.n - 1] *= wide;
    }
    m->args.threads = tensor_count(out[0]) / wide;
    for (int i = 0; i < l.n; i++) {
        m->args.dim[i] = l.dim[i];
        for (int k = 0; k < m->operands; k++) m->args.stride[k][i] = l.stride[k][i];
    }
    for (int k = 0; k < nparams; k++) m->args.p[k] = params[k];
    if (m->args.threads == 0) return;
    put_kernel(&text, &l, nout, t, body, wide);
    m->built = built_of(text.p);
}

void map_run(const Map *m, void *const *data)
{
    MapArgs args = m->args;
    if (args.threads == 0) return;
    for (int k = 0; k < m->operands; k++) args.data[k] = data[k];
    gpu_launch_built(m->built, &args);
}
