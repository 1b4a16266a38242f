/* The compiled form, shared by plan.c (makes it), fuse.c (joins steps), memory.c (places buffers),
 * exec.c (runs it), replay.c (runs it on a device with memory of its own). */
#ifndef EHAP_RUNTIME_PROGRAM_H
#define EHAP_RUNTIME_PROGRAM_H

#include "runtime/kernel.h"

typedef enum BufferKind {
    BUF_ARENA, /* `size` bytes at `offset` of the instance's memory */
    BUF_CONST, /* `data` */
    BUF_INPUT, /* whatever is bound to graph input `input` */
} BufferKind;

/* Memory of one or several values. An arena buffer is live in steps first … last, both included;
 * last is LIVE_FOREVER if a later stage or the caller reads it. */
typedef struct Buffer {
    BufferKind kind;
    int input;
    const void *data;
    size_t size, offset, lane_offset; /* lane_offset: in the memory of a further lane */
    int first, last;
    int stage; /* that writes it */
    int same;  /* taken over in place by this buffer's memory; -1: its own */
} Buffer;

enum { LIVE_FOREVER = INT32_MAX, MAX_COUNTER = 8 /* numbers of a counter input */ };

/* A tensor of a program: a view of a buffer from its beginning. buffer < 0: omitted operand. */
typedef struct Slot {
    int buffer;
    Tensor t; /* data NULL but for constants */
} Slot;

/* Several element-wise nodes as one step, in order (fuse.c). Operand i of a member is input src[i]
 * of the step (src[i] >= 0) or output 0 of member -1 - src[i]. */
typedef struct FusionMember {
    const Node *node;
    const int *src; /* per input of the node; FUSION_OMITTED */
    const Tensor *out;
    int nin, nout;
} FusionMember;

typedef struct FusionResult {
    int member, output;
} FusionResult;

struct Fusion {
    FusionMember *members;
    int nmembers;
    FusionResult *result; /* per output of the step */
};

/* At most so many of each: members, inputs and results together, results. */
enum { FUSION_MEMBERS = 12, FUSION_OPERANDS = 20, FUSION_RESULTS = 6, FUSION_OMITTED = INT32_MIN };

struct Step {
    const Node *node; /* what it is for */
    const Kernel *kernel;
    void *state;
    bool copy; /* moves one operand to another layout or type; the kernel is not of node->op */
    int stage, nin, nout;
    Slot *slot;  /* nin inputs, then nout outputs */
    int operand; /* index of slot[0] among the operands of all steps */
    const Fusion *fusion;
};

struct Program {
    Arena *arena;
    const Graph *graph;
    const Device *device;
    Step *steps;
    int nsteps, noperands;
    int stage_begin[MAX_STAGES + 1]; /* steps of stage s: [begin[s], begin[s + 1]) */
    Buffer *buffers;
    int nbuffers, cap_buffers;
    Slot *value;                /* by value id: where the value lives; buffer < 0 if nowhere */
    const uint8_t *input_stage; /* by graph input */
    int *bind_begin, *bind_at;  /* operands that read input k: bind_at[bind_begin[k] …) */
    size_t memory, scratch;
    int lane_stage; /* see ProgramOptions; 0: none */
    size_t lane_memory;
    char *constants; /* on a device with its own memory: BUF_CONST buffers, each at its offset */
};

/* See instance_carry. */
typedef struct Carry {
    int n;
    const int *out, *in;
    void **kept; /* the values, where memory is the host's */
} Carry;

struct Instance {
    Arena *arena; /* holds the instance itself */
    const Program *p;
    char *memory, *scratch;
    Tensor *operands;   /* of all steps, Step.operand onwards */
    const void **bound; /* by graph input: the caller's data */
    double *seconds;    /* by step, if profiled */
    Carry carry[MAX_STAGES];
    void *result;      /* see instance_result */
    const char *shown; /* outputs of another rank's instance, packed: read instead of its own */
    const int *stays;  /* by buffer: the input whose place it has instead of its own, or -1 */
    struct OnDevice *device;   /* NULL where memory is the host's */
    const DeviceMemory *owner; /* of `memory`; NULL: the host. A trap frees the program first */
};

/* exec.c */
void instance_run_steps(Instance *i, int stage, Tensor *operands, void *scratch);
Tensor instance_resolve(const Instance *i, const Slot *s);
void instance_resolve_all(Instance *i);

/* replay.c: the part of an instance that lies on a device with memory of its own. NULL: none left.
 */
struct OnDevice *on_device_new(const Program *p);
void on_device_free(const DeviceMemory *m, struct OnDevice *o);
void *on_device_input(const struct OnDevice *o, int input);
void on_device_bind(struct OnDevice *o, int input);
void on_device_run(Instance *i, int stage);
void on_device_send(Instance *i);
/* Carried state whose last reader may write the new over the old gets the input's place. */
void on_device_carry(Instance *i, int stage);
void on_device_read(const Instance *i, int output, void *dst);
/* Lanes 1 … n - 1; false: there is no memory for them. */
bool on_device_lanes(Instance *i, int n);
/* False: not recordable; nothing has happened. */
bool on_device_repeat(Instance *i, int stage, int counter, int n, int nout, const int *out,
                      float *rows);

/* fuse.c: joins chains of steps into one each, where the device has a kernel for that. */
void program_fuse(Program *p);

/* widen.c: by value id, of a placed program on a device that does not compute with half storage:
 * what may be stored as floats with at most `limit` bytes alive at a time. NULL: nothing. */
bool *program_widen(const Program *p, size_t limit);

/* Sets last of every arena buffer from the steps and stages (keep: nothing dies), lets kernels
 * that can work in place do so, and gives each buffer its offset and the program its memory size.
 * -1 if the sum of sizes overflows. */
int program_place(Program *p, bool keep, Diag *d);

/* From now on runs add the time of step k to seconds[k] (borrowed; NULL ends it). */
void instance_profile(Instance *i, double *seconds);

/* What shards.c needs to hand results from rank to rank: all outputs, packed one behind the other
 * as instance_read gives them; instance_show makes an instance read such bytes (borrowed)
 * instead of its own outputs, until its next run. */
size_t instance_packed_bytes(const Instance *i);
void instance_pack(const Instance *i, char *to);
void instance_show(Instance *i, const char *packed);
void instance_set_result(Instance *i, void *result);

/* Alignment of buffers: a cache line, or what the libraries of a GPU want of workspaces. */
static inline size_t program_page(const Program *p) { return p->device->memory ? 256 : 64; }

/* Buffer of a slot after in-place merging. */
static inline int buffer_root(const Program *p, int b)
{
    while (p->buffers[b].same >= 0) b = p->buffers[b].same;
    return b;
}

#endif
