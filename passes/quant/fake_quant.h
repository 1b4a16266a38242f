/* Placing FakeQuant nodes, from samples or from grids that are known. */
#ifndef EHAP_PASSES_QUANT_FAKE_QUANT_H
#define EHAP_PASSES_QUANT_FAKE_QUANT_H

#include "passes/quant/recorded.h"
#include "passes/quant/targets.h"

enum { CALIBRATION_SAMPLES = 1024 };

/* Lays c->graph, which has no quantization, out for the target, with weights of `bits`; nodes in
 * the list `exclude` stay in float. known NULL: ranges are measured on c->data. Else grids and
 * ranges are those known, to the bit where the target can have them; others are measured if
 * there is c->data. Error: a range is not to be had. */
int place_fake_quant(Context *c, const Target *t, int bits, const char *exclude,
                     const Known *known);

/* How many bytes of a tensor's name the names of what quantizes it repeat: whole characters of the
 * first 64. TensorFlow Lite's exports name a tensor by all that was fused into it, hundreds of
 * bytes, which each pair of nodes would repeat ten times. */
int name_head(const char *name);

/* record.c: notes in the graph's metadata what the emitted file cannot say (recorded.c), for
 * c->graph with its FakeQuant nodes. Grids of values that only other targets want are those known,
 * else measured where there is c->data, else left out. */
int record_ranges(Context *c, const Known *known);

#endif
