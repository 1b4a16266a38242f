/* The GPU of runtime/cuda/gpu.h, played by the CPU: memory is malloc's, a launch is a loop over
 * thread numbers through the real kernel bodies, generated code goes to the C compiler, the
 * libraries' part is naive loops. What is recorded is kept as a list of calls. Linked with the rest
 * of runtime/cuda it is a module like the real one. $EHAP_EMULATED_LOG names a file that gets a
 * line per call. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/sources.h"
#include "runtime/philox.h"
#include "runtime/scalar.h"

#include "runtime/cuda/copy.cuh"
#include "runtime/cuda/pool.cuh"
#include "runtime/cuda/random.cuh"
#include "runtime/cuda/reduce.cuh"

/* ---- the log ------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    const char *path = getenv("EHAP_EMULATED_LOG");
    FILE *f = path && *path ? fopen(path, "a") : NULL;
    if (!f) return;
    va_list ap;
    va_start(ap, format);
    vfprintf(f, format, ap);
    va_end(ap);
    fputc('\n', f);
    fclose(f);
}

/* ---- calls, done now or recorded ---------------------------------------------------------- */

typedef void Generated(const MapArgs *a);

/* Bits of the arguments of any call, one after another. */
typedef struct Call {
    void (*run)(const void *args);
    void *args;
    struct Call *next;
} Call;

typedef struct Recording {
    Call *first, **end;
} Recording;

/* What is recorded in lanes is kept lane by lane, then woven: a call of each in turn, so that lanes
 * which disturb each other compute something else. */
static Recording lanes[MAX_LANES];
static int lane = -1; /* -1: not between fork and join */

static Recording *recording;
static size_t in_use; /* bytes */
static const Node *current;

static void queue(void (*run)(const void *args), const void *args, size_t size)
{
    if (!recording) {
        run(args);
        return;
    }
    Call *c = malloc(sizeof *c + size);
    if (!c) trap(TRAP_NO_MEMORY, "out of memory for a recording");
    *c = (Call){run, c + 1, NULL};
    memcpy(c->args, args, size);
    Recording *to = lane < 0 ? recording : &lanes[lane];
    *to->end = c;
    to->end = &c->next;
}

int gpu_lanes(int n) { return note("lanes %d", n), n; }

void gpu_fork(int n)
{
    note("fork %d", n);
    for (int k = 0; k < n; k++) {
        lanes[k].first = NULL;
        lanes[k].end = &lanes[k].first;
    }
    lane = 0;
}

void gpu_lane(int k) { lane = k; }

void gpu_join(int n)
{
    bool more = true;
    note("join %d", n);
    lane = -1;
    while (recording && more) {
        more = false;
        for (int k = 0; k < n; k++) {
            Call *c = lanes[k].first;
            if (!c) continue;
            lanes[k].first = c->next;
            c->next = NULL;
            *recording->end = c;
            recording->end = &c->next;
            more = true;
        }
    }
}

/* What fails ends the recording. */
static void abandon(void)
{
    Recording *r = recording;
    recording = NULL;
    for (int k = 0; lane >= 0 && k < MAX_LANES; k++) {
        if (!lanes[k].first || !r) continue;
        *r->end = lanes[k].first;
        r->end = lanes[k].end;
    }
    lane = -1;
    if (r) gpu_discard(r);
}

const char *gpu_open(void) { return ""; }
void gpu_begin(const Node *n) { current = n; }

void gpu_fail(const char *call, const char *status)
{
    abandon();
    trap(TRAP_DEVICE, "node '%s': %s failed: %s", current && current->name ? current->name : "",
         call, status);
}

void gpu_record(void)
{
    note("record");
    lane = -1;
    recording = malloc(sizeof *recording);
    if (!recording) trap(TRAP_NO_MEMORY, "out of memory for a recording");
    recording->first = NULL;
    recording->end = &recording->first;
}

/* $EHAP_EMULATED_GRAPH_BYTES: how much may be in use for a recording to find memory of its own. */
static void check_room_for_recording(void)
{
    const char *limit = getenv("EHAP_EMULATED_GRAPH_BYTES");
    if (!limit || !*limit || in_use <= strtoull(limit, NULL, 10)) return;
    abandon();
    trap(TRAP_DEVICE_MEMORY, "cudaGraphInstantiate failed: out of memory");
}

void *gpu_recorded(void)
{
    check_room_for_recording();
    Recording *r = recording;
    note("recorded");
    recording = NULL;
    return r;
}

void gpu_replay(void *r)
{
    note("replay");
    for (Call *c = ((Recording *)r)->first; c; c = c->next) c->run(c->args);
}

