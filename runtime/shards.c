/* Shards over threads.
 *
 * Threads take shards in order as they become free; the reductions follow shard order through
 * OpenMP's `ordered`, so that sums do not depend on how many threads there are. A callback that
 * traps ends the run like one that returns an error, and the trap is passed on by the
 * calling thread: longjmp must not leave a parallel region.
 *
 * Over several ranks (ranks.h) shards go in blocks of one per thread of every rank. The results
 * of a block are exchanged, and every rank reduces all of them: the same sums in the same order. */
#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/program.h"
#include "runtime/ranks.h"

typedef struct Exchange Exchange;

struct Pool {
    Arena *arena; /* holds the pool itself */
    const Program *program;
    int n;
    Instance **instances; /* one per thread */
    char *results;        /* of all instances, for jobs that want them … */
    size_t result_bytes;  /* … so many each at most */
    Exchange *exchange;   /* of the latest job over several ranks */
};

static void exchange_free(Exchange *e);

static void release_instances(void *p)
{
    Pool *pool = p;
    for (int k = 0; k < pool->n; k++) instance_free(pool->instances[k]);
    free(pool->results);
    exchange_free(pool->exchange);
}

int pool_new(Pool **out, const Program *p, int threads, Diag *d)
{
    Arena *a = arena_new();
    Pool *pool = NEW(a, Pool);
    *out = NULL;
    threads = program_threads(p, threads);
    *pool = (Pool){.arena = a, .program = p, .instances = NEW_ARRAY(a, Instance *, threads)};
    arena_defer(a, release_instances, pool);
    for (; pool->n < threads; pool->n++)
        if (instance_new(&pool->instances[pool->n], p, d) < 0) {
            pool_free(pool);
            return -1;
        }
    *out = pool;
    return 0;
}

void pool_free(Pool *pool)
{
    if (pool) arena_free(pool->arena);
}

size_t pool_bytes(const Pool *pool) { return (size_t)pool->n * program_peak_bytes(pool->program); }

int pool_lanes(Pool *pool, int n)
{
    for (int k = 0; k < pool->n; k++) n = instance_lanes(pool->instances[k], n);
    return n;
}

Instance *pool_instance(Pool *pool) { return pool->instances[0]; }

typedef int ShardCall(void *ctx, int64_t shard, Instance *inst);

/* Calls f, turning a trap into a status; the message stays in t. */
static int call_guarded(Trap *t, ShardCall *f, void *ctx, int64_t shard, Instance *inst)
{
    if (trap_enter(t) == 0) {
        const int status = f(ctx, shard, inst);
        trap_leave(t);
        return status;
    }
    return -1;
}

/* Gives every instance its result memory, which later jobs use again; 0 takes it away. */
static void set_results(Pool *pool, size_t bytes)
{
    size_t all;
    const size_t one = (bytes + 63) & ~(size_t)63;
    if (bytes > pool->result_bytes) {
        free(pool->results);
        pool->result_bytes = 0;
        pool->results =
            one >= bytes && mul_ok(one, (size_t)pool->n, &all) ? aligned_alloc(64, all) : NULL;
        if (!pool->results)
            trap(TRAP_NO_MEMORY, "out of memory for the results of %d shards", pool->n);
        pool->result_bytes = one;
    }
    for (int t = 0; t < pool->n; t++)
        instance_set_result(pool->instances[t], bytes ? pool->results + (size_t)t * one : NULL);
}

static int run_alone(Pool *pool, const ShardJob *job, Trap *trapped)
{
    int first = 0; /* the first negative status, in shard order */
#pragma omp parallel for ordered schedule(dynamic, 1) num_threads(pool->n)
    for (int64_t shard = 0; shard < job->n; shard++) {
        Instance *inst = pool->instances[omp_get_thread_num()];
        Trap t = {.kind = TRAP_NONE};
        int status = 0, stop;
#pragma omp atomic read
        stop = first;
        if (!stop && job->work) status = call_guarded(&t, job->work, job->ctx, shard, inst);
#pragma omp ordered
        if (!first) {
            if (status >= 0 && job->reduce)
                status = call_guarded(&t, job->reduce, job->ctx, shard, inst);
            if (status < 0) {
                trapped->kind = t.kind;
                memcpy(trapped->message, t.message, sizeof t.message);
#pragma omp atomic write
                first = status;
            }
        }
    }
    return first;
}

/* ---- several ranks ------------------------------------------------------------------ */

/* What a shard's rank tells the others; `payload` bytes follow: its result, or its outputs. */
typedef struct Parcel {
    int status;
    TrapKind trap;
    char message[sizeof((Trap *)0)->message];
} Parcel;

