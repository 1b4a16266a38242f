/* The scanner under the parser of the text form: a cursor that skips blanks and comments, and
 * errors that show the line. */
#ifndef EHAP_IR_LEX_H
#define EHAP_IR_LEX_H

#include "ir/text.h"

typedef struct Lexer {
    const char *start, *p, *end;
    Arena *arena;
    Diag *diag;
    bool in_note; /* inside a `#@` or `#:` comment: it ends with the line, strings have \xHH */
} Lexer;

/* "file:3:9: …", then the line and a caret under `at`. Returns -1. */
int lex_error(Lexer *l, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "file:3:9", for messages that others report. */
const char *lex_where(const Lexer *l, const char *at);

/* Skips blanks and comments (but not `#@` and `#:`); returns the next character, 0 at the end. */
char lex_peek(Lexer *l);
bool lex_eat(Lexer *l, char c);
int lex_expect(Lexer *l, char c, const char *after);
bool lex_at_end(Lexer *l);

/* Enters a `#@` comment if the next thing, ordinary comments apart, is one; with kind ':' a `#:`
 * comment if one follows on this line. lex_end_note leaves it: nothing may be left of its line. */
bool lex_note(Lexer *l, char kind);
int lex_end_note(Lexer *l);

/* An identifier, in the arena; NULL if there is none. */
const char *lex_identifier(Lexer *l);
bool lex_word(Lexer *l, const char *word); /* eats the identifier if it is this one */
int lex_string(Lexer *l, Bytes *out);      /* NUL-terminated beyond n */
/* An identifier or a string without NUL; `what` names it in the error. */
int lex_name(Lexer *l, const char **out, const char *what);
/* A string without NUL. */
int lex_text(Lexer *l, const char **out);

typedef struct Number {
    bool is_float; /* has a point, an exponent, or is inf or nan */
    bool negative;
    bool huge;     /* an integer beyond 64 bits */
    uint64_t size; /* of an integer, without its sign */
    char text[64];
} Number;
bool lex_at_number(Lexer *l);
int lex_number(Lexer *l, Number *out);
int lex_int(Lexer *l, int64_t *out);

#endif
