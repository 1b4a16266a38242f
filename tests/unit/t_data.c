/* The readers of sample files: what they accept, and how they refuse the rest. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "ir/process.h"
#include "tests/unit/data_fixture.h"

static Samples *read_ok(Fixture *f, const char *list, const char *pre)
{
    Samples *s = NULL;
    Preprocess p = {.scale = 1};
    if (pre) assert_int_equal(preprocess_parse(&p, pre, &f->d), 0);
    assert_int_equal(samples_read(&s, f->a, list, &p, f->g, &f->d), 0);
    return s;
}

static void read_fails(Fixture *f, const char *list, const char *message)
{
    Samples *s;
    Preprocess p = {.scale = 1};
    f->message[0] = '\0';
    assert_int_equal(samples_read(&s, f->a, list, &p, f->g, &f->d), -1);
    if (!strstr(f->message, message)) fail_msg("'%s' is not in '%s'", message, f->message);
}

static void test_records(void **state)
{
    Fixture *f = *state;
    uint8_t bytes[26];
    for (int i = 0; i < 26; i++) bytes[i] = (uint8_t)i;
    Samples *s = read_ok(f, put(f, "a.bin", bytes, 26), "scale=1/2,mean=1:2,std=4:5");
    assert_int_equal(s->count, 2);
    assert_int_equal(s->labels[0], 0);
    assert_int_equal(s->labels[1], 13);
    assert_int_equal(s->nclasses, 14);
    assert_int_equal(s->inputs[0].channel_axis, 0);
    float x[12];
    samples_gather(s, 0, (int64_t[]){1}, 1, DT_F32, x);
    assert_float_equal(x[0], (14 * 0.5 - 1) / 4, 1e-6);
    assert_float_equal(x[6], (20 * 0.5 - 2) / 5, 1e-6);
    read_fails(f, put(f, "short.bin", bytes, 25), "has 25 bytes, not a multiple of 13");
    read_fails(f, put(f, "empty.bin", bytes, 0), "has 0 bytes");
    read_fails(f, arena_printf(f->a, "%s/none.bin", f->dir), "cannot open");
    read_fails(f, put(f, "what.xyz", bytes, 3), "no known kind");
}

/* Files of different kinds follow one another, each where it lies. */
static void test_pieces(void **state)
{
    Fixture *f = *state;
    uint8_t records[39];
    uint8_t images[4 + 16 + 24] = {0, 0, 8, 4, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3};
    for (int i = 0; i < 39; i++) records[i] = (uint8_t)i;
    for (int i = 0; i < 24; i++) images[20 + i] = (uint8_t)(100 + i);
    const char *first = put(f, "p.bin", records, 39),
               *second = put(f, "p-images-idx3-ubyte", images, sizeof images);
    Samples *s = read_ok(f, arena_printf(f->a, "%s,%s,%s", first, second, first), NULL);
    static const uint8_t starts[] = {1, 14, 27, 100, 112, 1, 14, 27};
    assert_int_equal(s->count, 8);
    for (int i = 0; i < 8; i++) {
        float x[12];
        samples_gather(s, 0, (int64_t[]){i}, 1, DT_F32, x);
        assert_float_equal(x[0], starts[i], 0);
        assert_float_equal(x[11], starts[i] + 11, 0);
    }
}

/* 5 million samples in two mapped files, gathered in an order that jumps: they stay there. */
static void test_large_files(void **state)
{
    enum { RECORD = 13, RECORDS = 5 << 19 };
    Fixture *f = *state;
    const char *path = put(f, "large.bin", "", 0);
    assert_int_equal(truncate(path, (off_t)RECORD * RECORDS), 0);
    Samples *s = read_ok(f, arena_printf(f->a, "%s,%s", path, path), NULL);
    assert_int_equal(s->count, 2 * RECORDS);
    const int64_t before = (int64_t)process_resident();
    float x[12];
    for (int64_t i = 0; i < s->count; i += 97) {
        samples_gather(s, 0, (int64_t[]){i * 31 % s->count}, 1, DT_F32, x);
        assert_float_equal(x[0], 0, 0);
    }
    assert_in_range((int64_t)process_resident() - before + (1 << 20), 0, 3 << 20);
}

