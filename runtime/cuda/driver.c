/* The device, its memory, launches and recordings.
 *
 * Kernels are queued on a stream of our own (lanes.c: several, side by side), uploads on a second
 * one: through a ring of pinned buffers, so that the caller's data may change, into a ring on the
 * device, from where the first stream copies them to their place. So data cross the bus while
 * earlier kernels run; the host only waits for a pinned buffer to have left. Downloads wait. A
 * recording is a CUDA graph, captured from the first stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op.h"
#include "runtime/cuda/real.h"

Gpu gpu;

static const Node *current;

void gpu_begin(const Node *n) { current = n; }

/* The first stream is being captured: what fails must end that, or nothing would run any more. */
static bool capturing;

static void abandon_capture(void)
{
    cudaGraph_t graph = NULL;
    if (!capturing) return;
    capturing = false;
    (void)cudaStreamEndCapture(gpu.stream, &graph);
    if (graph) (void)cudaGraphDestroy(graph);
}

/* An error that stays after it has been asked for has destroyed the context; a kernel queued before
 * the failing call may have made it. */
static bool device_is_lost(void)
{
    (void)cudaGetLastError();
    return cudaGetLastError() != cudaSuccess;
}

void gpu_failed(const char *call, const char *status, bool full)
{
    const int name = (int)strcspn(call, "("); /* the function, without its arguments */
    const char *lost = device_is_lost() ? "; the device is lost to this run" : "";
    const TrapKind kind = full ? TRAP_DEVICE_MEMORY : TRAP_DEVICE;
    gpu_lane(0);
    abandon_capture();
    if (!current) trap(kind, "%.*s failed: %s%s", name, call, status, lost);
    trap(kind, "node '%s' (%s): %.*s failed: %s%s", current->name ? current->name : "",
         node_op_name(current), name, call, status, lost);
}

void gpu_fail(const char *call, const char *status) { gpu_failed(call, status, false); }

/* ---- opening -------------------------------------------------------------------------------- */

enum { RING = 16, CHUNK = 4 << 20 };

static struct {
    char *pinned[RING], *arrival[RING];   /* on the host, on the device */
    cudaEvent_t there[RING], taken[RING]; /* arrival is full; is copied to its place */
    int next;
} ring;

const char *gpu_say(const char *what, const char *status)
{
    static char text[256];
    snprintf(text, sizeof text, "%s: %s", what, status);
    return text;
}

static const char *open_ring(void)
{
    for (int k = 0; k < RING; k++) {
        OPEN(cuda, cudaMallocHost((void **)&ring.pinned[k], CHUNK));
        OPEN(cuda, cudaMalloc((void **)&ring.arrival[k], CHUNK));
        OPEN(cuda, cudaEventCreateWithFlags(&ring.there[k], cudaEventDisableTiming));
        OPEN(cuda, cudaEventCreateWithFlags(&ring.taken[k], cudaEventDisableTiming));
    }
    return "";
}

/* Which of the machine's processes this is, by what mpirun tells it: each drives a device. */
static int place_on_machine(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                        "SLURM_LOCALID"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        const char *text = getenv(names[k]);
        if (text && *text) return abs(atoi(text));
    }
    return 0;
}

extern const void *const gpu_kernel_table[GPU_KERNEL_COUNT]; /* kernels.cu */

/* Loads every kernel now: the driver would at the first launch, which may be in a capture, where it
 * must not. Also tells whether there is code for this device. */
static const char *load_kernels(void)
{
    struct cudaFuncAttributes attributes;
    for (int k = 0; k < GPU_KERNEL_COUNT; k++)
        OPEN(cuda, cudaFuncGetAttributes(&attributes, gpu_kernel_table[k]));
    return "";
}

static const char *open_all(void)
{
    int count = 0;
    struct cudaDeviceProp properties;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorInsufficientDriver) return "there is no CUDA driver, or it is too old";
    if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
        return "there is no CUDA device";
    OPEN(cuda, status);
    const int device = place_on_machine() % count;
    OPEN(cuda, cudaSetDevice(device));
    OPEN(cuda, cudaGetDeviceProperties(&properties, device));
    gpu.capability = 10 * properties.major + properties.minor;
    if (gpu.capability < 70) return "the device is older than compute capability 7.0";
    const char *why = gpu_lane_open(0);
    if (!*why) OPEN(cuda, cudaStreamCreateWithFlags(&gpu.uploads, cudaStreamNonBlocking));
    if (!*why) why = load_kernels();
    return *why ? why : open_ring();
}

