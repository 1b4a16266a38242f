#!/bin/bash
# The program on device cuda: Hessian scores agree with the CPU's, in float to 1e-3 of the largest
# and in half to 3e-2; a whole job writes a model, the same bytes twice under --deterministic;
# nothing compares its accuracy with that of the CPU's job. Usage: e2e.sh EHAPC ROOT
set -u
ehapc=$(realpath "$1") root=$(realpath "$2")
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir" || exit 1
fail() { echo "FAIL: $*"; cat err; exit 1; }
cp "$root/examples/fashion_resnet.onnx" in.onnx
head -c $((785 * 32)) in.onnx > some.bin # any bytes are images
export EHAP_CACHE=${EHAP_CACHE:-$dir}

score() { # device, precision, output
  "$ehapc" sensitivity in.onnx --data some.bin --device "$1" --precision "$2" --criterion ehap \
    --probes 2 --batch 4 --deterministic -o "$3" 2> err || fail "scores on $1 in $2"
}
agree() { # what, a, b, tolerance
  python3 - "$@" << 'PY' || fail "$1"
import json, sys
a, b = (json.load(open(f))["layers"] for f in sys.argv[2:4])
score = lambda s: [x for l in s for x in l["score"]]
x, y = score(a), score(b)
off = max(abs(p - q) for p, q in zip(x, y)) / max(map(abs, x))
print(f"{sys.argv[1]}: {off:.2g} of the largest")
sys.exit(len(x) != len(y) or not off <= float(sys.argv[4]))
PY
}
score cpu fp32 cpu.json
score cuda fp32 cuda.json
score cuda fp32 again.json
score cuda fp16 half.json
agree "scores in float" cpu.json cuda.json 1e-3
agree "scores in half" cpu.json half.json 3e-2
agree "scores twice" cuda.json again.json 0

job() { # device, output
  "$ehapc" in.onnx -o "$2" --data some.bin --criterion l2 --flops 0.6 --steps 2 --batch 8 \
    --device "$1" --deterministic > /dev/null 2> err || fail "the job on $1"
}
job cuda a.onnx
job cuda b.onnx
cmp a.onnx b.onnx || fail "other bytes in a second run"
[ "$(wc -c < a.onnx)" -gt 10000 ] && echo "two runs, the same bytes"
"$ehapc" in.onnx -o d.onnx --data some.bin --criterion l2 --steps 1 --batch 8 --device cuda --tf32 \
  > /dev/null 2> err || fail "the job with --tf32"
