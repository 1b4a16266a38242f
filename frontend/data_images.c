/* JPEG and PNG files as samples. A file is only listed when it is read; it is decoded whenever its
 * sample is gathered, so a set of images of any size takes no memory.
 *
 * As the usual evaluation does (and PIL's resize, which training code calls), the image is resized
 * until it covers the input, or until its shorter side is as long as `resize` says, and the middle
 * is cut out; or it is stretched to the input. Resampling is by a triangle as wide as one input or
 * output pixel, whichever is larger, first along rows, then along columns:
 *
 *   out[x] = sum over i of w(i) in[i] / sum of w,   w(i) = max(0, 1 - |i + 1/2 - c| / s)
 *   c = (x + offset + 1/2) in / resized,  s = max(1, in / resized). */
#include <math.h>
#include <png.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>

#include "frontend/data.h"
#include "frontend/file.h"

enum { MOST_PIXELS = 1 << 27 };

typedef struct Images {
    const char **path;
    int32_t *label;
    int64_t n, cap;
    int64_t channels, height, width; /* of a sample: 1 or 3 channels */
    bool nhwc, bgr, stretch;
    int64_t resize;
    const char *largest; /* file */
    int64_t largest_bytes;
} Images;

/* Decoded: [height][width][channels]. */
typedef struct Picture {
    uint8_t *pixels;
    int64_t height, width;
} Picture;

static _Noreturn void bad_image(const char *path, const char *why)
{
    trap(TRAP_INPUT, "'%s' cannot be used: %s", path, why);
}

/* ---- decoding ------------------------------------------------------------------------ */

static void check_size(const char *path, int64_t height, int64_t width)
{
    char why[96];
    if (height > 0 && width > 0 && height <= MOST_PIXELS / width) return;
    snprintf(why, sizeof why, "it is %lld x %lld pixels, the limit is %d in all", (long long)height,
             (long long)width, MOST_PIXELS);
    bad_image(path, why);
}

static void free_jpeg(void *j) { tjDestroy(j); }

static Picture decode_jpeg(Arena *a, Bytes file, const char *path, const Images *to)
{
    int h, w, sampling, colours;
    tjhandle j = tjInitDecompress();
    if (!j) trap(TRAP_NO_MEMORY, "out of memory for a JPEG decoder");
    arena_defer(a, free_jpeg, j);
    if (tjDecompressHeader3(j, file.p, file.n, &w, &h, &sampling, &colours) < 0)
        bad_image(path, tjGetErrorStr2(j));
    check_size(path, h, w);
    uint8_t *pixels = arena_array(a, (size_t)(h * to->channels), (size_t)w);
    const int format = to->channels == 1 ? TJPF_GRAY : to->bgr ? TJPF_BGR : TJPF_RGB;
    if (tjDecompress2(j, file.p, file.n, pixels, w, 0, h, format, TJFLAG_ACCURATEDCT) < 0)
        bad_image(path, tjGetErrorStr2(j));
    return (Picture){pixels, h, w};
}

static void free_png(void *p) { png_image_free(p); }

/* Luma as JPEG has it (ITU-R BT.601), on the numbers as stored; libpng's own is of linear light. */
static void to_luma(uint8_t *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pixels[i] = (uint8_t)((299 * pixels[3 * i] + 587 * pixels[3 * i + 1] +
                               114 * pixels[3 * i + 2] + 500) /
                              1000);
}

