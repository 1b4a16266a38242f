/* Folders of ONNX test data: what agrees, what does not, element by element of every type. */
#include <stdio.h>

#include "ehap.h"
#include "ir/text.h"
#include "tests/unit/onnx_build.h"

static char said[1024];

static void remember(void *ctx, int severity, const char *text)
{
    (void)ctx, (void)severity;
    snprintf(said, sizeof said, "%s", text);
}

/* A TensorProto of two elements, `size` bytes each. */
static void write_tensor(const char *folder, const char *name, int dtype, const void *data,
                         int size)
{
    char path[256];
    const unsigned char head[] = {8, 2, 16, (unsigned char)dtype, 0x4a, (unsigned char)(2 * size)};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(head, sizeof head, 1, f);
    fwrite(data, (size_t)size, 2, f);
    assert_int_equal(fclose(f), 0);
}

static void remove_files(const char *folder)
{
    static const char *const names[] = {"model.onnx", "input_0.pb", "output_0.pb"};
    char path[256];
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[k]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* The status of y = x on `in` where `want` is expected. */
static int identity(DType dtype, const void *in, const void *want)
{
    char folder[] = "/tmp/t_test_data.XXXXXX", path[256];
    const int size = (int)dtype_size(dtype);
    Arena *a = arena_new();
    Diag d = diag_stderr("net");
    Graph *g;
    assert_non_null(mkdtemp(folder));
    const char *text = arena_printf(a,
                                    "<ir_version: 8, opset_import: [\"\" : 17]> "
                                    "g (%s[2] x) => (%s[2] y) { y = Identity (x) }",
                                    dtype_name(dtype), dtype_name(dtype));
    assert_int_equal(ir_parse(&g, a, text, strlen(text), NULL, &d), 0);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    assert_int_equal(onnx_write(g, path, &(EmitOptions){0}, &d), 0);
    write_tensor(folder, "input_0.pb", (int)dtype, in, size);
    write_tensor(folder, "output_0.pb", (int)dtype, want, size);
    said[0] = '\0';
    ehap *e = ehap_new(remember, NULL);
    assert_int_equal(ehap_load(e, path), EHAP_OK);
    const int status = ehap_check_test_data(e, folder);
    ehap_free(e);
    arena_free(a);
    remove_files(folder);
    return status;
}

static void every_type_is_compared(void **state)
{
    const uint16_t words[] = {258, 515}, other_words[] = {258, 514 + 256};
    const int64_t whole[] = {-5, 1LL << 40}, other_whole[] = {-5, 1LL << 41};
    const uint32_t positive[] = {1, 3000000000U}, other_positive[] = {1, 3100000000U};
    const float real[] = {1, 1000}, near[] = {1, 1000.9F}, far[] = {1, 1001.1F};
    const uint16_t half[] = {0x3c00, 0x4000}, other_half[] = {0x3c00, 0x4010};
    (void)state;
    assert_int_equal(identity(DT_U16, words, words), EHAP_OK);
    assert_int_equal(identity(DT_U16, words, other_words), EHAP_BAD_INPUT);
    assert_int_equal(identity(DT_I64, whole, whole), EHAP_OK);
    assert_int_equal(identity(DT_I64, whole, other_whole), EHAP_BAD_INPUT);
    assert_int_equal(identity(DT_U32, positive, positive), EHAP_OK);
    assert_int_equal(identity(DT_U32, positive, other_positive), EHAP_BAD_INPUT);
    assert_int_equal(identity(DT_F32, real, near), EHAP_OK);
    assert_int_equal(identity(DT_F32, real, far), EHAP_BAD_INPUT);
    assert_non_null(strstr(said, "output 'y' [1] is 1000, expected 1001.09"));
    assert_int_equal(identity(DT_BF16, half, half), EHAP_OK);
    assert_int_equal(identity(DT_BF16, half, other_half), EHAP_BAD_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type_is_compared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
