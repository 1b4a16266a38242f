"""Whether `ehapc lint` says what runtimes do: a family of small networks, quantized by ehapc for
each target and by ONNX Runtime's own quantizer, against ONNX Runtime's optimized graph and
OpenVINO's executable graph. Usage: lint_agree.py EHAPC [NETWORK...]"""
import collections
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

try:
    import openvino
except ImportError:
    openvino = None


class Net:
    """A network under construction; every node has a name."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.nodes, self.weights = [], []

    def const(self, array):
        name = f"const_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, **attrs):
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out + "_node", **attrs))
        return out

    def weight(self, *shape):
        return self.const(
            (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def conv(self, x, i, o, k=3, group=1, stride=1):
        bias = self.const((self.rng.standard_normal(o) * 0.1).astype(np.float32))
        return self.op("Conv",
                       x,
                       self.weight(o, i // group, k, k),
                       bias,
                       pads=[k // 2] * 4,
                       group=group,
                       strides=[stride, stride])

    def relu(self, x):
        return self.op("Relu", x)

    def swish(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def save(self, x, channels, path):
        x = self.op("Flatten", self.op("GlobalAveragePool", x))
        bias = self.const(np.zeros(10, np.float32))
        y = self.op("Gemm", x, self.weight(10, channels), bias, transB=1)
        value = helper.make_tensor_value_info
        graph = helper.make_graph(self.nodes, "net",
                                  [value("x", TensorProto.FLOAT, ("N", 3, 16, 16))],
                                  [value(y, TensorProto.FLOAT, ("N", 10))], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def residual(n):
    x = n.relu(n.conv("x", 3, 16))
    x = n.relu(n.op("Add", n.conv(n.relu(n.conv(x, 16, 16)), 16, 16), x))
    y = n.conv(n.relu(n.conv(x, 16, 32, stride=2)), 32, 32)
    return n.relu(n.op("Add", y, n.conv(x, 16, 32, k=1, stride=2))), 32


def depthwise(n):
    def relu6(x):
        return n.op("Clip", x, n.const(np.float32(0)), n.const(np.float32(6)))
    x = relu6(n.conv("x", 3, 16))
    y = relu6(n.conv(relu6(n.conv(x, 16, 32, k=1)), 32, 32, group=32))
    return n.op("Add", n.conv(y, 32, 16, k=1), x), 16


def swish(n):
    x = n.swish(n.conv(n.swish(n.conv("x", 3, 16)), 16, 32, stride=2))
    return n.op("LeakyRelu", n.conv(n.op("HardSwish", n.conv(x, 32, 32)), 32, 32), alpha=0.1), 32


def concat(n):
    x = n.relu(n.conv("x", 3, 16))
    a = n.relu(n.conv(x, 16, 16))
    b = n.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)
    c = n.op("MaxPool", n.relu(n.conv(x, 16, 16, k=1)), kernel_shape=[3, 3], pads=[1] * 4)
    return n.relu(n.conv(n.op("Concat", a, b, c, axis=1), 48, 32)), 32


def se(n):
    x = n.relu(n.conv("x", 3, 32))
    g = n.relu(n.conv(n.op("GlobalAveragePool", x), 32, 16, k=1))
    x = n.op("Mul", x, n.op("Sigmoid", n.conv(g, 16, 32, k=1)))
    return n.relu(n.conv(x, 32, 32)), 32


def mobile(n):
    """MobileNetV3: depthwise, hard-swish, squeeze and excite, a linear bottleneck with its sum."""
    x = n.op("HardSwish", n.conv("x", 3, 16, stride=2))
    y = n.op("HardSwish", n.conv(x, 16, 64, k=1))
    y = n.op("HardSwish", n.conv(y, 64, 64, group=64))
    g = n.relu(n.conv(n.op("GlobalAveragePool", y), 64, 16, k=1))
    y = n.op("Mul", y, n.op("HardSigmoid", n.conv(g, 16, 64, k=1), alpha=1 / 6, beta=0.5))
    x = n.op("Add", n.conv(y, 64, 16, k=1), x)
    return n.op("HardSwish", n.conv(x, 16, 32, k=1)), 32


def attention(n):
    """A ViT block on 16 patches of width 32, two heads."""
    def shape(*dims):
        return n.const(np.array(dims, np.int64))

    def linear(x, i, o):
        return n.op("Add", n.op("MatMul", x, n.weight(i, o)),
                    n.const(n.rng.standard_normal(o).astype(np.float32) * 0.1))

    def norm(x):
        return n.op("LayerNormalization",
                    x,
                    n.const(np.ones(32, np.float32)),
                    n.const(np.zeros(32, np.float32)),
                    axis=-1)

    def gelu(x):
        half, one, root = (n.const(np.float32(v)) for v in (0.5, 1, np.sqrt(2)))
        return n.op("Mul", n.op("Mul", x, n.op("Add", n.op("Erf", n.op("Div", x, root)), one)),
                    half)

    def heads(x, perm):
        return n.op("Transpose", n.op("Reshape", linear(x, 32, 32), shape(0, 16, 2, 16)), perm=perm)

    patches = n.op("Conv",
                   "x",
                   n.weight(32, 3, 4, 4),
                   n.const(np.zeros(32, np.float32)),
                   strides=[4, 4])
    x = n.op("Transpose", n.op("Reshape", patches, shape(0, 32, 16)), perm=[0, 2, 1])
    y = norm(x)
    q, k, v = (heads(y, p) for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    a = n.op("Softmax", n.op("Mul", n.op("MatMul", q, k), n.const(np.float32(0.25))), axis=-1)
    a = n.op("Reshape", n.op("Transpose", n.op("MatMul", a, v), perm=[0, 2, 1, 3]),
             shape(0, 16, 32))
    x = n.op("Add", x, linear(a, 32, 32))
    x = n.op("Add", x, linear(gelu(linear(norm(x), 32, 64)), 64, 32))
    return n.op("Reshape", n.op("Transpose", norm(x), perm=[0, 2, 1]), shape(0, 32, 4, 4)), 32


def decoder(n):
    """Down and up again: Resize, ConvTranspose, DepthToSpace, joined."""
    x = n.relu(n.conv("x", 3, 32, stride=2))
    d = n.relu(n.conv(x, 32, 32, stride=2))
    scales = n.const(np.array([1, 1, 2, 2], np.float32))
    a = n.relu(
        n.conv(
            n.op("Resize",
                 d,
                 "",
                 scales,
                 mode="nearest",
                 coordinate_transformation_mode="asymmetric",
                 nearest_mode="floor"), 32, 32))
    b = n.relu(n.op("ConvTranspose", d, n.weight(32, 32, 2, 2), strides=[2, 2]))
    c = n.op("DepthToSpace", n.relu(n.conv(d, 32, 64)), blocksize=2)
    x = n.relu(n.conv(n.op("Concat", a, b, c, x, axis=1), 112, 32))
    return n.relu(n.conv(n.op("Resize", x, "", scales, mode="linear"), 32, 32)), 32


FAMILY = [residual, depthwise, swish, concat, se, mobile, attention, decoder]


class Reader(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(1)
        self.left = [{"x": rng.standard_normal((4, 3, 16, 16)).astype(np.float32)}
                     for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def lint(ehapc, model, target):
    """{node: None if integer, else why}, and the exit status."""
    run = subprocess.run([ehapc, "lint", model, "--target", target], capture_output=True, text=True)
    assert run.returncode in (0, 3), run.stderr
    verdicts = re.findall(r"^'(.*?)' \((\w+)\): (?:integer|float: (.*))$", run.stdout, re.M)
    return {name: (op, why or None) for name, op, why in verdicts}


def ort_graph(model, folder):
    """{node: whether it is an integer kernel} of the optimized graph."""
    path = os.path.join(folder, "optimized.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = path
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path).graph
    types = {w.name: w.data_type for w in graph.initializer}
    found = {}
    for n in graph.node:
        integer = n.op_type.startswith("QLinear") or n.op_type == "QGemm" or "Integer" in n.op_type
        moved = types.get(n.input[0]) in (TensorProto.UINT8, TensorProto.INT8) if n.input else False
        integer |= moved and n.op_type != "DequantizeLinear"
        for o in n.output:
            if (integer and n.op_type != "MatMulIntegerToFloat") or n.op_type == "QuantizeLinear":
                types[o] = TensorProto.UINT8
        found[re.sub(r"(_token_\d+|_nchwc)+$", "", n.name)] = integer
    return found


def openvino_graph(model, _):
    """{product: whether it runs in integers} of the executable graph."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {}
    for n in compiled.get_runtime_model().get_ordered_ops():
        info = n.get_rt_info()
        if info["layerType"].value not in ("Convolution", "FullyConnected", "MatMul"):
            continue
        for name in info["originalLayersNames"].value.split(","):
            found[name.split("/")[0]] = info["runtimePrecision"].value in ("u8", "i8")
    return found