static Picture decode_png(Arena *a, Bytes file, const char *path, const Images *to)
{
    static const png_color black = {0, 0, 0};
    png_image *p = NEW(a, png_image);
    p->version = PNG_IMAGE_VERSION;
    arena_defer(a, free_png, p);
    if (!png_image_begin_read_from_memory(p, file.p, file.n)) bad_image(path, p->message);
    check_size(path, p->height, p->width);
    const bool gray = to->channels == 1, colours = p->format & PNG_FORMAT_FLAG_COLOR;
    p->format = gray && !colours   ? PNG_FORMAT_GRAY
                : to->bgr && !gray ? PNG_FORMAT_BGR
                                   : PNG_FORMAT_RGB;
    uint8_t *pixels = arena_array(a, p->height, PNG_IMAGE_ROW_STRIDE(*p));
    if (!png_image_finish_read(p, &black, pixels, 0, NULL)) bad_image(path, p->message);
    if (gray && colours) to_luma(pixels, (size_t)p->height * p->width);
    return (Picture){pixels, p->height, p->width};
}

static bool is_jpeg(Bytes file)
{
    static const uint8_t start[] = {0xff, 0xd8, 0xff};
    return file.n >= sizeof start && memcmp(file.p, start, sizeof start) == 0;
}

static bool is_png(Bytes file)
{
    static const uint8_t start[] = {0x89, 'P', 'N', 'G'};
    return file.n >= sizeof start && memcmp(file.p, start, sizeof start) == 0;
}

static Picture decode(Arena *a, const char *path, const Images *to)
{
    Bytes file;
    Diag quiet = {0};
    if (file_bytes(&file, a, path, &quiet) < 0) bad_image(path, "it cannot be read");
    if (is_jpeg(file)) return decode_jpeg(a, file, path, to);
    if (is_png(file)) return decode_png(a, file, path, to);
    bad_image(path, "it is neither JPEG nor PNG");
}

/* The size that a file's header gives; 0: it cannot be read. */
static void size_in_header(int64_t *height, int64_t *width, Arena *a, Bytes file)
{
    *height = *width = 0;
    if (is_jpeg(file)) {
        int h, w, sampling, colours;
        tjhandle j = tjInitDecompress();
        if (!j) return;
        if (tjDecompressHeader3(j, file.p, file.n, &w, &h, &sampling, &colours) == 0)
            *height = h, *width = w;
        tjDestroy(j);
    } else if (is_png(file)) {
        png_image *p = NEW(a, png_image);
        p->version = PNG_IMAGE_VERSION;
        if (png_image_begin_read_from_memory(p, file.p, file.n))
            *height = p->height, *width = p->width;
        png_image_free(p);
    }
}

/* ---- resizing ------------------------------------------------------------------------ */

/* Where one output position draws from: `n` weights from `first` on, of sum 1. */
typedef struct Taps {
    int64_t first, n;
    float *weight;
} Taps;

/* The taps of out positions of an axis of `in` pixels that is resized to `resized`, from `offset`
 * on. */
static Taps *axis_taps(Arena *a, int64_t out, int64_t in, int64_t resized, int64_t offset)
{
    const double scale = (double)in / (double)resized, width = fmax(1, scale);
    Taps *taps = NEW_ARRAY(a, Taps, out);
    for (int64_t x = 0; x < out; x++) {
        const double centre = ((double)(x + offset) + 0.5) * scale;
        const int64_t first = (int64_t)fmax(0, floor(centre - width + 0.5));
        const int64_t last = (int64_t)fmin((double)in, floor(centre + width + 0.5));
        Taps *t = &taps[x];
        double sum = 0;
        *t = (Taps){first, last - first, NEW_ARRAY(a, float, last - first)};
        for (int64_t i = 0; i < t->n; i++) {
            const double w = fmax(0, 1 - fabs((double)(first + i) + 0.5 - centre) / width);
            t->weight[i] = (float)w;
            sum += w;
        }
        for (int64_t i = 0; i < t->n; i++) t->weight[i] /= (float)sum;
    }
    return taps;
}

/* One row of pixels, resized. */
static void resize_row(float *out, const uint8_t *row, const Taps *taps, const Images *to)
{
    for (int64_t x = 0; x < to->width; x++)
        for (int64_t c = 0; c < to->channels; c++) {
            float sum = 0;
            for (int64_t i = 0; i < taps[x].n; i++)
                sum += taps[x].weight[i] * (float)row[(taps[x].first + i) * to->channels + c];
            out[x * to->channels + c] = sum;
        }
}

