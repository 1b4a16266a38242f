/* A quantized graph laid out anew for another target, from the grids that it has and those that its
 * metadata records: floats again, placed for the target, integers again. Weights stay on their
 * integers where these fit the target's. */
#include <string.h>

#include "ir/op.h"
#include "passes/quant/fake_quant.h"

static int weight_bits(const Context *c, const Target *t, const Known *known)
{
    if (c->opt.weight_bits) return c->opt.weight_bits;
    bool same = known->target && strcmp(known->target, t->name) == 0;
    return same ? known->bits : t->weight_bits;
}

/* The command line's, and those that the record says stay in float. */
static const char *excluded(const Context *c, const Known *known)
{
    const char *given = c->opt.exclude;
    if (!given || !known->exclude || strcmp(given, known->exclude) == 0)
        return given ? given : known->exclude;
    return arena_printf(c->arena, "%s,%s", known->exclude, given);
}

int pass_requantize(Context *c, const char *opt)
{
    (void)opt;
    const Target *t = target_find(c->opt.target);
    Known known;
    Graph *g;
    if (!t) return diag_error(c->diag, "unknown target '%s'", c->opt.target);
    TRY(strip_grids(&g, &known, c->graph, c->arena, c->diag));
    bool any = false;
    for (int i = 0; i < known.n && !any; i++) any = known.grid[i].v;
    if (!any) {
        diag_error(c->diag, "the model has no QuantizeLinear and DequantizeLinear pairs");
        diag_note(c->diag, "ehapc quantize makes them");
        return STATUS_NOTHING;
    }
    if (!known.target)
        diag_remark(c->diag, "the model records no ranges (it is not of this ehapc): those of its "
                             "own grids serve");
    c->graph = g;
    c->opt.weight_bits = weight_bits(c, t, &known);
    c->opt.exclude = excluded(c, &known);
    TRY(place_fake_quant(c, t, c->opt.weight_bits, c->opt.exclude, &known));
    TRY(record_ranges(c, &known));
    return pass_quantize(c, "");
}
