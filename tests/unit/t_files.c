/* Interrupted writing. Every operation on files of a run, one by one, is where the process dies
 * (kill -9) or where the disk is full. After it, what is under the output's name is the old model
 * or the new one, whole and with its own external data; a run that failed says so and leaves
 * nothing else; with --resume, the next run ends in the same bytes.
 *
 * The linker sends this program's calls here (tests/CMakeLists.txt). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ehap.h"
#include "runtime/runtime.h"
#include "tests/unit/onnx_build.h"

/* ---- operations that fail ------------------------------------------------------------ */

typedef enum Fate { NONE, DIE, FULL } Fate;

/* Operation number `at` (1, 2, …) meets its fate. */
static Fate fate;
static bool always_named; /* the file system knows no files without a name */
static int operations, at;

static bool strikes(void)
{
    if (++operations != at || fate == NONE) return false;
    if (fate == DIE) raise(SIGKILL);
    errno = ENOSPC;
    return true;
}

int __real_open(const char *path, int flags, ...);
size_t __real_fwrite(const void *p, size_t size, size_t n, FILE *f);
int __real_fflush(FILE *f);
int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __real_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_open(const char *path, int flags, ...);
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f);
int __wrap_fflush(FILE *f);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __wrap_unlink(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);

int __wrap_open(const char *path, int flags, ...)
{
    const bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
    if (nameless && always_named) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if ((flags & O_CREAT || nameless) && strikes()) return -1;
    return __real_open(path, flags, 0666);
}

/* Half of it still gets there. */
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f)
{
    if (operations + 1 == at && fate != NONE) {
        __real_fwrite(p, size, n / 2, f);
        __real_fflush(f);
    }
    return strikes() ? n / 2 : __real_fwrite(p, size, n, f);
}

int __wrap_fflush(FILE *f) { return f && strikes() ? EOF : __real_fflush(f); }
int __wrap_fsync(int fd) { return strikes() ? -1 : __real_fsync(fd); }
int __wrap_rename(const char *from, const char *to)
{
    return strikes() ? -1 : __real_rename(from, to);
}
int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    return strikes() ? -1 : __real_linkat(from_dir, from, to_dir, to, flags);
}
/* Only ever fails by dying. */
int __wrap_unlink(const char *path) { return fate != FULL && strikes() ? -1 : __real_unlink(path); }
int __wrap_mkdir(const char *path, mode_t mode)
{
    return strikes() ? -1 : __real_mkdir(path, mode);
}

/* ---- folders ------------------------------------------------------------------------- */

enum { MOST_FILES = 64, ROOM = 1 << 16 };

/* Names and contents of the files of a folder. */
typedef struct Folder {
    int n;
    char name[MOST_FILES][256];
    size_t size[MOST_FILES];
    char *bytes[MOST_FILES];
} Folder;

static size_t bytes_of(const char *path, char *to)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, ROOM, f);
    assert_true(n < ROOM);
    fclose(f);
    return n;
}

static void folder_read(Folder *s, const char *dir)
{
    char path[400];
    DIR *d = opendir(dir);
    s->n = 0;
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        assert_true(s->n < MOST_FILES);
        snprintf(s->name[s->n], sizeof *s->name, "%s", e->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (!s->bytes[s->n]) s->bytes[s->n] = malloc(ROOM);
        s->size[s->n] = bytes_of(path, s->bytes[s->n]);
        s->n++;
    }
    closedir(d);
}

static void folder_write(const Folder *s, const char *dir)
{
    char path[400];
    for (int k = 0; k < s->n; k++) {
        snprintf(path, sizeof path, "%s/%s", dir, s->name[k]);
        FILE *f = fopen(path, "wb");
        __real_fwrite(s->bytes[k], 1, s->size[k], f);
        fclose(f);
    }
}

static void folder_clear(const char *dir)
{
    char path[400];
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.') __real_unlink(path);
    }
    closedir(d);
}

static void folder_free(Folder *s)
{
    for (int k = 0; k < MOST_FILES; k++) free(s->bytes[k]);
}

/* Every file of `part` is in `whole`, with the same content. */
static bool contains(const Folder *whole, const Folder *part)
{
    int found = 0;
    for (int k = 0; k < part->n; k++)
        for (int i = 0; i < whole->n; i++)
            found += strcmp(whole->name[i], part->name[k]) == 0 &&
                     whole->size[i] == part->size[k] &&
                     memcmp(whole->bytes[i], part->bytes[k], part->size[k]) == 0;
    return found == part->n;
}

/* ---- the run ------------------------------------------------------------------------- */

typedef struct Paths {
    char root[32], in[2][64], data[64], out[64], model[64], state[64];
} Paths;

static void put(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(__real_fwrite(p, 1, n, f), n);
    fclose(f);
}

