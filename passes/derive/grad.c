/* The passes grad and jvp: what autodiff.c does, on the graph at hand, to be seen and tested.
 * `grad,jvp` is a Hessian-vector product. */
#include "passes/derive/hvp.h"

int loss_option(LossKind *loss, Context *c, const char *opt)
{
    static const char *const names[] = {
        [LOSS_CROSS_ENTROPY] = "cross-entropy", [LOSS_MSE] = "mse", NULL};
    int kind = LOSS_CROSS_ENTROPY;
    TRY(pass_choice(&kind, c, opt, "loss", names));
    *loss = (LossKind)kind;
    return 0;
}

/* The weights of g that channels are scored by, and a name made of each. */
static int weights_of(Context *c, Value ***w)
{
    ScoredLayer *l;
    int n = scored_layers(c->graph, c->arena, &l);
    *w = NEW_ARRAY(c->arena, Value *, n);
    for (int i = 0; i < n; i++) (*w)[i] = l[i].weight;
    return n;
}

/* Outputs: the loss, then the gradient by each weight that it depends on. Input `target` is new. */
int pass_grad(Context *c, const char *opt)
{
    LossKind kind;
    int64_t total = 1;
    Value **w;
    TRY(loss_option(&kind, c, opt));
    TRY(pass_int(&total, c, opt, "batch", 1));
    Graph *g = graph_with_batch(c->graph, c->arena, total, c->diag);
    if (!g) return -1;
    c->graph = g;
    Value *z = graph_logits(g);
    if (!z || z->type.dtype != DT_F32 || z->type.rank < 1)
        return diag_error(c->diag, "the model has no float output to take a loss of");
    int n = weights_of(c, &w);
    Value *target = graph_add_input(g, "target", z->type);
    Value *loss = kind == LOSS_MSE ? loss_mse(g, z, target, (double)total)
                                   : loss_cross_entropy(g, z, target, (double)total);
    Value **grad = NEW_ARRAY(c->arena, Value *, n);
    TRY(ad_grad(g, loss, n, w, grad, c->diag));
    g->outputs = NULL;
    g->noutputs = 0;
    graph_add_output(g, loss);
    for (int i = 0; i < n; i++)
        if (grad[i]) graph_add_output(g, grad[i]);
    return simplify_dce(g, c->arena);
}

/* Along one new input per weight; outputs that do not move get none. */
int pass_jvp(Context *c, const char *opt)
{
    Graph *g = c->graph;
    Value **w;
    int n = weights_of(c, &w), nout = g->noutputs;
    Value **v = NEW_ARRAY(c->arena, Value *, n), **dy = NEW_ARRAY(c->arena, Value *, nout);
    (void)opt;
    for (int i = 0; i < n; i++)
        v[i] = graph_add_input(g, arena_printf(g->arena, "d_%s", w[i]->name), w[i]->type);
    TRY(ad_jvp(g, n, w, v, nout, g->outputs, dy, c->diag));
    for (int o = 0; o < nout; o++)
        if (dy[o]) graph_add_output(g, dy[o]);
    return simplify_dce(g, c->arena);
}
