#!/bin/bash
# The main job on the shipped example: ehapc, then ONNX Runtime's verdict on what it wrote.
# Usage: example.sh EHAPC SOURCE_DIR VENV_DIR
set -euo pipefail
ehapc=$1 source=$2
here=$source/tests/e2e fashion=/usr/share/datasets/fashion-mnist
[ -e "$fashion/t10k-images-idx3-ubyte.gz" ] || { echo "skipped: no $fashion"; exit 77; }
python=$("$here/venv.sh" "$3") || exit $?
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
model=$source/examples/fashion_resnet.onnx
pre=(--preprocess scale=1/255,mean=0.2860,std=0.3530)
data=(--data "$fashion/train-images-idx3-ubyte.gz" --eval "$fashion/t10k-images-idx3-ubyte.gz")
field() { "$python" -c 'import json,sys; v=json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v=v[k]
print(v)' "$1" "$2"; }
expect() { # what, python expression
  "$python" -c "import sys; sys.exit(0 if ($2) else 1)" || { echo "FAIL $1: $2"; exit 1; }
  echo "ok $1: $2"
}

"$ehapc" "$model" -o "$work/a.onnx" "${data[@]}" "${pre[@]}" --flops 0.5 --steps 60 \
  --json "$work/a.json" --threads 2 --verify
"$ehapc" "$model" -o "$work/b.onnx" "${data[@]}" "${pre[@]}" --flops 0.5 --steps 60 --threads 1
cmp "$work/a.onnx" "$work/b.onnx" && echo "ok same bytes for 1 and 2 threads"

flops=$(field "$work/a.json" output.flops) before=$(field "$work/a.json" input.flops)
expect "budget" "0.35 <= $flops / $before <= 0.5"
expect "input accuracy" "abs($(field "$work/a.json" accuracy.input) - 0.9274) < 0.0005"
ours=$(field "$work/a.json" accuracy.output)
"$python" "$here/judge.py" accuracy "$work/a.onnx" "$fashion/t10k-images-idx3-ubyte.gz" \
  "$fashion/t10k-labels-idx1-ubyte.gz" >"$work/ort.json"
expect "ONNX Runtime agrees" "abs($(field "$work/ort.json" accuracy) - $ours) < 0.003"
expect "accuracy" "$ours > 0.89"
"$python" "$here/judge.py" check "$work/a.onnx" >/dev/null && echo "ok onnx.checker"
"$python" "$here/judge.py" kernels "$work/a.onnx" >"$work/kernels.json"
kernels=$(cat "$work/kernels.json"); echo "$kernels"
expect "integer kernels" "'QLinearConv' in $kernels and not {'Conv', 'FusedConv'} & set($kernels)"
