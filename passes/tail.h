/* What cannot be planned is set aside while the rest is compressed, and put back before writing:
 * operators that are not known, those whose results' sizes depend on data, and all that follows
 * them. What they read become outputs of the rest, so that its channels are pinned and it learns to
 * reproduce it. */
#ifndef EHAP_PASSES_TAIL_H
#define EHAP_PASSES_TAIL_H

#include "ir/ir.h"

typedef struct Tail {
    Graph *nodes;         /* reads, by name, outputs and inputs of the rest */
    const char **outputs; /* the whole model's, in order */
    int noutputs;
    const char **inputs; /* likewise; those that only the tail reads may be its own */
    int ninputs;
    const char *first; /* of `nodes`, for messages: "node 'nms' (NonMaxSuppression)" */
} Tail;

/* Takes the tail out of g; with `integers`, what computes in integers is part of it. *out is NULL
 * if there is none. The tail lives in `a`. STATUS_NOTHING, after a message, if the rest has no
 * float output. */
int tail_detach(Tail **out, Graph *g, bool integers, Arena *a, Diag *d);
/* Notes at g's outputs which node of the tail reads them (Value.aside): what pins their channels.
 */
void tail_name_readers(Graph *g, const Tail *t);
/* Appends the tail to g, whose outputs and inputs have kept their names. */
int tail_attach(Graph *g, const Tail *t, Diag *d);
/* ONNX Runtime (1.32, say) takes QuantizeLinear and DequantizeLinear through nodes that move
 * elements, and ends with an assertion where it meets a body that reads their result. Bodies in g
 * read what is not quantized instead. */
void tail_free_bodies(Graph *g);

#endif
