/* NumPy's .npy and .npz. The header of an .npy is a Python dict literal:
 *   \x93NUMPY 1 0 <len> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "frontend/data.h"
#include "ir/outfile.h"

static const struct {
    const char *descr;
    DType dtype;
} descrs[] = {
    {"<f4", DT_F32}, {"<f8", DT_F64}, {"<f2", DT_F16}, {"|u1", DT_U8},
    {"|i1", DT_I8},  {"<u2", DT_U16}, {"<i2", DT_I16}, {"<u4", DT_U32},
    {"<i4", DT_I32}, {"<u8", DT_U64}, {"<i8", DT_I64}, {"|b1", DT_BOOL},
};

/* The text after "'key':" in the header, or NULL. */
static const char *header_value(const char *header, const char *key)
{
    const char *p = strstr(header, key);
    if (!p) return NULL;
    p += strlen(key);
    while (*p == ' ' || *p == ':') p++;
    return p;
}

static int parse_shape(Type *t, const char *p)
{
    if (!p || *p++ != '(') return -1;
    for (t->rank = 0; *p && *p != ')';) {
        char *end;
        errno = 0;
        long long dim = strtoll(p, &end, 10);
        if (end == p || errno || dim < 0 || t->rank == MAX_RANK) return -1;
        t->dim[t->rank++] = dim;
        for (p = end; *p == ',' || *p == ' ' || *p == 'L';) p++;
    }
    return *p == ')' ? 0 : -1;
}

