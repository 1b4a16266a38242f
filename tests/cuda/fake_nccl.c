/* A libnccl.so.2 that writes down what it is asked; see t_nccl.c. */
#include <nccl.h>
#include <string.h>

#include "tests/cuda/stubs.h"

static ncclResult_t status(void) { return fails() ? ncclSystemError : ncclSuccess; }

const char *ncclGetErrorString(ncclResult_t s) { return (void)s, "system"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 7, sizeof *id);
    return status();
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n, ncclUniqueId id, int rank)
{
    *comm = (ncclComm_t)(intptr_t)5;
    note("join %d of %d by %d\n", rank, n, id.internal[0]);
    return status();
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t s)
{
    note("reduce %zu type %d op %d%s on %d\n", n, (int)type, (int)op,
         from == to && comm ? " in place" : "", (int)(intptr_t)s);
    return status();
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t s)
{
    (void)from, (void)to, (void)comm;
    note("gather %zu type %d on %d\n", n, (int)type, (int)(intptr_t)s);
    return status();
}
