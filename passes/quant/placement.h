/* Where a target's grids go in a float graph: analysis alone, without data. */
#ifndef EHAP_PASSES_QUANT_PLACEMENT_H
#define EHAP_PASSES_QUANT_PLACEMENT_H

#include "passes/passes.h"
#include "passes/quant/relative.h"
#include "passes/quant/targets.h"

typedef struct Placement {
    Graph *g;
    const Target *target;
    const char *const *exclude; /* nodes that stay in float; NULL ends them */
    Uses uses;
    Relative relative;
    bool *leads;    /* by value id: some integer product comes behind it */
    bool *integer;  /* an integer op made it, perhaps moved since */
    bool *wanted;   /* an integer op reads it, perhaps moved */
    bool *grid;     /* gets a grid */
    uint32_t *root; /* union-find by value id: values on one grid */
    uint32_t n;     /* values when the tables were made */
} Placement;

/* exclude: those nodes as a name_list (ir/text.h); may be NULL. */
Placement placement_new(Graph *g, const Target *t, const char *exclude, Arena *a);

/* The id that stands for all values on v's grid. */
uint32_t placement_root(const Placement *p, const Value *v);
/* Whether the node runs in integers on this placement. */
bool placement_is_integer(const Placement *p, const Node *n);
/* Whether v has values of its own, not just those of others on its grid. */
bool placement_is_source(const Placement *p, const Value *v);
/* As quant_role, but QUANT_FLOAT for excluded nodes and for those whose result no grid suits. */
QuantRole placement_role(const Placement *p, const Node *n);

#endif
