/* Types, elements of constants, external data, attributes. */
#include "ir/parse.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ir/literal.h"

/* ---- types -------------------------------------------------------------------------- */

static const char *const type_words[] = {"float",  "double", "float16", "bfloat16", "int8",
                                         "int16",  "int32",  "int64",   "uint8",    "uint16",
                                         "uint32", "uint64", "bool",    "string",   NULL};

/* `_3` is a symbol without a name, "_3" one that is called so. */
static int64_t symbol_of(Parser *p, const char *spelling, const char *name)
{
    Entry *e = entry_get(p, &p->symbols, spelling);
    if (!e->symbol) {
        e->symbol = graph_symbol(p->g, NULL);
        p->g->symbols[e->symbol - DIM_SYM_BASE] = name;
    }
    return e->symbol;
}

int parse_dim(Parser *p, int64_t *out)
{
    const char *name;
    if (lex_eat(&p->l, '?')) {
        *out = graph_symbol(p->g, NULL);
    } else if (lex_peek(&p->l) == '"') {
        TRY(lex_text(&p->l, &name));
        bool ambiguous = is_numbered(name);
        *out = symbol_of(p, ambiguous ? arena_printf(p->l.arena, "\"%s", name) : name, name);
    } else if ((name = lex_identifier(&p->l))) {
        *out = symbol_of(p, name, is_numbered(name) ? NULL : name);
    } else {
        lex_peek(&p->l);
        const char *at = p->l.p;
        TRY(lex_int(&p->l, out));
        if (dim_is_sym(*out)) return lex_error(&p->l, at, "%lld is too small", (long long)*out);
    }
    return 0;
}

static int parse_dims(Parser *p, Type *out)
{
    out->rank = 0;
    do {
        lex_peek(&p->l);
        const char *at = p->l.p;
        if (out->rank == MAX_RANK)
            return lex_error(&p->l, at, "a tensor has at most %d dimensions", MAX_RANK);
        TRY(parse_dim(p, &out->dim[out->rank]));
        if (out->dim[out->rank] < 0 && !dim_is_sym(out->dim[out->rank]))
            return lex_error(&p->l, at, "a dimension cannot be negative");
        out->rank++;
    } while (lex_eat(&p->l, ','));
    return lex_expect(&p->l, ']', "after the dimensions");
}

int parse_type(Parser *p, Type *out)
{
    bool unknown = lex_eat(&p->l, '?');
    lex_peek(&p->l);
    const char *at = p->l.p, *word = unknown ? NULL : lex_identifier(&p->l);
    *out = (Type){.rank = unknown ? -1 : 0};
    if (!unknown && !word) return lex_error(&p->l, at, "expected a type");
    if (!unknown && !(out->dtype = dtype_of_name(word))) {
        const char *near = nearest_name(word, type_words);
        return near ? lex_error(&p->l, at, "unknown type '%s'; did you mean '%s'?", word, near)
                    : lex_error(&p->l, at, "unknown type '%s'", word);
    }
    if (!lex_eat(&p->l, '[')) return 0;
    out->rank = -1;
    return lex_eat(&p->l, ']') ? 0 : parse_dims(p, out);
}

bool at_type(Parser *p)
{
    Lexer saved = p->l;
    bool yes = lex_peek(&p->l) == '?';
    const char *word = yes ? NULL : lex_identifier(&p->l);
    if (word) {
        char c = lex_peek(&p->l);
        yes = dtype_of_name(word) || c == '[' || c == '"' || lex_identifier(&p->l);
    }
    p->l = saved;
    return yes;
}

/* ---- external data ------------------------------------------------------------------ */

static int side_file(Parser *p, const char *name, const char *at, Bytes *out)
{
    for (SideFile *s = p->side; s; s = s->next)
        if (strcmp(s->name, name) == 0) {
            *out = s->bytes;
            return 0;
        }
    if (!p->dir || strcmp(name, "-") == 0)
        return lex_error(&p->l, at, "the data are not here: this text was printed without them");
    if (!*name || *name == '.' || strchr(name, '/'))
        return lex_error(&p->l, at, "data must be in a file beside the text, not in '%s'", name);
    Diag d = *p->l.diag;
    d.file = lex_where(&p->l, at);
    SideFile *s = NEW(p->l.arena, SideFile);
    int status =
        file_read(&s->bytes, p->l.arena, arena_printf(p->l.arena, "%s/%s", p->dir, name), &d);
    p->l.diag->errors = d.errors;
    if (status < 0) return status;
    s->name = name;
    s->next = p->side;
    p->side = s;
    *out = s->bytes;
    return 0;
}