static void test_idx(void **state)
{
    Fixture *f = *state;
    uint8_t images[4 + 16 + 24] = {0, 0, 8, 4, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 7};
    uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 5, 6};
    put(f, "t-labels-idx1-ubyte", labels, sizeof labels);
    Samples *s = read_ok(f, put(f, "t-images-idx3-ubyte", images, sizeof images), NULL);
    assert_int_equal(s->count, 2);
    assert_int_equal(s->labels[1], 6);
    assert_int_equal(*(const uint8_t *)sample_at(&s->inputs[0], 0, NULL), 7);
    read_fails(f, put(f, "u-images-idx3-ubyte", images, 40), "its header says");
    labels[7] = 1;
    put(f, "v-labels-idx1-ubyte", labels, 9);
    read_fails(f, put(f, "v-images-idx3-ubyte", images, sizeof images), "one label for each");
}

static void test_gzip(void **state)
{
    Fixture *f = *state;
    uint8_t images[4 + 16 + 12] = {0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 9};
    const char *path = arena_printf(f->a, "%s/g-images-idx3-ubyte.gz", f->dir);
    gzFile z = gzopen(path, "wb");
    assert_int_equal(gzwrite(z, images, sizeof images), sizeof images);
    assert_int_equal(gzclose(z), Z_OK);
    Samples *s = read_ok(f, path, NULL);
    assert_int_equal(s->count, 1);
    assert_int_equal(*(const uint8_t *)sample_at(&s->inputs[0], 0, NULL), 9);
    assert_int_equal(truncate(path, 20), 0);
    read_fails(f, path, "");
}

/* What --memory leaves is the limit, before it is allocated. */
static void test_gzip_and_memory(void **state)
{
    enum { COUNT = 1 << 20 };
    Fixture *f = *state;
    const uint8_t head[16 + 4] = {0, 0, 8, 4, 0, COUNT >> 16, 0, 0, 0, 0,
                                  0, 2, 0, 0, 0, 2,           0, 0, 0, 3};
    const char *path = arena_printf(f->a, "%s/m-images-idx3-ubyte.gz", f->dir);
    uint8_t *zeros = NEW_ARRAY(f->a, uint8_t, 12 * COUNT);
    gzFile z = gzopen(path, "wb");
    assert_int_equal(gzwrite(z, head, sizeof head), sizeof head);
    assert_int_equal(gzwrite(z, zeros, 12 * COUNT), 12 * COUNT);
    assert_int_equal(gzclose(z), Z_OK);
    Samples *s;
    Preprocess p = {.scale = 1, .memory = process_resident() + (8 << 20)};
    const size_t before = process_peak_resident();
    assert_int_equal(samples_read(&s, f->a, path, &p, f->g, &f->d), -1);
    assert_non_null(strstr(f->message, "MiB, which is what --memory leaves"));
    assert_true(process_peak_resident() < before + (4 << 20));
    p.memory = process_resident() + (32 << 20);
    assert_int_equal(samples_read(&s, f->a, path, &p, f->g, &f->d), 0);
    assert_int_equal(s->count, COUNT);
    assert_true(process_peak_resident() < before + (18 << 20)); /* once */
}

static void test_npz(void **state)
{
    Fixture *f = *state;
    float x[24];
    int64_t y[] = {3, 1};
    for (int i = 0; i < 24; i++) x[i] = (float)i;
    NamedArray arrays[] = {{"x", type_of(DT_F32, 4, (int64_t[]){2, 2, 2, 3}), x},
                           {"labels", type_of(DT_I64, 1, (int64_t[]){2}), y}};
    const char *path = arena_printf(f->a, "%s/a.npz", f->dir);
    assert_int_equal(npz_write(path, arrays, 2, &f->d), 0);
    Samples *s = read_ok(f, path, NULL);
    assert_int_equal(s->count, 2);
    assert_int_equal(s->labels[0], 3);
    assert_memory_equal(sample_at(&s->inputs[0], 0, NULL), x, sizeof x);
    arrays[0].name = "z";
    assert_int_equal(npz_write(path, arrays, 2, &f->d), 0);
    NamedArray three[] = {arrays[0], arrays[1], {"q", arrays[0].type, x}};
    assert_int_equal(npz_write(path, three, 3, &f->d), 0);
    read_fails(f, path, "array 'z' is not an input of the model");
    assert_int_equal(npz_write("/nonexistent/a.npz", arrays, 2, &f->d), -1);
    read_fails(f, put(f, "junk.npz", x, sizeof x), "cannot open");
}

