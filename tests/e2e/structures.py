"""Networks with channels removed and with the same channels zeroed, as ONNX Runtime computes them.
Usage: structures.py WRITER (the program structures)"""
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort


def session(path):
    onnx.checker.check_model(path, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(s, rng):
    sizes = {"N": 2}
    out = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) else sizes.get(d, 6) for d in i.shape]
        whole = i.type == "tensor(int64)"
        out[i.name] = rng.integers(0, 9, shape) if whole else rng.standard_normal(shape).astype(np.float32)
    return out


with tempfile.TemporaryDirectory() as folder:
    listed = subprocess.run([sys.argv[1], folder], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        k, name = line.split(" ", 1)
        small, large = (session(f"{folder}/{k}.{what}.onnx") for what in ("removed", "zeroed"))
        x = feeds(large, np.random.default_rng(0))
        worst = 0
        for got, want in zip(small.run(None, x), large.run(None, x)):
            assert got.shape == want.shape, (name, got.shape, want.shape)
            worst = max(worst, float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)))
        print(f"{name}: {worst:.2g}")
        assert worst < 1e-5, name
