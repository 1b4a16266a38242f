/* What is asked of NCCL, and when the hosts do its work: on a library that records (fake_nccl.c)
 * and on ranks that this file plays, the others answering as its own does. Each test is a process,
 * as the decision is made once. */
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

enum { RANKS = 3 };

static bool same_bus;
static int exchanges;

int ranks_count(void) { return RANKS; }
int ranks_index(void) { return 0; }
bool ranks_all(bool yes) { return yes; }
void ranks_exchange(const void *mine, size_t n, void *all)
{
    exchanges++;
    for (int r = 0; r < RANKS; r++) {
        char *part = (char *)all + (size_t)r * n;
        memcpy(part, mine, n);
        if (n == 128 && exchanges == 1 && !same_bus && part[64]) part[n - 1] = (char)(r + 1);
    }
}

static float *numbers(int n)
{
    float *x = gpu_alloc((size_t)n * sizeof *x);
    for (int k = 0; k < n; k++) x[k] = (float)k;
    return x;
}

/* Runs f in a child; what it asserts is the parent's result. */
static void in_child(void (*f)(void))
{
    int status;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (*gpu_open()) _exit(2);
        forget();
        f();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void by_nccl(void)
{
    float *x = numbers(10);
    gpu_over_ranks(x, DT_F32, 10, RANKS_SUM, false);
    gpu_over_ranks(x, DT_F32, 10, RANKS_MOST, true);
    gpu_over_ranks(x, DT_F64, 5, RANKS_SUM, true);
    static const char want[] = "join 0 of 3 by 7\nreduce 10 type 7 op 0 in place on 1\n"
                               "reduce 10 type 7 op 2 in place on 1\ngather 5 type 8 on 1\n"
                               "launch 10 grid 1 block 256 on 1\n";
    if (strcmp(log_text, want) != 0) {
        fputs(log_text, stderr);
        _exit(3);
    }
    gpu_release(x);
}

/* 3 MiB in parts of 1 MiB, with as many bytes of each rank. */
static void by_hosts(void)
{
    const int n = 3 << 18;
    float *x = numbers(n);
    gpu_over_ranks(x, DT_F32, n, RANKS_SUM, false);
    if (strstr(log_text, "join") || exchanges != 1 + 3) _exit(4);
    if (!strstr(log_text, "launch 10 grid 1024 block 256")) _exit(5);
    gpu_release(x);
}

static void failing_calls(void)
{
    static float x[4];
    gpu_over_ranks(x, DT_F32, 4, RANKS_SUM, false);
    gpu_over_ranks(x, DT_F32, 4, RANKS_SUM, true);
}

static void all_fail(void)
{
    static float x[4];
    gpu_over_ranks(x, DT_F32, 4, RANKS_SUM, false); /* joins */
    every_call_fails(failing_calls, 3);
}

static void test_nccl(void **state)
{
    (void)state;
    in_child(by_nccl);
    in_child(all_fail);
}

/* Two ranks on one device: NCCL would refuse. */
static void test_one_device(void **state)
{
    (void)state;
    same_bus = true;
    in_child(by_hosts);
    same_bus = false;
}

/* A communicator that does not come about. */
static void no_communicator(void)
{
    float *x = numbers(8);
    calls = 0;
    failing = 4; /* the device, its bus, the identifier, joining */
    gpu_over_ranks(x, DT_F32, 8, RANKS_SUM, false);
    if (!strstr(log_text, "join") || strstr(log_text, "reduce")) _exit(6);
    gpu_release(x);
}

static void test_no_communicator(void **state)
{
    (void)state;
    in_child(no_communicator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nccl),
                                       cmocka_unit_test(test_one_device),
                                       cmocka_unit_test(test_no_communicator)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