/* "offset" : "12" */
static int external_number(Parser *p, const char *at, const char *text, size_t *out)
{
    char *end;
    unsigned long long x = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || x > PTRDIFF_MAX)
        return lex_error(&p->l, at, "'%s' is not a number of bytes", text);
    *out = (size_t)x;
    return 0;
}

/* ["location" : "x.bin", "offset" : "0", "length" : "64"], the bracket being eaten. */
static int parse_external(Parser *p, Bytes *out)
{
    const char *open = p->l.p, *location = NULL, *where = open;
    size_t offset = 0, length = SIZE_MAX;
    Bytes file = {NULL, 0};
    do {
        const char *key, *value;
        TRY(lex_text(&p->l, &key));
        TRY(lex_expect(&p->l, ':', "after the key"));
        lex_peek(&p->l);
        const char *at = p->l.p;
        TRY(lex_text(&p->l, &value));
        if (strcmp(key, "location") == 0) {
            location = value;
            where = at;
        } else if (strcmp(key, "offset") == 0) {
            TRY(external_number(p, at, value, &offset));
        } else if (strcmp(key, "length") == 0) {
            TRY(external_number(p, at, value, &length));
        }
    } while (lex_eat(&p->l, ','));
    TRY(lex_expect(&p->l, ']', "after the reference to external data"));
    if (!location) return lex_error(&p->l, open, "external data need a \"location\"");
    TRY(side_file(p, location, where, &file));
    if (offset > file.n || (length != SIZE_MAX && length > file.n - offset))
        return lex_error(&p->l, where, "'%s' has %zu bytes, %zu at %zu are wanted", location,
                         file.n, length, offset);
    *out = (Bytes){(const char *)file.p + offset, length == SIZE_MAX ? file.n - offset : length};
    return 0;
}

int parse_bytes(Parser *p, Bytes *out)
{
    return lex_eat(&p->l, '[') ? parse_external(p, out) : lex_string(&p->l, out);
}

/* ---- elements ----------------------------------------------------------------------- */

static int push_integer(Parser *p, Text *list, DType t, const Number *x, const char *at)
{
    static const struct {
        int64_t lo;
        uint64_t hi;
    } range[] = {
        [DT_BOOL] = {0, 1},
        [DT_U8] = {0, UINT8_MAX},
        [DT_I8] = {INT8_MIN, INT8_MAX},
        [DT_U16] = {0, UINT16_MAX},
        [DT_I16] = {INT16_MIN, INT16_MAX},
        [DT_U32] = {0, UINT32_MAX},
        [DT_I32] = {INT32_MIN, INT32_MAX},
        [DT_U64] = {0, UINT64_MAX},
        [DT_I64] = {INT64_MIN, INT64_MAX},
        [DT_F16] = {0, UINT16_MAX},
        [DT_BF16] = {0, UINT16_MAX},
    };
    uint64_t low = 0 - (uint64_t)range[t].lo; /* size of the least */
    if (x->is_float)
        return lex_error(&p->l, at, "an element of type %s is an integer, not %s", dtype_name(t),
                         x->text);
    if (x->huge || x->size > (x->negative ? low : range[t].hi))
        return lex_error(&p->l, at, "%s does not fit %s", x->text, dtype_name(t));
    uint64_t bits = x->negative ? 0 - x->size : x->size;
    text_put(list, &bits, dtype_size(t)); /* little-endian, as every machine that we run on */
    return 0;
}

static int push_element(Parser *p, Text *list, DType t)
{
    Number x;
    lex_peek(&p->l);
    const char *at = p->l.p;
    TRY(lex_number(&p->l, &x));
    if (t == DT_F32) {
        float f = strtof(x.text, NULL);
        PUSH(*list, f);
    } else if (t == DT_F64) {
        double f = strtod(x.text, NULL);
        PUSH(*list, f);
    } else {
        return push_integer(p, list, t, &x, at);
    }
    return 0;
}

