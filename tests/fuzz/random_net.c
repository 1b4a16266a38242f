/* A pool of values, to which each block adds: a byte picks the block, another the value it reads,
 * more its sizes. A block that does not fit its value adds nothing. When the bytes end, values that
 * nobody reads become outputs. */
#include "tests/fuzz/random_net.h"

#include "ir/lanes.h"
#include "tests/fuzz/random_parts.h"

static const OpsetImport imports[] = {{"", 18}, {"com.microsoft", 1}};

/* A value of that rank, the newer the likelier; NULL: there is none. */
static Value *pick(Maker *m, int rank)
{
    int64_t back = draw(m, 4) ? 0 : draw(m, POOL);
    Value *found = NULL;
    for (int k = m->npool - 1; k >= 0 && back >= 0; k--)
        if (!rank || m->pool[k]->type.rank == rank) found = m->pool[k], back--;
    return found;
}

/* Indices, whose rows of a table are what the network begins with. */
static Value *embedded(Maker *m, int rank, const int64_t *size, int64_t width)
{
    Value *ids = graph_add_input(m->g, "x", type_of(DT_I64, rank, size));
    return binary(m, OP_Gather, numbers(m, 2, DIMS(VOCABULARY, width), 0, 1), ids);
}

static void make_input(Maker *m)
{
    Graph *g = m->g;
    int64_t n = draw(m, 4) ? graph_symbol(g, "N") : 1 + draw(m, 2), c = 1 + draw(m, 4);
    int64_t kind = draw(m, 16), open = kind >= 8; /* sizes, too, or indices */
    int64_t h = open ? graph_symbol(g, "H") : 6, w = open ? graph_symbol(g, "W") : 6;
    int64_t t = open && kind == 13 ? graph_symbol(g, "T") : 4;
    if (kind % 8 < 5)
        add(m, graph_add_input(g, "x", type_of(DT_F32, 4, DIMS(n, c, h, w))));
    else if (kind % 8 == 5)
        add(m, graph_add_input(g, "x", type_of(DT_F32, 3, DIMS(n, t, c))));
    else if (kind == 14)
        add(m, embedded(m, 2, DIMS(n, t), 2 * c));
    else if (kind % 8 == 6)
        add(m, graph_add_input(g, "x", type_of(DT_F32, 3, DIMS(n, t, c))));
    else if (open)
        add(m, embedded(m, 1, DIMS(n), 2 * c));
    else
        add(m, graph_add_input(g, "x", type_of(DT_F32, 2, DIMS(n, 2 * c))));
}

static void add_outputs(Maker *m)
{
    Graph *g = m->g;
    Uses u = graph_uses(g, g->arena);
    for (int k = m->npool - 1; k >= 0; k--)
        if (m->pool[k]->def && u.n[m->pool[k]->id] == 0) graph_add_output(g, m->pool[k]);
    if (g->noutputs == 0) graph_add_output(g, unary(m, OP_Relu, m->pool[0]));
}

static void name_nodes(Graph *g)
{
    for (int i = 0; i < g->nnodes; i++)
        g->nodes[i]->name = arena_printf(g->arena, "%s_%d", node_op_name(g->nodes[i]), i);
}

static int count(const Block *b)
{
    int n = 0;
    while (b[n].make) n++;
    return n;
}

/* One block of five is an odd one. */
static const Block *draw_block(Maker *m)
{
    static const Block *const common[] = {any_blocks, image_blocks, token_blocks};
    enum { ODD = 205 };
    const int64_t byte = draw(m, 256);
    if (byte >= ODD) return &odd_blocks[(byte - ODD) % count(odd_blocks)];
    int64_t which = byte % (count(common[0]) + count(common[1]) + count(common[2])), k = 0;
    while (which >= count(common[k])) which -= count(common[k++]);
    return &common[k][which];
}

Graph *random_net(Arena *a, const uint8_t *bytes, size_t n)
{
    Maker m = {.g = graph_new(a, "random"), .bytes = bytes, .n = n};
    m.g->info.opsets = arena_memdup(a, imports, sizeof imports);
    m.g->info.nopsets = sizeof imports / sizeof *imports;
    bool named = draw(&m, 4) != 0;
    make_input(&m);
    for (int k = 0; k < BLOCKS && m.at < m.n; k++) {
        const Block *b = draw_block(&m);
        Value *x = pick(&m, b->rank);
        if (x) b->make(&m, x);
    }
    add_outputs(&m);
    if (named) name_nodes(m.g);
    return m.g;
}