const char *gpu_open(void)
{
    static const char *why;
    if (!why) why = open_all();
    return why;
}

bool gpu_multiplies(DType storage)
{
    return storage == DT_F32 || storage == DT_F16 || (storage == DT_BF16 && gpu.capability >= 80);
}

/* ---- memory --------------------------------------------------------------------------------- */

void *gpu_alloc(size_t n)
{
    void *p = NULL;
    const cudaError_t status = cudaMalloc(&p, n);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* not sticky: forget it */
        return NULL;
    }
    CHECK_STATUS(cuda, status, "cudaMalloc");
    return p;
}

/* What is queued may still use it. Runs while a trap is on its way, too: never traps. */
void gpu_release(void *p)
{
    abandon_capture();
    (void)cudaStreamSynchronize(gpu.stream);
    (void)cudaFree(p);
}

/* A sixteenth is left to the libraries and to fragments. */
size_t gpu_available(void)
{
    size_t left, total;
    CHECK(cuda, cudaMemGetInfo(&left, &total));
    return left - left / 16;
}

void gpu_upload(void *to, const void *from, size_t n)
{
    for (size_t done = 0; done < n;) {
        const size_t part = n - done < CHUNK ? n - done : CHUNK;
        const int k = ring.next;
        ring.next = (k + 1) % RING;
        CHECK(cuda, cudaEventSynchronize(ring.there[k]));
        memcpy(ring.pinned[k], (const char *)from + done, part);
        CHECK(cuda, cudaStreamWaitEvent(gpu.uploads, ring.taken[k], 0));
        CHECK(cuda, cudaMemcpyAsync(ring.arrival[k], ring.pinned[k], part, cudaMemcpyHostToDevice,
                                    gpu.uploads));
        CHECK(cuda, cudaEventRecord(ring.there[k], gpu.uploads));
        CHECK(cuda, cudaStreamWaitEvent(gpu.stream, ring.there[k], 0));
        CHECK(cuda, cudaMemcpyAsync((char *)to + done, ring.arrival[k], part,
                                    cudaMemcpyDeviceToDevice, gpu.stream));
        CHECK(cuda, cudaEventRecord(ring.taken[k], gpu.stream));
        done += part;
    }
}

void gpu_download(void *to, const void *from, size_t n)
{
    CHECK(cuda, cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToHost, gpu.stream));
    CHECK(cuda, cudaStreamSynchronize(gpu.stream));
}

void gpu_copy(void *to, const void *from, size_t n)
{
    CHECK(cuda, cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, gpu.stream));
}

void gpu_zero(void *p, size_t n) { CHECK(cuda, cudaMemsetAsync(p, 0, n, gpu.stream)); }

/* ---- launches ------------------------------------------------------------------------------- */

enum { BLOCK_THREADS = 256 };

static void launch(const void *kernel, int64_t threads, const void *args)
{
    void *pointers[1] = {(void *)(uintptr_t)args};
    const int64_t blocks = (threads + BLOCK_THREADS - 1) / BLOCK_THREADS;
    if (blocks > INT32_MAX) gpu_fail("launch", "more than 2^31 blocks");
    const dim3 grid = {(unsigned)blocks, 1, 1}, block = {BLOCK_THREADS, 1, 1};
    CHECK(cuda, cudaLaunchKernel(kernel, grid, block, pointers, 0, gpu.stream));
}

void gpu_launch(enum GpuKernel kernel, const void *args)
{
    int64_t threads;
    memcpy(&threads, args, sizeof threads);
    launch(gpu_kernel_table[kernel], threads, args);
}

void gpu_launch_built(void *built, const MapArgs *args) { launch(built, args->threads, args); }

/* ---- recordings ----------------------------------------------------------------------------- */

void gpu_record(void)
{
    CHECK(cuda, cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeThreadLocal));
    capturing = true;
}

void *gpu_recorded(void)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready;
    capturing = false;
    CHECK(cuda, cudaStreamEndCapture(gpu.stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&ready, graph, 0);
    (void)cudaGraphDestroy(graph);
    CHECK_STATUS(cuda, status, "cudaGraphInstantiate");
    return ready;
}

void gpu_replay(void *recording) { CHECK(cuda, cudaGraphLaunch(recording, gpu.stream)); }

void gpu_discard(void *recording)
{
    (void)cudaStreamSynchronize(gpu.stream);
    (void)cudaGraphExecDestroy(recording);
}
