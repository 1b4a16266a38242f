/* Lanes: streams with the libraries' handles, which stay where they are, so that changing lanes
 * costs nothing and each handle keeps its workspace. fork and join are events, which a capture
 * turns into branches of the graph. */
#include "runtime/cuda/real.h"

static struct {
    cudaStream_t stream;
    cudnnHandle_t cudnn;
    cublasHandle_t cublas;
    cudaEvent_t reached; /* of lane 0: the fork */
} lanes[MAX_LANES];

static int opened;

/* cuBLAS adds in the same order in every run, and in every lane, if its workspace is ours and
 * fixed. */
static const char *open_cublas(int k)
{
    enum { WORKSPACE = 32 << 20 };
    void *workspace;
    OPEN(cublas, cublasCreate(&lanes[k].cublas));
    OPEN(cublas, cublasSetStream(lanes[k].cublas, lanes[k].stream));
    OPEN(cuda, cudaMalloc(&workspace, WORKSPACE));
    OPEN(cublas, cublasSetWorkspace(lanes[k].cublas, workspace, WORKSPACE));
    return "";
}

const char *gpu_lane_open(int k)
{
    OPEN(cuda, cudaStreamCreateWithFlags(&lanes[k].stream, cudaStreamNonBlocking));
    OPEN(cuda, cudaEventCreateWithFlags(&lanes[k].reached, cudaEventDisableTiming));
    OPEN(cudnn, cudnnCreate(&lanes[k].cudnn));
    OPEN(cudnn, cudnnSetStream(lanes[k].cudnn, lanes[k].stream));
    const char *why = open_cublas(k);
    if (!*why) opened = k + 1;
    gpu_lane(0);
    return why;
}

/* Fewer than n lanes do, too. */
int gpu_lanes(int n)
{
    while (opened < n && !*gpu_lane_open(opened)) continue;
    (void)cudaGetLastError();
    return opened < n ? opened : n;
}

void gpu_lane(int k)
{
    gpu.stream = lanes[k].stream;
    gpu.cudnn = lanes[k].cudnn;
    gpu.cublas = lanes[k].cublas;
}

void gpu_fork(int n)
{
    CHECK(cuda, cudaEventRecord(lanes[0].reached, lanes[0].stream));
    for (int k = 1; k < n; k++)
        CHECK(cuda, cudaStreamWaitEvent(lanes[k].stream, lanes[0].reached, 0));
}

void gpu_join(int n)
{
    for (int k = 1; k < n; k++) {
        CHECK(cuda, cudaEventRecord(lanes[k].reached, lanes[k].stream));
        CHECK(cuda, cudaStreamWaitEvent(lanes[0].stream, lanes[k].reached, 0));
    }
    gpu_lane(0);
}
