/* The checker: what the ONNX specification demands of the model that is about to be written.
 * Every complaint names the node or value; checking goes on to the end, so that one run shows
 * all of them. */
#include <string.h>

#include "backend/emit.h"
#include "ir/names.h"

typedef struct Check {
    Emit e;
    Names *names;
    bool *defined; /* by value id */
    int errors;
} Check;

static int value_error(Check *c, const Value *v, const char *what)
{
    c->errors++;
    return diag_error(c->e.d, "value '%s' %s", v->name ? v->name : "", what);
}

/* v comes into being: its name must be new. */
static void define(Check *c, const Value *v)
{
    if (c->defined[v->id]) {
        value_error(c, v, "is made twice");
        return;
    }
    c->defined[v->id] = true;
    if (!v->name || !*v->name)
        value_error(c, v, "has no name");
    else if (names_get(c->names, v->name))
        value_error(c, v, "shares its name with another value");
    else
        names_put(c->names, v->name, c);
}

static void check_constant(Check *c, const Value *v)
{
    if (c->defined[v->id]) return;
    define(c, v);
    if (dtype_size(v->type.dtype) == 0) value_error(c, v, "is a constant without an element type");
    if (type_bytes(&v->type) < 0) value_error(c, v, "is a constant without a static shape");
}

/* ---- nodes -------------------------------------------------------------------------- */

static bool domain_imported(const Check *c, const char *domain)
{
    const ModelInfo *info = &c->e.g->info;
    for (size_t i = 0; i < info->nopsets; i++)
        if (strcmp(info->opsets[i].domain, domain) == 0) return true;
    return false;
}

static int check_opaque(Check *c, const Node *n)
{
    const char *domain = n->domain ? n->domain : "";
    bool standard = !*domain || strcmp(domain, "ai.onnx") == 0;
    if (!n->op_type || !*n->op_type) return node_error(c->e.d, n, "it has no op type");
    if (n->ncapture < 0 || n->ncapture > n->nin)
        return node_error(c->e.d, n, "it captures %d values and has %d inputs", n->ncapture,
                          n->nin);
    if (!standard && !domain_imported(c, domain))
        return node_error(c->e.d, n, "the model imports no opset of domain '%s'", domain);
    Node legal;
    TRY(legalize_node(&c->e, n, &legal));
    for (int k = 0; k < n->nattrs; k++) {
        Bytes b;
        if (n->attrs[k].kind == ATTR_OPAQUE) TRY(emit_body(&c->e, n, n->attrs[k].s, &b));
    }
    return 0;
}

static int check_known(Check *c, const Node *n)
{
    const OpInfo *op = &op_info[n->op];
    Node legal;
    if (strcmp(op->domain, "ehap") == 0)
        return node_error(c->e.d, n, "an op of ehapc's own is left in the model");
    if (!has_arity(n))
        return node_error(c->e.d, n,
                          "it has %d inputs and %d outputs, which this op never has, or one "
                          "that it needs is missing",
                          n->nin, n->nout);
    return legalize_node(&c->e, n, &legal);
}

/* Ops whose tensor inputs are all of one type. */
static bool one_type(Op op)
{
    static const Op ops[] = {OP_Conv, OP_ConvTranspose, OP_MatMul, OP_Gemm, OP_Add,    OP_Sub,
                             OP_Mul,  OP_Div,           OP_Max,    OP_Min,  OP_Sum,    OP_Concat,
                             OP_Clip, OP_PRelu,         OP_Equal,  OP_Less, OP_Greater};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i] == op) return true;
    return false;
}

static int check_types(Check *c, const Node *n)
{
    DType first = DT_NONE;
    for (int i = 0; i < n->nin && one_type(n->op); i++) {
        DType t = n->in[i] ? n->in[i]->type.dtype : DT_NONE;
        if (!first) first = t;
        if (t && t != first)
            return node_error(c->e.d, n, "input %d is %s, and input 0 is %s", i, dtype_name(t),
                              dtype_name(first));
    }
    const Value *zero = n->op == OP_QuantizeLinear ? node_in(n, 2) : NULL;
    if (zero && zero->type.dtype != n->out[0]->type.dtype)
        return node_error(c->e.d, n, "its zero point is %s, its output %s",
                          dtype_name(zero->type.dtype), dtype_name(n->out[0]->type.dtype));
    return 0;
}

static int check_attr_names(Check *c, const Node *n)
{
    for (int k = 0; k < n->nattrs; k++)
        if (node_attr(n, n->attrs[k].name) != &n->attrs[k])
            return node_error(c->e.d, n, "attribute '%s' occurs twice", n->attrs[k].name);
    return 0;
}

static void check_node(Check *c, const Node *n)
{
    for (int i = 0; i < n->nin; i++) {
        const Value *v = n->in[i];
        if (v && v->data) check_constant(c, v);
        if ((v && !c->defined[v->id]) || (!v && i >= n->nin - n->ncapture)) {
            node_error(c->e.d, n, "input '%s' is not defined before it", v ? v->name : "");
            c->errors++;
        }
    }
    int status = n->op == OP_Opaque ? check_opaque(c, n) : check_known(c, n);
    if (status == 0 && n->op != OP_Opaque) status = check_types(c, n);
    if (status == 0) status = check_attr_names(c, n);
    if (status < 0) c->errors++;
    for (int o = 0; o < n->nout; o++)
        if (n->out[o]) define(c, n->out[o]);
}

static void check_interface(Check *c, const Value *v)
{
    if (v->data) check_constant(c, v);
    if (!c->defined[v->id]) value_error(c, v, "is a graph output that nothing makes");
    if (v->type.dtype == DT_NONE && v->opaque_type.n == 0)
        value_error(c, v, "is a graph input or output of unknown type");
}

static int check(Check *c)
{
    const Graph *g = c->e.g;
    c->names = names_new(c->e.a);
    c->defined = NEW_ARRAY(c->e.a, bool, g->nvalues);
    for (int i = 0; i < g->ninputs; i++) {
        define(c, g->inputs[i]);
        check_interface(c, g->inputs[i]);
    }
    for (int k = 0; k < g->nnodes; k++) check_node(c, g->nodes[k]);
    for (int o = 0; o < g->noutputs; o++) check_interface(c, g->outputs[o]);
    return c->errors ? -1 : 0;
}

int onnx_check(const Graph *g, const EmitOptions *o, Diag *d)
{
    Arena *a = arena_new();
    Check c = {.e = emit_begin(g, o, a, d)};
    int status = check(&c);
    arena_free(a);
    return status;
}