/* x [N,3,8,8] -> Conv, Relu, GlobalAveragePool, Flatten, Gemm; models differ by `weight`. */
static void write_input(const char *path, float weight)
{
    Arena *a = arena_new();
    Maker *k = maker_new(a, 17);
    float w[16 * 3 * 3 * 3] = {weight};
    for (int i = 1; i < 16 * 3 * 3 * 3; i++) w[i] = (float)(i % 16 + 1) / 4;
    maker_input(k, "x", DT_F32, D(-1, 3, 8, 8));
    maker_tensor(k, "w1", DT_F32, D(16, 3, 3, 3), w, sizeof w);
    maker_weight(k, "b1", D(16));
    maker_weight(k, "w2", D(20, 16));
    maker_node(k, "Conv", "x w1 b1", "c");
    maker_node(k, "Relu", "c", "r");
    maker_node(k, "GlobalAveragePool", "r", "p");
    maker_node(k, "Flatten", "p", "f");
    maker_int(k, maker_node(k, "Gemm", "f w2", "y"), "transB", 1);
    maker_output(k, "y", DT_F32, D(-1, 20));
    Bytes bytes = maker_bytes(k);
    put(path, bytes.p, bytes.n);
    arena_free(a);
}

static void write_samples(const char *path)
{
    enum { N = 8 * 3 * 8 * 8 };
    Diag d = diag_stderr("test");
    float x[N];
    Rng r = rng_new(1, 0);
    for (int i = 0; i < N; i++) x[i] = rng_normal(&r);
    NamedArray array = {"x", type_of(DT_F32, 4, (int64_t[]){8, 3, 8, 8}), x};
    assert_int_equal(npz_write(path, &array, 1, &d), 0);
}

static void start(Paths *p)
{
    char root[] = "/tmp/ehapc-test-XXXXXX";
    assert_non_null(mkdtemp(root));
    memcpy(p->root, root, sizeof root);
    for (int k = 0; k < 2; k++) {
        snprintf(p->in[k], sizeof p->in[k], "%s/in%d.onnx", root, k);
        write_input(p->in[k], (float)k);
    }
    snprintf(p->data, sizeof p->data, "%s/data.npz", root);
    write_samples(p->data);
    snprintf(p->out, sizeof p->out, "%s/out", root);
    snprintf(p->model, sizeof p->model, "%s/out/out.onnx", root);
    snprintf(p->state, sizeof p->state, "%s/state", root);
    assert_int_equal(__real_mkdir(p->out, 0777), 0);
}

static void finish(const Paths *p)
{
    folder_clear(p->out);
    folder_clear(p->state);
    rmdir(p->out);
    rmdir(p->state);
    folder_clear(p->root);
    rmdir(p->root);
}

static void count_errors(void *ctx, int severity, const char *text)
{
    (void)text;
    *(int *)ctx += severity == EHAP_ERROR;
}

/* Reads the model as if its weights had been beside it, and writes it with its weights beside it.
 */
static int save_external(const char *in, const char *out, Diag *d)
{
    Arena *a = arena_new();
    Graph *g;
    const EmitOptions o = {.external_data = true};
    int status = onnx_read(&g, a, in, d);
    if (status == 0) status = onnx_write(g, out, &o, d);
    arena_free(a);
    return status < 0;
}

static int save_inline(const Paths *p, const char *in, const char *passes, bool resume, int *errors)
{
    ehap *e = ehap_new(count_errors, errors);
    int status = ehap_set(e, "threads", "1") || ehap_set(e, "device", "cpu") ||
                 ehap_set(e, "batch", "4") || ehap_set(e, "data", p->data) ||
                 (resume && ehap_set(e, "resume", p->state));
    if (!status) status = ehap_load(e, in);
    if (!status) status = ehap_run_passes(e, passes);
    if (!status) status = ehap_save(e, p->model);
    ehap_free(e);
    return status;
}

static const char job[] = "canonicalize,sensitivity{criterion=l1},allocate{channels=0.5;align=1},"
                          "remove-channels,reconstruct,fake-quant,train{steps=3},quantize";

/* What a child process does. */
typedef struct Task {
    const Paths *p;
    const char *in;
    bool external, resume;
} Task;

static int perform(const Task *t)
{
    int errors = 0, status;
    Diag quiet = {0};
    if (t->external) {
        status = save_external(t->in, t->p->model, &quiet);
        errors = quiet.errors;
    } else {
        status = save_inline(t->p, t->in, t->resume ? job : "canonicalize", t->resume, &errors);
    }
    if ((status != 0) != (errors > 0)) return 99;
    return operations < at ? 50 : status;
}

/* In a process of its own, with operation n meeting its fate: 50: there are fewer; -1: it died;
 * else the status of the run. */