/* One number per sample is not the same number for all. */
static void test_single_numbers(void **state)
{
    Fixture *f = *state;
    int64_t ids[] = {5, 6, 7};
    NamedArray array = {"x", type_of(DT_I64, 1, (int64_t[]){3}), ids};
    const char *path = arena_printf(f->a, "%s/n.npz", f->dir);
    f->g->inputs[0]->type = type_of(DT_I64, 1, f->g->inputs[0]->type.dim);
    assert_int_equal(npz_write(path, &array, 1, &f->d), 0);
    Samples *s = read_ok(f, path, NULL);
    assert_int_equal(s->count, 3);
    for (int64_t i = 0; i < 3; i++)
        assert_int_equal(*(const int64_t *)sample_at(&s->inputs[0], i, NULL), ids[i]);
}

/* A state beside its samples: as a batch of it is fed, or sample after sample; one for all; too
 * few. */
static void test_batch_axes(void **state)
{
    Fixture *f = *state;
    f->g = graph_new(f->a, "g");
    const int64_t n = graph_symbol(f->g, "batch");
    graph_add_input(f->g, "x", type_of(DT_F32, 2, (int64_t[]){n, 2}));
    graph_add_input(f->g, "s", type_of(DT_F32, 3, (int64_t[]){2, n, 1}));
    graph_add_input(f->g, "rate", type_of(DT_I64, 0, NULL));
    float x[10], s[10], got[10];
    int64_t rate = 16000;
    for (int i = 0; i < 10; i++) x[i] = s[i] = (float)i;
    NamedArray arrays[] = {{"x", type_of(DT_F32, 2, (int64_t[]){5, 2}), x},
                           {"s", type_of(DT_F32, 3, (int64_t[]){2, 5, 1}), s},
                           {"rate", type_of(DT_I64, 0, NULL), &rate}};
    const char *path = arena_printf(f->a, "%s/s.npz", f->dir);
    assert_int_equal(npz_write(path, arrays, 3, &f->d), 0);
    Samples *set = read_ok(f, path, NULL);
    assert_int_equal(set->count, 5);
    assert_true(set->inputs[2].same && !set->inputs[1].same);
    samples_gather(set, 1, (int64_t[]){3, 0}, 2, DT_F32, got); /* [2,2,1] */
    const float want[] = {3, 0, 8, 5};
    assert_memory_equal(got, want, sizeof want);
    arrays[1].type = type_of(DT_F32, 3, (int64_t[]){5, 2, 1});
    assert_int_equal(npz_write(path, arrays, 3, &f->d), 0);
    set = read_ok(f, path, NULL);
    samples_gather(set, 1, (int64_t[]){3, 0}, 2, DT_F32, got);
    const float stacked[] = {6, 0, 7, 1};
    assert_memory_equal(got, stacked, sizeof stacked);
    arrays[1].type = type_of(DT_F32, 3, (int64_t[]){2, 1, 1});
    assert_int_equal(npz_write(path, arrays, 3, &f->d), 0);
    set = read_ok(f, path, NULL);
    assert_true(set->count == 5 && set->inputs[1].same);
    arrays[1].type = type_of(DT_F32, 3, (int64_t[]){2, 3, 1});
    assert_int_equal(npz_write(path, arrays, 3, &f->d), 0);
    read_fails(f, path, "5 samples for input 'x' but 3 for 's'");
}

/* Every truncation and every flipped byte of an .npy: samples or an error, nothing between. */
static void test_npy_damage(void **state)
{
    Fixture *f = *state;
    uint8_t npy[128 + 48] = "\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': True, "
                            "'shape': (1, 2, 2, 3), }";
    memset(npy + strlen((char *)npy + 10) + 10, ' ', 4);
    float x[12];
    for (int i = 0; i < 12; i++) x[i] = (float)i;
    memcpy(npy + 128, x, sizeof x);
    Samples *s = read_ok(f, put(f, "a.npy", npy, sizeof npy), NULL);
    const float *got =
        sample_at(&s->inputs[0], 0, NULL); /* (c, h, w) of Fortran order: c + 2 h + 4 w */
    assert_float_equal(got[1], 4, 0);
    assert_float_equal(got[3], 2, 0);
    Preprocess p = {.scale = 1};
    for (size_t n = 0; n < sizeof npy; n++)
        assert_int_equal(samples_read(&s, f->a, put(f, "b.npy", npy, n), &p, f->g, &f->d), -1);
    for (size_t n = 0; n < 128; n++) {
        npy[n] ^= 0x55;
        samples_read(&s, f->a, put(f, "c.npy", npy, sizeof npy), &p, f->g, &f->d);
        npy[n] ^= 0x55;
    }
}

