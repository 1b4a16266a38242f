/* Spelling of names, strings and numbers. */
#include "ir/literal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not <ctype.h>: its answers depend on the locale. */
static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_identifier(const char *s)
{
    if (!is_alpha(*s)) return false;
    while (is_alpha(*s) || is_digit(*s)) s++;
    return *s == 0;
}

bool is_type_word(const char *s)
{
    static const char *const words[] = {"seq",       "map",        "optional",     "sparse_tensor",
                                        "complex64", "complex128", "float8e4m3fn", NULL};
    for (const char *const *w = words; *w; w++)
        if (strcmp(*w, s) == 0) return true;
    return dtype_of_name(s) != DT_NONE || strncmp(s, "float", 5) == 0 ||
           strncmp(s, "int", 3) == 0 || strncmp(s, "uint", 4) == 0;
}

bool is_numbered(const char *s)
{
    if (*s++ != '_' || !is_digit(*s)) return false;
    while (is_digit(*s)) s++;
    return *s == 0;
}

void put_quoted(Text *t, const char *s, size_t n)
{
    text_put(t, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\') text_put(t, "\\", 1);
        text_put(t, s + i, 1);
    }
    text_put(t, "\"", 1);
}

void put_escaped(Text *t, const void *p, size_t n)
{
    const unsigned char *s = p;
    text_put(t, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] >= 0x7f)
            text_printf(t, "\\x%02x", s[i]);
        else
            text_printf(t, s[i] == '"' || s[i] == '\\' ? "\\%c" : "%c", s[i]);
    }
    text_put(t, "\"", 1);
}

/* Length of the UTF-8 sequence that s starts with; 0 if malformed. Overlong forms and surrogates
 * are not told apart from good ones: no reader that matters here does more. */
static size_t utf8_length(const char *s, size_t n)
{
    unsigned char c = (unsigned char)*s;
    size_t k = c < 0x80                ? 1
               : c >= 0xc2 && c < 0xe0 ? 2
               : (c & 0xf0) == 0xe0    ? 3
               : c >= 0xf0 && c < 0xf5 ? 4
                                       : 0;
    if (k > n) return 0;
    for (size_t i = 1; i < k; i++)
        if (((unsigned char)s[i] & 0xc0) != 0x80) return 0;
    return k;
}

bool is_plain_text(const char *s, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        unsigned char c = (unsigned char)s[i];
        k = utf8_length(s + i, n - i);
        if (!k || c == 0x7f || (c < 0x20 && c != '\t' && c != '\n')) return false;
    }
    return true;
}

void put_name(Text *t, const char *s)
{
    if (is_identifier(s) && !is_type_word(s))
        text_printf(t, "%s", s);
    else
        put_quoted(t, s, strlen(s));
}

static bool put_special(Text *t, double x)
{
    if (isnan(x))
        text_printf(t, "nan");
    else if (isinf(x))
        text_printf(t, x < 0 ? "-inf" : "inf");
    return isnan(x) || isinf(x);
}

void put_f32(Text *t, float x, bool point)
{
    char s[32];
    if (put_special(t, (double)x)) return;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, (double)x);
        if (strtof(s, NULL) == x) break;
    }
    text_printf(t, "%s", s);
    if ((point || (x == 0 && signbit(x))) && !strpbrk(s, ".e")) text_printf(t, ".0");
}

void put_f64(Text *t, double x)
{
    char s[32];
    if (put_special(t, x)) return;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) break;
    }
    text_printf(t, "%s", s);
    if (x == 0 && signbit(x)) text_printf(t, ".0");
}

void put_element(Text *t, DType type, const void *data, int64_t i)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } e;
    memcpy(&e, (const char *)data + (size_t)i * dtype_size(type), dtype_size(type));
    switch (type) {
    case DT_F32:
        put_f32(t, e.f32, false);
        break;
    case DT_F64:
        put_f64(t, e.f64);
        break;
    case DT_U8:
        text_printf(t, "%u", e.u8);
        break;
    case DT_BOOL:
        text_printf(t, "%u", e.u8);
        break;
    case DT_I8:
        text_printf(t, "%d", e.i8);
        break;
    case DT_I16:
        text_printf(t, "%d", e.i16);
        break;
    case DT_I32:
        text_printf(t, "%d", e.i32);
        break;
    case DT_U32:
        text_printf(t, "%u", e.u32);
        break;
    case DT_U64:
        text_printf(t, "%llu", (unsigned long long)e.u64);
        break;
    case DT_I64:
        text_printf(t, "%lld", (long long)e.i64);
        break;
    default:
        text_printf(t, "%u", e.u16);
        break; /* the bits of 16-bit numbers */
    }
}
