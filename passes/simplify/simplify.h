/* What the simplifications share. */
#ifndef EHAP_PASSES_SIMPLIFY_SIMPLIFY_H
#define EHAP_PASSES_SIMPLIFY_SIMPLIFY_H

#include "ir/op.h"
#include "passes/passes.h"

/* Runs one node whose operands are all constants. Its outputs' elements, in
 * the graph's arena, go to data[nout] (NULL for omitted outputs). Returns -1, silently, if that
 * device cannot run it. */
int evaluate_const(Graph *g, const Node *n, const void **data);

/* Replaces v by a constant of its name (unless it is a graph output, which keeps its own). */
void replace_by_const(Rewrite *r, Value *v, const void *data, const bool *is_output);

/* Infers the types of n's outputs again; what was known and is not inferred stays. *changed: a type
 * or a known element is new. An error where constants show that the model never was right. */
int refine_types(Node *n, bool *changed, Diag *d);

/* A flag per value id: whether the graph names it as an output. */
bool *output_flags(const Graph *g, Arena *a);

/* fix_inputs.c: whether --fix takes a value for an input of g; sets those of a list
 * "NAME=VALUE,NAME=V:V:V,NAME=1x576", sizes in a graph that takes *g's place. -1 after an error
 * that names what is wrong. */
bool fix_possible(const Graph *g, const Value *v);
int fix_inputs(Graph **g, const char *list, Diag *d);

/* Einsum nodes as MatMul, where they are one (einsum.c). */
void simplify_einsum(Graph *g);

/* f on c->graph, with an arena of the call. */
int simplify_pass(Context *c, int (*f)(Graph *g, Arena *scratch));

/* What the pass does. */
int simplify_canonicalize(Graph *g, Diag *d);

#endif
