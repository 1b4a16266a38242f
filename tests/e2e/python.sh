#!/bin/bash
# Runs a script with a python that has ONNX Runtime. Usage: python.sh VENV_DIR SCRIPT ARGS...
set -euo pipefail
python=$("$(dirname "$0")/venv.sh" "$1") || exit $?
exec "$python" -B "${@:2}"
