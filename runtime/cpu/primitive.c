/* Running oneDNN primitives: operands, reorders, scratch.
 *
 * Scratch is laid out as [copy of each reordered operand][oneDNN's scratchpad], each part
 * aligned to a cache line. Memory objects hold pointers, so each run makes its own (a few
 * hundred nanoseconds); primitives are immutable and shared by all threads. */
#include "runtime/cpu/primitive.h"

#include "runtime/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

int single_thread_begin(void)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}

void single_thread_end(int threads) { omp_set_num_threads(threads); }

dnnl_status_t primitive_attr(dnnl_primitive_attr_t *attr)
{
    dnnl_status_t s = dnnl_primitive_attr_create(attr);
    if (s != dnnl_success) return s;
    return dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
}

static size_t take(Primitive *p, size_t bytes)
{
    size_t at = p->scratch;
    p->scratch += (bytes + 63) & ~(size_t)63;
    return at;
}

static int make_reorder(Primitive *p, Operand *o)
{
    const MemDesc *from = o->output ? &o->want : &o->user, *to = o->output ? &o->user : &o->want;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_attr_t attr;
    if (primitive_attr(&attr) != dnnl_success) return -1;
    dnnl_status_t s = dnnl_reorder_primitive_desc_create(&pd, md_ref(from), p->engine, md_ref(to),
                                                         p->engine, attr);
    dnnl_primitive_attr_destroy(attr);
    if (s != dnnl_success) return -1;
    MemDescRef pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    bool wants_memory = pad && dnnl_memory_desc_get_size(pad) > 0; /* none does, of f32 to f32 */
    s = wants_memory ? dnnl_unimplemented : dnnl_primitive_create(&o->reorder, pd);
    dnnl_primitive_desc_destroy(pd);
    return s == dnnl_success ? 0 : -1;
}

static void execute_reorder(const Operand *o, dnnl_stream_t stream, dnnl_memory_t user,
                            dnnl_memory_t want)
{
    dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, o->output ? want : user},
                               {DNNL_ARG_TO, o->output ? user : want}};
    dnnl_primitive_execute(o->reorder, stream, 2, args);
}

/* A constant is brought into the wanted layout here and now. */
static int pack(Primitive *p, Operand *o, const void *constant)
{
    size_t bytes = dnnl_memory_desc_get_size(md_ref(&o->want));
    o->packed = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    p->no_memory = !o->packed;
    if (!o->packed) return -1;
    dnnl_memory_t user;
    dnnl_stream_t stream;
    if (dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags) != dnnl_success)
        return -1;
    dnnl_status_t s = dnnl_memory_create(&user, md_ref(&o->user), p->engine, (void *)constant);
    if (s == dnnl_success) {
        s = dnnl_memory_create(&o->packed_memory, md_ref(&o->want), p->engine, o->packed);
        if (s == dnnl_success) execute_reorder(o, stream, user, o->packed_memory);
        dnnl_stream_wait(stream);
        dnnl_memory_destroy(user);
    }
    dnnl_stream_destroy(stream);
    return s == dnnl_success ? 0 : -1;
}

int primitive_operand(Primitive *p, dnnl_primitive_desc_t pd, int arg, const MemDesc *user,
                      const void *constant)
{
    if (p->n == PRIMITIVE_OPERANDS) trap(TRAP_INTERNAL, "primitive with too many operands");
    Operand *o = &p->op[p->n++];
    o->arg = arg;
    o->output = arg == DNNL_ARG_DST || arg == DNNL_ARG_DIFF_SRC || arg == DNNL_ARG_DIFF_WEIGHTS;
    MemDescRef want = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg);
    if (!want || md_copy(&o->user, md_ref(user)) != dnnl_success ||
        md_copy(&o->want, want) != dnnl_success)
        return -1;
    if (dnnl_memory_desc_equal(md_ref(&o->user), md_ref(&o->want))) return 0;
    TRY(make_reorder(p, o));
    if (constant && !o->output) return pack(p, o, constant);
    o->offset = take(p, dnnl_memory_desc_get_size(md_ref(&o->want)));
    return 0;
}

int primitive_finish(Primitive *p, dnnl_primitive_desc_t pd)
{
    MemDescRef pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (!pad || md_copy(&p->pad, pad) != dnnl_success) return -1;
    p->pad_offset = take(p, dnnl_memory_desc_get_size(pad));
    return dnnl_primitive_create(&p->primitive, pd) == dnnl_success ? 0 : -1;
}

void primitive_check_memory(const Primitive *p)
{
    if (p->no_memory) trap(TRAP_NO_MEMORY, "out of memory for a packed constant");
}

static dnnl_memory_t memory_at(const Primitive *p, const MemDesc *md, void *data)
{
    dnnl_memory_t m;
    if (dnnl_memory_create(&m, md_ref(md), p->engine, data) != dnnl_success)
        trap(TRAP_NO_MEMORY, "oneDNN cannot wrap a tensor");
    return m;
}

void primitive_run(const Primitive *p, void *const *data, void *scratch)
{
    char *base = scratch;
    dnnl_memory_t user[PRIMITIVE_OPERANDS], want[PRIMITIVE_OPERANDS];
    dnnl_exec_arg_t args[PRIMITIVE_OPERANDS + 1];
    dnnl_stream_t stream;
    if (dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags) != dnnl_success)
        trap(TRAP_NO_MEMORY, "oneDNN cannot make a stream");
    for (int k = 0; k < p->n; k++) {
        const Operand *o = &p->op[k];
        user[k] = o->packed ? NULL : memory_at(p, &o->user, data[k]);
        want[k] = o->packed    ? o->packed_memory
                  : o->reorder ? memory_at(p, &o->want, base + o->offset)
                               : user[k];
        if (o->reorder && !o->packed && !o->output) execute_reorder(o, stream, user[k], want[k]);
        args[k] = (dnnl_exec_arg_t){o->arg, want[k]};
    }
    dnnl_memory_t pad = memory_at(p, &p->pad, base + p->pad_offset);
    args[p->n] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, pad};
    if (dnnl_primitive_execute(p->primitive, stream, p->n + 1, args) != dnnl_success)
        trap(TRAP_INTERNAL, "oneDNN failed to execute a primitive");
    for (int k = 0; k < p->n; k++) {
        const Operand *o = &p->op[k];
        if (o->reorder && o->output) execute_reorder(o, stream, user[k], want[k]);
    }
    dnnl_stream_wait(stream);
    for (int k = 0; k < p->n; k++) {
        if (p->op[k].packed) continue;
        if (p->op[k].reorder) dnnl_memory_destroy(want[k]);
        dnnl_memory_destroy(user[k]);
    }
    dnnl_memory_destroy(pad);
    dnnl_stream_destroy(stream);
}

void primitive_free(Primitive *p)
{
    for (int k = 0; k < p->n; k++) {
        Operand *o = &p->op[k];
        if (o->reorder) dnnl_primitive_destroy(o->reorder);
        if (o->packed_memory) dnnl_memory_destroy(o->packed_memory);
        free(o->packed);
        md_free(&o->user);
        md_free(&o->want);
    }
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    md_free(&p->pad);
    if (p->engine) dnnl_engine_destroy(p->engine);
}

void cpu_primitive_release(void *state)
{
    PrimitiveState *s = state;
    primitive_free(&s->prim);
    free(s);
}