def compare(what, said, did, counts, only=None):
    """The number of nodes on which they differ; counts those compared, by what they run in."""
    wrong = 0
    for name, (op, why) in said.items():
        key = name if name in did else name.removesuffix("_node")
        if key not in did or (only and op not in only):
            continue
        counts[did[key]] += 1
        if did[key] != (why is None):
            wrong += 1
            print(f"FAIL {what}: '{name}' ({op}): lint says {why or 'integer'}, "
                  f"the runtime {'integer' if did[key] else 'float'}")
    return wrong


def files(ehapc, net, folder):
    """(label, path, made by us for target) of every variant of a network."""
    path = os.path.join(folder, "float.onnx")
    n = Net()
    n.save(*net(n), path)
    yield "float", path, None
    data = os.path.join(folder, "x.npz")
    np.savez(data, x=np.concatenate([r["x"] for r in Reader().left]))
    for target in ("ort", "portable", "openvino", "tensorrt"):
        out = os.path.join(folder, target + ".onnx")
        subprocess.run([ehapc, "quantize", path, "-o", out, "--target", target, "--steps", "0",
                        "--data", data], check=True, capture_output=True)
        yield "ehapc " + target, out, target
    for channel in (False, True):
        for name, act, more in (("u8", QuantType.QUInt8, {}), ("i8", QuantType.QInt8, {}),
                                ("i8 symmetric", QuantType.QInt8, {"ActivationSymmetric": True})):
            out = os.path.join(folder, "static.onnx")
            quantize_static(path, out, Reader(), QuantFormat.QDQ, per_channel=channel,
                            activation_type=act, weight_type=QuantType.QInt8, extra_options=more)
            yield f"quantize_static {name}{' per channel' if channel else ''}", out, None


def main():
    ehapc, names = sys.argv[1], sys.argv[2:]
    wrong, counts = 0, collections.Counter()
    if not openvino:
        print("skipped: the half with OpenVINO, which is not installed")
    for net in FAMILY:
        if names and net.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for label, path, target in files(ehapc, net, folder):
                what = f"{net.__name__}, {label}"
                runs = [("ort", ort_graph, None)]
                if openvino:
                    runs.append(("openvino", openvino_graph, ("Conv", "Gemm", "MatMul")))
                for name, graph, only in runs:
                    said, did = lint(ehapc, path, name), graph(path, folder)
                    before = counts.total()
                    wrong += compare(f"{what}, {name}", said, did, counts, only)
                    assert counts.total() > before, what
                    if target == name and any(w and "no loss" not in w for _, w in said.values()):
                        wrong += 1
                        print(f"FAIL {what}: our own file breaks rules of {name}: {said}")
    print(f"{counts[True]} nodes in integers, {counts[False]} in float: {wrong} verdicts are wrong")
    sys.exit(wrong > 0)


main()