/* Reads the dict into type and order; returns the offset of the elements, or 0. */
static size_t parse_header(Type *t, bool *fortran, Arena *a, Bytes b)
{
    const uint8_t *p = b.p;
    if (b.n < 12 || memcmp(p, "\x93NUMPY", 6) != 0) return 0;
    size_t at = p[6] == 1 ? 10 : 12;
    size_t n = p[6] == 1 ? p[8] | (size_t)p[9] << 8
                         : p[8] | (size_t)p[9] << 8 | (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (n > b.n - at) return 0;
    char *header = arena_alloc(a, n + 1);
    memcpy(header, p + at, n);
    const char *descr = header_value(header, "'descr'"),
               *order = header_value(header, "'fortran_order'");
    if (!descr || !order || parse_shape(t, header_value(header, "'shape'")) < 0) return 0;
    for (size_t k = 0; *descr && k < sizeof descrs / sizeof *descrs; k++)
        if (strncmp(descr + 1, descrs[k].descr, 3) == 0) t->dtype = descrs[k].dtype;
    *fortran = strncmp(order, "True", 4) == 0;
    return t->dtype ? at + n : 0;
}

/* Column-major to row-major: element (i0, i1, …) is at i0 + d0*(i1 + d1*…). */
static void *from_fortran(Arena *a, const Type *t, const char *src)
{
    size_t size = dtype_size(t->dtype);
    int64_t n = type_count(t), index[MAX_RANK] = {0};
    char *dst = arena_array(a, (size_t)n, size);
    for (int64_t k = 0; k < n; k++) {
        int64_t at = 0;
        for (int i = t->rank - 1; i >= 0; i--) at = at * t->dim[i] + index[i];
        memcpy(dst + (size_t)k * size, src + (size_t)at * size, size);
        for (int i = t->rank - 1; i >= 0 && ++index[i] == t->dim[i]; i--) index[i] = 0;
    }
    return dst;
}

int npy_parse(NamedArray *out, Arena *a, Bytes b, const char *what, Diag *d)
{
    bool fortran = false;
    Type t = {0};
    size_t at = parse_header(&t, &fortran, a, b);
    if (!at) return diag_error(d, "%s is not a little-endian NumPy array of numbers", what);
    int64_t bytes = type_bytes(&t);
    if (bytes < 0 || (size_t)bytes != b.n - at)
        return diag_error(d, "%s holds %zu bytes of elements, its shape wants %lld", what, b.n - at,
                          (long long)bytes);
    const char *p = (const char *)b.p + at;
    out->type = t;
    if (fortran)
        out->data = from_fortran(a, &t, p);
    else
        out->data = (uintptr_t)p % dtype_size(t.dtype) ? arena_memdup(a, p, (size_t)bytes) : p;
    return 0;
}

/* Deflate makes at most 1032 bytes of one: an archive that promises more lies. */
static bool can_hold(const char *path, zip_uint64_t size)
{
    struct stat st;
    return stat(path, &st) == 0 && size / 1032 <= (zip_uint64_t)st.st_size;
}

static int zip_member(NamedArray *out, Arena *a, zip_t *z, zip_uint64_t i, const char *path,
                      Diag *d)
{
    zip_stat_t st;
    if (zip_stat_index(z, i, 0, &st) < 0 || !(st.valid & ZIP_STAT_SIZE) || !st.name)
        return diag_error(d, "'%s': damaged zip directory", path);
    if (st.size > (zip_uint64_t)4 << 30)
        return diag_error(d, "'%s': '%s' is over 4 GiB", path, st.name);
    if (!can_hold(path, st.size))
        return diag_error(d, "'%s': '%s' cannot be %llu bytes", path, st.name,
                          (unsigned long long)st.size);
    char *bytes = arena_alloc(a, (size_t)st.size), *name = arena_strdup(a, st.name);
    zip_file_t *f = zip_fopen_index(z, i, 0);
    zip_int64_t got = f ? zip_fread(f, bytes, st.size) : -1;
    if (f) zip_fclose(f);
    if (got < 0 || (zip_uint64_t)got != st.size)
        return diag_error(d, "'%s': cannot read '%s'", path, name);
    char *dot = strrchr(name, '.');
    if (dot && strcmp(dot, ".npy") == 0) *dot = '\0';
    out->name = name;
    return npy_parse(out, a, (Bytes){bytes, (size_t)st.size},
                     arena_printf(a, "'%s': '%s'", path, name), d);
}

typedef struct ZipHandle {
    zip_t *z;
} ZipHandle;

/* When the reading is done, or a trap ends it. */
static void close_zip(void *p)
{
    ZipHandle *h = p;
    if (h->z) zip_discard(h->z);
    h->z = NULL;
}

int npz_read(NamedArray **out, int *n, Arena *a, const char *path, Diag *d)
{
    int code, status = 0;
    ZipHandle *h = NEW(a, ZipHandle);
    arena_defer(a, close_zip, h);
    zip_t *z = h->z = zip_open(path, ZIP_RDONLY, &code);
    if (!z) {
        zip_error_t e;
        zip_error_init_with_code(&e, code);
        diag_error(d, "cannot open '%s': %s", path, zip_error_strerror(&e));
        zip_error_fini(&e);
        return -1;
    }
    zip_int64_t members = zip_get_num_entries(z, 0);
    *out = NEW_ARRAY(a, NamedArray, members);
    *n = (int)members;
    for (zip_int64_t i = 0; i < members && status == 0; i++)
        status = zip_member(&(*out)[i], a, z, (zip_uint64_t)i, path, d);
    close_zip(h);
    return status;
}

/* The whole .npy of one array, in malloc'ed memory that libzip will free. */
static void *npy_image(const NamedArray *x, size_t *size)
{
    char header[256];
    const char *descr = "";
    int n = 0, bytes = (int)type_bytes(&x->type) < 0 ? -1 : 0;
    for (size_t k = 0; k < sizeof descrs / sizeof *descrs; k++)
        if (descrs[k].dtype == x->type.dtype) descr = descrs[k].descr;
    if (bytes < 0 || !*descr) return NULL;
    n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                 descr);
    for (int i = 0; i < x->type.rank; i++)
        n += snprintf(header + n, sizeof header - (size_t)n, "%lld,", (long long)x->type.dim[i]);
    n += snprintf(header + n, sizeof header - (size_t)n, "), }");
    size_t head = ((size_t)n + 1 + 10 + 63) & ~(size_t)63, data = (size_t)type_bytes(&x->type);
    uint8_t *image = malloc(head + data);
    if (!image) return NULL;
    memset(image, ' ', head);
    memcpy(image, "\x93NUMPY\x01", 7);
    image[7] = 0;
    image[8] = (uint8_t)((head - 10) & 255);
    image[9] = (uint8_t)((head - 10) >> 8);
    memcpy(image + 10, header, (size_t)n);
    image[head - 1] = '\n';
    if (data) memcpy(image + head, x->data, data);
    *size = head + data;
    return image;
}

static int add_member(zip_t *z, const NamedArray *x)
{
    char name[512];
    size_t size = 0;
    void *image = npy_image(x, &size);
    zip_source_t *s = image ? zip_source_buffer(z, image, size, 1) : NULL;
    if (!s) {
        free(image);
        return -1;
    }
    snprintf(name, sizeof name, "%s.npy", x->name);
    zip_int64_t i = zip_file_add(z, name, s, ZIP_FL_ENC_UTF_8 | ZIP_FL_OVERWRITE);
    if (i < 0) {
        zip_source_free(s);
        return -1;
    }
    /* Fixed times: the same arrays give the same bytes. */
    zip_set_file_compression(z, (zip_uint64_t)i, ZIP_CM_STORE, 0);
    return zip_file_set_mtime(z, (zip_uint64_t)i, 315532800, 0);
}

