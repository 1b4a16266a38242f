/* Evaluates a node at compile time: a graph of that one node, compiled for the oracle device, or
 * where elements only move for the fast one. */
#include <string.h>

#include "passes/simplify/simplify.h"

static Graph *lone_node(const Node *n, Arena *a)
{
    Graph *g = graph_new(a, "fold");
    Node *m = NEW(a, Node);
    *m = *n;
    m->in = NEW_ARRAY(a, Value *, n->nin);
    m->out = NEW_ARRAY(a, Value *, n->nout);
    for (int i = 0; i < n->nin; i++)
        if (n->in[i]) m->in[i] = value_const(g, NULL, n->in[i]->type, n->in[i]->data);
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) m->out[o] = value_new(g, NULL, n->out[o]->type);
    node_append(g, m);
    for (int o = 0; o < n->nout; o++)
        if (m->out[o]) graph_add_output(g, m->out[o]);
    return g;
}

static void read_outputs(const Instance *i, Graph *g, const Node *n, const void **data)
{
    int k = 0;
    for (int o = 0; o < n->nout; o++) {
        data[o] = NULL;
        if (!n->out[o]) continue;
        void *p = arena_alloc(g->arena, (size_t)type_bytes(&n->out[o]->type));
        instance_read(i, k++, p);
        data[o] = p;
    }
}

int evaluate_const(Graph *g, const Node *n, const void **data)
{
    Arena *a = arena_new();
    Diag quiet = {0};
    ProgramOptions options = {.device = op_info[n->op].flags & OPF_MOVES ? "cpu" : "ref"};
    Program *p = NULL;
    Instance *i = NULL;
    int status = program_compile(&p, lone_node(n, a), &options, &quiet);
    if (status == 0) status = instance_new(&i, p, &quiet);
    if (status == 0) {
        instance_run_all(i);
        read_outputs(i, g, n, data);
    }
    if (i) instance_free(i);
    if (p) program_free(p);
    arena_free(a);
    return status;
}