void gpu_discard(void *r)
{
    for (Call *c = ((Recording *)r)->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(r);
}

/* ---- memory ------------------------------------------------------------------------------- */

/* $EHAP_EMULATED_BYTES: how much there is; $EHAP_EMULATED_FREE: how much is said to be free.
 * Allocations carry their size in front. */

void *gpu_alloc(size_t n)
{
    const char *limit = getenv("EHAP_EMULATED_BYTES");
    if (recording) gpu_fail("alloc", "not while recording");
    if (limit && *limit && in_use + n > strtoull(limit, NULL, 10)) return NULL;
    char *p = aligned_alloc(256, (n + 511) / 256 * 256);
    if (!p) return NULL;
    memset(p, 0xa5, n + 256);
    memcpy(p, &n, sizeof n);
    in_use += n;
    return p + 256;
}

void gpu_release(void *p)
{
    size_t n;
    if (!p) return;
    memcpy(&n, (char *)p - 256, sizeof n);
    in_use -= n;
    free((char *)p - 256);
}

size_t gpu_available(void)
{
    const char *promised = getenv("EHAP_EMULATED_FREE"), *limit = getenv("EHAP_EMULATED_BYTES");
    if (promised && *promised) return strtoull(promised, NULL, 10);
    if (!limit || !*limit) return SIZE_MAX;
    const size_t all = strtoull(limit, NULL, 10);
    return all > in_use ? all - in_use : 0;
}

void gpu_upload(void *to, const void *from, size_t n)
{
    if (recording) gpu_fail("upload", "not while recording");
    note("upload %zu", n);
    memcpy(to, from, n);
}

void gpu_download(void *to, const void *from, size_t n)
{
    if (recording) gpu_fail("download", "not while recording");
    note("download %zu", n);
    memcpy(to, from, n);
}

typedef struct Move {
    void *to;
    const void *from;
    size_t n;
} Move;

static void run_move(const void *args)
{
    const Move *m = args;
    memcpy(m->to, m->from, m->n);
}

void gpu_copy(void *to, const void *from, size_t n)
{
    note("copy %zu", n);
    queue(run_move, &(Move){to, from, n}, sizeof(Move));
}

typedef struct Zero {
    void *p;
    size_t n;
} Zero;

static void run_zero(const void *args)
{
    const Zero *z = args;
    memset(z->p, 0, z->n);
}

void gpu_zero(void *p, size_t n)
{
    const Zero z = {p, n};
    note("zero %zu", n);
    queue(run_zero, &z, sizeof z);
}

/* ---- kernels ------------------------------------------------------------------------------ */

#define EMULATE(name, Args)                                                                        \
    static void run_##name(const void *args)                                                       \
    {                                                                                              \
        const Args *a = args;                                                                      \
        for (int64_t i = 0; i < a->threads; i++) name##_thread(a, i);                              \
    }
GPU_KERNELS(EMULATE)

#define ENTRY(name, Args) {#name, run_##name, sizeof(Args)},
static const struct {
    const char *name;
    void (*run)(const void *args);
    size_t size;
} kernels[] = {GPU_KERNELS(ENTRY)};

/* What a device would refuse: launches of nothing, too large arguments. */
#define SMALL(name, Args) _Static_assert(sizeof(Args) <= 4096, "arguments of " #name);
GPU_KERNELS(SMALL)
_Static_assert(sizeof(MapArgs) <= 4096, "arguments of generated kernels");

static void check_threads(int64_t threads)
{
    if (threads <= 0) gpu_fail("launch", "no threads");
}

void gpu_launch(enum GpuKernel kernel, const void *args)
{
    check_threads(*(const int64_t *)args);
    note("launch %s %lld", kernels[kernel].name, (long long)*(const int64_t *)args);
    queue(kernels[kernel].run, args, kernels[kernel].size);
}

typedef struct Built {
    Generated *f;
    MapArgs args;
} Built;

static void run_built(const void *args)
{
    const Built *b = args;
    b->f(&b->args);
}

void gpu_launch_built(void *built, const MapArgs *args)
{
    Built b = {.args = *args};
    check_threads(args->threads);
    memcpy(&b.f, &built, sizeof built);
    note("launch generated %lld", (long long)args->threads);
    queue(run_built, &b, sizeof b);
}

/* ---- generated code ----------------------------------------------------------------------- */

static char folder[512];

static void remove_folder(void)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "cannot remove %s\n", folder);
}

/* $EHAP_CACHE, or a folder of this process alone. */
static void choose_folder(void)
{
    const char *cache = getenv("EHAP_CACHE");
    if (cache && *cache) {
        snprintf(folder, sizeof folder, "%s", cache);
        mkdir(folder, 0777);
        return;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/ehap_emulated_XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) gpu_fail("mkdtemp", folder);
    atexit(remove_folder);
}