/* External data where they lie if aligned, else a copy. */
static const void *aligned(Parser *p, Bytes b, size_t size)
{
    return (uintptr_t)b.p % size ? arena_memdup(p->l.arena, b.p, b.n) : b.p;
}

int parse_elements(Parser *p, const Type *type, const char *name, const void **out)
{
    size_t size = dtype_size(type->dtype);
    int64_t want = type_count(type), bytes = type_bytes(type);
    lex_peek(&p->l);
    const char *at = p->l.p;
    Bytes b;
    if (!size)
        return lex_error(&p->l, at, "'%s': constants of type %s cannot be written as text", name,
                         dtype_name(type->dtype));
    if (bytes < 0)
        return lex_error(&p->l, at,
                         "'%s' has elements, so its shape must be known and not overflow", name);
    if (lex_eat(&p->l, '[')) {
        TRY(parse_external(p, &b));
        if (b.n != (size_t)bytes)
            return lex_error(&p->l, at, "'%s' has %zu bytes of data, its type needs %lld", name,
                             b.n, (long long)bytes);
        *out = aligned(p, b, size);
        return 0;
    }
    TRY(lex_expect(&p->l, '{', "before the elements"));
    Text list = LIST(p);
    text_put(&list, "", 0);
    if (!lex_eat(&p->l, '}')) {
        do TRY(push_element(p, &list, type->dtype));
        while (lex_eat(&p->l, ','));
        TRY(lex_expect(&p->l, '}', "after the elements"));
    }
    if (list.n != (size_t)bytes)
        return lex_error(&p->l, at, "'%s' has %zu elements, its type needs %lld", name,
                         list.n / size, (long long)want);
    *out = list.p;
    return 0;
}

/* ---- attributes --------------------------------------------------------------------- */

static const char *const kind_words[] = {"int",     "float",  "string", "ints", "floats",
                                         "strings", "tensor", "opaque", NULL};
static const AttrKind kinds[] = {ATTR_INT,    ATTR_FLOAT,   ATTR_STRING, ATTR_INTS,
                                 ATTR_FLOATS, ATTR_STRINGS, ATTR_TENSOR, ATTR_OPAQUE};
static const AttrKind list_of[] = {
    [ATTR_INT] = ATTR_INTS, [ATTR_FLOAT] = ATTR_FLOATS, [ATTR_STRING] = ATTR_STRINGS};

enum { ANY_KIND = -1 };

static int parse_kind(Parser *p, int *out)
{
    lex_peek(&p->l);
    const char *at = p->l.p, *word = lex_identifier(&p->l);
    for (int k = 0; word && kind_words[k]; k++)
        if (strcmp(word, kind_words[k]) == 0) {
            *out = kinds[k];
            return 0;
        }
    const char *near = word ? nearest_name(word, kind_words) : NULL;
    return near ? lex_error(&p->l, at, "unknown kind '%s'; did you mean '%s'?", word, near)
                : lex_error(&p->l, at, "expected the kind of the attribute");
}

static int parse_tensor(Parser *p, Attr *out)
{
    const char *unused;
    TRY(parse_type(p, &out->type));
    char c = lex_peek(&p->l);
    if (c != '=' && c != '{' && c != '[') TRY(lex_name(&p->l, &unused, "the tensor's elements"));
    lex_eat(&p->l, '=');
    out->kind = ATTR_TENSOR;
    TRY(parse_elements(p, &out->type, out->name, &out->s.p));
    out->s.n = (size_t)type_bytes(&out->type);
    return 0;
}

static int parse_scalar(Parser *p, Attr *out)
{
    Number x;
    lex_peek(&p->l);
    const char *at = p->l.p;
    TRY(lex_number(&p->l, &x));
    out->f = strtof(x.text, NULL);
    out->kind = x.is_float ? ATTR_FLOAT : ATTR_INT;
    if (x.is_float) return 0;
    p->l.p = at;
    return lex_int(&p->l, &out->i);
}

