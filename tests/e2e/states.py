"""A speech detector with a state, as silero_vad has it: input [batch, samples], state [2, batch,
32] and a sampling rate that is a single number. The batch is not the first axis of the state, nor
of the new one; open, and fixed to 1. Each job, with data and without, ends with a file that ONNX
Runtime runs like the original.
Usage: states.py EHAPC"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

from checks import check, finish

rng = np.random.default_rng(0)


def detector(batch):
    nodes, consts = [], []

    def const(name, value):
        consts.append(nh.from_array(np.asarray(value), name))
        return name

    def weight(name, *dims):
        return const(name,
                     (rng.standard_normal(dims) / np.sqrt(np.prod(dims[1:]))).astype(np.float32))

    def add(op, inputs, outputs, **attributes):
        nodes.append(h.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    x = add("Unsqueeze", ["input", const("one", np.array([1]))], ["signal"])
    x = add("Relu", [add("Conv", [x, weight("w0", 24, 1, 16)], ["c0"], strides=[8])], ["r0"])
    x = add("Relu", [add("Conv", [x, weight("w1", 40, 24, 3)], ["c1"], strides=[2])], ["r1"])
    x = add("Transpose", [x], ["steps"], perm=[2, 0, 1])
    state = [
        add("Slice", [
            "state",
            const(f"from{k}", np.array([k])),
            const(f"to{k}", np.array([k + 1])),
            const(f"axis{k}", np.array([0]))
        ], [f"state{k}"]) for k in range(2)
    ]
    add("LSTM", [x, weight("W", 1, 128, 40),
                 weight("R", 1, 128, 32), "", "", *state], ["all", "hn", "cn"],
        hidden_size=32)
    add("Concat", ["hn", "cn"], ["new_state"], axis=0)
    last = add("Squeeze", ["hn", const("first", np.array([0]))], ["last"])
    y = add("Gemm", [last, weight("wo", 32, 1), const("bo", np.zeros(1, np.float32))], ["score"])
    rate = add("Equal", ["rate", const("usual", np.int64(16000))], ["is_usual"])
    y = add("Mul", [y, add("Cast", [rate], ["gain"], to=T.FLOAT)], ["scaled"])
    add("Sigmoid", [y], ["speech"])
    i = [
        h.make_tensor_value_info("input", T.FLOAT, [batch, 256]),
        h.make_tensor_value_info("state", T.FLOAT, [2, batch, 32]),
        h.make_tensor_value_info("rate", T.INT64, [])
    ]
    o = [
        h.make_tensor_value_info("speech", T.FLOAT, [batch, 1]),
        h.make_tensor_value_info("new_state", T.FLOAT, [2, batch, 32])
    ]
    return h.make_model(h.make_graph(nodes, "g", i, o, consts),
                        opset_imports=[h.make_opsetid("", 17)],
                        ir_version=8)


def feeds(n):
    x = rng.standard_normal((n, 256)).cumsum(-1)
    x = (x - x.mean(-1, keepdims=True)) / 8
    return {
        "input": x.astype(np.float32), "state": (rng.standard_normal(
            (2, n, 32)) / 3).astype(np.float32), "rate": np.int64(16000)
    }


def part(f, i):
    return {"input": f["input"][i:i + 1], "state": f["state"][:, i:i + 1], "rate": np.array(16000)}


def run(path, f):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, f)


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.returncode, done.stderr


JOBS = {"prune": (["prune", "--flops", "0.8"], 8), "quantize": (["quantize", "--steps", "0"], 15),
        "job": (["--flops", "0.8", "--steps", "20", "--batch", "32"], 8)}


def go(batch):
    onnx.save(detector(batch), "in.onnx")
    many = feeds(96)
    np.savez("x.npz", **many)
    tests = [part(many, i) for i in range(4)]
    if batch != 1:
        tests.append({**many, "rate": np.array(16000)})
    rc, err = ehapc("run", "in.onnx", "--data", "one.npz", "-o",
                    "y.npz") if not np.savez("one.npz", **tests[0]) else None
    got, want = np.load("y.npz"), run("in.onnx", tests[0])
    check(
        f"{batch} run", rc == 0 and
        all(np.allclose(got[n], w, atol=1e-5) for n, w in zip(("speech", "new_state"), want)),
        err.strip())
    for job, (words, least) in JOBS.items():
        for data in ([], ["--data", "x.npz"]):
            rc, err = ehapc(*words, "in.onnx", "-o", "out.onnx", *data)
            what = f"{batch} {job} {' '.join(data)}"
            check(what, rc == 0, err.strip()[-200:])
            if rc:
                continue
            onnx.checker.check_model("out.onnx", full_check=True)
            check(f"{what}: inputs and outputs as before",
                  list(onnx.load("in.onnx").graph.input) == list(onnx.load("out.onnx").graph.input))
            for f in tests:
                want, got = run("in.onnx", f), run("out.onnx", f)
                snr = min(10 * np.log10((w**2).sum() / ((g - w)**2).sum())
                          for w, g in zip(want, got))
                check(f"{what} of {len(f['input'])}", snr > least, f"{snr:.1f} dB")


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    for batch in ("batch", 1):
        go(batch)
finish()
