/* Ranks over MPI; see ranks.h. A rank that dies takes the run with it: mpirun ends the others, and
 * where a call still comes back with an error, the run is aborted here. */
#include "runtime/ranks.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int count = 1, rank;
static atomic_int working;

int ranks_count(void) { return count; }

int ranks_index(void) { return rank; }

bool ranks_speaks(void) { return rank == 0 || working > 0; }

void ranks_work_begin(void) { working++; }

void ranks_work_end(void) { working--; }

#ifdef EHAP_MPI

#include <mpi.h>
#include <unistd.h>

enum { UNIT = 64, PATIENCE_MS = 5000 };

static MPI_Comm ending; /* for the last barrier, which must not meet an exchange */
static MPI_Datatype unit;

static void check(int status)
{
    if (status == MPI_SUCCESS) return;
    fprintf(stderr, "error: a process of this MPI run was lost; start again, with --resume if the "
                    "run had it\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* What mpirun (Open MPI, MPICH and kin, Slurm) tells its children. */
static bool started_by_mpi(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

void ranks_start(void)
{
    int given;
    if (!started_by_mpi()) return;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS) return;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    check(MPI_Comm_dup(MPI_COMM_WORLD, &ending));
    check(MPI_Type_contiguous(UNIT, MPI_BYTE, &unit));
    check(MPI_Type_commit(&unit));
}

void ranks_finish(int status)
{
    int started, together = 0;
    MPI_Request all;
    MPI_Initialized(&started);
    if (!started) return;
    check(MPI_Ibarrier(ending, &all));
    for (int ms = 0; !together && (status == 0 || ms < PATIENCE_MS); ms += 2) {
        check(MPI_Test(&all, &together, MPI_STATUS_IGNORE));
        if (!together) usleep(2000);
    }
    if (!together) MPI_Abort(MPI_COMM_WORLD, status);
    MPI_Finalize();
}

/* MPI counts in int: bytes go in units. */
void ranks_exchange(const void *mine, size_t n, void *all)
{
    const int units = (int)(n / UNIT);
    if (count == 1)
        memcpy(all, mine, n);
    else
        check(MPI_Allgather(mine, units, unit, all, units, unit, MPI_COMM_WORLD));
}

double ranks_agree(double x)
{
    if (count > 1) check(MPI_Bcast(&x, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD));
    return x;
}

#else

void ranks_start(void) {}

void ranks_finish(int status) { (void)status; }

void ranks_exchange(const void *mine, size_t n, void *all) { memcpy(all, mine, n); }

double ranks_agree(double x) { return x; }

#endif

bool ranks_all(bool yes)
{
    char mine[64] = {(char)yes};
    if (count == 1) return yes;
    char *all = malloc((size_t)count * sizeof mine);
    if (!all) {
        fprintf(stderr, "error: out of memory\n");
        abort();
    }
    ranks_exchange(mine, sizeof mine, all);
    for (int r = 0; r < count; r++) yes = yes && all[(size_t)r * sizeof mine];
    free(all);
    return yes;
}
