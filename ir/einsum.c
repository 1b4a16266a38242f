/* Equations such as "bij,bjk->bik". */
#include "ir/einsum.h"

#include <ctype.h>
#include <string.h>

#include "ir/ops/common.h"

/* Equation, terms and dots while they are read. */
typedef struct Reader {
    const Node *n;
    Einsum *e;
    int dots[MAX_RANK]; /* labels of the axes of "...", from the right; -1: none yet */
    Diag *d;
} Reader;

static int bad_equation(const Reader *r, const char *why)
{
    return node_error(r->d, r->n, "equation '%s' %s", node_str(r->n, "equation", ""), why);
}

static int new_label(Reader *r, char letter)
{
    if (r->e->nlabels == EINSUM_LABELS) return bad_equation(r, "has too many indices");
    r->e->letter[r->e->nlabels] = letter;
    r->e->size[r->e->nlabels] = DIM_UNKNOWN;
    return r->e->nlabels++;
}

static int letter_label(Reader *r, char letter)
{
    for (int k = 0; k < r->e->nlabels; k++)
        if (r->e->letter[k] == letter) return k;
    return new_label(r, letter);
}

/* The label of the k-th axis from the right that dots stand for. */
static int dots_label(Reader *r, int k)
{
    if (r->dots[k] < 0) r->dots[k] = new_label(r, 0);
    return r->dots[k];
}

/* One term, [s, end), of `rank` axes (-1: as many as it says, dots being all that there are). */
static int read_term(Reader *r, const char *s, const char *end, int rank, int *label)
{
    int letters = 0, n = 0, dots = 0;
    bool has_dots = false;
    for (const char *p = s; p < end; p++) letters += isalpha((unsigned char)*p) != 0;
    while (dots < MAX_RANK && rank < 0 && r->dots[dots] >= 0) dots++;
    if (rank >= 0) dots = rank - letters;
    for (; s < end; s++) {
        if (*s == ' ') continue;
        const bool three = end - s >= 3 && strncmp(s, "...", 3) == 0;
        if (!isalpha((unsigned char)*s) && (!three || has_dots))
            return bad_equation(r, "cannot be read");
        if (n + (three ? dots : 1) > MAX_RANK || dots < 0)
            return bad_equation(r, "does not fit the rank of an operand");
        if (!three) {
            TRY(label[n++] = letter_label(r, *s));
            continue;
        }
        has_dots = true;
        for (int k = dots - 1; k >= 0; k--) TRY(label[n++] = dots_label(r, k));
        s += 2;
    }
    if (rank >= 0 && n != rank) return bad_equation(r, "does not fit the rank of an operand");
    return n;
}

static int set_sizes(const Reader *r, int i)
{
    const Type *t = &r->n->in[i]->type;
    for (int k = 0; k < t->rank; k++) {
        int64_t *size = &r->e->size[r->e->label[i][k]], have = *size;
        if (have == DIM_UNKNOWN || have == 1)
            *size = t->dim[k];
        else if (t->dim[k] != 1 && !dim_agree(have, t->dim[k], size))
            return node_error(r->d, r->n, "axis %d of '%s' has size %lld, its index has %lld", k,
                              r->n->in[i]->name, (long long)t->dim[k], (long long)have);
    }
    return 0;
}

static int read_inputs(Reader *r, const char *s, const char *end)
{
    Einsum *e = r->e;
    for (int i = 0;; i++) {
        const char *comma = memchr(s, ',', (size_t)(end - s)), *stop = comma ? comma : end;
        if (i == r->n->nin) return bad_equation(r, "has more terms than there are operands");
        TRY(e->rank[i] = read_term(r, s, stop, r->n->in[i]->type.rank, e->label[i]));
        TRY(set_sizes(r, i));
        e->nin = i + 1;
        if (!comma) break;
        s = comma + 1;
    }
    return e->nin == r->n->nin ? 0 : bad_equation(r, "has fewer terms than there are operands");
}

static int count_label(const Einsum *e, int label)
{
    int n = 0;
    for (int i = 0; i < e->nin; i++)
        for (int k = 0; k < e->rank[i]; k++) n += e->label[i][k] == label;
    return n;
}

/* Without "->": the dots, then the letters that occur once, in alphabetical order. */
static int implied_output(Reader *r)
{
    Einsum *e = r->e;
    for (int k = MAX_RANK - 1; k >= 0; k--)
        if (r->dots[k] >= 0) e->out[e->out_rank++] = r->dots[k];
    for (int c = 'A'; c <= 'z'; c++)
        for (int k = 0; k < e->nlabels; k++) {
            if (e->letter[k] != c || count_label(e, k) != 1) continue;
            if (e->out_rank == MAX_RANK) return bad_equation(r, "has too large a result");
            e->out[e->out_rank++] = k;
        }
    return 0;
}

static int read_output(Reader *r, const char *s)
{
    Einsum *e = r->e;
    const int known = e->nlabels;
    TRY(e->out_rank = read_term(r, s, s + strlen(s), -1, e->out));
    for (int k = 0; k < e->out_rank; k++) {
        for (int i = 0; i < k; i++)
            if (e->out[i] == e->out[k]) return bad_equation(r, "has an index twice in its result");
        if (e->out[k] >= known) return bad_equation(r, "has a new index in its result");
    }
    return 0;
}

int einsum_parse(const Node *n, Einsum *e, Diag *d)
{
    const char *s = node_str(n, "equation", ""), *arrow = strstr(s, "->");
    Reader r = {.n = n, .e = e, .d = d};
    *e = (Einsum){0};
    for (int k = 0; k < MAX_RANK; k++) r.dots[k] = -1;
    if (!node_attr(n, "equation")) return node_error(d, n, "attribute 'equation' is missing");
    if (n->nin > EINSUM_INPUTS) return node_error(d, n, "it has too many operands");
    for (int i = 0; i < n->nin; i++)
        if (!n->in[i] || n->in[i]->type.rank < 0) return 0;
    TRY(read_inputs(&r, s, arrow ? arrow : s + strlen(s)));
    TRY(arrow ? read_output(&r, arrow + 2) : implied_output(&r));
    return 1;
}

bool einsum_has(const Einsum *e, int i, int label)
{
    for (int k = 0; k < e->rank[i]; k++)
        if (e->label[i][k] == label) return true;
    return false;
}

bool einsum_out_has(const Einsum *e, int label)
{
    for (int k = 0; k < e->out_rank; k++)
        if (e->out[k] == label) return true;
    return false;
}
