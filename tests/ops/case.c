/* Reading case lines, drawing their data, building their graphs. */
#include "tests/ops/case.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/element.h"

static const struct {
    const char *text;
    DType dtype;
} dtypes[] = {{"f32", DT_F32}, {"f16", DT_F16}, {"i64", DT_I64},  {"i32", DT_I32},
              {"u8", DT_U8},   {"i8", DT_I8},   {"bool", DT_BOOL}};

static int parse_ints(const char **s, char end, int64_t *out, int max)
{
    int n = 0;
    while (**s != end) {
        char *after;
        const int64_t v = strtoll(*s, &after, 10);
        if (after == *s || n == max) return -1;
        out[n++] = v;
        *s = *after == ',' ? after + 1 : after;
    }
    (*s)++;
    return n;
}

/* "f32[2,3](0.1,2)" or "i64[2]{3,4}" */
static int parse_input(CaseInput *in, Arena *a, const char *s)
{
    int64_t dim[MAX_RANK];
    size_t k = 0, len = strcspn(s, "[");
    while (k < sizeof dtypes / sizeof *dtypes &&
           (strlen(dtypes[k].text) != len || strncmp(dtypes[k].text, s, len) != 0))
        k++;
    if (s[len] != '[' || k == sizeof dtypes / sizeof *dtypes) return -1;
    s += len + 1;
    const int rank = parse_ints(&s, ']', dim, MAX_RANK);
    if (rank < 0) return -1;
    in->type = type_of(dtypes[k].dtype, rank, dim);
    in->lo = dtype_is_float(in->type.dtype) ? -1 : 0;
    in->hi = dtype_is_float(in->type.dtype) ? 1 : in->type.dtype == DT_BOOL ? 2 : 10;
    if (*s == '(') {
        char *after;
        in->lo = strtod(s + 1, &after);
        in->hi = strtod(after + 1, &after);
        s = after + 1;
    }
    const int64_t count = type_count(&in->type);
    if (count < 0 || count > 1 << 20) return -1;
    in->data = arena_array(a, (size_t)count + 1, 8);
    if (*s != '{') return *s ? -1 : 0;
    in->constant = true;
    const Tensor t = {.dtype = in->type.dtype, .data = in->data};
    s++;
    for (int64_t i = 0; i < count; i++) {
        char *after;
        element_store(&t, i, strtod(s, &after));
        if (after == s) return -1;
        s = *after == ',' ? after + 1 : after;
    }
    return strcmp(s, "}") == 0 ? 0 : -1;
}

static Attr strings(Arena *a, const char *name, const char *s)
{
    Bytes *list = NEW_ARRAY(a, Bytes, strlen(s));
    char *save = NULL;
    size_t n = 0;
    for (char *t = strtok_r(arena_strdup(a, s), ";", &save); t; t = strtok_r(NULL, ";", &save))
        list[n++] = (Bytes){t, strlen(t)};
    return (Attr){.name = name, .kind = ATTR_STRINGS, .n = n, .strings = list};
}

static int parse_attr(Attr *attr, Arena *a, const char *name, const char *s)
{
    if (strchr(s, ';')) {
        *attr = strings(a, name, s);
    } else if (!isdigit((unsigned char)*s) && *s != '-' && *s != '+') {
        *attr = attr_str(name, s);
    } else if (strchr(s, ',')) {
        int64_t *list = NEW_ARRAY(a, int64_t, strlen(s));
        const int n = parse_ints(&s, '\0', list, (int)strlen(s));
        if (n < 0) return -1;
        *attr = attr_ints(name, (size_t)n, list);
    } else if (strchr(s, '.') || strchr(s, 'e')) {
        *attr = attr_float(name, strtof(s, NULL));
    } else {
        *attr = attr_int(name, strtoll(s, NULL, 10));
    }
    return 0;
}

