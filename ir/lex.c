/* The scanner. A cursor, not a token stream: what a character means depends on where the parser
 * stands (names, dimensions and operators share their alphabet). */
#include "ir/lex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* ---- errors ------------------------------------------------------------------------- */

const char *lex_where(const Lexer *l, const char *at)
{
    int line = 1;
    const char *from = l->start;
    for (const char *s = l->start; s < at; s++) {
        if (*s != '\n') continue;
        line++;
        from = s + 1;
    }
    return arena_printf(l->arena, "%s:%d:%d", l->diag->file ? l->diag->file : "<text>", line,
                        (int)(at - from) + 1);
}

/* The line around `at`, cut to what a terminal shows, and a caret under it. */
static const char *picture(const Lexer *l, const char *at)
{
    enum { LEFT = 60, RIGHT = 40 };
    const char *from = at, *to = at;
    while (from > l->start && from[-1] != '\n' && at - from < LEFT) from--;
    while (to < l->end && *to != '\n' && to - at < RIGHT) to++;
    char *line = arena_printf(l->arena, "%.*s", (int)(to - from), from);
    for (char *s = line; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
    return arena_printf(l->arena, "  %s\n  %*s^", line, (int)(at - from), "");
}

int lex_error(Lexer *l, const char *at, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    Diag d = *l->diag;
    d.file = lex_where(l, at);
    diag_error(&d, "%s\n%s", text, picture(l, at));
    l->diag->errors = d.errors;
    return -1;
}

/* ---- blanks and comments ------------------------------------------------------------ */

static void skip_line(Lexer *l)
{
    while (l->p < l->end && *l->p != '\n') l->p++;
}

/* Our own comments are not skipped: they mean something where they may stand, and are an error
 * elsewhere. */
static bool at_note(const Lexer *l)
{
    return l->end - l->p >= 2 && l->p[0] == '#' && (l->p[1] == '@' || l->p[1] == ':');
}

char lex_peek(Lexer *l)
{
    for (; l->p < l->end; l->p++) {
        if (!l->in_note && *l->p == '#' && !at_note(l)) skip_line(l);
        if (l->p == l->end) break;
        if (!is_blank(*l->p) && (l->in_note || *l->p != '\n')) break;
    }
    return l->p < l->end ? *l->p : 0;
}

bool lex_eat(Lexer *l, char c)
{
    if (lex_peek(l) != c || l->p == l->end) return false;
    l->p++;
    return true;
}

int lex_expect(Lexer *l, char c, const char *after)
{
    if (lex_eat(l, c)) return 0;
    return lex_error(l, l->p, "expected '%c' %s", c, after);
}

bool lex_at_end(Lexer *l)
{
    lex_peek(l);
    return l->p == l->end;
}

bool lex_note(Lexer *l, char kind)
{
    for (;;) {
        while (l->p < l->end && (is_blank(*l->p) || (kind == '@' && *l->p == '\n'))) l->p++;
        if (at_note(l) && l->p[1] == kind) break;
        if (kind == ':' || at_note(l) || l->p == l->end || *l->p != '#') return false;
        skip_line(l);
    }
    l->p += 2;
    l->in_note = true;
    return true;
}

int lex_end_note(Lexer *l)
{
    lex_peek(l);
    if (l->p < l->end && *l->p != '\n')
        return lex_error(l, l->p, "unexpected text at the end of this comment");
    l->in_note = false;
    return 0;
}

/* ---- names and strings -------------------------------------------------------------- */

const char *lex_identifier(Lexer *l)
{
    if (!is_alpha(lex_peek(l))) return NULL;
    const char *from = l->p;
    while (l->p < l->end && (is_alpha(*l->p) || is_digit(*l->p))) l->p++;
    size_t n = (size_t)(l->p - from);
    char *s = arena_alloc(l->arena, n + 1);
    return memcpy(s, from, n);
}

bool lex_word(Lexer *l, const char *word)
{
    size_t n = strlen(word);
    lex_peek(l);
    if ((size_t)(l->end - l->p) < n || memcmp(l->p, word, n) != 0) return false;
    if (l->p + n < l->end && (is_alpha(l->p[n]) || is_digit(l->p[n]))) return false;
    l->p += n;
    return true;
}

static int hex_digit(char c)
{
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte behind a backslash: \xHH in our comments, else the character itself. */
static int escaped(Lexer *l, char *out)
{
    *out = *l->p++;
    if (!l->in_note || *out != 'x') return 0;
    int high = l->end - l->p >= 2 ? hex_digit(l->p[0]) : -1;
    int low = high >= 0 ? hex_digit(l->p[1]) : -1;
    if (low < 0) return lex_error(l, l->p, "expected two hexadecimal digits after '\\x'");
    l->p += 2;
    *out = (char)(high * 16 + low);
    return 0;
}

int lex_string(Lexer *l, Bytes *out)
{
    const char *open = l->p;
    if (lex_peek(l) != '"') return lex_error(l, l->p, "expected a string in double quotes");
    open = l->p++;
    char *s = NULL;
    /* The closing quote first: the string is at most as long as its spelling. */
    const char *close = l->p;
    while (close < l->end && *close != '"' && (!l->in_note || *close != '\n'))
        close += *close == '\\' && close + 1 < l->end ? 2 : 1;
    if (close >= l->end || *close != '"') return lex_error(l, open, "this string is not closed");
    s = arena_alloc(l->arena, (size_t)(close - l->p) + 1);
    size_t n = 0;
    while (l->p < close) {
        s[n] = *l->p++;
        if (s[n] == '\\') TRY(escaped(l, &s[n]));
        n++;
    }
    l->p = close + 1;
    *out = (Bytes){s, n};
    return 0;
}

int lex_text(Lexer *l, const char **out)
{
    Bytes b;
    lex_peek(l);
    const char *at = l->p;
    TRY(lex_string(l, &b));
    if (memchr(b.p, 0, b.n)) return lex_error(l, at, "a NUL byte cannot stand in this string");
    *out = b.p;
    return 0;
}

int lex_name(Lexer *l, const char **out, const char *what)
{
    if (lex_peek(l) == '"') return lex_text(l, out);
    *out = lex_identifier(l);
    return *out ? 0 : lex_error(l, l->p, "expected %s", what);
}

/* ---- numbers ------------------------------------------------------------------------ */

/* Length of a leading (inf|infinity|nan), in any case, that is a whole word. */
static size_t special_length(const char *s, const char *end)
{
    static const char *const words[] = {"infinity", "inf", "nan"};
    for (size_t k = 0; k < 3; k++) {
        size_t n = strlen(words[k]), i = 0;
        while (i < n && s + i < end && (s[i] | 0x20) == words[k][i]) i++;
        if (i == n && (s + n == end || !(is_alpha(s[n]) || is_digit(s[n])))) return n;
    }
    return 0;
}

bool lex_at_number(Lexer *l)
{
    char c = lex_peek(l);
    return is_digit(c) || c == '-' || (is_alpha(c) && special_length(l->p, l->end));
}

static const char *skip_digits(const char *s, const char *end)
{
    while (s < end && is_digit(*s)) s++;
    return s;
}

/* digits[.digits][e[+-]digits] from s; NULL if there is no digit. */
static const char *number_end(const char *s, const char *end, bool *is_float)
{
    const char *p = skip_digits(s, end);
    if (p == s) return NULL;
    if (p < end && *p == '.') {
        *is_float = true;
        p = skip_digits(p + 1, end);
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        const char *q = p + 1;
        if (q < end && (*q == '+' || *q == '-')) q++;
        if (skip_digits(q, end) == q) return NULL;
        *is_float = true;
        p = skip_digits(q, end);
    }
    return p;
}

int lex_number(Lexer *l, Number *out)
{
    lex_peek(l);
    const char *from = l->p, *digits = from;
    *out = (Number){0};
    if (from < l->end && *from == '-') digits++;
    out->negative = digits > from;
    size_t special = special_length(digits, l->end);
    const char *to = special ? digits + special : number_end(digits, l->end, &out->is_float);
    if (!to) return lex_error(l, from, "expected a number");
    out->is_float |= special > 0;
    if ((size_t)(to - from) >= sizeof out->text)
        return lex_error(l, from, "this number has more than %d characters",
                         (int)sizeof out->text - 1);
    memcpy(out->text, from, (size_t)(to - from));
    for (const char *s = digits; !out->is_float && s < to; s++)
        out->huge |= __builtin_mul_overflow(out->size, 10, &out->size) ||
                     __builtin_add_overflow(out->size, (uint64_t)(*s - '0'), &out->size);
    l->p = to;
    return 0;
}

int lex_int(Lexer *l, int64_t *out)
{
    Number x;
    lex_peek(l);
    const char *at = l->p;
    TRY(lex_number(l, &x));
    if (x.is_float) return lex_error(l, at, "expected an integer, not '%s'", x.text);
    if (x.huge || x.size > (uint64_t)INT64_MAX + x.negative)
        return lex_error(l, at, "%s does not fit 64 bits", x.text);
    *out = x.negative ? (int64_t)(0 - x.size) : (int64_t)x.size;
    return 0;
}
