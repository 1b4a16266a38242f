#!/bin/sh
# t_over_ranks in two and three processes, by what stands for NCCL and through the hosts. Usage:
# over_ranks.sh TEST
test=$1
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
ldd "$1" | grep -q libmpi || { echo "skipped: built without MPI"; exit 77; }
export ASAN_OPTIONS=detect_leaks=0 # MPI keeps what it allocates
run() { # ranks, with NCCL
    EHAP_EMULATED_NCCL=$2 mpirun --allow-run-as-root --oversubscribe --bind-to none \
        -n "$1" "$test" || exit 1
}
run 2 1
run 3 1
run 2 0
