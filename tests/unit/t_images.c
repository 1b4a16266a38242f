/* JPEG and PNG files as samples: what is cut out, how it is resampled, where labels come from, and
 * how broken ones are refused. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include <png.h>
#include <turbojpeg.h>

#include "tests/unit/data_fixture.h"

static void assert_near(float x, double want, double by)
{
    if (!(fabs((double)x - want) <= by)) fail_msg("%g is not %g within %g", (double)x, want, by);
}

static Graph *model(Fixture *f, int rank, const int64_t *dim)
{
    Graph *g = graph_new(f->a, "m");
    int64_t all[MAX_RANK] = {graph_symbol(g, "N")};
    for (int i = 0; i < rank; i++) all[i + 1] = dim[i] ? dim[i] : graph_symbol(g, i ? "W" : "H");
    graph_add_input(g, "x", type_of(DT_F32, rank + 1, all));
    return g;
}
#define MODEL(...) model(f, sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})

/* red = 10 x + y, green = 100 + red, blue = 200 */
static uint8_t *pattern(Fixture *f, int height, int width)
{
    uint8_t *p = arena_array(f->a, (size_t)height, (size_t)width * 3);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *at = p + 3 * (y * width + x);
            at[0] = (uint8_t)(10 * x + y);
            at[1] = (uint8_t)(100 + 10 * x + y);
            at[2] = 200;
        }
    return p;
}

static const char *path_of(Fixture *f, const char *name)
{
    return arena_printf(f->a, "%s/%s", f->dir, name);
}

static const char *put_png(Fixture *f, const char *name, int height, int width)
{
    const char *path = path_of(f, name);
    png_image p = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)width,
                   .height = (png_uint_32)height,
                   .format = PNG_FORMAT_RGB};
    assert_true(png_image_write_to_file(&p, path, 0, pattern(f, height, width), 0, NULL));
    return path;
}

static Samples *read_ok(Fixture *f, const Graph *g, const char *list, const char *pre)
{
    Samples *s = NULL;
    Preprocess p;
    assert_int_equal(preprocess_parse(&p, pre, &f->d), 0);
    f->message[0] = '\0';
    if (samples_read(&s, f->a, list, &p, g, &f->d) < 0) fail_msg("%s", f->message);
    return s;
}

static void read_fails(Fixture *f, const Graph *g, const char *list, const char *pre,
                       const char *message)
{
    Samples *s;
    Preprocess p;
    f->message[0] = '\0';
    if (preprocess_parse(&p, pre, &f->d) == 0)
        assert_int_equal(samples_read(&s, f->a, list, &p, g, &f->d), -1);
    if (!strstr(f->message, message)) fail_msg("'%s' is not in '%s'", message, f->message);
}

static void gather(const Samples *s, int64_t i, float *x)
{
    samples_gather(s, 0, &i, 1, DT_F32, x);
}

/* What decoding takes is known without decoding: pixels, and their rows as floats of the input's
 * width. */
static void test_room(void **state)
{
    Fixture *f = *state;
    const Samples *s = read_ok(f, MODEL(3, 2, 3), put_png(f, "r.png", 400, 300), "scale=1");
    assert_int_equal(s->inputs[0].room, 400 * 300 * 3 + 400 * 3 * 3 * sizeof(float));
}

static void test_layouts(void **state)
{
    Fixture *f = *state;
    const char *path = put_png(f, "a.PNG", 2, 3);
    float x[18];
    Samples *s = read_ok(f, MODEL(3, 2, 3), path, "scale=1");
    assert_int_equal(s->count, 1);
    assert_null(s->labels);
    gather(s, 0, x);
    assert_near(x[0], 0, 0);
    assert_near(x[1], 10, 0);
    assert_near(x[3], 1, 0);
    assert_near(x[6], 100, 0);
    assert_near(x[17], 200, 0);
    gather(read_ok(f, MODEL(3, 2, 3), path, "scale=1,order=bgr,mean=0:0:1"), 0, x);
    assert_near(x[0], 200, 0);
    assert_near(x[12], -1, 0);
    const char *last[] = {"scale=1", "scale=1,layout=nhwc,mean=0:0:1"};
    for (int k = 0; k < 2; k++) {
        gather(read_ok(f, MODEL(2, 3, 3), path, last[k]), 0, x);
        assert_near(x[0], 0, 0);
        assert_near(x[1], 100, 0);
        assert_near(x[2], 200 - k, 0);
        assert_near(x[3], 10, 0);
    }
    gather(read_ok(f, MODEL(1, 2, 3), path, "scale=1"), 0, x); /* 0.299 r + 0.587 g + 0.114 b */
    assert_near(x[0], 0.587 * 100 + 0.114 * 200, 0.51);
    gather(read_ok(f, MODEL(2, 3), path, "scale=1"), 0, x);
    assert_near(x[5] - x[0], 21, 6);
}