static void put_row(uint8_t *out, const float *row, int64_t y, const Images *to)
{
    const int64_t plane = to->height * to->width;
    for (int64_t x = 0; x < to->width; x++)
        for (int64_t c = 0; c < to->channels; c++) {
            const int64_t at =
                to->nhwc ? (y * to->width + x) * to->channels + c : c * plane + y * to->width + x;
            out[at] = (uint8_t)fminf(255, fmaxf(0, row[x * to->channels + c] + 0.5F));
        }
}

static void resample(uint8_t *out, Arena *a, const Picture *p, const Images *to, const Taps *across,
                     const Taps *down)
{
    const int64_t row = to->width * to->channels, top = down[0].first;
    const int64_t rows = down[to->height - 1].first + down[to->height - 1].n - top;
    float *wide = arena_array(a, (size_t)rows, (size_t)row * sizeof(float));
    float *sum = NEW_ARRAY(a, float, row);
    for (int64_t y = 0; y < rows; y++)
        resize_row(wide + y * row, p->pixels + (top + y) * p->width * to->channels, across, to);
    for (int64_t y = 0; y < to->height; y++) {
        memset(sum, 0, (size_t)row * sizeof *sum);
        for (int64_t i = 0; i < down[y].n; i++) {
            const float *from = wide + (down[y].first + i - top) * row;
            for (int64_t k = 0; k < row; k++) sum[k] += down[y].weight[i] * from[k];
        }
        put_row(out, sum, y, to);
    }
}

/* The size that the picture is resized to before the middle is cut out. */
static void resized_size(int64_t *height, int64_t *width, const Picture *p, const Images *to)
{
    *height = to->height;
    *width = to->width;
    if (to->stretch) return;
    const double cover =
        fmax((double)to->height / (double)p->height, (double)to->width / (double)p->width);
    const int64_t least = p->height < p->width ? p->height : p->width;
    const double by = to->resize ? (double)to->resize / (double)least : cover;
    *height = (int64_t)fmax((double)*height, floor((double)p->height * by + 1e-6));
    *width = (int64_t)fmax((double)*width, floor((double)p->width * by + 1e-6));
}

/* What is cut off before the middle, a half rounded to the even side. */
static int64_t middle(int64_t rest) { return lrint((double)rest / 2); }

static void fit(uint8_t *out, Arena *a, const Picture *p, const Images *to)
{
    int64_t h, w;
    resized_size(&h, &w, p, to);
    const Taps *across = axis_taps(a, to->width, p->width, w, middle(w - to->width));
    const Taps *down = axis_taps(a, to->height, p->height, h, middle(h - to->height));
    resample(out, a, p, to, across, down);
}

static void make_image(const void *data, int64_t i, void *out)
{
    const Images *images = data;
    Arena *a = arena_new();
    const Picture p = decode(a, images->path[i], images);
    fit(out, a, &p, images);
    arena_free(a);
}

/* What decoding and resizing the largest of the files takes: its pixels, and its rows as floats.
 * Not every header is read, so the largest is that of the most bytes. */
static size_t image_room(const void *data)
{
    const Images *to = data;
    Bytes file;
    Diag quiet = {0};
    int64_t h = 0, w = 0;
    Arena *a = arena_new();
    if (to->largest && file_bytes(&file, a, to->largest, &quiet) == 0)
        size_in_header(&h, &w, a, file);
    arena_free(a);
    if (h <= 0 || w <= 0 || h > MOST_PIXELS / w) return 0; /* an error when it is decoded */
    return (size_t)(h * to->channels) * ((size_t)w + (size_t)to->width * sizeof(float));
}

/* ---- listing ------------------------------------------------------------------------- */

static int64_t chosen(int64_t given, int64_t dim, const Preprocess *pre)
{
    const int64_t symbol = dim - DIM_SYM_BASE;
    if (given) return given;
    return dim_is_sym(dim) && symbol < pre->ndims ? pre->dims[symbol] : dim;
}

