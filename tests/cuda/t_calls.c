/* What the module asks of CUDA and NVRTC, on functions of the same names that record their
 * arguments: opening, the ring of uploads, capture, generated code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/cuda/stubs.h"

static void *a_number(int n) { return (void *)(intptr_t)n; }

static void test_open(void **state)
{
    (void)state;
    forget();
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "3", 1);
    assert_string_equal(gpu_open(), "");
    must_say("device 1\n"); /* the fourth process of two devices */
    must_say("stream 1\n"); /* does not wait for the default stream */
    must_say("workspace ");
    must_say("load 1\nload 2\n"); /* every kernel is loaded before anything is captured */
    for (int k = 1; k <= GPU_KERNEL_COUNT; k++) {
        char line[32];
        snprintf(line, sizeof line, "load %d\n", k);
        must_say(line);
    }
}

static void test_recording(void **state)
{
    (void)state;
    forget();
    const CopyArgs a = {.threads = 1000};
    const SignArgs s = {.threads = 256};
    gpu_record();
    gpu_launch(GPU_copy, &a);
    gpu_zero(log_text + sizeof log_text - 8, 8);
    gpu_launch(GPU_sign, &s);
    void *r = gpu_recorded();
    gpu_replay(r);
    gpu_replay(r);
    assert_string_equal(log_text, "capture 1\nlaunch 1 grid 4 block 256 on 1\nset 8\n"
                                  "launch 5 grid 1 block 256 on 1\ncaptured\ninstantiate\n"
                                  "destroy graph\nreplay 8\nreplay 8\n");
    gpu_discard(r);
}

/* Lanes are branches: each waits for the fork, the first for all at the join; every call in a lane
 * goes to its stream, those of the libraries through handles of its own. */
static void test_lanes(void **state)
{
    (void)state;
    const CopyArgs a = {.threads = 1};
    const GpuGemm g = {.storage = DT_F16, .result = DT_F16, .m = 1, .n = 1, .k = 1, .batch = 1};
    forget();
    assert_int_equal(gpu_lanes(3), 3);
    must_say("stream 1\n");
    must_say("workspace ");
    forget();
    assert_int_equal(gpu_lanes(2), 2); /* they are there */
    assert_string_equal(log_text, "");
    gpu_fork(3);
    gpu_launch(GPU_copy, &a);
    gpu_lane(2);
    gpu_launch(GPU_copy, &a);
    const cublasHandle_t second = gpu.cublas;
    gpu_gemm(&g, a_number(1), a_number(2), a_number(3));
    gpu_join(3);
    assert_true(gpu.cublas != second);
    must_say("event 1 on 1\nstream 3 waits for 1\nstream 4 waits for 1\n"
             "launch 1 grid 1 block 256 on 1\nlaunch 1 grid 1 block 256 on 4\n");
    must_say("event 34 on 3\nstream 1 waits for 34\nevent 35 on 4\nstream 1 waits for 35\n");
}

/* An upload returns with the caller's data copied, in parts of the ring's size. */
static void test_upload(void **state)
{
    (void)state;
    const size_t n = ((size_t)9 << 20) + 5;
    char *from = calloc(1, n), *to = gpu_alloc(n), *back = malloc(n);
    forget();
    from[n - 1] = 42;
    gpu_upload(to, from, n);
    /* Events 2k + 2 (there) and 2k + 3 (taken) belong to buffer k; kernels run on stream 1. */
    assert_string_equal(log_text,
                        "wait 2\nstream 2 waits for 3\ncopy 4194304 kind 1 on 2\nevent 2 on 2\n"
                        "stream 1 waits for 2\ncopy 4194304 kind 3 on 1\nevent 3 on 1\n"
                        "wait 4\nstream 2 waits for 5\ncopy 4194304 kind 1 on 2\nevent 4 on 2\n"
                        "stream 1 waits for 4\ncopy 4194304 kind 3 on 1\nevent 5 on 1\n"
                        "wait 6\nstream 2 waits for 7\ncopy 1048581 kind 1 on 2\nevent 6 on 2\n"
                        "stream 1 waits for 6\ncopy 1048581 kind 3 on 1\nevent 7 on 1\n");
    gpu_download(back, to, n);
    must_say("kind 2 on 1\nsync\n");
    assert_int_equal(back[n - 1], 42);
    free(from);
    free(back);
    gpu_release(to);
}

static void test_errors(void **state)
{
    (void)state;
    Trap t;
    Node n = {.op = OP_Conv, .name = "conv7"};
    const CopyArgs a = {.threads = 1};
    next_status = cudaErrorMemoryAllocation;
    assert_null(gpu_alloc(100));
    gpu_begin(&n);
    next_status = (cudaError_t)700;
    if (trap_enter(&t) == 0) {
        gpu_launch(GPU_copy, &a);
        fail_msg("the launch should have failed");
    }
    assert_int_equal(t.kind, TRAP_DEVICE);
    assert_string_equal(t.message, "node 'conv7' (Conv): cudaLaunchKernel failed: illegal access");
}

