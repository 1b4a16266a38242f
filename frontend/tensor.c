/* Elements of a TensorProto: raw bytes stay where they are, typed arrays are narrowed to the
 * element type, external bytes are mapped. Sizes are never believed: shape, storage and file
 * length must agree exactly. */
#include "frontend/tensor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/file.h"

typedef struct TensorFile {
    struct TensorFile *next;
    const char *name;
    Bytes bytes;
} TensorFile;

DType tensor_dtype(int32_t onnx)
{
    DType t = onnx > 0 && onnx < 32 ? (DType)onnx : DT_NONE;
    return t == DT_STRING || dtype_size(t) ? t : DT_NONE;
}

/* ---- external data ------------------------------------------------------------------ */

static int external_file(TensorFiles *f, const char *name, const char *what, Bytes *out)
{
    for (TensorFile *k = f->files; k; k = k->next)
        if (strcmp(k->name, name) == 0) {
            *out = k->bytes;
            return 0;
        }
    if (!f->dir)
        return diag_error(f->d, "%s is external data, but the model did not come from a folder",
                          what);
    if (file_bytes_below(out, f->arena, f->dir, name, f->d) < 0) {
        diag_note(f->d, "'%s' is where %s keeps its elements", name, what);
        return -1;
    }
    f->stamp = file_stamp(f->stamp, arena_printf(f->arena, "%s/%s", f->dir, name));
    TensorFile *k = NEW(f->arena, TensorFile);
    *k = (TensorFile){f->files, arena_strdup(f->arena, name), *out};
    f->files = k;
    return 0;
}

int64_t tensor_files_bytes(const TensorFiles *f)
{
    int64_t n = 0;
    for (const TensorFile *k = f->files; k; k = k->next) n += (int64_t)k->bytes.n;
    return n;
}

/* A decimal number; false for anything else. */
static bool parse_size(const char *s, size_t *out)
{
    char *end;
    if (*s < '0' || *s > '9') return false;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    *out = (size_t)v;
    return *end == 0 && errno == 0;
}

/* `length` is the default: SIZE_MAX means up to the end of the file. */
static int external_bytes(TensorFiles *f, const Onnx__TensorProto *t, const char *what,
                          size_t length, Bytes *out)
{
    const char *location = NULL;
    size_t offset = 0, end;
    bool ok = true;
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = t->external_data[i]->key, *value = t->external_data[i]->value;
        if (!key || !value) continue;
        if (strcmp(key, "location") == 0) location = value;
        if (strcmp(key, "offset") == 0) ok &= parse_size(value, &offset);
        if (strcmp(key, "length") == 0) ok &= parse_size(value, &length);
    }
    if (!location || !ok)
        return diag_error(f->d, "%s: its external data has no location, or a bad offset or length",
                          what);
    Bytes file;
    TRY(external_file(f, location, what, &file));
    f->used = true;
    if (length == SIZE_MAX) length = offset <= file.n ? file.n - offset : 0;
    if (!add_ok(offset, length, &end) || end > file.n)
        return diag_error(f->d, "%s: bytes %zu to %zu of '%s' are wanted, which has %zu", what,
                          offset, end, location, file.n);
    *out = (Bytes){(const uint8_t *)file.p + offset, length};
    return 0;
}

int tensor_internalize(TensorFiles *f, Onnx__TensorProto *t)
{
    Bytes b;
    if (t->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) return 0;
    const char *what = t->name && *t->name ? t->name : "a tensor attribute";
    TRY(external_bytes(f, t, what, SIZE_MAX, &b));
    t->raw_data = (ProtobufCBinaryData){b.n, (uint8_t *)(uintptr_t)b.p};
    t->has_raw_data = true;
    t->has_data_location = false;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT;
    t->n_external_data = 0;
    return 0;
}

/* ---- typed arrays ------------------------------------------------------------------- */

