/* Memory that ends at any moment: the n-th allocation of a whole run fails, for every small n and
 * for larger ones at growing distances. A run that fails says so, leaks nothing (the sanitizers
 * tell, and open files are counted), and leaves the file it was to write as it was.
 *
 * The linker sends this program's calls of malloc and its kin here (tests/CMakeLists.txt). Shared
 * libraries (oneDNN, LAPACK, cJSON, libzip, the C library itself) allocate as ever; protobuf-c
 * works in a block of ours. */
#include <dirent.h>
#include <unistd.h>

#include "ehap.h"
#include "runtime/runtime.h"
#include "tests/unit/onnx_build.h"

/* ---- the failing allocator ---------------------------------------------------------- */

/* Allocation number fail_at (1, 2, …) fails, and with `for_good` all that follow; 0: none. */
static int64_t allocations, fail_at;
static bool for_good;

static bool fails(void)
{
    allocations++;
    return fail_at && (for_good ? allocations >= fail_at : allocations == fail_at);
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }

void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }

void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(align, n);
}

/* Arenas take chunks: without this most of their allocations could not fail. */
void *__real_arena_alloc(Arena *a, size_t n);
void *__real_arena_array(Arena *a, size_t count, size_t size);
void *__wrap_arena_alloc(Arena *a, size_t n);
void *__wrap_arena_array(Arena *a, size_t count, size_t size);

void *__wrap_arena_alloc(Arena *a, size_t n)
{
    if (fails()) trap(TRAP_NO_MEMORY, "out of memory");
    return __real_arena_alloc(a, n);
}

void *__wrap_arena_array(Arena *a, size_t count, size_t size)
{
    if (fails()) trap(TRAP_NO_MEMORY, "out of memory");
    return __real_arena_array(a, count, size);
}

/* ---- the run ------------------------------------------------------------------------ */

typedef struct Files {
    char dir[32], in[64], data[64], out[64], answers[64];
} Files;

static int entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* x [N,3,8,8] -> Conv, Relu, Conv, Relu, GlobalAveragePool, Flatten, Gemm -> y [N,4], with its
 * weights beside it, and so will be the output's. */
static void write_model(const char *path)
{
    Arena *a = arena_new();
    Maker *k = maker_new(a, 17);
    maker_input(k, "x", DT_F32, D(-1, 3, 8, 8));
    maker_weight(k, "w1", D(16, 3, 3, 3));
    maker_weight(k, "b1", D(16));
    maker_weight(k, "w2", D(64, 16, 3, 3));
    maker_weight(k, "w3", D(4, 64));
    maker_node(k, "Conv", "x w1 b1", "c1");
    maker_node(k, "Relu", "c1", "r1");
    maker_node(k, "Conv", "r1 w2", "c2");
    maker_node(k, "Relu", "c2", "r2");
    maker_node(k, "GlobalAveragePool", "r2", "p");
    maker_node(k, "Flatten", "p", "f");
    maker_int(k, maker_node(k, "Gemm", "f w3", "y"), "transB", 1);
    maker_output(k, "y", DT_F32, D(-1, 4));
    Graph *g = NULL;
    Diag d = diag_stderr("test");
    Bytes b = maker_bytes(k);
    const EmitOptions beside = {.external_data = true};
    assert_int_equal(onnx_read_memory(&g, a, b.p, b.n, NULL, &d), 0);
    assert_int_equal(onnx_write(g, path, &beside, &d), 0);
    arena_free(a);
}

enum { SAMPLES = 16, SAMPLE = 3 * 8 * 8 };

static void write_samples(const char *path)
{
    Diag d = diag_stderr("test");
    float x[SAMPLES * SAMPLE];
    Rng r = rng_new(1, 0);
    for (int i = 0; i < SAMPLES * SAMPLE; i++) x[i] = rng_normal(&r);
    NamedArray array = {"x", type_of(DT_F32, 4, (int64_t[]){SAMPLES, 3, 8, 8}), x};
    assert_int_equal(npz_write(path, &array, 1, &d), 0);
}

static void count_errors(void *ctx, int severity, const char *text)
{
    (void)text;
    *(int *)ctx += severity == EHAP_ERROR;
}

static const char pipeline[] =
    "canonicalize,sensitivity{criterion=gate-ggn;probes=2},allocate{channels=0.5},remove-channels,"
    "reconstruct,fake-quant,train{steps=1},quantize";

