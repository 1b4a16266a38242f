/* Sums over ranks by NCCL, where CMake has found its header, the library can be loaded and every
 * rank has a device of its own; else through the hosts. Decided once, by all ranks alike. With
 * in_order parts are gathered and added in order of rank, which NCCL's own sums are not. */
#include "runtime/cuda/real.h"

#ifdef EHAP_NCCL

#include <dlfcn.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FUNCTIONS(X)                                                                               \
    X(GetUniqueId)                                                                                 \
    X(CommInitRank)                                                                                \
    X(AllReduce)                                                                                   \
    X(AllGather)                                                                                   \
    X(GetErrorString)

#define MEMBER(name) __typeof__(nccl##name) *name;
static struct {
    ncclComm_t comm; /* NULL: the hosts do it */
    char *gathered;  /* PART bytes of every rank */
    FUNCTIONS(MEMBER)
} nccl;

enum { PART = 4 << 20 };

static const char *nccl_text(ncclResult_t s) { return s ? nccl.GetErrorString(s) : NULL; }
static bool nccl_full(ncclResult_t s) { return (void)s, false; }

static bool load(void)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL), *symbol;
    if (!library) return false;
#define FIND(name)                                                                                 \
    if (!(symbol = dlsym(library, "nccl" #name))) return false;                                    \
    memcpy(&nccl.name, &symbol, sizeof symbol);
    FUNCTIONS(FIND)
#undef FIND
    return true;
}

/* What ranks tell each other: where their device is. Empty: NCCL cannot be used there. */
typedef struct Card {
    char host[64], bus[64];
} Card;

static bool devices_differ(const Card *mine)
{
    Arena *a = arena_new();
    Card *all = NEW_ARRAY(a, Card, ranks_count());
    bool differ = true;
    ranks_exchange(mine, sizeof *mine, all);
    for (int r = 0; r < ranks_count(); r++) {
        differ = differ && *all[r].bus;
        for (int q = 0; q < r; q++) differ = differ && memcmp(&all[q], &all[r], sizeof all[r]) != 0;
    }
    arena_free(a);
    return differ;
}

/* The communicator, or NULL on every rank. */
static void join(void)
{
    Card card = {.bus = ""};
    int device = 0;
    ncclUniqueId id = {.internal = ""};
    _Static_assert(sizeof id % 64 == 0, "goes by ranks_exchange");
    if (load()) {
        CHECK(cuda, cudaGetDevice(&device));
        CHECK(cuda, cudaDeviceGetPCIBusId(card.bus, sizeof card.bus, device));
        (void)gethostname(card.host, sizeof card.host - 1);
    }
    if (!devices_differ(&card)) return;
    Arena *a = arena_new();
    ncclUniqueId *all = NEW_ARRAY(a, ncclUniqueId, ranks_count());
    const bool first = ranks_index() == 0;
    bool ready = !first || nccl.GetUniqueId(&id) == ncclSuccess;
    ranks_exchange(&id, sizeof id, all);
    if (ranks_all(ready)) {
        ready = nccl.CommInitRank(&nccl.comm, ranks_count(), all[0], ranks_index()) == ncclSuccess;
        nccl.gathered = gpu_alloc(PART * (size_t)ranks_count());
        if (!ranks_all(ready && nccl.gathered)) nccl.comm = NULL;
    }
    arena_free(a);
}

static void gather_and_combine(void *x, DType t, int64_t n, RankOp op, ncclDataType_t type)
{
    const int64_t step = PART / (int64_t)dtype_size(t);
    for (int64_t at = 0; at < n; at += step) {
        char *part = (char *)x + (size_t)at * dtype_size(t);
        const int64_t m = n - at < step ? n - at : step;
        CHECK(nccl, nccl.AllGather(part, nccl.gathered, (size_t)m, type, nccl.comm, gpu.stream));
        gpu_combine(part, nccl.gathered, t, m, op);
    }
}

void gpu_over_ranks(void *x, DType t, int64_t n, RankOp op, bool in_order)
{
    static const ncclRedOp_t ops[] = {ncclSum, ncclMin, ncclMax};
    static bool joined;
    const ncclDataType_t type = t == DT_F64 ? ncclFloat64 : ncclFloat32;
    if (!joined) join();
    joined = true;
    if (!nccl.comm)
        gpu_over_ranks_by_host(x, t, n, op);
    else if (in_order && op == RANKS_SUM)
        gather_and_combine(x, t, n, op, type);
    else
        CHECK(nccl, nccl.AllReduce(x, x, (size_t)n, type, ops[op], nccl.comm, gpu.stream));
}

#else

void gpu_over_ranks(void *x, DType t, int64_t n, RankOp op, bool in_order)
{
    (void)in_order; /* it is */
    gpu_over_ranks_by_host(x, t, n, op);
}

#endif
