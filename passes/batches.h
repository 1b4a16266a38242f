/* Samples as shards of a program's batch, and programs that run over them.
 *
 * A shard is a number of samples that does not depend on the machine: sums over
 * shards, added in shard order, are the same bytes for any number of threads. The last
 * shard is filled up with repeats; their targets are zero rows, so that they add nothing. */
#ifndef EHAP_PASSES_BATCHES_H
#define EHAP_PASSES_BATCHES_H

#include "passes/passes.h"

/* 32 are no faster, and take twice the memory. */
enum { SHARD_SAMPLES = 16 };

/* Samples of s per run of g: `wanted` (0: SHARD_SAMPLES), or the batch that the model fixes: 1
 * where an input has no batch, but differs. */
int64_t shard_size(const Graph *g, const Samples *s, int64_t wanted);
/* A clone of g in `a` with its batch bound to `shard` and other symbolic dimensions of inputs
 * to those of the samples. Error: the samples do not fit the inputs. */
int shard_specialize(Graph **out, const Graph *g, Arena *a, const Samples *s, int64_t shard,
                     Diag *d);
/* The same with the map of graph_clone: the values of *out by id in g. */
int shard_specialize_mapped(Graph **out, const Graph *g, Arena *a, const Samples *s, int64_t shard,
                            Value ***map, Diag *d);

/* A compiled graph and its instances. Released with the arena, or earlier by session_close. */
typedef struct Session {
    Arena *arena;
    const Graph *g;
    int64_t shard; /* samples */
    Program *program;
    Pool *pool;
    int threads;
    int lanes;                  /* of the program (runtime.h) */
    size_t held, each;          /* planned: by all, and by each thread */
    size_t bytes;               /* of both: what is announced */
    size_t result_bytes;        /* of ShardJob */
    _Atomic(Instance *) *owner; /* of each slot */
} Session;

/* What to run on shards, and what memory goes with it. */
typedef struct ShardGraph {
    Graph *g;
    const uint8_t *stage; /* of its inputs; NULL: 0 */
    int lane_stage;       /* of ProgramOptions */
    size_t result_bytes;  /* of ShardJob; 0: reduce reads outputs */
    size_t each, shared;  /* that the caller will allocate per thread, and once */
} ShardGraph;
/* Makes it, in `a`, for so many samples. */
typedef int ShardBuilder(ShardGraph *out, void *ctx, int64_t shard, Arena *a, Diag *d);

/* Samples at a time, of n: SHARD_SAMPLES, or, where there are fewer, the smallest power of two that
 * holds them, as a shard is filled up with repeats. */
int64_t shard_for(int64_t n);
/* The same for work that only adds over them. On a GPU, which few would leave idle, it is the
 * largest doubling of SHARD_SAMPLES up to PARALLEL_SAMPLES and a rank's part of n. */
enum { PARALLEL_SAMPLES = 512 };
int64_t shard_for_device(const Options *o, int64_t n);

/* The one place where memory is planned, and where --memory decides (o->memory; 0: 4 GiB for what
 * follows, and what the machine has free in the end). A shard is shard_size(model, samples, most),
 * or the largest half, quarter, … of it (down to one sample, unless the model fixes its batch) of
 * which MEMORY_THREADS instances fit: a number that depends on
 * --memory but not on the machine, the threads or what is held already, so neither do the bytes of
 * results.
 *
 * What the session will take is what is held once its program is compiled (with o->whole_process
 * the resident set: model, samples, libraries, generated code, packed weights), what the builder
 * says, and per thread an instance with the buffers of a feed and what decoding an image takes. As
 * many of o->threads (0: all cores) run as keep that within o->memory. Nothing is allocated before
 * the plan fits; error: not even one instance does. On a GPU it is its memory that is planned; of
 * what a shard leaves, lanes take what they can use. A remark says when shards or lanes became
 * fewer for what there is. */
enum { MEMORY_THREADS = 4 };
int session_open(Session **out, Arena *a, const Graph *model, const Samples *s, int64_t most,
                 ShardBuilder *make, void *ctx, const Options *o, Diag *d);
/* f(ctx, most); where the device runs out of memory while it works, again with half as many samples
 * at a time, with a remark. f leaves nothing behind a trap but what its own arenas hold. */
int session_retry(int (*f)(void *ctx, int64_t most), void *ctx, int64_t most, Diag *d);
/* Error if so many bytes, for what `samples` says, are above o->memory or, if that is 0, above what
 * the machine has. */
int memory_allows(const Options *o, size_t bytes, int64_t samples, Diag *d);
void session_close(Session *s); /* NULL is allowed; may be repeated */
typedef int ShardCallback(void *ctx, int64_t shard, Instance *inst);
int session_run(Session *s, int64_t shards, ShardCallback *work, ShardCallback *reduce, void *ctx);

Instance *session_instance(Session *s); /* the first */

/* A number below session->threads that belongs to the instance alone: for buffers per thread. */
int session_slot(Session *s, Instance *inst);

/* Binds samples index[0..n) (NULL: the first n), cut into shards, to the inputs of a program's
 * graph; `index` is borrowed and may change between runs. Inputs are matched by name, else by
 * position; those beyond the samples' are the caller's to bind. Every instance has a buffer
 * per graph input. */
typedef struct Feed Feed;
Feed *feed_new(Arena *a, Session *session, const Samples *s, int64_t n, const int64_t *index);
int64_t feed_shards(const Feed *f);
int64_t feed_rows(const Feed *f, int64_t shard); /* real samples in it, 1 … shard size */
/* The sample in a row; repeats beyond feed_rows. */
int64_t feed_sample(const Feed *f, int64_t shard, int64_t row);
/* Gathers and binds. Safe from several threads with their own instances. */
void feed_bind(Feed *f, int64_t shard, Instance *inst);
/* session_run over all of the feed's shards; the work is to bind and to run every stage. */
int feed_run(Feed *f, ShardCallback *reduce, void *ctx);
/* The instance's buffer of graph input k (its type's bytes), for changing what feed_bind
 * gathered or for inputs of the caller's own (then: fill, instance_bind). */
void *feed_buffer(Feed *f, Instance *inst, int k);
/* Fills and binds input k, floats whose samples lie along `axis`, with targets: rows of `soft` (by
 * sample, in feed order), or one-hot labels when NULL. Rows beyond feed_rows are zero. */
void feed_bind_targets(Feed *f, int64_t shard, Instance *inst, int k, int axis, const float *soft);

/* For each output of the session's graph the axis that runs over the samples of a shard: the one
 * that differs in the graph that `make` gives for one sample more; -1: none. Where it gives none,
 * as the model fixes its batch, the first. An array in `a`. */
int *output_axes(Arena *a, const Session *s, ShardBuilder *make, void *ctx);
/* Elements of the largest output of g. */
int64_t largest_output(const Graph *g);

/* What a value is for each of n samples. */
typedef struct Rows {
    float *x;    /* by sample */
    int64_t row; /* elements of each */
    int axis;    /* of the value in a batch, as output_axes has it */
} Rows;
/* Runs g over n samples and stores value `of` (a float value of g; NULL: graph_logits) in out,
 * allocated in `a`. Soft labels come from here. */
int forward_rows(Rows *out, Arena *a, const Graph *g, const Value *of, const Samples *s, int64_t n,
                 const int64_t *index, const Options *o, Diag *d);
/* Rows of logits to probabilities, in place. */
void softmax_rows(float *x, int64_t n, int64_t classes);

#endif
