/* Running graphs.
 *
 *   Program  = compile(graph, options)      plan: layouts, kernels, one arena; immutable
 *   Instance = instance_new(program)        one arena's worth of memory, one thread at a time
 *   bind inputs, instance_run(stage), read outputs
 *
 * Parallelism is over shards: a batch is cut into shards whose size does not depend on the
 * machine; every thread owns an Instance and takes shards; partial results are reduced in
 * shard order. So the bytes are the same for any number of threads.
 *
 * Stages hoist: each graph input has a stage (0: parameters, 1: the batch, 2: the probe); a
 * node belongs to the highest stage of its inputs, and instance_run(i, s) executes just the
 * steps of stage s. Values that later stages read stay alive. */
#ifndef EHAP_RUNTIME_RUNTIME_H
#define EHAP_RUNTIME_RUNTIME_H

#include "ir/ir.h"
#include "runtime/ranks.h"

enum { MAX_STAGES = 4 };

typedef struct Program Program;
typedef struct Instance Instance;

typedef struct ProgramOptions {
    const char *device;   /* a name of device_find (runtime/kernel.h): "cpu", "cuda-tf32", "auto" */
    const uint8_t *stage; /* one per graph input; NULL: all 0 */
    int lane_stage;       /* that may run several times at once (program_lanes); 0: none */
    bool no_reuse;        /* every value keeps its own memory (debugging, dumps) */
} ProgramOptions;

/* Compiles a graph whose shapes are all static. The graph must outlive the program (its
 * constants are used in place). Errors: an op without a kernel on the device, named; sizes
 * that overflow. Owned by the caller: program_free. */
int program_compile(Program **out, const Graph *g, const ProgramOptions *o, Diag *d);
void program_free(Program *p);
/* Bytes of one instance: arena and scratch, known before anything runs. */
size_t program_peak_bytes(const Program *p);
/* The same with the tables that an instance keeps in the host's memory. */
size_t program_instance_bytes(const Program *p);
/* Bytes that the program's device has left for instances; SIZE_MAX where the host's memory is used.
 */
size_t program_memory_left(const Program *p);
/* Lanes: runs of the lane stage that a device does at a time, each with memory of its own for what
 * that stage writes, all with the results of earlier stages. How many of them fill the device: 1
 * for the CPU and for large steps. Results do not depend on it. */
enum { MAX_LANES = 8 };
int program_lanes(const Program *p);
size_t program_lane_bytes(const Program *p); /* of each beyond the first */
/* Whether the device is parallel in itself, so that small batches leave it idle. */
bool runtime_is_parallel(const char *device);
/* Whether the device is a CPU that computes products of BF16, with sums in F32. */
bool runtime_multiplies_bf16(const char *device);
/* How many instances can run at a time: `wanted` (0: all cores), or 1 where the device itself is
 * parallel. */
int program_threads(const Program *p, int wanted);
/* The plan as text: steps, stages, layouts, offsets. */
void program_print(const Program *p, void *file);

int instance_new(Instance **out, const Program *p, Diag *d);
void instance_free(Instance *i);
/* Makes n lanes, or as many halves of n as there is memory for; returns how many. Once. */
int instance_lanes(Instance *i, int n);
/* Input k reads `data`: row-major elements of its declared dtype, borrowed until the next
 * bind. Bind again after changing them: a device may have a copy. */
void instance_bind(Instance *i, int input, const void *data);
void instance_run(Instance *i, int stage);
void instance_run_all(Instance *i); /* stages in order */
/* Just the steps up to the one that makes output k, of all stages: of other outputs only those made
 * before it are new, and no state is carried. A device with memory of its own runs all. */
void instance_run_until(Instance *i, int output);
/* From now on every run of `stage` ends with output out[k] becoming what input in[k] < n reads:
 * state that lives on the device, uploaded by the first bind only. Each has the bytes of the other
 * and is computed (no view of an input); the lists are borrowed. A later bind replaces the value.
 */
void instance_carry(Instance *i, int stage, int n, const int *out, const int *in);
/* Sends what has been bound since the last run to a device with memory of its own, while that still
 * works on what was run before. */
void instance_send(Instance *i);
/* On such a device: keeps a copy there of inputs in[k] < n, of state that is carried; the same
 * list, borrowed, every time. restore brings all back, read_saved copies the k-th to dst. */
void instance_save(Instance *i, int n, const int *in);
void instance_restore(Instance *i);
void instance_read_saved(const Instance *i, int k, void *dst);
/* Likewise on such a device, called by every rank: output out[k], float, becomes that of all ranks
 * together, for the stages that read it. */
void instance_over_ranks(Instance *i, int n, const int *out, const RankOp *op);
/* Runs `stage` n times, the last element of int64 input `counter` one higher each time, and copies
 * the float outputs out[0 … nout) of run k, one after another, to row k of `rows`. The caller's
 * data stay as they are. A device with its own memory does all n without waiting in between. */