static int run(const Task *t, Fate how, int n)
{
    pid_t pid = fork();
    if (pid == 0) {
        fate = how;
        at = n;
        operations = 0;
        _exit(perform(t));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGKILL);
    return WIFSIGNALED(status) ? -1 : WEXITSTATUS(status);
}

/* ---- the tests ----------------------------------------------------------------------- */

/* The old output, the new, and what is there now. */
static Folder old, new, now;

static void strike_everywhere(bool external, Fate how)
{
    Paths p;
    start(&p);
    Task first = {&p, p.in[0], external, false}, second = {&p, p.in[1], external, false};
    assert_int_equal(run(&first, NONE, 0), 0);
    folder_read(&old, p.out);
    assert_int_equal(run(&second, NONE, 0), 0);
    folder_read(&new, p.out);
    assert_int_equal(new.n, external ? 2 : 1);
    assert_false(contains(&new, &old));
    int n = 0, left = 0, status;
    do {
        folder_clear(p.out);
        folder_write(&old, p.out);
        status = run(&second, how, ++n);
        folder_read(&now, p.out);
        bool is_old = contains(&now, &old), is_new = contains(&now, &new);
        bool clean = now.n == old.n, fine = status == 0 || status == 50;
        if ((!is_old && !is_new) || (fine && !is_new) || (how == FULL && !clean) || status == 99)
            fail_msg("operation %d: status %d, the output is %s, %d files", n, status,
                     is_new   ? "new"
                     : is_old ? "old"
                              : "torn",
                     now.n);
        for (int k = 0; k < now.n; k++) left += strstr(now.name[k], ".tmp") != NULL;
    } while (status != 50);
    assert_true(n > (external ? 8 : 4));
    /* Only between the two names of a file that replaces another, if it can be without one. */
    if (!always_named) assert_true(left <= 1);
    finish(&p);
}

static void a_kill_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    strike_everywhere(false, DIE);
}

static void a_kill_leaves_the_old_or_the_new_pair(void **state)
{
    (void)state;
    strike_everywhere(true, DIE);
}

static void a_full_disk_leaves_the_old(void **state)
{
    (void)state;
    strike_everywhere(false, FULL);
}

static void a_full_disk_leaves_the_old_pair(void **state)
{
    (void)state;
    strike_everywhere(true, FULL);
}

/* What a killed process has left goes when the file is written next, unless it may be in use. */
static void what_is_left_goes(void **state)
{
    (void)state;
    Paths p;
    start(&p);
    Task task = {&p, p.in[0], false, false};
    const struct timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    always_named = true;
    assert_int_equal(run(&task, DIE, 3), -1);
    folder_read(&now, p.out);
    assert_int_equal(now.n, 1);
    assert_non_null(strstr(now.name[0], ".tmp"));
    assert_int_equal(run(&task, NONE, 0), 0);
    char path[400];
    snprintf(path, sizeof path, "%s/%s", p.out, now.name[0]);
    assert_int_equal(access(path, F_OK), 0); /* too new */
    assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
    int fd = __real_open(path, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(run(&task, NONE, 0), 0);
    assert_int_equal(access(path, F_OK), 0); /* somebody writes to it */
    close(fd);
    assert_int_equal(run(&task, NONE, 0), 0);
    assert_int_equal(access(path, F_OK), -1);
    always_named = false;
    finish(&p);
}

static void without_files_without_a_name(void **state)
{
    (void)state;
    always_named = true;
    strike_everywhere(true, DIE);
    strike_everywhere(false, FULL);
    always_named = false;
}

/* Killed at operation n of a long run, which then goes on from its state. */
static void a_resumed_run_ends_in_the_same_bytes(void **state)
{
    (void)state;
    Paths p;
    start(&p);
    Task task = {&p, p.in[0], false, true};
    assert_int_equal(run(&task, NONE, 0), 0);
    folder_read(&new, p.out);
    int n = 0, status;
    do {
        folder_clear(p.out);
        folder_clear(p.state);
        n += 1 + n / 8;
        status = run(&task, DIE, n);
        assert_true(status == -1 || status == 50);
        assert_int_equal(run(&task, NONE, 0), 0);
        folder_read(&now, p.out);
        if (!contains(&now, &new)) fail_msg("other bytes after a kill at operation %d", n);
    } while (status != 50);
    assert_true(n > 50);
    finish(&p);
}

static int free_all(void **state)
{
    (void)state;
    folder_free(&old);
    folder_free(&new);
    folder_free(&now);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_leaves_the_old_or_the_new),
        cmocka_unit_test(a_kill_leaves_the_old_or_the_new_pair),
        cmocka_unit_test(a_full_disk_leaves_the_old),
        cmocka_unit_test(a_full_disk_leaves_the_old_pair),
        cmocka_unit_test(what_is_left_goes),
        cmocka_unit_test(without_files_without_a_name),
        cmocka_unit_test(a_resumed_run_ends_in_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, free_all);
}
