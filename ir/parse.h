/* The parser of the text form, in three files: parse.c has graphs, parse_node.c nodes,
 * parse_value.c types, elements and attributes. */
#ifndef EHAP_IR_PARSE_H
#define EHAP_IR_PARSE_H

#include "ir/lex.h"
#include "ir/names.h"

/* What the text says about a name, perhaps before the value exists. */
typedef struct Entry {
    const char *name;
    const char *at; /* where it was first seen */
    Value *value;   /* NULL: not defined so far */
    int64_t symbol; /* in the table of symbols */
    bool declared;  /* `type` was given beside the name, apart from the definition */
    Type type;
    const char *doc; /* from #@ value */
    Bytes opaque_type, declared_type, extra;
    const char *noted_at; /* such a comment, or NULL */
} Entry;

/* Names to entries, in order of first mention. */
typedef struct Table {
    Names *names;
    Entry **entry;
    size_t n, cap;
} Table;

typedef struct SideFile {
    struct SideFile *next;
    const char *name;
    Bytes bytes;
} SideFile;

typedef struct Parser {
    Lexer l;
    Graph *g;
    Table values, symbols;
    const char *dir;
    SideFile *side;
} Parser;

Entry *entry_get(Parser *p, Table *t, const char *name); /* makes it if need be */
Entry *entry_find(const Table *t, const char *name);
/* Makes the value of an entry; once only. */
int entry_define(Parser *p, Entry *e, Type type, const char *at);

/* A growing array in the arena: appends one element of `size` bytes. */
#define PUSH(list, x) text_put(&(list), &(x), sizeof(x))
#define LIST(p) ((Text){.arena = (p)->l.arena})

int parse_type(Parser *p, Type *out);
/* Whether a type comes next (an identifier that is followed by another name or a bracket counts
 * as one, so that a misspelt type is called that). */
bool at_type(Parser *p);
int parse_dim(Parser *p, int64_t *out);
/* `{1, 2}` or an external reference, of a constant called `name`, aligned for its type. */
int parse_elements(Parser *p, const Type *type, const char *name, const void **out);
/* A string of a comment, or an external reference. */
int parse_bytes(Parser *p, Bytes *out);
/* The same as text. */
int parse_text(Parser *p, const char **out);
/* name [: kind] = value */
int parse_attr(Parser *p, Attr *out);
/* { … }: the nodes of a graph, with the comments about them. */
int parse_nodes(Parser *p);

#endif
