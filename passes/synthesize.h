/* Samples made from nothing but the model. */
#ifndef EHAP_PASSES_SYNTHESIZE_H
#define EHAP_PASSES_SYNTHESIZE_H

#include "passes/passes.h"

/* Samples for the inputs of c->original, unlabelled, in c->arena: `count` of them (0: choose, by
 * the size of one). Image-like inputs get drawings (shapes, shading, noise of several scales),
 * others smooth noise. Their range is the one, of those in common use, under which the model's
 * own statistics fit best: those its BatchNormalizations remember, else varied and confident
 * answers. samples->source says what was done. */
int synthesize(Samples **out, Context *c, int64_t count);

/* The type of one sample of an input of type t: without its batch axis; open sizes as chosen. */
Type synthesize_type(const Type *t, int axis, const Options *o);

/* ---- numbers (synthesize_integers.c) ---------------------------------------------------- */

/* What an input that is a single number, the same for all samples, may be: a constant that it is
 * compared with, or 1. */
double synthesize_number(const Graph *g, const Value *v);
/* It, as an element of v's type. */
void *make_number(Context *c, const Value *v);
/* `count` samples of an input of integers or bools. */
void *make_integers(Context *c, const Value *v, const Type *sample, int64_t count);

/* ---- drawings (draw.c) ----------------------------------------------------------------- */

typedef enum DrawStyle {
    DRAW_SCENES,   /* anything behind, shapes anywhere */
    DRAW_ON_BLACK, /* one thing, cut out on black */
    DRAW_ON_WHITE,
} DrawStyle;

/* Draws image number `index` of stream `seed`: channels planes of height x width floats in [0, 1].
 * `scratch`: height * width floats. */
void draw_image(float *image, float *scratch, int64_t channels, int64_t height, int64_t width,
                DrawStyle style, uint64_t seed, uint64_t index);

#endif
