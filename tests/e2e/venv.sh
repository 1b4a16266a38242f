#!/bin/bash
# Prints a python that has onnx and onnxruntime: the one in PATH, or one in a virtual environment
# made in folder $1. Exit 77 where there is none and none can be had.
python=python3
has() { "$1" -c 'import numpy, onnx, onnxruntime' 2>/dev/null; }
has "$python" && { echo "$python"; exit 0; }
python="$1/bin/python"
has "$python" && { echo "$python"; exit 0; }
if python3 -m venv "$1" >&2 && "$python" -m pip install -q numpy onnx onnxruntime >&2 &&
   has "$python"
then echo "$python"; exit 0; fi
echo "skipped: ONNX Runtime is not installed and cannot be fetched" >&2
exit 77
