#!/bin/bash
# Several processes under MPI write the same bytes as one, and a lost one ends the run without a
# file. Usage: ranks.sh EHAPC ROOT
set -u
ehapc=$1 root=$2
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
ldd "$ehapc" | grep -q libmpi || { echo "skipped: built without MPI"; exit 77; }
fashion=/usr/share/datasets/fashion-mnist
[ -d "$fashion" ] || { echo "skipped: dataset-fashion-mnist is not installed"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAIL: $*"; exit 1; }
show() { cat "$dir/log"; fail "$@"; }
export OMP_WAIT_POLICY=passive
run() { # ranks, output, more
    local ranks=$1 out=$2
    shift 2
    mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$ranks" "$ehapc" \
        "$root/examples/fashion_resnet.onnx" -o "$out" --threads 1 \
        --data $fashion/t10k-images-idx3-ubyte.gz --preprocess scale=1/255,mean=0.2860,std=0.3530 \
        --flops 0.6 --steps 6 "$@" >"$dir/log" 2>&1
}
scores() {
    mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$1" "$ehapc" sensitivity \
        "$root/examples/fashion_resnet.onnx" -o "$2" --threads 1 --criterion ehap \
        --probes 16 --batch 96 \
        --data $fashion/t10k-images-idx3-ubyte.gz --preprocess scale=1/255,mean=0.2860,std=0.3530 \
        >"$dir/log" 2>&1 || return 1
    sed -E 's/"(seconds|peak_bytes)":[^,]*,//g' "$2" >"$2.x"
}

for ranks in 1 2 3; do
    run $ranks "$dir/$ranks.onnx" || show "$ranks ranks: exit $?"
    cmp "$dir/1.onnx" "$dir/$ranks.onnx" || fail "$ranks ranks write other bytes than one"
    scores $ranks "$dir/$ranks.json" || show "scores of $ranks ranks"
    cmp "$dir/1.json.x" "$dir/$ranks.json.x" || fail "$ranks ranks score otherwise than one"
done

# An error in the input is said once.
run 2 "$dir/none.onnx" --data "$dir/missing.npz" && fail "a missing file is no error"
[ "$(grep -c '^error' "$dir/log")" = 1 ] || show "not one error"

# A rank that dies takes the run with it; what was finished can be resumed, to the same bytes.
run 1 "$dir/whole.onnx" --steps 30 || show "30 steps: exit $?"
# It dies where EHAPC_TEST_STOP makes ranks stand still: in front of a pass.
EHAPC_TEST_STOP=quantize run 2 "$dir/lost.onnx" --steps 30 --resume "$dir/state" &
started=$!
for _ in $(seq 2400); do
    rank=$(pgrep -r T -n -f "^$ehapc .*$dir/lost.onnx") && break
    kill -0 $started 2>/dev/null || show "the run ended before it was to stand still"
    sleep 0.05
done
kill -KILL "$rank"
wait $started && fail "a run that lost a rank ended well"
[ ! -e "$dir/lost.onnx" ] || fail "a run that lost a rank wrote its output"
grep -q -i "exited on signal\|error" "$dir/log" || show "nothing said of the lost rank"
run 2 "$dir/lost.onnx" --steps 30 --resume "$dir/state" || show "resumed: exit $?"
cmp "$dir/whole.onnx" "$dir/lost.onnx" || fail "a resumed run writes other bytes"
echo "ranks agree"
