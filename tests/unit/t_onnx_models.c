/* Real models: the networks of $EHAP_SHARED and the ONNX project's own test models (Debian's
 * libonnx-testdata). Each is read, written, read and written again: nothing may change. Damaged
 * copies of some give an error or a model, never anything else. */
#include <ftw.h>

#include "ir/text.h"
#include "onnx_build.h"

enum { MAX_FILES = 4096 };

static char *files[MAX_FILES];
static int nfiles;

static int collect(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    size_t n = strlen(path);
    if (type == FTW_F && n > 5 && strcmp(path + n - 5, ".onnx") == 0 && nfiles < MAX_FILES)
        files[nfiles++] = strdup(path);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void find_models(const char *folder)
{
    for (int i = 0; i < nfiles; i++) free(files[i]);
    nfiles = 0;
    nftw(folder, collect, 16, FTW_PHYS);
    qsort(files, (size_t)nfiles, sizeof *files, by_name);
}

static const char *shared_folder(void)
{
    const char *dir = getenv("EHAP_SHARED");
    return dir ? dir : TEST_DIR "/../../shared";
}

/* The writer signs the model; all else must be the same. */
static void same_graph(Graph *g, Graph *h, const char *file)
{
    char why[512] = "";
    h->info.producer_name = g->info.producer_name;
    h->info.producer_version = g->info.producer_version;
    h->info.props = g->info.props;
    h->info.nprops = g->info.nprops;
    if (!graph_equal(g, h, why, sizeof why)) fail_msg("%s: %s", file, why);
}

/* 0, or -1 if the file is not read, with the reason in c. */
static int round_trip(const char *file, Caught *c)
{
    Arena *a = arena_new();
    Graph *g, *h = NULL;
    int status = onnx_read(&g, a, file, caught(c));
    if (status == 0) {
        Bytes first = written(a, g, NULL, caught(c));
        if (!first.n || onnx_read_memory(&h, a, first.p, first.n, NULL, &c->d) < 0)
            fail_msg("%s: %s", file, c->text);
        Bytes second = written(a, h, NULL, &c->d);
        assert_int_equal(first.n, second.n);
        assert_memory_equal(first.p, second.p, first.n);
        same_graph(g, h, file);
    }
    arena_free(a);
    return status;
}

static void shared_models(void **state)
{
    (void)state;
    Caught c;
    find_models(shared_folder());
    if (nfiles == 0) {
        print_message("skipped: no models in %s\n", shared_folder());
        skip();
    }
    for (int i = 0; i < nfiles; i++)
        if (round_trip(files[i], &c) < 0) fail_msg("%s", c.text);
}

static void onnx_test_models(void **state)
{
    (void)state;
    Caught c;
    int refused = 0;
    find_models("/usr/share/libonnx-testdata/data");
    if (nfiles == 0) {
        print_message("skipped: libonnx-testdata is not installed\n");
        skip();
    }
    for (int i = 0; i < nfiles; i++) {
        if (round_trip(files[i], &c) == 0) continue;
        assert_says(&c, "the oldest that is read is 7");
        refused++;
    }
    print_message("%d models, %d of an older opset\n", nfiles, refused);
}

static uint64_t next(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return *s >> 33;
}

/* Flips, deletes, repeats or overwrites some bytes; most of them where the structure is. */
static size_t damage(uint8_t *p, size_t n, uint64_t *s)
{
    if (next(s) % 8 == 0) return n ? next(s) % n : 0;
    for (uint64_t k = next(s) % 4; n && k < 4; k++) {
        size_t at = next(s) % n, len = 1 + next(s) % 8;
        if (len > n - at) len = n - at;
        switch (next(s) % 4) {
        case 0:
            p[at] ^= (uint8_t)(1 << next(s) % 8);
            break;
        case 1:
            p[at] = (uint8_t)next(s);
            break;
        case 2:
            memmove(p + at, p + at + len, n - at - len);
            n -= len;
            break;
        default:
            memset(p + at, (int)(next(s) % 2 ? 0xff : 0), len);
        }
    }
    return n;
}

/* Reads it; if it is a model, it must also be writable or be refused with a reason. */
static void read_damaged(const uint8_t *p, size_t n)
{
    Arena *a = arena_new();
    Caught c;
    Graph *g;
    if (onnx_read_memory(&g, a, p, n, NULL, caught(&c)) == 0) {
        Bytes b = written(a, g, NULL, &c.d);
        assert_true(b.n || c.d.errors);
    } else {
        assert_true(c.d.errors > 0);
    }
    arena_free(a);
}

static void damaged_models(void **state)
{
    (void)state;
    enum { SMALL = 2000, TRIES = 40, STEP = 8 };
    uint64_t seed = 1;
    find_models("/usr/share/libonnx-testdata/data");
    if (nfiles == 0) skip();
    uint8_t p[SMALL], q[SMALL];
    for (int i = 0; i < nfiles; i += STEP) {
        FILE *f = fopen(files[i], "rb");
        size_t n = fread(p, 1, sizeof p, f);
        fclose(f);
        if (n == sizeof p) continue;
        for (int k = 0; k < TRIES; k++) {
            memcpy(q, p, n);
            read_damaged(q, damage(q, n, &seed));
        }
        for (size_t cut = 0; cut < n; cut += 1 + n / 16) read_damaged(p, cut);
    }
}

static void random_bytes(void **state)
{
    (void)state;
    uint64_t seed = 7;
    uint8_t p[256];
    for (int k = 0; k < 3000; k++) {
        size_t n = next(&seed) % sizeof p;
        for (size_t i = 0; i < n; i++) p[i] = (uint8_t)next(&seed);
        read_damaged(p, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_models),
        cmocka_unit_test(onnx_test_models),
        cmocka_unit_test(damaged_models),
        cmocka_unit_test(random_bytes),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < nfiles; i++) free(files[i]);
    return failed;
}
