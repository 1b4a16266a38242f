"""Files of ONNX Runtime's own quantizer through `ehapc requantize` for every target: they load,
come out with as many nodes in integers (`ehapc lint`) as `ehapc quantize` has, and ONNX Runtime
runs them as near to the float network as the file that came in.
Usage: foreign.py EHAPC SOURCE_DIR"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from checks import check, finish

TARGETS = ("ort", "tensorrt", "openvino", "qnn", "portable")
U8, S8 = QuantType.QUInt8, QuantType.QInt8
VARIANTS = {
    "U8S8": dict(activation_type=U8, weight_type=S8, per_channel=True),
    "U8S8 per tensor": dict(activation_type=U8, weight_type=S8, per_channel=False),
    "U8S8 reduced": dict(activation_type=U8, weight_type=S8, per_channel=True, reduce_range=True),
    "U8U8": dict(activation_type=U8, weight_type=U8, per_channel=False),
    "S8S8": dict(activation_type=S8, weight_type=S8, per_channel=True),
    "S8S8 symmetric": dict(activation_type=S8, weight_type=S8, per_channel=True,
                           extra_options={"ActivationSymmetric": True}),
    "S8S8 per tensor": dict(activation_type=S8, weight_type=S8, per_channel=False,
                            extra_options={"ActivationSymmetric": True}),
}
ehapc, root = sys.argv[1:3]


def gated(path):
    """Inverted residuals with a squeeze-and-excitation gate, a Concat and a MatMul with a bias."""
    rng, nodes, weights = np.random.default_rng(0), [], []

    def const(x):
        weights.append(numpy_helper.from_array(np.asarray(x), f"c{len(weights)}"))
        return weights[-1].name

    def op(kind, *inputs, **attrs):
        nodes.append(
            helper.make_node(kind, list(inputs), [f"v{len(nodes)}"], name=f"n{len(nodes)}",
                             **attrs))
        return nodes[-1].output[0]

    def conv(x, i, o, k, group=1):
        w = rng.standard_normal((o, i // group, k, k)) / np.sqrt(i // group * k * k)
        return op("Conv",
                  x,
                  const(w.astype(np.float32)),
                  const(rng.standard_normal(o).astype(np.float32) * 0.1),
                  pads=[k // 2] * 4,
                  group=group)

    six = const(np.float32(0)), const(np.float32(6))
    x = op("Clip", conv("x", 1, 16, 3), *six)
    y = op("Clip", conv(conv(x, 16, 32, 1), 32, 32, 3, 32), *six)
    gate = op("Sigmoid", conv(op("Relu", conv(op("GlobalAveragePool", y), 32, 16, 1)), 16, 32, 1))
    x = op("Add", x, conv(op("Mul", y, gate), 32, 16, 1))
    x = op("MaxPool", op("Concat", x, y, axis=1), kernel_shape=[2, 2], strides=[2, 2])
    x = op("Flatten", op("GlobalAveragePool", op("Relu", conv(x, 48, 32, 3))))
    w = (rng.standard_normal((32, 10)) / 6).astype(np.float32)
    x = op("Add", op("MatMul", x, const(w)), const(rng.standard_normal(10).astype(np.float32)))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "gated", [value("x", TensorProto.FLOAT, ("N", 1, 28, 28))],
                              [value(x, TensorProto.FLOAT, ("N", 10))], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              path)


class Reader(CalibrationDataReader):
    def __init__(self, feed):
        self.feeds = iter([feed])

    def get_next(self):
        return next(self.feeds, None)


def answers(path, feed):
    """In full precision of the integer products, whatever the processor; qnn's files have batch
    1."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    s = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, x = s.get_inputs()[0].name, next(iter(feed.values()))
    step = s.get_inputs()[0].shape[0]
    step = step if isinstance(step, int) else len(x)
    return np.concatenate([s.run(None, {name: x[i:i + step]})[0] for i in range(0, len(x), step)])


def decibels(y, y0):
    return 10 * np.log10((y0 ** 2).sum() / max(((y - y0) ** 2).sum(), 1e-30))


def run(*words):
    return subprocess.run([ehapc, *words], capture_output=True, text=True)


def floats(file, target):
    """Nodes that stay in float though they need not."""
    lines = run("lint", file, "--target", target).stdout.splitlines()
    return [line for line in lines if "float: " in line and "no loss" not in line]


def requantize(name, file, feed, y0, own):
    before = decibels(answers(file, feed), y0)
    for target in TARGETS:
        what = f"{name} for {target}"
        done = run("requantize", file, "-o", "out.onnx", "--target", target, "--weight-bits", "8",
                   "--data", "x.npz")
        if done.returncode:
            check(what, False, done.stderr.strip()[-300:])
            continue
        after, why = decibels(answers("out.onnx", feed), y0), floats("out.onnx", target)
        check(what, after > min(before - 3, 30) and len(why) <= own[target],
              f"{before:.1f} dB in, {after:.1f} dB out" + "".join("; " + line for line in why))


rng = np.random.default_rng(1)
with tempfile.TemporaryDirectory() as work:
    resnet = os.path.abspath(os.path.join(root, "examples/fashion_resnet.onnx"))
    os.chdir(work)
    gated("gated.onnx")
    for model in (resnet, "gated.onnx"):
        name = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name
        x = rng.standard_normal((32, 1, 28, 28)).cumsum(2).cumsum(3)
        feed = {name: (x / x.std((2, 3), keepdims=True)).astype(np.float32)}
        y0 = answers(model, feed)
        np.savez("x.npz", **feed)
        quant_pre_process(model, "plain.onnx", skip_symbolic_shape=True)
        own = {}
        for target in TARGETS:
            run("quantize", "plain.onnx", "-o", "own.onnx", "--target", target, "--steps", "0",
                "--data", "x.npz")
            own[target] = len(floats("own.onnx", target))
        for variant, words in VARIANTS.items():
            quantize_static("plain.onnx",
                            "foreign.onnx",
                            Reader(feed),
                            quant_format=QuantFormat.QDQ,
                            **words)
            requantize(f"{os.path.basename(model)}, {variant}", "foreign.onnx", feed, y0, own)
finish()
