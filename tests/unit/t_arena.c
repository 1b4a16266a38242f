/* Who frees what when a trap springs; files that appear whole or not at all. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ir/outfile.h"

static int freed[4], nfreed;

static void note(void *p) { freed[nfreed++] = *(int *)p; }

static Arena *noted(int number)
{
    Arena *a = arena_new();
    int *p = NEW(a, int);
    *p = number;
    arena_defer(a, note, p);
    return a;
}

static void traps_free_what_was_made_inside(void **state)
{
    (void)state;
    Trap t;
    Arena *outside = noted(0);
    nfreed = 0;
    if (trap_enter(&t) == 0) {
        Arena *first = noted(1), *gone = noted(2);
        arena_own(first, noted(3));
        arena_free(gone);
        trap(TRAP_INTERNAL, "number %d", 5);
    }
    assert_string_equal(t.message, "number 5");
    assert_int_equal(nfreed, 3);
    assert_int_equal(freed[0], 2);
    assert_int_equal(freed[1], 3); /* while the one that owns it is freed */
    assert_int_equal(freed[2], 1);
    arena_free(outside);
    assert_int_equal(nfreed, 4);
}

/* What an arena from outside owns is freed with it, once, not by the trap. */
static void traps_spare_what_is_owned(void **state)
{
    (void)state;
    Trap t;
    Arena *outside = noted(1);
    nfreed = 0;
    if (trap_enter(&t) == 0) {
        arena_own(outside, noted(2));
        trap(TRAP_INTERNAL, "owned");
    }
    assert_int_equal(nfreed, 0);
    arena_free(outside);
    assert_int_equal(nfreed, 2);
}

static void what_lasts_belongs_to_the_outer_frame(void **state)
{
    (void)state;
    Trap outer, inner;
    nfreed = 0;
    if (trap_enter(&outer) == 0) {
        Arena *volatile made = NULL;
        if (trap_enter(&inner) == 0) {
            made = noted(1);
            trap_leave(&inner);
        }
        assert_int_equal(nfreed, 0);
        assert_non_null(made);
        trap(TRAP_INTERNAL, "outer");
    }
    assert_int_equal(nfreed, 1);
    Arena *volatile kept = NULL;
    if (trap_enter(&outer) == 0) {
        kept = noted(2);
        trap_leave(&outer);
    }
    assert_int_equal(nfreed, 1);
    arena_free(kept);
    assert_int_equal(nfreed, 2);
}

static int entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    while (readdir(dir)) n++;
    closedir(dir);
    return n - 2;
}

static void files_appear_whole_or_not_at_all(void **state)
{
    (void)state;
    Trap t;
    Diag d = {0};
    char dir[] = "/tmp/ehapc-test-XXXXXX", path[64], got[8] = "";
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f", dir);
    if (trap_enter(&t) == 0) {
        OutFile *f = outfile_new(arena_new(), path, &d);
        outfile_write(f, "half", 4);
        assert_true(entries(dir) <= 1); /* 0 where files can be without a name */
        trap(TRAP_INTERNAL, "in the middle");
    }
    assert_int_equal(entries(dir), 0);
    Arena *a = arena_new();
    OutFile *f = outfile_new(a, path, &d);
    assert_non_null(f);
    outfiles_remove(); /* a signal's work: the process would end now */
    assert_int_equal(entries(dir), 0);
    arena_free(a);
    assert_int_equal(outfile_whole(path, "whole", 5, &d), 0);
    assert_int_equal(entries(dir), 1);
    FILE *in = fopen(path, "rb");
    assert_int_equal(fread(got, 1, sizeof got, in), 5);
    fclose(in);
    assert_string_equal(got, "whole");
    assert_int_equal(outfile_whole(dir, "", 0, &d), -1); /* a folder */
    unlink(path);
    rmdir(dir);
    assert_int_equal(outfile_whole(path, "", 0, &d), -1); /* in no folder */
    assert_int_equal(d.errors, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traps_free_what_was_made_inside),
        cmocka_unit_test(traps_spare_what_is_owned),
        cmocka_unit_test(what_lasts_belongs_to_the_outer_frame),
        cmocka_unit_test(files_appear_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
