"""Around an operator that ehapc does not know, with real weights and real data: convolutions of the
example network, each with its Relu, become com.microsoft::FusedConv, which is the same to ONNX
Runtime and unknown to ehapc. Accuracy and signal to noise are demanded as of a network.
Usage: around.py EHAPC ROOT"""
import gzip
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper as h, numpy_helper as nh

from checks import check, finish

DATA = "/usr/share/datasets/fashion-mnist"
MEAN, STD = 0.2860, 0.3530


def images(name, count):
    with gzip.open(f"{DATA}/{name}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(16 + count * 784)[16:], np.uint8).reshape(-1, 1, 28, 28)
    with gzip.open(f"{DATA}/{name}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(8 + count)[8:], np.uint8)
    return ((x / 255 - MEAN) / STD).astype(np.float32), y


def fuse(model, wanted):
    """Convolution number `wanted` of those in front of BatchNormalization and Relu, with those, as
    one FusedConv."""
    g = model.graph
    maker = {n.output[0]: n for n in g.node}
    value = {i.name: nh.to_array(i) for i in g.initializer}
    chains = []
    for relu in g.node:
        norm = maker.get(relu.input[0]) if relu.op_type == "Relu" else None
        conv = maker.get(
            norm.input[0]) if norm is not None and norm.op_type == "BatchNormalization" else None
        if conv is not None and conv.op_type == "Conv":
            chains.append((conv, norm, relu))
    conv, norm, relu = chains[wanted]
    scale, bias, mean, var = (value[i] for i in norm.input[1:5])
    by = scale / np.sqrt(var + next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5))
    start = value[conv.input[2]] if len(conv.input) > 2 else 0
    g.initializer.extend([
        nh.from_array(value[conv.input[1]] * by[:, None, None, None], "fused_w"),
        nh.from_array(((start - mean) * by + bias).astype(np.float32), "fused_b")
    ])
    new = h.make_node("FusedConv", [conv.input[0], "fused_w", "fused_b"], relu.output, conv.name,
                      domain="com.microsoft", activation="Relu")
    new.attribute.extend(conv.attribute)
    at = list(g.node).index(conv)
    for n in (conv, norm, relu):
        g.node.remove(n)
    g.node.insert(at, new)
    model.opset_import.append(h.make_opsetid("com.microsoft", 1))
    return conv.name


def run(path, x):
    ort.set_default_logger_severity(3)
    s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return s.run(None, {s.get_inputs()[0].name: x})[0]


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.returncode, done.stderr


def decibels(got, want):
    return 10 * np.log10((want**2).sum() / max(((got - want)**2).sum(), 1e-30))


def judge(which, x, y, jobs):
    model = onnx.load(f"{root}/examples/fashion_resnet.onnx")
    name = fuse(model, which)
    onnx.save(model, "in.onnx")
    want = run("in.onnx", x)
    before = (want.argmax(1) == y).mean()
    print(f"{name}: {100 * before:.2f} %")
    check("the example as it is", before > 0.92, f"{100 * before:.2f} %")
    feed = [
        "--data", f"{DATA}/train-images-idx3-ubyte.gz", "--preprocess",
        f"scale=1/255,mean={MEAN},std={STD}"
    ]
    for job, words, lost, least in jobs:
        rc, err = ehapc(*words, "in.onnx", "-o", f"{job}.onnx", *feed)
        check(f"{name} {job}", rc == 0, err.strip().splitlines()[-1] if rc else "done")
        if rc:
            continue
        got = run(f"{job}.onnx", x)
        after, snr = (got.argmax(1) == y).mean(), decibels(got, want)
        size = os.path.getsize(f"{job}.onnx") / os.path.getsize("in.onnx")
        check(f"{name} {job}: accuracy", after > before - lost, f"{100 * after:.2f} %")
        check(f"{name} {job}: near the original", snr > least, f"{snr:.1f} dB")
        check(f"{name} {job}: smaller", size < 0.99, f"{size:.2f} of the file")
        kept = [n for n in onnx.load(f"{job}.onnx").graph.node if n.op_type == "FusedConv"]
        check(f"{name} {job}: the operator is there", len(kept) == 1)


program, root = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
if not os.path.isdir(DATA):
    print("skipped: dataset-fashion-mnist is not installed")
    sys.exit(77)
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    x, y = images("t10k", 10000)
    quantize = ("quantize", ["quantize", "--steps", "0"], 0.005, 30)
    # Late in the network nearly all of it can be refitted and trained; early on channels behind go
    # by the size of their weights.
    judge(-1, x, y, [quantize, ("prune", ["prune", "--flops", "0.8"], 0.01, 20),
                     ("job", ["--flops", "0.8", "--steps", "60", "--batch", "64"], 0.01, 20)])
    judge(0, x, y, [("prune", ["prune", "--flops", "0.97", "--align", "1"], 0.01, 15)])
finish()
