/* The text form of a graph: ONNX's own textual syntax, so that any dump can be read by who knows
 * ONNX and parsed by stock tools.
 *
 *   <ir_version: 8, opset_import: ["" : 17, "ehap" : 1], producer_name: "pytorch">
 *   net (float[N,3,32,32] x) => (float[N,10] y) <
 *     float[16,3,3,3] w = ["location" : "net.bin", "offset" : "0", "length" : "1728"],
 *     int64[2] shape = {0, -1}
 *   > {
 *     [conv1] c = Conv <pads = [1, 1, 1, 1]> (x, w)  #: float[N,16,32,32]
 *     ...
 *   }
 *
 * What that syntax cannot say stands in comments that our parser reads and others skip:
 *
 *   #: TYPE, TYPE from "n"  after a node: types of its outputs (`?`: unknown), with known elements
 *                           as `int64[2] = {N, 64}`, and the node it was derived from. A node
 *                           without it gets its types by inference.
 *   #@ doc S, #@ extra S    before a node: its doc string, its unknown protobuf fields
 *   #@ opaque               … it is OP_Opaque (needless where the domain is not one of ours)
 *   #@ op DOMAIN TYPE       … its operator, where the names are no identifiers
 *   #@ captures x, y        … outer values that its subgraphs read
 *   #@ attr K NAME: KIND = VALUE   … its attribute number K, if stock syntax cannot write it; KIND
 *                           `opaque` is a serialized AttributeProto
 *   #@ graph_doc S, #@ graph_extra S, #@ model_extra S, #@ external_data,
 *   #@ value NAME doc S, … type S, … declared S, … extra S    before the graph
 *
 * S is a string in which \xHH is a byte, or an external reference like that of `w` above. A
 * symbolic dimension without a name is written `_3`; a name that looks like that is quoted.
 * float16 and bfloat16 elements are written as the integers of their bits, as in stock ONNX. */
#ifndef EHAP_IR_TEXT_H
#define EHAP_IR_TEXT_H

#include "ir/ir.h"

/* A growing text; grows within its arena, always NUL-terminated once written to. */
typedef struct Text {
    Arena *arena;
    char *p;
    size_t n, cap;
} Text;
void text_put(Text *t, const void *p, size_t n);
void text_printf(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

typedef struct PrintOptions {
    int64_t max_inline;        /* constants of more elements are external; 0: 32; < 0: no limit */
    bool no_types;             /* leave the `#:` comments out */
    const char *side_name;     /* file name that external references give; NULL: "-" (elided) */
    Text *side;                /* receives the external bytes; NULL: they are left out */
    const char *const *remark; /* by node index: written as a comment above it; may be NULL */
} PrintOptions;

/* The graph as text, in `a`. `o` may be NULL. */
char *ir_print(const Graph *g, Arena *a, const PrintOptions *o);

/* Parses n bytes of text into a new graph in `a`. External data is read from files in folder
 * `dir`, which a reference cannot leave; NULL: there are none. Any input is safe; errors say
 * file:line:column (d->file names the text) and show the line. */
int ir_parse(Graph **out, Arena *a, const char *text, size_t n, const char *dir, Diag *d);

/* Writes PATH, and the large constants to PATH.bin. */
int ir_save(const Graph *g, const char *path, Diag *d);
/* Reads such files, and verifies the graph. */
int ir_load(Graph **out, Arena *a, const char *path, Diag *d);

/* The whole of a file, in `a`, with a NUL behind it. */
int file_read(Bytes *out, Arena *a, const char *path, Diag *d);

/* Whether the graphs say the same, ids and capacities apart; unnamed symbols may be numbered
 * differently, any NaN equals any other. Else the first difference is in why[size]. */
bool graph_equal(const Graph *a, const Graph *b, char *why, size_t size);

/* The candidate nearest to a misspelt name, or NULL if none is near. candidates end with NULL. */
const char *nearest_name(const char *name, const char *const *candidates);

/* The names of a comma-separated list, without empty ones; an array that ends with NULL, in `a`. In
 * the list "\," is a comma of a name and "\\" a backslash. NULL: no names. */
const char *const *name_list(Arena *a, const char *list);
/* The list (NULL: none) with one name more, in `a`. */
const char *name_list_add(Arena *a, const char *list, const char *name);
bool name_listed(const char *const *names, const char *name);

#endif