/* Halved, a pixel is one, three, three and one eighths of the four around it. */
static void test_resizing(void **state)
{
    Fixture *f = *state;
    const char *path = put_png(f, "a.png", 4, 8);
    float x[3 * 16];
    gather(read_ok(f, MODEL(3, 2, 2), path, "scale=1"), 0, x); /* columns 2 to 5 */
    assert_near(x[0], (10 + 3 * 20 + 3 * 30 + 40) / 8.0 + (3 * 0 + 3 * 1 + 2) / 7.0, 0.51);
    assert_near(x[1], (30 + 3 * 40 + 3 * 50 + 60) / 8.0 + (3 * 0 + 3 * 1 + 2) / 7.0, 0.51);
    gather(read_ok(f, MODEL(3, 2, 2), path, "scale=1,resize=4"), 0, x); /* the middle as it is */
    assert_near(x[0], 31, 0);
    assert_near(x[3], 42, 0);
    gather(read_ok(f, MODEL(3, 4, 4), path, "scale=1,fit=stretch"), 0, x);
    assert_near(x[4 * 1 + 1], (10 + 3 * 20 + 3 * 30 + 40) / 8.0 + 1, 0.51);
    gather(read_ok(f, MODEL(3, 0, 0), path, "scale=1,size=4x3"), 0, x);
    assert_near(x[0], 20, 0);
    assert_near(x[3], 21, 0);
    read_fails(f, MODEL(3, 0, 0), path, "scale=1", "leaves the size of images open");
    read_fails(f, MODEL(3, 8, 8), path, "resize=4", "resize=4 is less than the input's 8 x 8");
    read_fails(f, MODEL(5, 8, 8), path, "scale=1", "takes no images of 1 or 3 channels");
    read_fails(f, MODEL(3, 8, 8), path, "size=4", "samples are");
    read_fails(f, MODEL(3, 8, 8), path, "size=0x4", "'0x4' is no size");
    read_fails(f, MODEL(3, 8, 8), path, "resize=4x5", "'4x5' is no length");
    read_fails(f, MODEL(3, 8, 8), path, "fit=pad", "fit is 'crop' or 'stretch', not 'pad'");
}

static void test_classes(void **state)
{
    Fixture *f = *state;
    static const char *const folder[] = {"cat", "dog", "empty", "owl"};
    for (int k = 0; k < 4; k++) assert_int_equal(mkdir(path_of(f, folder[k]), 0700), 0);
    put_png(f, "dog/1.png", 1, 2);
    put_png(f, "dog/2.png", 1, 2);
    put_png(f, "cat/z.png", 1, 2);
    put_png(f, "owl/0.png", 1, 2);
    put(f, "owl/notes.npy", "x", 1);
    Graph *g = MODEL(3, 1, 2);
    Samples *s = read_ok(f, g, f->dir, "scale=1");
    assert_int_equal(s->count, 4);
    assert_int_equal(s->nclasses, 3);
    static const int32_t labels[] = {0, 1, 1, 2};
    assert_memory_equal(s->labels, labels, sizeof labels);
    assert_int_not_equal(samples_stamp(1, f->dir), 1);
    const uint64_t before = samples_stamp(1, f->dir);
    put_png(f, "owl/0.png", 1, 9);
    assert_int_not_equal(samples_stamp(1, f->dir), before);
    s = read_ok(f, g, path_of(f, "dog"), "scale=1");
    assert_int_equal(s->count, 2);
    assert_null(s->labels);
    read_fails(f, g, path_of(f, "empty"), "scale=1", "holds no samples");
}

static void expect_refusal(Fixture *f, const char *path, const char *why)
{
    float x[12];
    Trap t;
    Samples *s = read_ok(f, MODEL(3, 2, 2), path, "scale=1");
    if (trap_enter(&t) == 0) {
        gather(s, 0, x);
        fail_msg("%s was read", path);
    }
    assert_int_equal(t.kind, TRAP_INPUT);
    if (!strstr(t.message, why)) fail_msg("'%s' is not in '%s'", why, t.message);
}

static void test_broken(void **state)
{
    Fixture *f = *state;
    uint8_t *jpeg = NULL;
    unsigned long n = 0;
    tjhandle j = tjInitCompress();
    assert_int_equal(
        tjCompress2(j, pattern(f, 16, 16), 16, 0, 16, TJPF_RGB, &jpeg, &n, TJSAMP_444, 95, 0), 0);
    float x[12];
    gather(read_ok(f, MODEL(3, 2, 2), put(f, "a.jpg", jpeg, n), "scale=1"), 0, x);
    assert_near(x[8], 200, 6);
    expect_refusal(f, put(f, "cut.jpg", jpeg, n / 2), "cannot be used");
    expect_refusal(f, put(f, "head.jpeg", jpeg, 3), "cannot be used");
    expect_refusal(f, put(f, "text.jpg", "hello", 5), "neither JPEG nor PNG");
    expect_refusal(f, put(f, "none.jpg", "", 0), "neither JPEG nor PNG");
    static const uint8_t huge[] = {0x89, 'P',  'N', 'G', 13,  10, 26, 10,   0,    0, 0,
                                   13,   'I',  'H', 'D', 'R', 0,  0,  0xff, 0xff, 0, 0,
                                   0xff, 0xff, 8,   2,   0,   0,  0,  0,    0,    0, 0};
    expect_refusal(f, put(f, "huge.png", huge, sizeof huge), "cannot be used");
    tjFree(jpeg);
    tjDestroy(j);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(test_room), TEST(test_layouts), TEST(test_resizing),
                                       TEST(test_classes), TEST(test_broken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
