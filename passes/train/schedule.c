/* The order of schedule.h: the given one, except that a node from which a single graph output can
 * be reached is moved up to where its last operand is made. */
#include "passes/train/schedule.h"

enum { NOBODY = -1, MANY = -2 };

typedef struct Schedule {
    Graph *g;
    Uses uses;
    int *serves;  /* by value id: the graph output that it reaches, NOBODY or MANY */
    int *index;   /* by value id: of its producer among `old` */
    int *missing; /* by node index: operands not yet made */
    bool *done;   /* by node index */
    Node **old;
} Schedule;

static int join(int a, int b)
{
    if (a == NOBODY || a == b) return b;
    return b == NOBODY ? a : MANY;
}

static int node_serves(const Schedule *s, const Node *n)
{
    int to = NOBODY;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) to = join(to, s->serves[n->out[o]->id]);
    return to;
}

/* Appends a node and, after it, the single-minded ones that waited for it alone. */
static void emit(Schedule *s, int k)
{
    Node *n = s->old[k];
    s->done[k] = true;
    node_append(s->g, n);
    for (int o = 0; o < n->nout; o++) {
        if (!n->out[o]) continue;
        uint32_t v = n->out[o]->id;
        for (int u = 0; u < s->uses.n[v]; u++) {
            Node *reader = s->uses.at[v][u];
            if (!reader || !reader->nout || !reader->out[0]) continue;
            int r = s->index[reader->out[0]->id];
            if (--s->missing[r] == 0 && !s->done[r] && node_serves(s, reader) >= 0) emit(s, r);
        }
    }
}

void schedule_early(Graph *g, Arena *scratch)
{
    int n = g->nnodes;
    Schedule s = {.g = g, .uses = graph_uses(g, scratch), .old = g->nodes};
    s.serves = NEW_ARRAY(scratch, int, g->nvalues);
    s.index = NEW_ARRAY(scratch, int, g->nvalues);
    s.missing = NEW_ARRAY(scratch, int, n);
    s.done = NEW_ARRAY(scratch, bool, n);
    for (uint32_t v = 0; v < g->nvalues; v++) s.serves[v] = NOBODY;
    for (int o = 0; o < g->noutputs; o++)
        s.serves[g->outputs[o]->id] = join(s.serves[g->outputs[o]->id], o);
    for (int k = n - 1; k >= 0; k--) {
        const Node *m = s.old[k];
        int to = node_serves(&s, m);
        for (int o = 0; o < m->nout; o++)
            if (m->out[o]) s.index[m->out[o]->id] = k;
        for (int i = 0; i < m->nin; i++) {
            if (!m->in[i]) continue;
            s.serves[m->in[i]->id] = join(s.serves[m->in[i]->id], to);
            s.missing[k] += m->in[i]->def != NULL;
        }
    }
    g->nodes = NULL;
    g->nnodes = g->cap_nodes = 0;
    for (int k = 0; k < n; k++)
        if (!s.done[k]) emit(&s, k);
}
