/* Channels as lanes: which channels must go together.
 *
 * A lane is one index of one axis of one value. Each op's LaneRule ties lanes that hold the
 * same channel; a union-find over lanes gives the coupled sets. Lanes exist only on axes
 * that a rule has opened: rules run in topological order, a weight's output axis opens the
 * axis of the activation, and element-wise rules pass open axes on. Opening an axis of an
 * activation whose producer has already been visited (or of a graph input) pins it: that
 * axis was not made by a weight. */
#ifndef EHAP_IR_LANES_H
#define EHAP_IR_LANES_H

#include "ir/op.h"

Lanes *lanes_new(const Graph *g, Arena *a);
/* Before lanes_run: channels that a Reshape splits into attention heads go head by head, not
 * position by position. */
void lanes_prefer_heads(Lanes *l);
bool lanes_heads(const Lanes *l);
/* Runs the rules over the graph, then pins graph outputs; again with other choices for splits
 * all of whose lanes have ended up pinned. */
void lanes_run(Lanes *l);
/* For a rule that splits an open axis of x into several, of which one can carry the lanes on:
 * which of its `candidates`, best first, it is to take this time. */
int lanes_split(Lanes *l, const Value *x, int axis, int candidates);

/* Whether some rule has opened the axis. */
bool lanes_open(const Lanes *l, const Value *v, int axis);
/* Unites two lanes, opening their axes if need be. */
void lanes_tie(Lanes *l, const Value *v, int axis, int64_t i, const Value *w, int axis2, int64_t j);
/* Unites axis with axis2 index by index (equal sizes). */
void lanes_tie_axis(Lanes *l, const Value *v, int axis, const Value *w, int axis2);
/* Unites them if one of the two is open (or offered): how a rule passes channels on. */
void lanes_pass(Lanes *l, const Value *v, int axis, const Value *w, int axis2);
/* Opens an axis without tying it: the rule says that its lanes may go on their own. */
void lanes_open_axis(Lanes *l, const Value *v, int axis);
/* Offers an axis that a later reader may still open, as it may one of a constant: lanes of what is
 * computed from constants alone (an initial state repeated for each sample). lanes_pass hands the
 * offer on; a reader that does not touch the axis pins it. Until it is opened it is not open. */
void lanes_offer(Lanes *l, const Value *v, int axis);
/* Pins the lanes of an axis / all open axes of a value: they are never removed. `by` names
 * the node in the report; NULL means a graph output or input. An axis that is still closed is
 * pinned when it is opened. Axes that a node's rule does not touch are pinned without asking. */
void lanes_pin(Lanes *l, const Value *v, int axis, const Node *by);
void lanes_pin_value(Lanes *l, const Value *v, const Node *by);
void lanes_pin_lane(Lanes *l, const Value *v, int axis, int64_t i, const Node *by);
/* Two classes that must keep equal counts of survivors in every group of a grouped
 * convolution are tied by position by its rule; no separate notion is needed. */

/* ---- after lanes_run ---------------------------------------------------------------- */
int lanes_count_classes(Lanes *l); /* classes are numbered 0 … n-1 in order of first lane */
int lanes_class(Lanes *l, const Value *v, int axis, int64_t i); /* -1: axis not open */
/* Pinned by which node: NULL node with *pinned for graph inputs and outputs that
 * no node set aside reads. */
const Node *lanes_pinned_by(Lanes *l, int class_, bool *pinned);
/* What keeps all lanes of an axis, in words: the first that pins one; NULL if some may go. */
const char *lanes_keep(Lanes *l, const Value *v, int axis, Arena *a);

/* ---- while removing ----------------------------------------------------------------- */
/* Marks classes as removed; `removed` has one flag per class and is borrowed. */
void lanes_set_removed(Lanes *l, const bool *removed);
bool lanes_removed(Lanes *l, const Value *v, int axis, int64_t i); /* false if not open */
/* Number of surviving lanes among [from, to) of an axis; to - from if not open. */
int64_t lanes_survivors(Lanes *l, const Value *v, int axis, int64_t from, int64_t to);
/* Number of lanes of an open axis, as it was before removing; the dimension if not open. */
int64_t lanes_size(const Lanes *l, const Value *v, int axis);

#endif
