/* Element types, shapes and their text. */
#include <stdio.h>
#include <string.h>

#include "ir/ir.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [DT_F32] = {"float", 4},   [DT_U8] = {"uint8", 1},      [DT_I8] = {"int8", 1},
    [DT_U16] = {"uint16", 2},  [DT_I16] = {"int16", 2},     [DT_I32] = {"int32", 4},
    [DT_I64] = {"int64", 8},   [DT_STRING] = {"string", 0}, [DT_BOOL] = {"bool", 1},
    [DT_F16] = {"float16", 2}, [DT_F64] = {"double", 8},    [DT_U32] = {"uint32", 4},
    [DT_U64] = {"uint64", 8},  [DT_BF16] = {"bfloat16", 2},
};

enum { DTYPE_COUNT = sizeof dtypes / sizeof *dtypes };

size_t dtype_size(DType t) { return (unsigned)t < DTYPE_COUNT ? dtypes[t].size : 0; }

const char *dtype_name(DType t)
{
    return (unsigned)t < DTYPE_COUNT && dtypes[t].name ? dtypes[t].name : "undefined";
}

DType dtype_of_name(const char *name)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (dtypes[t].name && strcmp(dtypes[t].name, name) == 0) return (DType)t;
    return DT_NONE;
}

bool dtype_is_float(DType t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16 || t == DT_F64; }

bool dtype_is_int(DType t) { return (t >= DT_U8 && t <= DT_I64) || t == DT_U32 || t == DT_U64; }

Type type_of(DType dtype, int rank, const int64_t *dim)
{
    Type t = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    return t;
}

bool type_equal(const Type *a, const Type *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

bool type_is_static(const Type *t)
{
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] < 0) return false;
    return t->rank >= 0;
}

int64_t type_count(const Type *t)
{
    int64_t n = 1;
    if (!type_is_static(t)) return -1;
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(n, t->dim[i], &n)) return -1;
    return n;
}

int64_t type_bytes(const Type *t)
{
    int64_t n = type_count(t);
    if (n < 0 || __builtin_mul_overflow(n, (int64_t)dtype_size(t->dtype), &n)) return -1;
    return n;
}

const char *type_print(const Graph *g, const Type *t, char *buf, size_t size)
{
    int n = snprintf(buf, size, "%s", dtype_name(t->dtype));
    if (t->rank < 0) snprintf(buf + n, size - (size_t)n, "[]");
    for (int i = 0; i < t->rank && (size_t)n < size; i++) {
        int64_t k = dim_is_sym(t->dim[i]) ? t->dim[i] - DIM_SYM_BASE : 0;
        n += snprintf(buf + n, size - (size_t)n, "%s", i ? "," : "[");
        if ((size_t)n >= size) break;
        if (!dim_is_sym(t->dim[i]))
            n += snprintf(buf + n, size - (size_t)n, "%lld", (long long)t->dim[i]);
        else if (g && k < g->nsymbols && g->symbols[k])
            n += snprintf(buf + n, size - (size_t)n, "%s", g->symbols[k]);
        else
            n += snprintf(buf + n, size - (size_t)n, "?");
    }
    if (t->rank > 0 && (size_t)n < size) snprintf(buf + n, size - (size_t)n, "]");
    return buf;
}
