/* Shards over threads.
 *
 * Threads take shards in order as they become free; the reductions follow shard order through
 * OpenMP's `ordered`, so that sums do not depend on how many threads there are. A callback that
 * traps ends the run like one that returns an error, and the trap is passed on by the
 * calling thread: longjmp must not leave a parallel region. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

struct Pool {
    const Program *program;
    int n;
    Instance **instances; /* one per thread */
};

int pool_new(Pool **out, const Program *p, int threads, Diag *d)
{
    Pool *pool = calloc(1, sizeof *pool);
    *out = NULL;
    if (threads <= 0) threads = runtime_cpu_count();
    if (pool) pool->instances = calloc((size_t)threads, sizeof(Instance *));
    if (!pool || !pool->instances) {
        pool_free(pool);
        return diag_error(d, "out of memory");
    }
    pool->program = p;
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
    if (!pool) return;
    for (int k = 0; k < pool->n; k++) instance_free(pool->instances[k]);
    free(pool->instances);
    free(pool);
}

size_t pool_bytes(const Pool *pool) { return (size_t)pool->n * program_peak_bytes(pool->program); }

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

int pool_run(Pool *pool, const ShardJob *job)
{
    int first = 0; /* the first negative status, in shard order */
    Trap trapped = {.kind = TRAP_NONE};
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
                trapped.kind = t.kind;
                memcpy(trapped.message, t.message, sizeof t.message);
#pragma omp atomic write
                first = status;
            }
        }
    }
    if (trapped.kind != TRAP_NONE) trap(trapped.kind, "%s", trapped.message);
    return first;
}