/* What the model's first input wants of an image. */
static int image_shape(Images *to, const Parts *ps, const char *path)
{
    const Type t = sample_type(ps, 0);
    const Preprocess *pre = ps->pre;
    const bool last = pre->nhwc || (t.rank == 3 && t.dim[0] != 1 && t.dim[0] != 3 &&
                                    (t.dim[2] == 1 || t.dim[2] == 3));
    const int64_t c = t.rank == 3 ? t.dim[last ? 2 : 0] : t.rank == 2 ? 1 : 0;
    const int64_t h = t.rank < 2 ? 0 : t.dim[t.rank == 2 || last ? 0 : 1],
                  w = t.rank < 2 ? 0 : t.dim[t.rank == 2 || last ? 1 : 2];
    *to = (Images){.channels = c,
                   .height = chosen(pre->height, h, pre),
                   .width = chosen(pre->width, w, pre),
                   .nhwc = last,
                   .bgr = pre->bgr,
                   .stretch = pre->stretch,
                   .resize = pre->resize};
    if (c != 1 && c != 3)
        return diag_error(ps->diag, "'%s': input '%s' takes no images of 1 or 3 channels", path,
                          ps->graph->inputs[0]->name);
    if (to->height <= 0 || to->width <= 0) {
        diag_error(ps->diag, "'%s': input '%s' leaves the size of images open", path,
                   ps->graph->inputs[0]->name);
        diag_note(ps->diag, "--preprocess size=240x320 says what to bring them to");
        return -1;
    }
    if (pre->resize && (pre->resize < to->height || pre->resize < to->width))
        return diag_error(ps->diag,
                          "--preprocess: resize=%lld is less than the input's %lld x %lld",
                          (long long)pre->resize, (long long)to->height, (long long)to->width);
    return 0;
}

static Type image_type(const Parts *ps, const Images *m)
{
    const int rank = sample_type(ps, 0).rank;
    const int64_t planes[] = {m->channels, m->height, m->width},
                  last[] = {m->height, m->width, m->channels};
    return type_of(DT_U8, rank, rank == 2 || m->nhwc ? last : planes);
}

static void add_image(Images *m, Arena *a, const char *path, int32_t label)
{
    if (m->n == m->cap) {
        const int64_t cap = m->cap ? 2 * m->cap : 64;
        const char **paths = NEW_ARRAY(a, const char *, cap);
        int32_t *labels = NEW_ARRAY(a, int32_t, cap);
        for (int64_t i = 0; i < m->n; i++) paths[i] = m->path[i], labels[i] = m->label[i];
        m->path = paths;
        m->label = labels;
        m->cap = cap;
    }
    m->path[m->n] = path;
    m->label[m->n++] = label;
}

static void note_largest(Images *m, const char *path)
{
    struct stat s;
    if (stat(path, &s) < 0 || s.st_size <= m->largest_bytes) return;
    m->largest = path;
    m->largest_bytes = s.st_size;
}

/* Images that follow one another, all with labels or all without, are one part. */
int image_read(Parts *ps, const char *path)
{
    Part *p = ps->n > 0 ? &ps->list[ps->n - 1] : NULL;
    if (!p || p->make != make_image || (p->labels != NULL) != (ps->label >= 0)) {
        Images *m = NEW(ps->arena, Images);
        TRY(image_shape(m, ps, path));
        parts_add(
            ps,
            (Part){.sample = image_type(ps, m), .data = m, .make = make_image, .room = image_room});
        p = &ps->list[ps->n - 1];
    }
    Images *m = (Images *)(uintptr_t)p->data;
    add_image(m, ps->arena, arena_strdup(ps->arena, path), ps->label);
    note_largest(m, m->path[m->n - 1]);
    p->count = m->n;
    if (ps->label >= 0) p->labels = m->label;
    return 0;
}
