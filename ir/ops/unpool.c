/* MaxUnpool: values back at the positions that MaxPool told. */
#include "ir/ad.h"
#include "ir/lanes.h"
#include "ir/ops/common.h"
#include "ir/rules.h"
#include "ir/window.h"

/* (x, positions, shape): positions count in N, C, and the space that the window spreads over;
 * shape, where given, may be larger. */
int infer_max_unpool(Node *n, Diag *d)
{
    Type t = input_type(n, 0), at = input_type(n, 1);
    int64_t shape[MAX_RANK], both;
    Window w;
    if (t.rank < 0) return infer_out(n, 0, t, d);
    if (at.dtype != DT_I64 && at.dtype != DT_NONE)
        return node_error(d, n, "positions are %s, int64 is needed", dtype_name(at.dtype));
    TRY(expect_rank(n, 1, t.rank, d));
    TRY(node_window(n, &w, d));
    for (int i = 0; i < at.rank; i++)
        if (!dim_agree(at.dim[i], t.dim[i], &both))
            return node_error(d, n, "there are %lld positions on axis %d and %lld elements",
                              (long long)at.dim[i], i, (long long)t.dim[i]);
    bool given = node_in(n, 2) != NULL,
         known = value_ints(node_in(n, 2), shape, MAX_RANK) == t.rank;
    for (int i = 0; i < w.n; i++) t.dim[i + 2] = w.out[i];
    for (int i = 0; i < t.rank && given; i++) {
        if (known && (i < 2 ? !dim_agree(shape[i], t.dim[i], &both)
                            : shape[i] < t.dim[i] && !dim_is_sym(shape[i])))
            return node_error(d, n, "'output_shape' has %lld on axis %d, too small",
                              (long long)shape[i], i);
        if (i >= 2) t.dim[i] = known ? shape[i] : DIM_UNKNOWN;
    }
    return infer_out(n, 0, t, d);
}

/* Elements of dy at the positions: those of its flat form, in the shape of positions. */
int vjp_max_unpool(Ad *ad, const Node *n, Value *const *dy, Value **dx)
{
    const int64_t count = type_count(&n->out[0]->type);
    if (node_in(n, 2))
        return node_error(ad->diag, n, "has no gradient: its output has another shape");
    dx[0] = build(ad->g, OP_Gather, IN(ad_reshape(ad, dy[0], 1, &count), n->in[1]), NO_ATTRS);
    return 0;
}

/* Channels pass where the positions come from a pool, which tells new ones. */
void rule_lanes_max_unpool(Lanes *l, const Node *n)
{
    const Value *x = n->in[0], *at = n->in[1], *y = n->out[0];
    if (x->type.rank < 2 || !at->def || at->def->op != OP_MaxPool) return;
    for (int axis = 0; axis < 2; axis++) {
        lanes_pass(l, x, axis, y, axis);
        lanes_pass(l, x, axis, at, axis);
    }
}