struct Exchange {
    int threads;        /* shards of one rank in a block */
    size_t head, bytes; /* of a parcel: before the payload, and in all */
    char *mine, *all;
    Arena *arena; /* of the two, and of itself */
};

static void exchange_free(Exchange *e)
{
    if (e) arena_free(e->arena);
}

/* What the job's results need; the latest job's, if they need the same. */
static const Exchange *exchange_of(Pool *pool, const ShardJob *job)
{
    Exchange e = {.head = (sizeof(Parcel) + 63) & ~(size_t)63};
    const size_t payload =
        job->result_bytes ? job->result_bytes : instance_packed_bytes(pool->instances[0]);
    size_t block = 0, all = 0;
    e.threads = (int)ranks_agree(pool->n);
    if (e.threads > pool->n)
        trap(TRAP_INTERNAL, "rank 0 has %d threads, rank %d has %d: give all the same --threads",
             e.threads, ranks_index(), pool->n);
    e.bytes = e.head + ((payload + 63) & ~(size_t)63);
    if (payload > SIZE_MAX / 4 || !mul_ok(e.bytes, (size_t)e.threads, &block) ||
        block / 64 > INT_MAX || !mul_ok(block, (size_t)ranks_count(), &all))
        trap(TRAP_NO_MEMORY, "out of memory to exchange the results of %d shards", e.threads);
    if (pool->exchange && pool->exchange->bytes == e.bytes && pool->exchange->threads == e.threads)
        return pool->exchange;
    exchange_free(pool->exchange);
    pool->exchange = NULL;
    e.arena = arena_new();
    Exchange *kept = NEW(e.arena, Exchange);
    e.mine = arena_alloc(e.arena, block);
    e.all = arena_alloc(e.arena, all);
    *kept = e;
    return pool->exchange = kept;
}

/* Runs one shard and packs what others need to know. */
static void run_shard(const Exchange *e, Pool *pool, const ShardJob *job, int thread, int64_t shard)
{
    Instance *inst = pool->instances[thread];
    char *parcel = e->mine + (size_t)thread * e->bytes;
    Parcel *head = (Parcel *)(void *)parcel;
    Trap t = {.kind = TRAP_NONE};
    memset(head, 0, sizeof *head);
    if (shard >= job->n) return;
    if (job->work) head->status = call_guarded(&t, job->work, job->ctx, shard, inst);
    head->trap = t.kind;
    memcpy(head->message, t.message, sizeof head->message);
    if (head->status < 0) return;
    if (job->result_bytes)
        memcpy(parcel + e->head, instance_result(inst), job->result_bytes);
    else
        instance_pack(inst, parcel + e->head);
}

/* The block's shards in order, as if this rank had run them all. */
static int reduce_block(const Exchange *e, Pool *pool, const ShardJob *job, int64_t first,
                        Trap *trapped)
{
    Instance *inst = pool->instances[0];
    void *own = instance_result(inst);
    int status = 0;
    for (int k = 0; k < ranks_count() * e->threads && first + k < job->n && status >= 0; k++) {
        char *parcel = e->all + (size_t)k * e->bytes;
        const Parcel *head = (const Parcel *)(const void *)parcel;
        status = head->status;
        trapped->kind = head->trap;
        memcpy(trapped->message, head->message, sizeof head->message);
        if (status < 0 || !job->reduce) continue;
        if (job->result_bytes)
            instance_set_result(inst, parcel + e->head);
        else
            instance_show(inst, parcel + e->head);
        status = call_guarded(trapped, job->reduce, job->ctx, first + k, inst);
    }
    instance_set_result(inst, own);
    instance_show(inst, NULL);
    return status < 0 ? status : 0;
}

static int run_over_ranks(Pool *pool, const ShardJob *job, Trap *trapped)
{
    const Exchange *e = exchange_of(pool, job);
    int status = 0;
    for (int64_t first = 0; first < job->n && !status; first += ranks_count() * e->threads) {
        ranks_work_begin();
#pragma omp parallel for schedule(static, 1) num_threads(e->threads)
        for (int t = 0; t < e->threads; t++)
            run_shard(e, pool, job, t, first + ranks_index() * e->threads + t);
        ranks_work_end();
        ranks_exchange(e->mine, e->bytes * (size_t)e->threads, e->all);
        status = reduce_block(e, pool, job, first, trapped);
    }
    return status;
}

int pool_run(Pool *pool, const ShardJob *job)
{
    Trap trapped = {.kind = TRAP_NONE};
    set_results(pool, job->result_bytes);
    const int status =
        ranks_count() > 1 ? run_over_ranks(pool, job, &trapped) : run_alone(pool, job, &trapped);
    set_results(pool, 0);
    if (trapped.kind != TRAP_NONE) trap(trapped.kind, "%s", trapped.message);
    return status;
}
