"""Random networks as ONNX Runtime and as ehapc compute them: `ehapc run` equals it; channels
removed equal channels zeroed, at two sizes where they are open; INT8 is close to float; what the
main job writes has the same inputs and outputs and runs.
Usage: random_nets.py WRITER EHAPC [COUNT [SEED]]"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

CALIBRATION, BATCH, VOCABULARY = 32, 4, 20
OPEN = {"H": (6, 9), "W": (6, 5), "T": (4, 7)}  # open sizes to run at
CARRIED = {"If", "Loop", "Gelu", "FastGelu", "QuickGelu"}  # that ehapc does not run
ROUNDING = {"QuantizeLinear", "Cast"}  # a last bit may tip over to the next step


def outputs(path, x):
    onnx.checker.check_model(path, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, x)))


def inputs(path, count, rng, size=0):
    x = onnx.load(path).graph.input[0]
    t = x.type.tensor_type
    shape = [d.dim_value or OPEN.get(d.dim_param, (count, count))[size] for d in t.shape.dim]
    if t.elem_type == onnx.TensorProto.INT64:
        return {x.name: rng.integers(0, VOCABULARY, shape)}
    return {x.name: rng.standard_normal(shape).astype(np.float32)}


def is_real(y):
    return y.dtype.kind == "f"


def worst(got, want):
    assert got.keys() == want.keys()
    off = [0.0]
    for name, y in want.items():
        assert got[name].shape == y.shape, (name, got[name].shape, y.shape)
        assert got[name].dtype == y.dtype, (name, got[name].dtype, y.dtype)
        if is_real(y):
            off.append(float(np.abs(got[name] - y).max() / max(np.abs(y).max(), 1e-6)))
        else:  # positions and signs may flip at ties
            assert (got[name] != y).mean() < 0.02, name
    return max(off)


def ehapc(*words):
    done = subprocess.run([EHAPC, *words], capture_output=True, text=True)
    assert done.returncode in (0, 3), f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.returncode


def compressed(stem, data, x):
    """The main job: the same inputs and outputs, and finite results."""
    out = f"{stem}.job.onnx"
    if ehapc(f"{stem}.onnx", "-o", out, "--data", data, "--flops", "0.7", "--steps", "2", "--align",
             "1", "--batch", "8", "--threads", "1") == 3:
        return
    before, after = (onnx.load(p).graph for p in (f"{stem}.onnx", out))
    assert list(before.input) == list(after.input) and list(before.output) == list(
        after.output), "interface"
    want, got = outputs(f"{stem}.onnx", x), outputs(out, x)
    for name, y in want.items():
        assert got[name].shape == y.shape and got[name].dtype == y.dtype, f"{name} of the job"
        assert np.isfinite(
            got[name]).all() or not np.isfinite(y).all(), f"{name} of the job is not finite"


def quantized(stem, x, rng):
    """The error of INT8 as a fraction of the outputs' root mean square; None: nothing to
    quantize."""
    data, out = f"{stem}.data.npz", f"{stem}.int8.onnx"
    samples = [inputs(f"{stem}.onnx", 1, rng)["x"] for _ in range(CALIBRATION)]
    if samples[0].dtype == np.int64:  # every row of the table
        samples = [
            np.full_like(s, k % VOCABULARY) if k < VOCABULARY else s for k, s in enumerate(samples)
        ]
    np.savez(data, x=np.concatenate(samples))
    compressed(stem, data, x)
    if ehapc("quantize", f"{stem}.onnx", "-o", out, "--data", data, "--steps", "0", "--threads",
             "1") == 3:
        return None
    want, got = outputs(f"{stem}.onnx", x), outputs(out, x)
    want = {k: y.astype(np.float32) for k, y in want.items() if is_real(y)}
    error = sum(float(((got[k] - want[k]) ** 2).sum()) for k in want)
    return (error / max(sum(float((y ** 2).sum()) for y in want.values()), 1e-12)) ** 0.5


def judge(stem, rng):
    ops = {n.op_type for n in onnx.load(f"{stem}.onnx").graph.node}
    limit = 0.1 if ops & ROUNDING else 1e-4
    for size in (0, 1):
        x = inputs(f"{stem}.onnx", BATCH, rng, size)
        np.savez(f"{stem}.x.npz", **x)
        want = outputs(f"{stem}.onnx", x)
        if not ops & CARRIED:
            ehapc("run", f"{stem}.onnx", "--data", f"{stem}.x.npz", "-o", f"{stem}.y.npz",
                  "--threads", "1")
            off = worst(dict(np.load(f"{stem}.y.npz")), want)
            assert off < limit, f"{stem}: run differs by {off}"
        if os.path.exists(f"{stem}.removed.onnx"):
            off = worst(outputs(f"{stem}.removed.onnx", x), outputs(f"{stem}.zeroed.onnx", x))
            assert off < limit, f"{stem}: removed and zeroed differ by {off}"
    return quantized(stem, inputs(f"{stem}.onnx", CALIBRATION, rng), rng)


WRITER, EHAPC = sys.argv[1:3]
COUNT, SEED = (sys.argv[3:] + ["60", "1"][len(sys.argv) - 3:])[:2]
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([WRITER, folder, COUNT, SEED], check=True)
    pairs = sum(name.endswith(".removed.onnx") for name in os.listdir(folder))
    errors, failed = [], 0
    for k in range(int(COUNT)):
        try:
            error = judge(f"{folder}/{k}", np.random.default_rng(k))
        except Exception as why:
            failed += 1
            print(f"seed {int(SEED) + k}: {why}")
            continue
        if error is not None:
            errors.append(error)
            if error > 0.3:
                failed += 1
                print(f"seed {int(SEED) + k}: INT8 is off by {error:.3f}")
    errors.sort()
    print(
        f"{COUNT} networks, {pairs} pairs, {len(errors)} quantized: error {np.median(errors):.4f} "
        f"in the middle, {errors[-1]:.4f} at most; {failed} wrong")
    sys.exit(failed != 0 or pairs < int(COUNT) // 4 or len(errors) < int(COUNT) // 2)
