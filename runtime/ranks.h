/* Ranks: the processes of one MPI run (`mpirun -n K ehapc …`).
 *
 * Every rank runs the whole program on the same input and takes its part of the shards; what
 * shards yield is exchanged, so that every rank adds the same numbers in the same order and holds
 * the same bytes as one process would. Rank 0 speaks and writes. Without MPI (not built in, or not
 * started by mpirun) there is one rank and nothing here costs anything. */
#ifndef EHAP_RUNTIME_RANKS_H
#define EHAP_RUNTIME_RANKS_H

#include <stdbool.h>
#include <stddef.h>

/* Joins the run if mpirun started this process. Call once, before anything else. */
void ranks_start(void);
/* Leaves it. With a status other than 0 the other ranks are given a few seconds to come to
 * the same end, then the run is aborted: a rank that waits for this one would wait forever. */
void ranks_finish(int status);

int ranks_count(void); /* 1 without MPI */
int ranks_index(void); /* 0 … ranks_count() - 1 */

/* How numbers of the ranks become one. */
typedef enum RankOp { RANKS_SUM, RANKS_LEAST, RANKS_MOST } RankOp;

/* Whether this rank's messages are to be shown: rank 0's are, and those about shards, which
 * only the rank that ran them has. Between begin and end a rank works on shards. */
bool ranks_speaks(void);
void ranks_work_begin(void);
void ranks_work_end(void);

/* Every rank gives n bytes, a multiple of 64, and receives those of all, in order of rank, in
 * all[count * n]. */
void ranks_exchange(const void *mine, size_t n, void *all);
/* Rank 0's x on every rank: for what depends on a clock. */
double ranks_agree(double x);
/* Whether every rank says yes. */
bool ranks_all(bool yes);

#endif
