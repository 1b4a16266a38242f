"""Networks with channels removed and with the same channels zeroed, as ONNX Runtime computes them.
Usage: structures.py WRITER (the program structures)"""
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort


def check(path):
    model = onnx.load(path)
    # The checker knows GroupNormalization with a scale per group (opset 18) as deprecated.
    old = model.opset_import[0].version < 21 and any(n.op_type == "GroupNormalization"
                                                     for n in model.graph.node)
    if not old:
        onnx.checker.check_model(model, full_check=True)


def session(path):
    check(path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(s, rng):
    sizes = {"N": 2}
    out = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) else sizes.get(d, 6) for d in i.shape]
        whole = i.type == "tensor(int64)"
        out[i.name] = rng.integers(0, 9, shape) if whole else rng.standard_normal(shape).astype(
            np.float32)
    return out


def off(got, want):
    """The largest difference of an output, relative to its largest element."""
    assert [y.shape for y in got] == [y.shape for y in want]
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(got, want))


def judge(stem):
    """How far the smaller network is from the zeroed one, and that from the same with other
    inputs."""
    small, large = (session(f"{stem}.{what}.onnx") for what in ("removed", "zeroed"))
    x, other = (feeds(large, np.random.default_rng(seed)) for seed in (0, 1))
    want = large.run(None, x)
    return off(small.run(None, x), want), off(large.run(None, other), want)


with tempfile.TemporaryDirectory() as folder:
    listed = subprocess.run([sys.argv[1], folder], check=True, capture_output=True,
                            text=True).stdout
    wrong = 0
    for line in listed.splitlines():
        k, form, name = line.split(" ", 2)
        worst, control = judge(f"{folder}/{k}.{form}")
        right = worst < 1e-5 and control > 1e-3
        wrong += not right
        print(f"{name}, {form}: {worst:.2g}" +
              ("" if right else f" (control {control:.2g}): WRONG"))
    print(f"{len(listed.splitlines())} pairs, {wrong} wrong")
    sys.exit(wrong != 0)
