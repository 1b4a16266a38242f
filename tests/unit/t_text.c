/* parse(print(g)) == g on every model we own, as read and in canonical form: all in one text, and
 * in a file with its weights beside it. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/frontend.h"
#include "ir/text.h"
#include "passes/passes.h"

enum { LONG_TEXT = 150000 }; /* more weights than this go beside the text only: it takes seconds */

static void same(const Graph *g, const Graph *again, const char *path)
{
    char why[512];
    if (!graph_equal(g, again, why, sizeof why)) fail_msg("%s: %s", path, why);
}

static void round_trips(const Graph *g, const char *path, const char *folder)
{
    Arena *a = arena_new();
    Diag d = diag_stderr(path);
    PrintOptions all = {.max_inline = -1};
    const char *file = arena_printf(a, "%s/g.onnxtxt", folder);
    Graph *again = NULL;
    if (graph_params(g) < LONG_TEXT) {
        const char *text = ir_print(g, a, &all);
        assert_int_equal(ir_parse(&again, a, text, strlen(text), NULL, &d), 0);
        same(g, again, path);
    }
    assert_int_equal(ir_save(g, file, &d), 0);
    assert_int_equal(ir_load(&again, a, file, &d), 0);
    same(g, again, path);
    unlink(file);
    unlink(arena_printf(a, "%s.bin", file));
    arena_free(a);
}

static void check_model(const char *path, const char *folder)
{
    Arena *a = arena_new();
    Diag d = diag_stderr(path);
    Context c = {.arena = a, .diag = &d, .opt = {.verify = true}};
    assert_int_equal(onnx_read(&c.graph, a, path, &d), 0);
    assert_int_equal(graph_verify(c.graph, &d), 0);
    round_trips(c.graph, path, folder);
    int before = c.graph->nnodes;
    assert_int_equal(pass_run_pipeline(&c, "canonicalize"), 0);
    round_trips(c.graph, path, folder);
    printf("%s: %d nodes, canonical %d\n", path, before, c.graph->nnodes);
    arena_free(a);
}

static const char *models(void)
{
    static char path[1024];
    const char *shared = getenv("EHAP_SHARED");
    snprintf(path, sizeof path, "%s/models", shared ? shared : TEST_DIR "/../../shared");
    return path;
}

static void check_folder(const char *from, const char *folder)
{
    char path[1400];
    DIR *dir = opendir(from);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".onnx") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", from, e->d_name);
        check_model(path, folder);
    }
    closedir(dir);
}

static void test_models(void **state)
{
    char folder[] = "/tmp/t_text.XXXXXX", zoo[1100];
    (void)state;
    assert_non_null(mkdtemp(folder));
    check_folder(models(), folder);
    snprintf(zoo, sizeof zoo, "%s/zoo", models());
    check_folder(zoo, folder);
    rmdir(folder);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"Conv", "ConvTranspose", "Relu", NULL};
    (void)state;
    assert_string_equal(nearest_name("Cnov", names), "Conv");
    assert_string_equal(nearest_name("ConvTranpose", names), "ConvTranspose");
    assert_null(nearest_name("Softmax", names));
    assert_null(nearest_name("", names));
}

static void test_external(void **state)
{
    char folder[] = "/tmp/t_text.XXXXXX", path[64];
    static const char *const bad[] = {"../x", "/etc/passwd", ".hidden", "", "missing"};
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/w", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("12345678901", f);
    fclose(f);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        Arena *a = arena_new();
        Diag d = {0};
        Graph *g = NULL;
        const char *text =
            arena_printf(a, "g () => () <float[1] w = [\"location\" : \"%s\"]> { }", bad[k]);
        assert_int_equal(ir_parse(&g, a, text, strlen(text), folder, &d), -1);
        assert_int_equal(d.errors, 1);
        arena_free(a);
    }
    Arena *a = arena_new();
    Diag d = {0};
    Graph *g = NULL;
    const char *odd =
        "g () => (float[2] w) <float[2] w = [\"location\" : \"w\", \"offset\" : \"3\", "
        "\"length\" : \"8\"]> { }";
    const char *far =
        "g () => (float[2] w) <float[2] w = [\"location\" : \"w\", \"offset\" : \"4\", "
        "\"length\" : \"8\"]> { }";
    assert_int_equal(ir_parse(&g, a, odd, strlen(odd), folder, &d), 0);
    assert_memory_equal(g->outputs[0]->data, "45678901", 8);
    assert_int_equal((uintptr_t)g->outputs[0]->data % 4, 0);
    assert_int_equal(ir_parse(&g, a, far, strlen(far), folder, &d), -1);
    arena_free(a);
    unlink(path);
    rmdir(folder);
}

static void lists_of_names_are_split(void **state)
{
    static const char *const odd[] = {"a,b", "\\", ",", "a\\,", "\\,b", "c:\\d"};
    enum { ODD = sizeof odd / sizeof *odd };
    const char *list = NULL;
    Arena *a = arena_new();
    (void)state;
    const char *const *names = name_list(a, ",conv1,,b,");
    assert_string_equal(names[0], "conv1");
    assert_string_equal(names[1], "b");
    assert_null(names[2]);
    assert_true(name_listed(names, "b"));
    assert_false(name_listed(names, "conv"));
    assert_null(*name_list(a, NULL));
    assert_null(*name_list(a, ","));
    names = name_list(a, "a\\,b,c\\d,e\\\\,\\");
    assert_string_equal(names[0], "a,b");
    assert_string_equal(names[1], "c\\d");
    assert_string_equal(names[2], "e\\");
    assert_string_equal(names[3], "\\");
    assert_null(names[4]);
    for (int k = 0; k < ODD; k++) list = name_list_add(a, list, odd[k]);
    names = name_list(a, list);
    for (int k = 0; k < ODD; k++) assert_string_equal(names[k], odd[k]);
    assert_null(names[ODD]);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest without[] = {cmocka_unit_test(test_nearest),
                                         cmocka_unit_test(lists_of_names_are_split),
                                         cmocka_unit_test(test_external)};
    const struct CMUnitTest with[] = {cmocka_unit_test(test_models)};
    int failed = cmocka_run_group_tests(without, NULL, NULL);
    if (failed || access(models(), R_OK) == 0)
        return failed + cmocka_run_group_tests(with, NULL, NULL);
    printf("skipped: no models in %s\n", models());
    return 77;
}