/* The archive goes to memory, for the file to appear in one piece. */
static int fill_archive(zip_source_t *to, const NamedArray *arrays, int n)
{
    zip_error_t e;
    zip_error_init(&e);
    zip_t *z = zip_open_from_source(to, ZIP_TRUNCATE, &e);
    zip_error_fini(&e);
    if (!z) return -1;
    zip_source_keep(to); /* the archive's own reference goes with it */
    for (int i = 0; i < n; i++)
        if (add_member(z, &arrays[i]) < 0) {
            zip_discard(z);
            return -1;
        }
    if (zip_close(z) == 0) return 0;
    zip_discard(z);
    return -1;
}

static int write_archive(zip_source_t *from, const char *path, Diag *d)
{
    zip_stat_t st;
    if (zip_source_stat(from, &st) < 0 || !(st.valid & ZIP_STAT_SIZE) || zip_source_open(from) < 0)
        return diag_error(d, "cannot write '%s': the archive is lost", path);
    Arena *a = arena_new();
    void *bytes = arena_alloc(a, (size_t)st.size);
    zip_int64_t got = zip_source_read(from, bytes, st.size);
    zip_source_close(from);
    int status = got == (zip_int64_t)st.size ? outfile_whole(path, bytes, (size_t)got, d)
                                             : diag_error(d, "cannot write '%s'", path);
    arena_free(a);
    return status;
}

static void release_source(void *source) { zip_source_free(source); }

int npz_write(const char *path, const NamedArray *arrays, int n, Diag *d)
{
    zip_error_t e;
    zip_error_init(&e);
    Arena *a = arena_new();
    zip_source_t *archive = zip_source_buffer_create(NULL, 0, 0, &e);
    int status = -1;
    if (archive) arena_defer(a, release_source, archive);
    if (archive && fill_archive(archive, arrays, n) == 0)
        status = write_archive(archive, path, d);
    else
        diag_error(d, "cannot write '%s': out of memory, or an array of no NumPy type", path);
    zip_error_fini(&e);
    arena_free(a);
    return status;
}

int npy_read(Parts *ps, const char *path)
{
    Bytes file;
    NamedArray x;
    TRY(data_load(&file, ps, path));
    TRY(npy_parse(&x, ps->arena, file, arena_printf(ps->arena, "'%s'", path), ps->diag));
    return parts_add_array(ps, 0, &x.type, x.data, arena_printf(ps->arena, "'%s'", path));
}

static int find_input(const Graph *g, const char *name)
{
    for (int i = 0; i < g->ninputs; i++)
        if (strcmp(g->inputs[i]->name, name) == 0) return i;
    return -1;
}

static const int32_t *integer_labels(Arena *a, const NamedArray *x)
{
    int64_t n = type_count(&x->type);
    int32_t *labels = NEW_ARRAY(a, int32_t, n);
    for (int64_t i = 0; i < n; i++)
        labels[i] = x->type.dtype == DT_I64   ? (int32_t)((const int64_t *)x->data)[i]
                    : x->type.dtype == DT_I32 ? ((const int32_t *)x->data)[i]
                                              : ((const uint8_t *)x->data)[i];
    return labels;
}

static bool is_labels(const NamedArray *x)
{
    bool named = strcmp(x->name, "labels") == 0 || strcmp(x->name, "y") == 0;
    DType t = x->type.dtype;
    return named && x->type.rank == 1 && (t == DT_I64 || t == DT_I32 || t == DT_U8);
}

/* Arrays feed the inputs of their names, numbers those that are single numbers; an integer array
 * "labels" or "y" holds classes. */
int npz_read_samples(Parts *ps, const char *path)
{
    NamedArray *arrays;
    int n, first = ps->n;
    const NamedArray *labels = NULL;
    TRY(npz_read(&arrays, &n, ps->arena, path, ps->diag));
    for (int k = 0; k < n; k++) {
        const Type *t = &arrays[k].type;
        int input = find_input(ps->graph, arrays[k].name);
        if (is_labels(&arrays[k])) labels = &arrays[k];
        if (is_labels(&arrays[k]) || (t->rank < 1 && input < 0)) continue;
        if (input < 0 && ps->graph->ninputs == 1 && n <= 2) input = 0;
        if (input < 0)
            return diag_error(ps->diag, "'%s': array '%s' is not an input of the model", path,
                              arrays[k].name);
        TRY(parts_add_array(ps, input, t, arrays[k].data,
                            arena_printf(ps->arena, "'%s': array '%s'", path, arrays[k].name)));
    }
    for (int k = first; labels && k < ps->n; k++) {
        if (labels->type.dim[0] != ps->list[k].count)
            return diag_error(ps->diag, "'%s': %lld labels for %lld samples", path,
                              (long long)labels->type.dim[0], (long long)ps->list[k].count);
        ps->list[k].labels = integer_labels(ps->arena, labels);
    }
    return 0;
}
