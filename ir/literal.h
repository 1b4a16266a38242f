/* How names, strings and numbers are spelt in the text form; shared by printer and parser. */
#ifndef EHAP_IR_LITERAL_H
#define EHAP_IR_LITERAL_H

#include "ir/text.h"

/* [A-Za-z_][A-Za-z0-9_]* */
bool is_identifier(const char *s);
/* An identifier that opens a type: stock parsers take it for one where a name may stand. */
bool is_type_word(const char *s);
/* `_` and digits: how symbolic dimensions without a name are written. */
bool is_numbered(const char *s);

/* "…" with \" and \\ only, all that stock syntax knows. */
void put_quoted(Text *t, const char *s, size_t n);
/* "…" on one line, with \xHH for what is not printable ASCII (in our comments). */
void put_escaped(Text *t, const void *p, size_t n);
/* Whether stock syntax can write these bytes: UTF-8 without control characters other than tab
 * and newline. */
bool is_plain_text(const char *s, size_t n);

/* A name, quoted if need be. */
void put_name(Text *t, const char *s);
/* The shortest digits that read back as the same number; `point`: never like an integer. */
void put_f32(Text *t, float x, bool point);
void put_f64(Text *t, double x);

/* One element of a constant; dtype_size(t) > 0. */
void put_element(Text *t, DType type, const void *data, int64_t i);

#endif
