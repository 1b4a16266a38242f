/* --fix: inputs that always have the same value, or the same sizes. What reads one reads a constant
 * instead; the input itself stays where the file declares it, unread, so that callers go on as they
 * are. Sizes become those of the type that is declared. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/text.h"
#include "passes/simplify/simplify.h"

enum { MOST_VALUES = 64 };

/* The whole of s as an integer of type t: its bits. */
static bool parse_whole(const char *s, DType t, uint64_t *bits)
{
    const bool is_unsigned = t == DT_U8 || t == DT_U16 || t == DT_U32 || t == DT_U64;
    const int free_bits = 64 - 8 * (int)dtype_size(t);
    char *end;
    errno = 0;
    *bits = is_unsigned ? strtoull(s, &end, 10) : (uint64_t)strtoll(s, &end, 10);
    if (end == s || *end || errno || (is_unsigned && strchr(s, '-'))) return false;
    const uint64_t top = *bits << free_bits;
    return *bits == (is_unsigned ? top >> free_bits : (uint64_t)((int64_t)top >> free_bits));
}

static bool parse_bool(const char *s, uint64_t *bits)
{
    *bits = strcmp(s, "1") == 0 || strcmp(s, "true") == 0;
    return *bits || strcmp(s, "0") == 0 || strcmp(s, "false") == 0;
}

/* A finite number of type t: its bits. */
static bool parse_float(const char *s, DType t, uint64_t *bits)
{
    char *end;
    const double x = strtod(s, &end);
    const float f = (float)x;
    const uint16_t half = t == DT_F16 ? f32_to_f16(f) : f32_to_bf16(f);
    const float back = t == DT_F16 ? f16_to_f32(half) : t == DT_BF16 ? bf16_to_f32(half) : f;
    *bits = 0;
    if (t == DT_F64)
        memcpy(bits, &x, sizeof x);
    else if (t == DT_F32)
        memcpy(bits, &f, sizeof f);
    else
        *bits = half;
    return end != s && !*end && isfinite(t == DT_F64 ? x : (double)back);
}

static bool parse_element(const char *s, DType t, uint64_t *bits)
{
    return dtype_is_float(t) ? parse_float(s, t, bits)
           : t == DT_BOOL    ? parse_bool(s, bits)
                             : dtype_is_int(t) && parse_whole(s, t, bits);
}

/* Whether another input has the open dimension, too: then its size goes with the data. */
static bool is_shared(const Graph *g, const Value *v)
{
    for (int i = 0; i < g->ninputs; i++)
        for (int k = 0; g->inputs[i] != v && k < g->inputs[i]->type.rank; k++)
            if (g->inputs[i]->type.dim[k] == v->type.dim[0]) return true;
    return false;
}

/* Whether n values are what the input takes. */
static bool fits(const Graph *g, const Value *v, int64_t n)
{
    const Type *t = &v->type;
    if (!dtype_is_float(t->dtype) && !dtype_is_int(t->dtype) && t->dtype != DT_BOOL) return false;
    if (t->rank == 1 && dim_is_sym(t->dim[0])) return !is_shared(g, v);
    return t->rank >= 0 && n > 0 && type_count(t) == n;
}

bool fix_possible(const Graph *g, const Value *v)
{
    const int64_t n = type_count(&v->type);
    return n <= MOST_VALUES && fits(g, v, n);
}

/* "16000", "0.5:1:2": the elements, in g's arena; NULL after an error. */
static void *parse_values(const Graph *g, const Value *v, const char *text, int64_t *n, Diag *d)
{
    const size_t size = dtype_size(v->type.dtype);
    char *rest = arena_strdup(g->arena, text), *data = arena_alloc(g->arena, 8 * MOST_VALUES), *one;
    for (*n = 0; (one = strsep(&rest, ":")); ++*n) {
        uint64_t bits;
        if (*n == MOST_VALUES || !parse_element(one, v->type.dtype, &bits)) {
            diag_error(d, "--fix: '%s' of input '%s' is no %s", one, v->name,
                       dtype_name(v->type.dtype));
            return NULL;
        }
        memcpy(data + (size_t)*n * size, &bits, size); /* little-endian */
    }
    return data;
}

