#!/bin/sh
# Runs a test on device cuda; 77 where there is none. Usage: on.sh RUN_OPS COMMAND…
run_ops=$1
shift
"$run_ops" --device cuda "Relu x=f32[2]" >/dev/null 2>&1
[ $? -ne 77 ] || { echo "skipped: no CUDA device"; exit 77; }
export EHAP_TEST_DEVICE=cuda
exec "$@"