/* What fails: the kind of trap, and its message. */
static void must_trap(void (*f)(void), TrapKind kind, const char *message)
{
    static const Node n = {.op = OP_Conv, .name = "conv7"};
    Trap t;
    gpu_begin(&n);
    if (trap_enter(&t) == 0) {
        f();
        fail_msg("nothing failed");
    }
    assert_int_equal(t.kind, kind);
    assert_string_equal(t.message, message);
}

static void a_launch(void)
{
    const CopyArgs a = {.threads = 1};
    gpu_launch(GPU_copy, &a);
}

/* An error that stays has destroyed the context; memory that is missing is a kind of its own. */
static void test_lost_device(void **state)
{
    (void)state;
    next_status = (cudaError_t)700;
    lost = true;
    must_trap(a_launch, TRAP_DEVICE,
              "node 'conv7' (Conv): cudaLaunchKernel failed: illegal access; the device is lost to "
              "this run");
    lost = false;
    next_status = cudaErrorMemoryAllocation;
    must_trap(a_launch, TRAP_DEVICE_MEMORY,
              "node 'conv7' (Conv): cudaLaunchKernel failed: no memory");
}

static void a_capture_that_fails(void)
{
    gpu_record();
    next_status = (cudaError_t)700;
    a_launch();
}

/* The stream does not stay in capture, where nothing would run. */
static void test_capture_is_abandoned(void **state)
{
    (void)state;
    forget();
    must_trap(a_capture_that_fails, TRAP_DEVICE,
              "node 'conv7' (Conv): cudaLaunchKernel failed: illegal access");
    must_say("capture 1\nlaunch 1 grid 1 block 256 on 1\ncaptured\ndestroy graph\n");
    forget();
    gpu_release(NULL);
    assert_null(strstr(log_text, "captured"));
}

/* ---- generated code ---------------------------------------------------------------------------
 */

static char cache[] = "/tmp/ehap_calls_XXXXXX";

static void a_build(void)
{
    static int number;
    char source[32];
    snprintf(source, sizeof source, "source %d", number++);
    assert_ptr_equal(gpu_build(source), (void *)91);
}

static void test_generated(void **state)
{
    (void)state;
    setenv("EHAP_CACHE", cache, 1);
    forget();
    assert_ptr_equal(gpu_build("x"), (void *)91);
    assert_string_equal(log_text, "compile --gpu-architecture=sm_90\nlibrary cubin\nkernel "
                                  "generated\nload 91\n");
    forget();
    assert_ptr_equal(gpu_build("x"), (void *)91); /* from the folder */
    assert_string_equal(log_text, "library cubin\nkernel generated\nload 91\n");
    forget();
    next_status = (cudaError_t)200; /* what is kept there is of no use: compiled anew */
    assert_ptr_equal(gpu_build("x"), (void *)91);
    must_say("library cubin\ncompile --gpu-architecture=sm_90\nlibrary cubin\n");
}

/* A device that is newer than NVRTC, of the same family or of another. */
static void test_newer_device(void **state)
{
    (void)state;
    const int capability = gpu.capability;
    forget();
    gpu.capability = 89;
    a_build();
    must_say("compile --gpu-architecture=sm_80\nlibrary cubin\n");
    forget();
    gpu.capability = 100;
    a_build();
    must_say("compile --gpu-architecture=compute_90\nlibrary ptx\n");
    gpu.capability = capability;
}

/* ---- failures ---------------------------------------------------------------------------------
 */

static char device_bytes[64];
static void *a_recording;

static void moving_data(void)
{
    char host[64] = {0};
    gpu_upload(device_bytes, host, sizeof host);
    gpu_zero(device_bytes, 8);
    gpu_download(host, device_bytes, sizeof host);
    (void)gpu_available();
}

static void recording(void)
{
    const CopyArgs a = {.threads = 1};
    gpu_record();
    gpu_launch(GPU_copy, &a);
    a_recording = gpu_recorded();
    gpu_replay(a_recording);
}

static void side_by_side(void)
{
    gpu_fork(3);
    gpu_lane(1);
    gpu_join(3);
}

static void test_every_call_fails(void **state)
{
    (void)state;
    every_call_fails(side_by_side, 7);
    every_call_fails(moving_data, 9);
    every_call_fails(recording, 4);
    every_call_fails(a_build, 9);
}

/* In processes of their own, as a device is opened once. */
static void test_opening_fails(void **state)
{
    (void)state;
    int all = 0, status;
    for (int k = 1; !all; k++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            failing = k;
            const bool opened = !*gpu_open();
            _exit(calls < k ? 2 : opened ? 1 : 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        if (WEXITSTATUS(status) == 2) all = k - 1;
    }
    assert_true(all > 80); /* the ring alone makes 64 calls */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening_fails),    cmocka_unit_test(test_open),
        cmocka_unit_test(test_recording),        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_errors),           cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_lost_device),      cmocka_unit_test(test_capture_is_abandoned),
        cmocka_unit_test(test_generated),        cmocka_unit_test(test_newer_device),
        cmocka_unit_test(test_every_call_fails),
    };
    if (!mkdtemp(cache)) return 1;
    const int failures = cmocka_run_group_tests(tests, NULL, NULL);
    if (fork() == 0) execlp("rm", "rm", "-rf", cache, (char *)NULL);
    wait(NULL);
    return failures;
}