static uint64_t hash(const char *s, uint64_t h)
{
    while (*s) h = (h ^ (uint8_t)*s++) * 1099511628211u;
    return h;
}

/* Compiles to a name of our own and moves it into place, so that another process may do the same.
 */
static void compile(const char *library, const char *source)
{
    char temporary[700], kept[700], command[2400];
    snprintf(temporary, sizeof temporary, "%s.%ld", library, (long)getpid());
    snprintf(command, sizeof command,
             "cc -x c -std=c11 -O1 -ffp-contract=off -fno-math-errno -w -shared -fPIC -o '%s' - && "
             "mv '%s' '%s'",
             temporary, temporary, library);
    snprintf(kept, sizeof kept, "%s.source", library);
    FILE *cc = popen(command, "w"), *copy = fopen(kept, "w"); /* for nvrtc_all.c */
    if (copy) {
        fputs(source, copy);
        fclose(copy);
    }
    if (!cc) gpu_fail("cc", "cannot be started");
    fputs(gpu_prelude, cc);
    fputs(gpu_scalar, cc);
    fputs(source, cc);
    if (pclose(cc) != 0) gpu_fail("cc", source);
}

void *gpu_build(const char *source)
{
    char library[640];
    if (!*folder) choose_folder();
    const uint64_t key = hash(source, hash(gpu_scalar, hash(gpu_prelude, 14695981039346656037u)));
    snprintf(library, sizeof library, "%s/%016llx.so", folder, (unsigned long long)key);
    if (access(library, R_OK) != 0) compile(library, source);
    void *module = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!module) gpu_fail("dlopen", dlerror());
    note("build %s", library);
    return dlsym(module, "generated");
}

/* As NCCL would, by MPI; $EHAP_EMULATED_NCCL=0: as where there is none. */
void gpu_over_ranks(void *x, DType t, int64_t n, RankOp op, bool in_order)
{
    const char *nccl = getenv("EHAP_EMULATED_NCCL");
    const size_t size = (size_t)n * dtype_size(t), padded = (size + 63) & ~(size_t)63;
    note("over_ranks %lld op %d%s", (long long)n, (int)op, in_order ? " in order" : "");
    if (nccl && *nccl == '0') {
        gpu_over_ranks_by_host(x, t, n, op);
        return;
    }
    char *mine = calloc(1, padded + 1), *all = malloc(padded * (size_t)ranks_count() + 1);
    if (!mine || !all) trap(TRAP_NO_MEMORY, "out of memory for sums over ranks");
    memcpy(mine, x, size);
    ranks_exchange(mine, padded, all);
    for (int r = 1; r < ranks_count(); r++)
        memmove(all + (size_t)r * size, all + (size_t)r * padded, size);
    gpu_combine(x, all, t, n, op);
    free(mine);
    free(all);
}

/* $EHAP_EMULATED_CAPABILITY: 75, say. */
bool gpu_multiplies(DType storage)
{
    const char *capability = getenv("EHAP_EMULATED_CAPABILITY");
    return storage != DT_BF16 || !capability || atoi(capability) >= 80;
}

/* What cuDNN and cuBLAS are fast with, and may insist on. */
static void check_aligned(const char *what, const void *p)
{
    if ((uintptr_t)p % 16) gpu_fail(what, "an operand is not aligned");
}

/* ---- convolutions ------------------------------------------------------------------------- */

struct GpuConvPlan {
    GpuConv c;
};

GpuConvPlan *gpu_conv_create(const GpuConv *c, size_t *scratch)
{
    GpuConvPlan *p = malloc(sizeof *p);
    if (!p) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    p->c = *c;
    *scratch = 0;
    note("conv_create %d x %d,%d,%d,%d -> %d,%d,%d k %d,%d pad %d,%d group %d %s", (int)c->kind,
         c->n, c->h, c->w, c->c, c->p, c->q, c->o, c->kh, c->kw, c->pad[0], c->pad[1], c->group,
         c->storage == DT_F16    ? "half"
         : c->storage == DT_BF16 ? "bfloat"
                                 : "float");
    return p;
}

void gpu_conv_destroy(GpuConvPlan *p) { free(p); }

typedef struct ConvCall {
    GpuConv c;
    const void *x, *y;
    float beta;
    void *result;
    double *sum; /* of the result, while running */
} ConvCall;

/* Calls f for every product of the convolution with offsets into src, weights and dst. */
typedef void Product(const ConvCall *k, int64_t src, int64_t weight, int64_t dst);

