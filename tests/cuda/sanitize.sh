#!/bin/sh
# Operators on device cuda under compute-sanitizer: no bad access, no race, no
# barrier that some threads miss. 77 without a device or the tool. Usage: sanitize.sh RUN_OPS CASE…
run_ops=$1
shift
"$run_ops" --device cuda "Relu x=f32[2]" >/dev/null 2>&1
[ $? -ne 77 ] || { echo "skipped: no CUDA device"; exit 77; }
command -v compute-sanitizer >/dev/null || { echo "skipped: no compute-sanitizer"; exit 77; }
for tool in memcheck racecheck synccheck; do
  compute-sanitizer --tool $tool --error-exitcode 1 "$run_ops" --device cuda "$@" || exit 1
done
