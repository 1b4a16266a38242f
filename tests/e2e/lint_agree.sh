#!/bin/bash
# `ehapc lint` against ONNX Runtime and OpenVINO: lint_agree.py.
# Usage: lint_agree.sh EHAPC SOURCE_DIR VENV_DIR
set -euo pipefail
here=$2/tests/e2e
python=$("$here/venv.sh" "$3") || exit $?
"$python" -c 'import openvino' 2>/dev/null || "$python" -m pip install -q openvino >&2 ||
  echo "OpenVINO cannot be fetched: its half is skipped"
exec "$python" "$here/lint_agree.py" "$1"
