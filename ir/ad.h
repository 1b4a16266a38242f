/* What differentiation rules see. The sweeps over whole
 * graphs are in passes/derive/autodiff.c. */
#ifndef EHAP_IR_AD_H
#define EHAP_IR_AD_H

#include "ir/op.h"

struct Ad {
    Graph *g; /* rules append to it; all shapes are static */
    Diag *diag;
    const bool *active; /* by value id: depends on what we differentiate by; beyond n: false */
    uint32_t nactive;
};

/* Whether the cotangent of this input is needed. NULL and constants: no. */
bool ad_wants(const Ad *ad, const Value *v);
/* The JVP of an op that is linear in each of `n` leading inputs alone (multilinear), any
 * further input being added (a bias): the sum over i of op(.., dx[i], ..); the tangent of
 * the added input rides on the first term. */
int jvp_multilinear(Ad *ad, const Node *n, Value *const *dx, Value **dy, int nlinear);
/* The JVP of an op that is jointly linear in its float inputs, all others being parameters: the
 * op applied to the tangents, zeros made where one is missing. */
int jvp_linear(Ad *ad, const Node *n, Value *const *dx, Value **dy);
/* The same op with the same attributes on other inputs; returns output 0. */
Value *ad_again(Ad *ad, const Node *n, Value *const *in);
/* n's inputs with another first one, as a list for build(). */
Value **ad_inputs(Ad *ad, const Node *n, Value *first);
Value *ad_zeros_like(Ad *ad, const Value *v);
/* Sums v down to the (broadcastable) type t: the transpose of broadcasting. */
Value *ad_unbroadcast(Ad *ad, Value *v, const Type *t);
/* Exactly the shape t: summed down, then expanded. The sweeps apply it to all that rules
 * return, so a rule may return anything that broadcasts to, or sums down to, the right shape. */
Value *ad_fit(Ad *ad, Value *v, const Type *t);
Value *ad_scale(Ad *ad, Value *v, double factor);
Value *ad_mul(Ad *ad, Value *a, Value *b);
Value *ad_sub(Ad *ad, Value *a, Value *b);
Value *ad_div(Ad *ad, Value *a, Value *b);
Value *ad_plus(Ad *ad, Value *a, Value *b);              /* either may be NULL: zero */
Value *ad_rsqrt(Ad *ad, Value *v, float epsilon);        /* 1 / sqrt(v + epsilon) */
Value *ad_mean(Ad *ad, Value *v, Value *axes);           /* the axes stay as 1 */
Value *ad_sum(Ad *ad, Value *v, Value *axes, bool keep); /* the axes stay as 1 if `keep` */
Value *ad_reshape(Ad *ad, Value *v, int rank, const int64_t *dim);

/* ---- sweeps (sweep.c) --------------------------------------------------------------- */

/* By value id: which values depend on wrt[], through nodes first … last - 1: real ones only, for no
 * gradient crosses an integer. */
bool *ad_depends_on(const Graph *g, int first, int last, int n, Value *const *wrt);

/* Side table: for each value known at the start of a sweep, its cotangent or tangent. */
typedef struct Sweep {
    Ad ad;
    Value **d;
} Sweep;

Sweep sweep_begin(Graph *g, const bool *active, Diag *diag);
/* The entries of a list of values, as a list; returns whether there is any. */
bool sweep_get(const Sweep *s, int n, Value *const *v, Value **d);
void sweep_add(Sweep *s, Value *v, Value *d);
/* Applies the rules of nodes first … last - 1, backwards or forwards (to those with a `needed`
 * output; NULL: all). */
int sweep_reverse(Sweep *s, int first, int last);
int sweep_forward(Sweep *s, const bool *needed, int first, int last);

/* Builds what computes the same as n of ops that have derivatives; fills out[], an entry per
 * output of n. Returns -1 after an error. Such an op's rules call vjp_expanded, jvp_expanded. */
typedef int Expansion(Ad *ad, const Node *n, Value **out);
int vjp_expanded(Ad *ad, const Node *n, Expansion *expand, Value *const *dy, Value **dx);
int jvp_expanded(Ad *ad, const Node *n, Expansion *expand, Value *const *dx, Value **dy);

#endif