static void each_tap(const ConvCall *k, Product *f, int n, int p, int q, int o)
{
    const GpuConv *c = &k->c;
    const int per = c->c / c->group, base = o / (c->o / c->group) * per;
    const int64_t dst = (((int64_t)n * c->p + p) * c->q + q) * c->o + o;
    for (int y = 0; y < c->kh; y++)
        for (int x = 0; x < c->kw; x++) {
            const int h = p * c->stride[0] + y * c->dilation[0] - c->pad[0];
            const int w = q * c->stride[1] + x * c->dilation[1] - c->pad[1];
            if (h < 0 || h >= c->h || w < 0 || w >= c->w) continue;
            for (int i = 0; i < per; i++)
                f(k, (((int64_t)n * c->h + h) * c->w + w) * c->c + base + i,
                  (((int64_t)o * c->kh + y) * c->kw + x) * per + i, dst);
        }
}

static void each_product(const ConvCall *k, Product *f)
{
    for (int n = 0; n < k->c.n; n++)
        for (int p = 0; p < k->c.p; p++)
            for (int q = 0; q < k->c.q; q++)
                for (int o = 0; o < k->c.o; o++) each_tap(k, f, n, p, q, o);
}

static double at(const ConvCall *k, const void *p, int64_t i)
{
    return (double)gpu_load(p, (int)k->c.storage, i);
}

static void forward(const ConvCall *k, int64_t src, int64_t weight, int64_t dst)
{
    k->sum[dst] += at(k, k->x, src) * at(k, k->y, weight);
}

static void by_data(const ConvCall *k, int64_t src, int64_t weight, int64_t dst)
{
    k->sum[src] += at(k, k->x, weight) * at(k, k->y, dst);
}

static void by_weights(const ConvCall *k, int64_t src, int64_t weight, int64_t dst)
{
    k->sum[weight] += at(k, k->x, src) * at(k, k->y, dst);
}

static void run_conv(const void *args)
{
    ConvCall k = *(const ConvCall *)args;
    const GpuConv *c = &k.c;
    static Product *const product[] = {forward, by_data, by_weights};
    const int64_t size[] = {(int64_t)c->n * c->p * c->q * c->o, (int64_t)c->n * c->h * c->w * c->c,
                            (int64_t)c->o * c->kh * c->kw * (c->c / c->group)};
    k.sum = calloc((size_t)size[c->kind], sizeof *k.sum);
    if (!k.sum) trap(TRAP_NO_MEMORY, "out of memory for a convolution");
    each_product(&k, product[c->kind]);
    for (int64_t i = 0; i < size[c->kind]; i++) {
        const double before = k.beta != 0.f ? (double)k.beta * at(&k, k.result, i) : 0;
        gpu_store(k.result, (int)c->storage, i, (float)(k.sum[i] + before));
    }
    free(k.sum);
}

void gpu_conv_run(const GpuConvPlan *p, const void *x, const void *y, float beta, void *result,
                  void *scratch)
{
    const ConvCall k = {.c = p->c, .x = x, .y = y, .beta = beta, .result = result};
    check_aligned("convolution", x);
    check_aligned("convolution", y);
    check_aligned("convolution", result);
    if ((uintptr_t)scratch % 256) gpu_fail("convolution", "the workspace is not aligned");
    note("conv %d beta %g", (int)p->c.kind, (double)beta);
    queue(run_conv, &k, sizeof k);
}

/* ---- products ----------------------------------------------------------------------------- */

typedef struct GemmCall {
    GpuGemm g;
    const void *a, *b;
    void *y;
} GemmCall;

static void run_gemm(const void *args)
{
    const GemmCall *c = args;
    const GpuGemm *g = &c->g;
    for (int64_t t = 0; t < g->batch; t++)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++) {
                const int64_t to = t * g->stride_y + i * g->ldy + j;
                double sum = 0;
                for (int64_t k = 0; k < g->k; k++)
                    sum += (double)gpu_load(c->a, (int)g->storage,
                                            t * g->stride_a +
                                                (g->ta ? k * g->lda + i : i * g->lda + k)) *
                           (double)gpu_load(c->b, (int)g->storage,
                                            t * g->stride_b +
                                                (g->tb ? j * g->ldb + k : k * g->ldb + j));
                const double before =
                    g->beta != 0.f ? (double)g->beta * (double)gpu_load(c->y, (int)g->result, to)
                                   : 0;
                gpu_store(c->y, (int)g->result, to, (float)((double)g->alpha * sum + before));
            }
}

void gpu_gemm(const GpuGemm *g, const void *a, const void *b, void *y)
{
    const GemmCall c = {*g, a, b, y};
    note("gemm %d x %d,%d,%d", g->batch, g->m, g->n, g->k);
    queue(run_gemm, &c, sizeof c);
}