/* A whole run; its status, or EHAP_INTERNAL where there is not even a handle. */
static int run(const Files *f, int *errors)
{
    const char *option[][2] = {{"threads", "1"},
                               {"device", "cpu"},
                               {"batch", "4"},
                               {"calibration", "min-max"},
                               {"data", f->data}};
    *errors = 0;
    ehap *e = ehap_new(count_errors, errors);
    if (!e) {
        *errors = 1; /* NULL says it */
        return EHAP_INTERNAL;
    }
    int status = EHAP_OK;
    for (int k = 0; k < 5 && !status; k++) status = ehap_set(e, option[k][0], option[k][1]);
    if (!status) status = ehap_load(e, f->in);
    if (!status) status = ehap_infer(e, f->data, f->answers);
    if (!status) status = ehap_run_passes(e, pipeline);
    if (!status) status = ehap_save(e, f->out);
    if (status == EHAP_INTERNAL) /* what is half-done is not for saving */
        assert_int_equal(ehap_save(e, f->out), EHAP_INTERNAL);
    ehap_free(e);
    return status;
}

/* ---- the tests ---------------------------------------------------------------------- */

static const char old_text[] = "what was there before";

/* The bytes of a file; their number. */
static size_t bytes_of(const char *path, char *to, size_t room)
{
    FILE *f = fopen(path, "rb");
    size_t n = fread(to, 1, room, f);
    fclose(f);
    return n;
}

static char good[1 << 16], now[1 << 16];

/* ".", "..", the model, its data, the samples, the answers, the output; its data comes with it. */
enum { FILES = 7 };

static void remove_data(const Files *f, const char *of)
{
    char path[400];
    DIR *dir = opendir(f->dir);
    for (struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", f->dir, e->d_name);
        if (strstr(e->d_name, of) && strstr(e->d_name, ".data")) unlink(path);
    }
    closedir(dir);
}

/* One run with the n-th allocation failing; false when the run has fewer. */
static bool run_failing(const Files *f, size_t ngood, int64_t n)
{
    int errors, open = entries("/proc/self/fd");
    write_file(f->out, old_text, sizeof old_text);
    remove_data(f, "out.onnx");
    allocations = 0;
    fail_at = n;
    int status = run(f, &errors);
    bool reached = allocations >= n;
    fail_at = 0;
    size_t size = bytes_of(f->out, now, sizeof now);
    bool whole = size == ngood && memcmp(now, good, size) == 0;
    bool old = size == sizeof old_text && memcmp(now, old_text, size) == 0;
    if ((status != 0) != (errors > 0) || (status ? !whole && !old : !whole) ||
        entries(f->dir) != FILES + whole || entries("/proc/self/fd") != open)
        fail_msg("allocation %lld: status %d, %d errors, the output is %s, %d files, %d open",
                 (long long)n, status, errors,
                 whole ? "whole"
                 : old ? "the old one"
                       : "broken",
                 entries(f->dir) - 2, entries("/proc/self/fd") - open);
    return reached;
}

static void memory_that_ends_is_an_error(void **state)
{
    (void)state;
    Files f = {.dir = "/tmp/ehapc-test-XXXXXX"};
    int errors;
    assert_non_null(mkdtemp(f.dir));
    snprintf(f.in, sizeof f.in, "%s/in.onnx", f.dir);
    snprintf(f.out, sizeof f.out, "%s/out.onnx", f.dir);
    snprintf(f.data, sizeof f.data, "%s/data.npz", f.dir);
    snprintf(f.answers, sizeof f.answers, "%s/answers.npz", f.dir);
    write_model(f.in);
    write_samples(f.data);
    assert_int_equal(run(&f, &errors), EHAP_OK); /* what is made once per process is there now */
    allocations = 0;
    assert_int_equal(run(&f, &errors), EHAP_OK);
    int64_t all = allocations;
    size_t ngood = bytes_of(f.out, good, sizeof good);
    assert_true(ngood > 1000 && ngood < sizeof good && all > 100);
    print_message("%lld allocations\n", (long long)all);
    for (int mode = 0; mode < 2; mode++) {
        for_good = mode == 1;
        for (int64_t n = 1; n <= all; n += 1 + n / 128) assert_true(run_failing(&f, ngood, n));
    }
    remove_data(&f, "");
    unlink(f.in);
    unlink(f.data);
    unlink(f.answers);
    unlink(f.out);
    rmdir(f.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_that_ends_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