/* One value. `kind` says what it must be, unless ANY_KIND; an integer may stand for a float. */
static int parse_single(Parser *p, Attr *out, int kind)
{
    char c = lex_peek(&p->l);
    const char *at = p->l.p;
    if (kind == ATTR_OPAQUE) {
        out->kind = ATTR_OPAQUE;
        return parse_bytes(p, &out->s);
    }
    if (c == '"') {
        out->kind = ATTR_STRING;
        TRY(lex_string(&p->l, &out->s));
    } else if (c == '@') {
        return lex_error(&p->l, at, "'@' refers to an attribute of a function; this is a graph");
    } else if (lex_at_number(&p->l)) {
        TRY(parse_scalar(p, out));
    } else if (at_type(p)) {
        TRY(parse_tensor(p, out));
    } else {
        return lex_error(&p->l, at, "expected a number, a string, a list or a tensor");
    }
    if (kind == ATTR_FLOAT && out->kind == ATTR_INT) out->kind = ATTR_FLOAT;
    if (kind != ANY_KIND && kind != (int)out->kind)
        return lex_error(&p->l, at, "attribute '%s' is declared otherwise than its value",
                         out->name);
    return 0;
}

/* The kind of a list whose values are of kind `seen` (ANY_KIND: it has none) and which is declared
 * to be of `kind` (ANY_KIND: it is not). */
static int kind_of_list(Parser *p, Attr *out, int seen, int kind)
{
    if (seen == ANY_KIND && kind == ANY_KIND)
        return lex_error(&p->l, p->l.p, "an empty list needs its kind: %s: ints = []", out->name);
    if (seen == ATTR_INT && kind == ATTR_FLOATS) seen = ATTR_FLOAT;
    const bool fits = seen == ANY_KIND ? kind >= ATTR_INTS && kind <= ATTR_STRINGS
                                       : kind == ANY_KIND || kind == (int)list_of[seen];
    if (!fits)
        return lex_error(&p->l, p->l.p, "attribute '%s' is declared otherwise than its value",
                         out->name);
    out->kind = seen == ANY_KIND ? (AttrKind)kind : list_of[seen];
    return 0;
}

/* The values of a list are of one kind; integers among floats are floats. */
static int parse_list(Parser *p, Attr *out, int kind)
{
    Text ints = LIST(p), floats = LIST(p), strings = LIST(p);
    int seen = ANY_KIND;
    while (lex_peek(&p->l) != ']') {
        const char *at = p->l.p;
        Attr x = {.name = out->name};
        TRY(parse_single(p, &x, ANY_KIND));
        bool numbers = x.kind <= ATTR_FLOAT && seen <= ATTR_FLOAT;
        if (x.kind > ATTR_STRING || (seen != ANY_KIND && !numbers && seen != (int)x.kind))
            return lex_error(&p->l, at, "the values of a list are all numbers or all strings");
        if (seen != ATTR_FLOAT) seen = x.kind;
        PUSH(ints, x.i);
        PUSH(floats, x.f);
        PUSH(strings, x.s);
        out->n++;
        if (!lex_eat(&p->l, ',')) break;
    }
    TRY(lex_expect(&p->l, ']', "after the list"));
    TRY(kind_of_list(p, out, seen, kind));
    if (!out->n) return 0;
    if (out->kind == ATTR_INTS) out->ints = (const int64_t *)(const void *)ints.p;
    if (out->kind == ATTR_FLOATS) out->floats = (const float *)(const void *)floats.p;
    if (out->kind == ATTR_STRINGS) out->strings = (const Bytes *)(const void *)strings.p;
    return 0;
}

int parse_attr(Parser *p, Attr *out)
{
    int kind = ANY_KIND;
    *out = (Attr){0};
    TRY(lex_name(&p->l, &out->name, "the name of an attribute"));
    if (lex_eat(&p->l, ':')) TRY(parse_kind(p, &kind));
    TRY(lex_expect(&p->l, '=', "after the name of the attribute"));
    if (kind != ATTR_OPAQUE && lex_eat(&p->l, '[')) return parse_list(p, out, kind);
    TRY(parse_single(p, out, kind));
    if (out->kind == ATTR_FLOAT) out->i = 0;
    if (out->kind == ATTR_INT) out->f = 0;
    return 0;
}

int parse_text(Parser *p, const char **out)
{
    Bytes b;
    lex_peek(&p->l);
    const char *at = p->l.p;
    TRY(parse_bytes(p, &b));
    if (memchr(b.p, 0, b.n)) return lex_error(&p->l, at, "a NUL byte cannot stand in this string");
    char *s = arena_alloc(p->l.arena, b.n + 1);
    *out = memcpy(s, b.p, b.n);
    return 0;
}