static void test_preprocess(void **state)
{
    Fixture *f = *state;
    Preprocess p;
    assert_int_equal(preprocess_parse(&p, "scale=1/255,mean=0.5:0.25,std=1:2", &f->d), 0);
    assert_int_equal(p.n, 2);
    assert_float_equal((float)p.scale, 1 / 255.0f, 1e-9f);
    assert_int_equal(preprocess_parse(&p, "mean=1:2,std=1", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "std=0", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "mean=a", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "colour=1", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "scale", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "scale=nan", &f->d), -1);
    assert_int_equal(preprocess_parse(&p, "std=1e999", &f->d), -1);
}

/* A TensorProto of bfloat16[1,2,2,3], the first of its elements 1.5. */
static void test_bfloat16(void **state)
{
    Fixture *f = *state;
    uint8_t pb[36] = {8, 1, 8, 2, 8, 2, 8, 3, 0x10, DT_BF16, 0x4a, 24, 0xc0, 0x3f};
    float x[12];
    Samples *s = read_ok(f, put(f, "input_0.pb", pb, sizeof pb), NULL);
    samples_gather(s, 0, (int64_t[]){0}, 1, DT_F32, x);
    assert_float_equal(x[0], 1.5f, 0);
    assert_float_equal(x[1], 0, 0);
}

/* 2^40 samples of no element each are no samples. */
static void test_nothing(void **state)
{
    Fixture *f = *state;
    const uint8_t pb[] = {8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 8, 0, 0x10, DT_F32};
    f->g->inputs[0]->type = type_of(DT_F32, 2, (int64_t[]){DIM_SYM_BASE, graph_symbol(f->g, "S")});
    read_fails(f, put(f, "input_0.pb", pb, sizeof pb), "samples for input 'x' have no elements");
}

/* The size is believed only as far as so few bytes can go. */
static void test_npz_bomb(void **state)
{
    Fixture *f = *state;
    const float x[12] = {1};
    uint8_t bytes[1024];
    NamedArray array = {"x", type_of(DT_F32, 4, (int64_t[]){1, 2, 2, 3}), x};
    char *path = arena_printf(f->a, "%s/bomb.npz", f->dir);
    assert_int_equal(npz_write(path, &array, 1, &f->d), 0);
    FILE *file = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *entry = memmem(bytes, n, "PK\1\2", 4);
    assert_non_null(entry);
    memcpy(entry + 24, &(uint32_t){3u << 30}, 4); /* of the directory: size when unpacked */
    read_fails(f, put(f, "bomb.npz", bytes, n), "cannot be 3221225472 bytes");
}

/* Only inputs of type float take other types, and --preprocess. */
static void test_conversion(void **state)
{
    Fixture *f = *state;
    const uint8_t bytes[13] = {1, 2, 3};
    const char *path = put(f, "a.bin", bytes, sizeof bytes);
    f->g->inputs[0]->type.dtype = DT_I64;
    read_fails(f, path, "samples are uint8, input 'x' takes int64");
    f->g->inputs[0]->type.dtype = DT_U8;
    assert_int_equal(read_ok(f, path, "scale=1/255")->count, 1);
    f->g->inputs[0]->type.dtype = DT_F16;
    read_fails(f, path, "samples are uint8, input 'x' takes float16");
}

/* Files in the list, in a folder, and labels beside images all count; other files do not. */
static void test_stamp(void **state)
{
    Fixture *f = *state;
    uint64_t list, folder;
    const char *images = put(f, "a-images-idx3-ubyte", "1", 1);
    const char *const changed[] = {images, put(f, "a-labels-idx1-ubyte", "2", 1)};
    put(f, "notes.txt", "3", 1);
    assert_true(samples_stamp(5, NULL) == 5);
    list = samples_stamp(5, images);
    folder = samples_stamp(5, f->dir);
    for (int k = 0; k < 2; k++) {
        put(f, "notes.txt", "more", 4);
        assert_true(samples_stamp(5, images) == list && samples_stamp(5, f->dir) == folder);
        utimensat(AT_FDCWD, changed[k], (struct timespec[]){{1, 0}, {1, 0}}, 0);
        assert_true(samples_stamp(5, images) != list && samples_stamp(5, f->dir) != folder);
        list = samples_stamp(5, images);
        folder = samples_stamp(5, f->dir);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_records),    TEST(test_pieces),         TEST(test_large_files),
        TEST(test_idx),        TEST(test_gzip),           TEST(test_gzip_and_memory),
        TEST(test_npz),        TEST(test_single_numbers), TEST(test_batch_axes),
        TEST(test_npy_damage), TEST(test_preprocess),     TEST(test_conversion),
        TEST(test_npz_bomb),   TEST(test_bfloat16),       TEST(test_nothing),
        TEST(test_stamp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
