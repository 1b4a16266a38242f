/* If whose condition is known: the nodes of the branch that is taken stand in its place.
 *
 * The branch is in the node's attribute, a serialized GraphProto in which what it reads from
 * outside is called "ehap:capture:K" (onnx_body.c). It is imported as a file's graph is, into the
 * graph that is there, with those names meaning the values that the node captures. */
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/onnx_graph.h"
#include "frontend/wire.h"

bool onnx_is_if(const Node *n)
{
    return n->op == OP_Opaque && n->op_type && strcmp(n->op_type, "If") == 0 &&
           (!n->domain || !*n->domain || strcmp(n->domain, "ai.onnx") == 0);
}

static int64_t opset_of(const Graph *g)
{
    for (size_t k = 0; k < g->info.nopsets; k++)
        if (!*g->info.opsets[k].domain) return g->info.opsets[k].version;
    return 0;
}

/* The body in attribute `name`, its tree in `tmp`. */
static int read_body(Onnx__GraphProto **out, const Node *n, const char *name, Arena *tmp, Diag *d)
{
    const Attr *a = node_attr(n, name);
    ProtobufCMessage *m;
    if (!a || a->kind != ATTR_OPAQUE) return node_error(d, n, "it has no %s", name);
    TRY(wire_read(&m, tmp, &onnx__attribute_proto__descriptor, a->s, d));
    *out = ((Onnx__AttributeProto *)m)->g;
    if (!*out) return node_error(d, n, "its %s is no graph", name);
    if ((*out)->n_input) return node_error(d, n, "its %s has inputs", name);
    if ((*out)->n_output >= (size_t)n->nout) return 0;
    return node_error(d, n, "its %s has %zu outputs, %d are read", name, (*out)->n_output, n->nout);
}

static int import_branch(Graph *g, const Node *n, const char *name, Arena *tmp, Value ***out,
                         Diag *d)
{
    Import im = {.g = g, .tmp = tmp, .d = d, .function = -1, .is_body = true};
    TRY(read_body(&im.proto, n, name, tmp, d));
    im.opset = im.file_opset = opset_of(g);
    im.files = (TensorFiles){.arena = g->arena, .d = d};
    im.names = table_new(tmp);
    for (int k = 0; k < n->ncapture; k++) {
        NameEntry *e = table_find(im.names, arena_printf(tmp, CAPTURE_PREFIX "%d", k), true);
        e->v = n->in[n->nin - n->ncapture + k];
        e->node = -1;
    }
    *out = NEW_ARRAY(tmp, Value *, im.proto->n_output);
    return import_body(&im, *out);
}

/* `to` takes the place of a result of an If; what only the file knew of that stays known. */
static void replace(Rewrite *r, Value *from, Value *to)
{
    if (to->def && (to->type.rank < 0 || to->type.dtype == DT_NONE) && from->type.rank >= 0)
        to->type = from->type;
    rewrite_replace(r, from, to);
}

static int take(Rewrite *r, const Node *n, Branch branch, Diag *d)
{
    Value **out;
    Arena *tmp = arena_new();
    const char *name = branch == BRANCH_THEN ? "then_branch" : "else_branch";
    int status = import_branch(r->g, n, name, tmp, &out, d);
    for (int o = 0; o < n->nout && status == 0; o++)
        if (n->out[o]) replace(r, n->out[o], out[o]);
    arena_free(tmp);
    return status;
}

int onnx_take_branches(Graph *g, const Branch *taken, Diag *d)
{
    Rewrite r = rewrite_begin(g);
    for (int k = 0; k < r.nold; k++) {
        Node *n = r.old[k];
        rewrite_map_inputs(&r, n);
        if (taken[k] == BRANCH_NONE)
            node_append(g, n);
        else
            TRY(take(&r, n, taken[k], d));
    }
    rewrite_end(&r);
    return 0;
}