static int parse_word(Case *c, char *word)
{
    char *value = strchr(word, '=');
    if (*word == '!') return c->nskip < 4 ? (c->skip[c->nskip++] = word + 1, 0) : -1;
    if (strncmp(word, "->", 2) == 0) {
        const char *slash = strchr(word, '/');
        c->nout = atoi(word + 2);
        c->nsmooth = slash ? atoi(slash + 1) : c->nout;
        return c->nout > 0 ? 0 : -1;
    }
    if (strcmp(word, "_") == 0)
        return c->nin < CASE_INPUTS ? (c->in[c->nin++] = (CaseInput){0}, 0) : -1;
    if (!value || c->nin == CASE_INPUTS || c->nattrs == CASE_ATTRS) return -1;
    *value++ = '\0';
    if (!strchr(value, '[')) return parse_attr(&c->attrs[c->nattrs++], c->arena, word, value);
    CaseInput *in = &c->in[c->nin++];
    in->name = word;
    if (value[-2] == ':') {
        in->fixed = true;
        value[-2] = '\0';
    }
    return parse_input(in, c->arena, value);
}

static uint64_t hash(const char *s)
{
    uint64_t h = 14695981039346656037u;
    while (*s) h = (h ^ (uint8_t)*s++) * 1099511628211u;
    return h;
}

/* Evenly spaced values in random order; integers uniformly. */
static void draw(CaseInput *in, Rng *r, Arena *a)
{
    const int64_t n = type_count(&in->type);
    const Tensor t = {.dtype = in->type.dtype, .data = in->data};
    int64_t *order = NEW_ARRAY(a, int64_t, n + 1);
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = rng_below(r, (uint32_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = in->lo + ((double)order[i] + 0.37) / (double)n * (in->hi - in->lo);
        const double k = in->lo + (double)rng_below(r, (uint32_t)(in->hi - in->lo));
        element_store(&t, i, dtype_is_float(in->type.dtype) ? x : k);
    }
}

int case_parse(Case *out, Arena *a, const char *line, Diag *d)
{
    char *text = arena_strdup(a, line), *save = NULL;
    char *word = strtok_r(text, " \t\n", &save);
    *out = (Case){.nout = 1, .nsmooth = 1, .arena = a};
    if (!word) return diag_error(d, "an empty case");
    out->op = op_of_name("", word);
    if (out->op == OP_COUNT) out->op = op_of_name("ehap", word);
    if (out->op == OP_COUNT) return diag_error(d, "there is no operator '%s'", word);
    while ((word = strtok_r(NULL, " \t\n", &save))) {
        char *copy = arena_strdup(a, word);
        if (parse_word(out, word) < 0) return diag_error(d, "cannot read '%s' in '%s'", copy, line);
    }
    Rng r = rng_new(hash(line), 7);
    for (int i = 0; i < out->nin; i++)
        if (out->in[i].name && !out->in[i].constant) draw(&out->in[i], &r, a);
    return 0;
}

void *case_data(const CaseInput *in, DType storage, Arena *a)
{
    if (in->type.dtype != DT_F32 || storage == DT_F32) return in->data;
    const int64_t n = type_count(&in->type);
    const Tensor from = {.dtype = in->type.dtype, .data = in->data};
    const Tensor to = {.dtype = storage, .data = NEW_ARRAY(a, uint16_t, n + 1)};
    for (int64_t i = 0; i < n; i++) element_store(&to, i, element_load(&from, i));
    return to.data;
}

Graph *case_graph(const Case *c, Arena *a, DType storage, bool constants)
{
    Graph *g = graph_new(a, "case");
    Value *in[CASE_INPUTS];
    for (int i = 0; i < c->nin; i++) {
        Type t = c->in[i].type;
        in[i] = NULL;
        if (!c->in[i].name) continue;
        void *data = case_data(&c->in[i], storage, a);
        if (t.dtype == DT_F32) t.dtype = storage;
        if (c->in[i].constant || (constants && i > 0))
            in[i] = value_const(g, c->in[i].name, t, data);
        else
            in[i] = graph_add_input(g, c->in[i].name, t);
    }
    Node *n = build_multi(g, c->op, c->nout, c->nin, in, c->nattrs, c->attrs);
    for (int o = 0; o < c->nout; o++) graph_add_output(g, n->out[o]);
    return g;
}