void instance_repeat(Instance *i, int stage, int counter, int n, int nout, const int *out,
                     float *rows);
/* The same with statistics that stay on a device with memory of its own. A round of n <= most rows:
 * over each shard instance_collect, from the first row on, from where it found Inf or NaN again
 * until it returns n; instance_gather, which adds the shard's rows; at last instance_observe.
 * keeps: whether this instance can, decided once; all outputs together are the columns, factor
 * has one each and is copied, and the statistics start from nothing. */
bool instance_keeps(Instance *i, int stage, int counter, int most, int nout, const int *out,
                    const double *factor);
/* Runs rows first … n - 1, one download of 8 bytes; returns the first row with an Inf or NaN, or n.
 */
int instance_collect(Instance *i, int stage, int first, int n);
void instance_gather(Instance *i, int stage, int n);
/* The sums, of all ranks together, times factor, are observations before + 1 … before + n; moments
 * [4, columns]: their mean, sum of squared deviations, sums of the 1st, 3rd … and of the 2nd, 4th …
 */
void instance_observe(Instance *i, int stage, int n, int64_t before, double *moments);
/* Copies output k, row-major in its declared dtype, to dst. */
void instance_read(const Instance *i, int output, void *dst);

/* ---- graphs whose shapes depend on data (inference.c) ----------------------------------- */

/* A Program needs fixed shapes. An Inference runs any graph that has kernels (NonZero,
 * NonMaxSuppression, shapes that are computed, symbolic inputs): what has fixed shapes is planned
 * and run, its results tell the next shapes, and so on. Plans are kept for runs of the same shapes.
 * For inference; one thread at a time. */
typedef struct Inference Inference;

typedef struct InferenceOptions {
    const char *device; /* as in ProgramOptions; NULL: "cpu" */
    /* Asked before the memory of a plan is allocated; < 0 ends the run. NULL: any. */
    int (*allow)(const void *ctx, size_t bytes, Diag *d);
    const void *ctx;
} InferenceOptions;

/* The graph must outlive the inference. */
int inference_new(Inference **out, const Graph *g, const InferenceOptions *o, Diag *d);
void inference_free(Inference *r);
/* Runs on data[k], row-major elements of type types[k], one per graph input. Errors: an input that
 * does not fit, an op without a kernel, named; what inference finds wrong. */
int inference_run(Inference *r, const Type *types, const void *const *data, Diag *d);
/* Output o of the latest run, row-major, of type *type; valid until the next one. */
const void *inference_output(const Inference *r, int o, Type *type);

/* ---- shards (shards.c) -------------------------------------------------------------- */

/* Runs `n` shards on up to `threads` threads. work(ctx, shard, instance) runs concurrently,
 * each call with exclusive use of its instance; reduce(ctx, shard, instance) runs after the
 * shard's work, one at a time, in shard order, before the instance is reused. Either may be
 * NULL. Returns 0, or the first negative status of a callback.
 *
 * What reduce reads are the instance's outputs; or, with result_bytes > 0, only the
 * instance_result that work has filled (what several runs over one shard yield). Under MPI
 * (ranks.h) that is what travels: shards are spread over the ranks, and every rank reduces all of
 * them in order. */
typedef struct ShardJob {
    const Program *program;
    int64_t n;
    int (*work)(void *ctx, int64_t shard, Instance *inst);
    int (*reduce)(void *ctx, int64_t shard, Instance *inst);
    void *ctx;
    size_t result_bytes;
} ShardJob;

/* The instance's memory of result_bytes, 64-byte aligned; during pool_run only. */
void *instance_result(const Instance *i);

typedef struct Pool Pool; /* instances kept between runs, one per thread */
int pool_new(Pool **out, const Program *p, int threads, Diag *d);
void pool_free(Pool *pool);
size_t pool_bytes(const Pool *pool);
Instance *pool_instance(Pool *pool); /* the first */
int pool_run(Pool *pool, const ShardJob *job);
/* instance_lanes of every instance: the least. */
int pool_lanes(Pool *pool, int n);

int runtime_cpu_count(void);
/* "cpu: AVX-512 VNNI, oneDNN 2.6.3" for reports; static string. */
const char *runtime_cpu_features(void);
bool runtime_cpu_has_vnni(void);
bool runtime_cpu_has_bf16(void); /* products of BF16 with sums in F32 */

/* ---- random numbers (rng.c): Philox4x32-10, counter-based, the same everywhere -------- */
typedef struct Rng {
    uint64_t key, counter;
    uint32_t block[4]; /* that word counter - 1 is of */
} Rng;
Rng rng_new(uint64_t seed, uint64_t stream);
uint32_t rng_u32(Rng *r);
uint32_t rng_below(Rng *r, uint32_t n); /* uniform in [0, n) */
float rng_uniform(Rng *r);              /* [0, 1) */
float rng_normal(Rng *r);

/* IEEE half and bfloat16 <-> float, round to nearest even. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

#endif
