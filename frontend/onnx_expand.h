/* Operators that are read as several others: what the rules of those know, passes then know of it.
 */
#ifndef EHAP_FRONTEND_ONNX_EXPAND_H
#define EHAP_FRONTEND_ONNX_EXPAND_H

#include "frontend/onnx_import.h"

/* Whether the default domain's operator is one of them. */
bool is_expanded(const char *op_type);
/* Appends what node n, which is not in the graph, stands for: 1, or 0 if it has a form that is not
 * known, -1 after an error. */
int expand_node(Import *im, Node *n);

/* ---- for the rules ------------------------------------------------------------------ */

/* An operator that is being written as others. After an error `failed` is set, and nothing more is
 * appended. */
typedef struct Expander {
    Import *im;
    const Node *of;
    bool failed;
} Expander;

/* 1 if it was written, or has failed; 0 if the node has a form that is not known: decided before
 * anything is appended. */
typedef int ExpandRule(Expander *e, const Node *n);
ExpandRule expand_attention, expand_rotary_embedding, expand_col2im;

/* Appends a node whose output is `out` (NULL: a new value), and returns that. */
Value *expand_into(Expander *e, Value *out, Op op, int nin, Value *const *in, int nattrs,
                   const Attr *attrs);
Value *expand_op(Expander *e, Op op, int nin, Value *const *in, int nattrs, const Attr *attrs);
Value *expand_binary(Expander *e, Op op, Value *x, Value *y);
/* A number of the type of `like`. */
Value *expand_number(Expander *e, const Value *like, double x);
Value *expand_scalar(Expander *e, int64_t x); /* int64 [] */
Value *expand_reshape(Expander *e, Value *x, int rank, const int64_t *to);
Value *expand_transpose(Expander *e, Value *out, Value *x, int rank, const int64_t *perm);
Value *expand_unsqueeze(Expander *e, Value *x, int64_t axis);
/* Elements [from, to) of an axis, every `step`-th. */
Value *expand_slice(Expander *e, Value *x, int64_t axis, int64_t from, int64_t to, int64_t step);
Value *expand_concat(Expander *e, Value *out, Value *x, Value *y, int64_t axis);
Value *expand_size(Expander *e, Value *x, int axis); /* of an axis: int64 [] */

#endif
