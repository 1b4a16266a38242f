/* The record of calls, and CUDA itself: see stubs.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/stubs.h"

char log_text[16384];

__attribute__((format(printf, 1, 2))) void note(const char *format, ...)
{
    const size_t n = strlen(log_text);
    va_list ap;
    va_start(ap, format);
    vsnprintf(log_text + n, sizeof log_text - n, format, ap);
    va_end(ap);
}

void forget(void) { log_text[0] = '\0'; }

void must_say(const char *text)
{
    if (!strstr(log_text, text)) fail_msg("'%s' is not in:\n%s", text, log_text);
}

/* ---- CUDA -------------------------------------------------------------------------------------
 */

cudaError_t next_status;

/* Calls are counted; the one of this number fails, if it is not 0. */
int calls, failing;

bool fails(void) { return ++calls == failing; }

static cudaError_t result(void)
{
    const cudaError_t s = next_status;
    next_status = cudaSuccess;
    return fails() ? (cudaError_t)700 : s;
}

cudaError_t cudaGetDeviceCount(int *count) { return *count = 2, result(); }
cudaError_t cudaGetDevice(int *device) { return *device = 1, result(); }
cudaError_t cudaDeviceGetPCIBusId(char *text, int n, int device)
{
    snprintf(text, (size_t)n, "0000:%02d:00.0", device);
    return result();
}
cudaError_t cudaSetDevice(int device) { return note("device %d\n", device), result(); }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    memset(p, 0, sizeof *p);
    p->major = 9;
    return result();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    static intptr_t count;
    *s = (cudaStream_t)++count;
    return note("stream %u\n", flags), result();
}
cudaError_t cudaMallocHost(void **p, size_t n) { return *p = malloc(n), result(); }
cudaError_t cudaMalloc(void **p, size_t n)
{
    const cudaError_t s = result();
    *p = s ? NULL : malloc(n ? n : 1);
    return s;
}
size_t left = (size_t)1 << 30;
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *free_bytes = left;
    *total = (size_t)1 << 30;
    return result();
}
cudaError_t cudaFree(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    static intptr_t count;
    (void)flags;
    *e = (cudaEvent_t)++count;
    return result();
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    return note("wait %d\n", (int)(intptr_t)e), result();
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    return note("event %d on %d\n", (int)(intptr_t)e, (int)(intptr_t)s), result();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    (void)flags;
    return note("stream %d waits for %d\n", (int)(intptr_t)s, (int)(intptr_t)e), result();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    memcpy(to, from, n);
    return note("copy %zu kind %d on %d\n", n, (int)kind, (int)(intptr_t)s), result();
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    (void)s;
    memset(p, value, n);
    return note("set %zu\n", n), result();
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return (void)s, note("sync\n"), result(); }
bool lost;
cudaError_t cudaGetLastError(void) { return lost ? (cudaError_t)700 : cudaSuccess; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f)
{
    memset(a, 0, sizeof *a);
    return note("load %d\n", (int)(intptr_t)f), result();
}
cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *o,
                                void **ov, unsigned no, enum cudaLibraryOption *lo, void **lov,
                                unsigned nl)
{
    (void)o, (void)ov, (void)no, (void)lo, (void)lov, (void)nl;
    *library = (cudaLibrary_t)90;
    return note("library %.8s\n", (const char *)code), result();
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
    (void)library;
    *kernel = (cudaKernel_t)91;
    return note("kernel %s\n", name), result();
}
const char *cudaGetErrorString(cudaError_t s) { return s == 700 ? "illegal access" : "no memory"; }
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t s)
{
    (void)args, (void)shared;
    note("launch %d grid %u block %u on %d\n", (int)(intptr_t)f, grid.x, block.x, (int)(intptr_t)s);
    return result();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)s;
    return note("capture %d\n", (int)mode), result();
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    (void)s;
    *g = (cudaGraph_t)7;
    note("captured\n");
    return result();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags)
{
    (void)g, (void)flags;
    *e = (cudaGraphExec_t)8;
    return note("instantiate\n"), result();
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    return (void)g, note("destroy graph\n"), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s)
{
    (void)s;
    return note("replay %d\n", (int)(intptr_t)e), result();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return (void)e, note("drop\n"), cudaSuccess; }

/* Kernel k is "function" k + 1. */
const void *const gpu_kernel_table[GPU_KERNEL_COUNT] = {(void *)1, (void *)2, (void *)3, (void *)4,
                                                        (void *)5, (void *)6, (void *)7, (void *)8,
                                                        (void *)9, (void *)10};
/* ---- failures ---------------------------------------------------------------------------------
 */

void every_call_fails(void (*f)(void), int at_least)
{
    static const Node n = {.op = OP_Conv, .name = "conv7"};
    calls = failing = 0;
    gpu_begin(&n);
    f();
    const int all = calls;
    assert_true(all >= at_least);
    for (int k = 1; k <= all; k++) {
        Trap t;
        calls = 0;
        failing = k;
        if (trap_enter(&t) == 0) {
            f();
            if (calls >= k) fail_msg("nobody noticed that call %d of %d failed", k, all);
            trap_leave(&t);
        }
        failing = 0;
        assert_int_equal(t.kind, TRAP_DEVICE);
        if (!strstr(t.message, "node 'conv7' (Conv): cu") && !strstr(t.message, "(Conv): n"))
            fail_msg("%s", t.message);
    }
}