/* The array that holds elements of dtype t: its length, start and the size of one item. */
static size_t typed_array(const Onnx__TensorProto *t, DType dtype, const void **p, size_t *item)
{
    switch (dtype) {
    case DT_F32:
        *p = t->float_data, *item = 4;
        return t->n_float_data;
    case DT_F64:
        *p = t->double_data, *item = 8;
        return t->n_double_data;
    case DT_I64:
        *p = t->int64_data, *item = 8;
        return t->n_int64_data;
    case DT_U32:
    case DT_U64:
        *p = t->uint64_data, *item = 8;
        return t->n_uint64_data;
    default:
        *p = t->int32_data, *item = 4;
        return t->n_int32_data;
    }
}

/* Keeps the low bytes of each item (little-endian); false if a value does not fit. Half floats
 * and bfloat16 are bit patterns in 16 of the 32 bits. */
static bool narrow(uint8_t *out, size_t size, const uint8_t *in, size_t item, size_t n,
                   bool is_signed)
{
    if (n) memset(out, 0, n * size);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *x = in + i * item;
        memcpy(out + i * size, x, size);
        uint8_t fill = is_signed && x[size - 1] & 0x80 ? 0xff : 0;
        for (size_t b = size; b < item; b++)
            if (x[b] != fill) return false;
    }
    return true;
}

static int read_typed(TensorFiles *f, const Onnx__TensorProto *t, const char *what,
                      const Type *type, size_t count, const void **data)
{
    const void *p;
    size_t item, size = dtype_size(type->dtype), n = typed_array(t, type->dtype, &p, &item);
    char text[128];
    if (n != count)
        return diag_error(f->d, "%s: shape %s needs %zu elements, the file has %zu", what,
                          type_print(NULL, type, text, sizeof text), count, n);
    uint8_t *out = arena_array(f->arena, count, size);
    *data = out;
    if (item == size && n) memcpy(out, p, n * size);
    bool is_signed = type->dtype == DT_I8 || type->dtype == DT_I16;
    if (item != size && !narrow(out, size, p, item, n, is_signed))
        return diag_error(f->d, "%s: an element does not fit its type %s", what,
                          dtype_name(type->dtype));
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------- */

static int read_raw(TensorFiles *f, Bytes raw, const char *what, const Type *type, size_t need,
                    const void **data)
{
    char text[128];
    if (raw.n != need)
        return diag_error(f->d, "%s: shape %s needs %zu bytes, the file has %zu", what,
                          type_print(NULL, type, text, sizeof text), need, raw.n);
    bool aligned = (uintptr_t)raw.p % dtype_size(type->dtype) == 0;
    *data = aligned && need ? raw.p : arena_memdup(f->arena, raw.p, raw.n);
    return 0;
}

static int read_dims(TensorFiles *f, const Onnx__TensorProto *t, const char *what, Type *type,
                     size_t *count)
{
    int64_t product = 1; /* of those that are not 0: no dimension may be absurd */
    bool empty = false;
    type->rank = (int)t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++) {
        int64_t dim = t->dims[i];
        if (dim < 0) return diag_error(f->d, "%s: dimension %zu is %lld", what, i, (long long)dim);
        type->dim[i] = dim;
        empty |= dim == 0;
        if (dim && (__builtin_mul_overflow(product, dim, &product) || product > MAX_ELEMENTS))
            return diag_error(f->d, "%s: the product of its dimensions overflows", what);
    }
    *count = empty ? 0 : (size_t)product;
    return 0;
}

int tensor_read(TensorFiles *f, const Onnx__TensorProto *t, const char *what, Type *type,
                const void **data)
{
    size_t count = 0;
    Bytes raw = {t->raw_data.data, t->raw_data.len};
    DType dtype = tensor_dtype(t->data_type);
    if (t->segment) return diag_error(f->d, "%s: segmented tensors are not supported", what);
    if (t->data_type == 0) return diag_error(f->d, "%s has no element type", what);
    if (dtype_size(dtype) == 0 || t->n_dims > MAX_RANK) return 1;
    type->dtype = dtype;
    TRY(read_dims(f, t, what, type, &count));
    size_t need = count * dtype_size(dtype);
    if (t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        TRY(external_bytes(f, t, what, need, &raw));
        return read_raw(f, raw, what, type, need, data);
    }
    if (t->has_raw_data && raw.n) return read_raw(f, raw, what, type, need, data);
    return read_typed(f, t, what, type, count, data);
}
