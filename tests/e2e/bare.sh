#!/bin/bash
# The bare command, without any data: the output must answer as the original does on real images.
# Usage: bare.sh EHAPC SOURCE_DIR VENV_DIR
set -euo pipefail
here=$2/tests/e2e images=/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz
[ -e "$images" ] || { echo "skipped: no $images"; exit 77; }
python=$("$here/venv.sh" "$3") || exit $?
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
model=$2/examples/fashion_resnet.onnx
"$1" "$model" -o "$work/o.onnx"
"$python" "$here/judge.py" agree "$model" "$work/o.onnx" "$images" | tee "$work/agree.json"
"$python" -c 'import json, sys
sys.exit(json.load(open(sys.argv[1]))["agreement"] < 0.96)' "$work/agree.json"
