/* From loops and a body to a kernel: the text of a thread that finds its element, loads operands,
 * computes and stores. Sizes and strides are arguments, so the text depends only on the body, the
 * types and the number of loops, and few texts serve many nodes. */
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

static void put_kernel(Text *t, const Loops *l, int nout, const Tensor *const *v, const char *body)
{
    put(t, "SCALAR_FN void map_thread(const MapArgs *a, int64_t i)\n{\n");
    put_offsets(t, l);
    for (int k = nout; k < l->operands; k++)
        put(t, "    const float x%d = gpu_load(a->data[%d], %d, o%d);\n", k - nout, k,
            (int)v[k]->dtype, k);
    put(t, "%s", body);
    for (int k = 0; k < nout; k++)
        put(t, "    gpu_store(a->data[%d], %d, o%d, y%d);\n", k, (int)v[k]->dtype, k, k);
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

void map_make(Map *m, int nout, const Tensor *const *out, int nin, const Tensor *const *in,
              const char *body, int nparams, const float *params)
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
    m->args.threads = tensor_count(out[0]);
    for (int i = 0; i < l.n; i++) {
        m->args.dim[i] = l.dim[i];
        for (int k = 0; k < m->operands; k++) m->args.stride[k][i] = l.stride[k][i];
    }
    for (int k = 0; k < nparams; k++) m->args.p[k] = params[k];
    if (m->args.threads == 0) return;
    put_kernel(&text, &l, nout, t, body);
    m->built = built_of(text.p);
}

void map_run(const Map *m, void *const *data)
{
    MapArgs args = m->args;
    if (args.threads == 0) return;
    for (int k = 0; k < m->operands; k++) args.data[k] = data[k];
    gpu_launch_built(m->built, &args);
}
