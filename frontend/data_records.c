/* Formats of plain bytes: CIFAR binary records and idx. */
#include <string.h>
#include <zlib.h>

#include "frontend/data.h"

/* The first byte of each record. They are read apart: the file may be mapped, and only the samples
 * that are used shall take memory. */
static int record_labels(const int32_t **out, Parts *ps, const char *path, size_t n, size_t record)
{
    gzFile f = gzopen(path, "rb");
    uint8_t *bytes = arena_alloc(ps->arena, record);
    int32_t *labels = NEW_ARRAY(ps->arena, int32_t, n);
    size_t i = 0;
    for (; f && i < n && gzread(f, bytes, (unsigned)record) == (int)record; i++)
        labels[i] = bytes[0];
    if (f) gzclose(f);
    *out = labels;
    return i == n ? 0 : diag_error(ps->diag, "'%s' has changed while it was read", path);
}

/* Records of one label byte and the bytes of one sample: CIFAR-10's format, for any shape. */
int cifar_read(Parts *ps, const char *path)
{
    Bytes file;
    const int32_t *labels;
    Type t = sample_type(ps, 0);
    int64_t count = type_count(&t);
    TRY(data_load(&file, ps, path));
    if (count <= 0 || count >= INT32_MAX)
        return diag_error(ps->diag, "'%s': input '%s' has no fixed sample size to cut records by",
                          path, ps->graph->inputs[0]->name);
    size_t size = (size_t)count, record = size + 1;
    if (file.n == 0 || file.n % record != 0)
        return diag_error(ps->diag,
                          "'%s' has %zu bytes, not a multiple of %zu (1 label and %zu bytes of "
                          "input '%s')",
                          path, file.n, record, size, ps->graph->inputs[0]->name);
    size_t n = file.n / record;
    TRY(record_labels(&labels, ps, path, n, record));
    t.dtype = DT_U8;
    if (ps->pre->nhwc && t.rank == 3)
        t = type_of(DT_U8, 3, (int64_t[]){t.dim[2], t.dim[0], t.dim[1]});
    parts_add(ps, (Part){.count = (int64_t)n,
                         .sample = t,
                         .data = (const uint8_t *)file.p + 1,
                         .labels = labels,
                         .pitch = record});
    return 0;
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* An idx file of unsigned bytes: magic 0,0,8,rank, then the sizes, then the elements. */
static int idx_parse(Type *t, const uint8_t **data, Bytes file, const char *path, Diag *d)
{
    const uint8_t *p = file.p;
    if (file.n < 4 || p[0] || p[1] || p[2] != 8 || p[3] < 1 || p[3] > MAX_RANK)
        return diag_error(d, "'%s' is not an idx file of unsigned bytes", path);
    size_t head = 4 + 4 * (size_t)p[3];
    *t = (Type){.dtype = DT_U8, .rank = p[3]};
    for (int i = 0; i < t->rank && file.n >= head; i++) t->dim[i] = big_endian(p + 4 + 4 * i);
    int64_t n = type_count(t);
    if (file.n < head || n < 0 || file.n - head != (size_t)n)
        return diag_error(d, "'%s' has %zu bytes, its header says %lld", path, file.n,
                          (long long)n + (long long)head);
    *data = p + head;
    return 0;
}

/* The labels that belong to …images-idx3-ubyte[.gz] lie beside it as …labels-idx1-ubyte. */
const char *idx_labels_path(Arena *a, const char *path)
{
    char *s = arena_strdup(a, path), *at = strstr(s, "images-idx3");
    for (char *next; at && (next = strstr(at + 1, "images-idx3"));) at = next;
    return at ? memcpy(at, "labels-idx1", 11), s : NULL;
}

static int idx_labels(Part *part, Parts *ps, const char *path)
{
    Bytes file;
    Type t;
    const uint8_t *p;
    const char *beside = idx_labels_path(ps->arena, path);
    Diag quiet = {0};
    Parts silent = *ps;
    silent.diag = &quiet;
    if (!beside || data_load(&file, &silent, beside) < 0) return 0;
    TRY(idx_parse(&t, &p, file, beside, ps->diag));
    if (t.rank != 1 || t.dim[0] != part->count)
        return diag_error(ps->diag, "'%s' does not hold one label for each of %lld samples", beside,
                          (long long)part->count);
    int32_t *labels = NEW_ARRAY(ps->arena, int32_t, part->count);
    for (int64_t i = 0; i < part->count; i++) labels[i] = p[i];
    part->labels = labels;
    return 0;
}

int idx_read(Parts *ps, const char *path)
{
    Bytes file;
    Type t;
    const uint8_t *p;
    if (strstr(path, "labels-idx1")) return 0; /* read with its images */
    TRY(data_load(&file, ps, path));
    TRY(idx_parse(&t, &p, file, path, ps->diag));
    Part part = {.count = t.dim[0], .sample = type_of(DT_U8, t.rank - 1, t.dim + 1), .data = p};
    TRY(idx_labels(&part, ps, path));
    parts_add(ps, part);
    return 0;
}
