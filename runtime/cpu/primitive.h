/* A oneDNN primitive with its operands: reorders what is not laid out as the primitive wants,
 * works in the caller's scratch, allocates nothing of size while running, and may be run by
 * many threads at once. */
#ifndef EHAP_RUNTIME_CPU_PRIMITIVE_H
#define EHAP_RUNTIME_CPU_PRIMITIVE_H

#include "runtime/cpu/dnnl_compat.h"
#include "runtime/kernel.h"

enum { PRIMITIVE_OPERANDS = 4 };

typedef struct Operand {
    int arg; /* DNNL_ARG_SRC, … */
    bool output;
    MemDesc user;             /* how the tensor lies */
    MemDesc want;             /* how the primitive reads or writes it */
    dnnl_primitive_t reorder; /* NULL: the two are the same */
    size_t offset;            /* of the reordered copy, in scratch */
    void *packed;             /* a constant, reordered once */
    dnnl_memory_t packed_memory;
} Operand;

typedef struct Primitive {
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    MemDesc pad; /* oneDNN's own scratchpad */
    size_t pad_offset, scratch;
    bool no_memory; /* is why it could not be made */
    int n;
    Operand op[PRIMITIVE_OPERANDS];
} Primitive;

/* State of the kernels of conv.c and matmul.c; cpu_primitive_release frees it. */
typedef struct PrimitiveState {
    bool naive; /* oneDNN does not take this type or shape: the reference kernel runs */
    Primitive prim;
} PrimitiveState;

/* y = a b of F32 matrices (or of stacks of them, of equal rank), as an operand each in that order;
 * constants[0] and [1]: bytes of a and b if they never change, or NULL. False: oneDNN cannot. */
bool cpu_product_make(Primitive *p, const Tensor *a, const Tensor *b, const Tensor *y,
                      const void *const *constants);

/* Attributes that every primitive of ours is created with: the scratchpad is the caller's. */
dnnl_status_t primitive_attr(dnnl_primitive_attr_t *attr);

/* Adds an operand whose layout is `user`. constant: its bytes, if they never change; they are
 * then reordered once and not read again. */
int primitive_operand(Primitive *p, dnnl_primitive_desc_t pd, int arg, const MemDesc *user,
                      const void *constant);
/* Creates the primitive and lays out scratch. p->engine is set, operands are added. */
int primitive_finish(Primitive *p, dnnl_primitive_desc_t pd);
/* Traps if there was no memory to make it. */
void primitive_check_memory(const Primitive *p);
/* data[k] belongs to the k-th operand added. */
void primitive_run(const Primitive *p, void *const *data, void *scratch);
void primitive_free(Primitive *p);

/* oneDNN decides at creation how many threads a primitive uses, and one made for several must
 * not run inside a parallel region (it hangs or computes nonsense). Between begin and end
 * primitives are created for one thread; end takes what begin returned. */
int single_thread_begin(void);
void single_thread_end(int threads);

#endif
