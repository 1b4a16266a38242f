/* Compresses what lies behind operators that cannot be run. No sample gets there, so channels are
 * scored by the norm of their weights, nothing is refitted or trained, and all stays in float; what
 * the unknown operators read and make is pinned by the lane rules. The proof of remove-channels
 * draws what they make, where its shape is known. */
#include "passes/prune/behind.h"

/* The criterion that needs nothing but weights. */
static const char criterion[] = "l2";

/* A convolution tells rank and channels of what it reads: x [N, C, in…] by w [M, C/group, k…]. */
static void deduce(Graph *g, const Node *n)
{
    if (n->op != OP_Conv) return;
    Value *x = n->in[0];
    const Type *w = &n->in[1]->type;
    if (!x || x->data || x->type.rank >= 0) return;
    if (w->rank < 3 || w->dim[1] <= 0 || (x->def && x->def->op != OP_Opaque)) return;
    Type t = {.dtype = w->dtype, .rank = w->rank};
    for (int k = 0; k < t.rank; k++)
        t.dim[k] = k == 1 ? w->dim[1] * node_int(n, "group", 1) : graph_symbol(g, NULL);
    x->type = t;
}

static int context_of(Context **out, const Context *c, const Tail *t)
{
    Context *b = *out = NEW(c->arena, Context);
    b->arena = c->arena;
    b->graph = graph_clone(t->nodes, c->arena, NULL);
    b->apart = c->original ? c->original : c->graph;
    for (int k = 0; k < b->graph->nnodes; k++) deduce(b->graph, b->graph->nodes[k]);
    b->opt = c->opt;
    b->opt.criterion = criterion;
    b->opt.dims = NULL;
    b->opt.ndims = 0;
    b->diag = c->diag;
    b->report.proof_max_diff = -1;
    return graph_infer(b->graph, b->diag);
}

static int run(Context *b, const char *pass, const char *opt)
{
    return pass_run(b, pass_find(pass), opt);
}

/* That nothing is left to remove, as all is excluded, is for the caller to say. */
static int prune(Context *b)
{
    static const char *const budget[] = {"flops", "params", "channels"};
    Diag *said = b->diag, quiet = {0};
    const char *opt = arena_printf(b->arena, "%s=%.9g", budget[b->opt.budget], b->opt.keep);
    b->diag = &quiet;
    int status = run(b, "allocate", opt);
    b->diag = said;
    if (status < 0) return run(b, "allocate", opt);
    return status ? status : run(b, "remove-channels", "");
}

int behind_compress(Context **out, const Context *c, Tail *t, int what)
{
    TRY(context_of(out, c, t));
    Context *b = *out;
    TRY(run(b, "canonicalize", ""));
    b->original = graph_clone(b->graph, b->arena, NULL);
    if (!allocate_free(b->graph, &b->opt)) return STATUS_NOTHING;
    diag_remark(
        b->diag,
        "behind %s nothing can be run: channels are scored by %s and have the budget's fraction "
        "to themselves, layers are not refitted, trained or quantized",
        t->first, criterion);
    TRY(run(b, "sensitivity", ""));
    if (what == BEHIND_SCORE) return 0;
    const int status = prune(b);
    if (status == 0) t->nodes = b->graph;
    return status;
}

int behind_explain(Context *behind)
{
    if (allocate_possible(behind)) return STATUS_NOTHING;
    diag_error(behind->diag, "nothing can be removed: every channel that could go is excluded");
    return STATUS_NOTHING;
}
