/* Element-wise steps: one node, or several that fuse.c joined, as one generated kernel. Between the
 * nodes of a chain numbers stay in float registers, whatever storage the values would have had. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/cuda.h"
#include "runtime/program.h"

_Static_assert((int)MAP_OPERANDS >= (int)FUSION_OPERANDS, "a joined step's operands");

typedef struct MapState {
    Map map;
    int nin, nout; /* operands of the step */
    int *operand;  /* of the map's inputs: which of the step's; omitted ones are left out */
    int inputs;
} MapState;

/* Names "x3" of the map's inputs and "t2" of members' results. */
enum { NAME_BYTES = 16 };

/* Tensors that the generated code loads, in order of first use. The same value seen along different
 * axes is two inputs. */
typedef struct Inputs {
    Tensor t[MAP_OPERANDS];
    int from[MAP_OPERANDS]; /* step operand */
    int n;
} Inputs;

static bool same_view(const Tensor *a, const Tensor *b)
{
    if (a->rank != b->rank || a->dtype != b->dtype) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i] || a->stride[i] != b->stride[i]) return false;
    return true;
}

static int input_index(Inputs *in, const Tensor *view, int from)
{
    for (int k = 0; k < in->n; k++)
        if (in->from[k] == from && same_view(&in->t[k], view)) return k;
    if (in->n == MAP_OPERANDS) return -1;
    in->t[in->n] = *view;
    in->from[in->n] = from;
    return in->n++;
}

/* Adds member m's formula; the step's inputs are in `in`. -1: an error, reported, or no room. */
static int add_member(Formula *f, Inputs *inputs, const FusionMember *m, int number,
                      const FusionMember *all, const Tensor *in, Diag *d)
{
    char names[MAP_OPERANDS][NAME_BYTES], y[NAME_BYTES];
    const char *x[MAP_OPERANDS] = {0};
    Tensor own[MAP_OPERANDS];
    int error = 0;
    for (int i = 0; i < m->node->nin; i++) {
        const int src = m->src[i];
        own[i] = (Tensor){.rank = -1};
        if (src != FUSION_OMITTED) own[i] = src >= 0 ? in[src] : all[-1 - src].out[0];
    }
    for (int i = 0; i < m->node->nin; i++) {
        const int src = m->src[i];
        if (src == FUSION_OMITTED || (i > 0 && m->node->op == OP_Expand)) continue;
        if (src < 0) {
            snprintf(names[i], NAME_BYTES, "t%d", -1 - src);
        } else {
            const Tensor view = map_operand(m->node, i, own, &m->out[0]);
            const int k = input_index(inputs, &view, src);
            if (k < 0) return -1;
            snprintf(names[i], NAME_BYTES, "x%d", k);
        }
        x[i] = names[i];
    }
    snprintf(y, sizeof y, "t%d", number);
    return formula_add(f, m->node, y, x, &error, d);
}

static int make_map(MapState *s, const Fusion *fusion, const Prepare *p)
{
    Formula *f = cuda_state(sizeof *f);
    Inputs inputs = {.n = 0};
    const Tensor *in[MAP_OPERANDS], *out[MAP_OPERANDS];
    int status = 0, outputs = 0;
    for (int m = 0; m < fusion->nmembers && status == 0; m++)
        status = add_member(f, &inputs, &fusion->members[m], m, fusion->members, p->in, p->diag);
    for (int o = 0; o < p->nout && status == 0; o++) {
        if (p->out[o].rank < 0) continue;
        out[outputs] = &p->out[o];
        f->length +=
            (size_t)snprintf(f->text + f->length, sizeof f->text - f->length,
                             "    const float y%d = t%d;\n", outputs++, fusion->result[o].member);
    }
    if (status == 0 && f->length >= sizeof f->text)
        trap(TRAP_INTERNAL, "a chain of %d operations is too long", fusion->nmembers);
    for (int k = 0; k < inputs.n; k++) {
        in[k] = &inputs.t[k];
        s->operand[k] = inputs.from[k];
    }
    s->inputs = inputs.n;
    if (status == 0) map_make(&s->map, outputs, out, inputs.n, in, f->text, f->nparams, f->params);
    free(f);
    return status;
}

int cuda_map_prepare(Prepare *p)
{
    MapState *s = cuda_state(sizeof *s + MAP_OPERANDS * sizeof(int));
    int src[MAP_OPERANDS];
    FusionMember alone = {p->node, src, p->out, p->nin, 1};
    const Fusion one = {&alone, 1, &(FusionResult){0, 0}};
    p->state = s;
    s->operand = (int *)(void *)(s + 1);
    s->nin = p->nin;
    s->nout = p->nout;
    if (!p->fusion)
        for (int i = 0; i < p->nin; i++) src[i] = p->in[i].rank < 0 ? FUSION_OMITTED : i;
    if (p->fusion) return make_map(s, p->fusion, p);
    Prepare first = *p;
    first.nout = 1;
    return make_map(s, &one, &first);
}

void cuda_map_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                  void *scratch)
{
    const MapState *s = state;
    void *data[MAP_OPERANDS];
    int k = 0;
    (void)n, (void)scratch;
    for (int o = 0; o < s->nout && k < s->map.operands - s->inputs; o++)
        if (out[o].rank >= 0) data[k++] = out[o].data;
    for (int i = 0; i < s->inputs; i++) data[k++] = in[s->operand[i]].data;
    map_run(&s->map, data);
}

void cuda_free_release(void *state) { free(state); }

void *cuda_state(size_t size)
{
    void *s = calloc(1, size ? size : 1);
    if (!s) trap(TRAP_NO_MEMORY, "out of memory for a kernel");
    return s;
}

/* ---- copies that blocks and types make necessary ---------------------------------------- */

bool cuda_is_dense(const Tensor *t) { return tensor_is_row_major(t) || tensor_is_channels_last(t); }

void convert_make_at(Convert *c, const Tensor *dst, int64_t dst_at, const Tensor *src,
                     int64_t src_at)
{
    static const char body[] = "    const float y0 = x0;\n";
    const int64_t odd =
        dst_at * (int64_t)dtype_size(dst->dtype) | src_at * (int64_t)dtype_size(src->dtype);
    c->plain = dst->dtype == src->dtype;
    if (c->plain) return;
    if (odd % 16)
        map_make_anywhere(&c->map, dst, src, body);
    else
        map_make(&c->map, 1, &dst, 1, &src, body, 0, NULL);
}

void convert_make(Convert *c, const Tensor *dst, const Tensor *src)
{
    convert_make_at(c, dst, 0, src, 0);
}

void convert_run(const Convert *c, const Tensor *dst, const Tensor *src)
{
    void *data[2] = {dst->data, src->data};
    if (c->plain)
        cuda_copy(dst, src);
    else
        map_run(&c->map, data);
}

/* What the plan asks for, and Identity. */
int cuda_copy_prepare(Prepare *p)
{
    Convert *c = cuda_state(sizeof *c);
    p->state = c;
    convert_make(c, &p->out[0], &p->in[0]);
    return 0;
}

void cuda_copy_run(const Node *n, const void *state, const Tensor *in, const Tensor *out,
                   void *scratch)
{
    (void)n, (void)scratch;
    if (in[0].data != out[0].data) convert_run(state, &out[0], &in[0]);
}