static int fix_input(Graph *g, Value *v, const char *text, Diag *d)
{
    char buf[128];
    int64_t n;
    if (!fix_possible(g, v)) {
        diag_error(d, "--fix: input '%s' is %s", v->name, type_print(g, &v->type, buf, sizeof buf));
        diag_note(d, "only single numbers and vectors of up to %d can be fixed", MOST_VALUES);
        return -1;
    }
    const void *data = parse_values(g, v, text, &n, d);
    if (!data) return -1;
    if (!fits(g, v, n))
        return diag_error(d, "--fix gives '%s', input '%s' is %s", text, v->name,
                          type_print(g, &v->type, buf, sizeof buf));
    Type t = v->type;
    if (t.rank == 1) t.dim[0] = n;
    Value *c = value_const(g, arena_printf(g->arena, "%s_fixed", v->name), t, data);
    for (int k = 0; k < g->nnodes; k++)
        for (int i = 0; i < g->nodes[k]->nin; i++)
            if (g->nodes[k]->in[i] == v) g->nodes[k]->in[i] = c;
    return 0;
}

/* "1x576", "?x3x?x?": numbers for open dimensions, by symbol; where there is none it stays open. */
static int fix_sizes(const Graph *g, const Value *v, const char *text, int64_t *dims, Diag *d)
{
    char *rest = arena_strdup(g->arena, text), *one, buf[128];
    bool good = true;
    int k = 0;
    for (; (one = strsep(&rest, "x")) && k < v->type.rank && good; k++) {
        uint64_t n;
        int64_t have = v->type.dim[k];
        if (strcmp(one, "?") == 0) continue;
        good = parse_whole(one, DT_I64, &n) && n >= 1 && n <= INT32_MAX;
        int64_t *to = dim_is_sym(have) ? &dims[have - DIM_SYM_BASE] : &have;
        if (good && *to < 0) *to = (int64_t)n;
        good = good && *to == (int64_t)n;
    }
    if (good && !one && k == v->type.rank) return 0;
    return diag_error(d, "--fix gives '%s', input '%s' is %s", text, v->name,
                      type_print(g, &v->type, buf, sizeof buf));
}

int fix_inputs(Graph **graph, const char *list, Diag *d)
{
    Graph *g = *graph;
    bool sized = false;
    int64_t *dims = NEW_ARRAY(g->arena, int64_t, g->nsymbols + 1);
    for (int k = 0; k < g->nsymbols; k++) dims[k] = -1;
    bool *fixed = NEW_ARRAY(g->arena, bool, g->ninputs + 1);
    for (const char *const *one = name_list(g->arena, list); *one; one++) {
        char *name = arena_strdup(g->arena, *one), *eq = strrchr(name, '=');
        int i = 0;
        if (!eq) return diag_error(d, "--fix takes NAME=VALUE, not '%s'", *one);
        *eq = '\0';
        while (i < g->ninputs && strcmp(g->inputs[i]->name, name) != 0) i++;
        if (i == g->ninputs) return diag_error(d, "--fix: the model has no input '%s'", name);
        if (fixed[i]) return diag_error(d, "--fix: input '%s' is fixed twice", name);
        fixed[i] = true;
        if (strchr(eq + 1, 'x')) {
            TRY(fix_sizes(g, g->inputs[i], eq + 1, dims, d));
            sized = true;
        } else {
            TRY(fix_input(g, g->inputs[i], eq + 1, d));
        }
    }
    if (sized) *graph = graph_specialize(g, g->arena, dims, d);
    return *graph ? 0 : -1;
}
