"""Open sizes through the whole job: a segmentation network whose height and width, and a
transformer whose length is open, with sizes computed from Shape as exporters write them. Names of
dimensions stay, what comes out runs in ONNX Runtime at sizes other than those analysed, near the
original; --shape chooses what is analysed, else a message says what was. (Removed equals zeroed at
two sizes: tests/fuzz/random_nets.py.)
Usage: open_sizes.py EHAPC"""
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


class Net:
    def __init__(self):
        self.nodes, self.consts = [], []

    def const(self, name, value):
        self.consts.append(nh.from_array(np.asarray(value), name))
        return name

    def add(self, op, inputs, y, **attributes):
        self.nodes.append(h.make_node(op, inputs, [y], name=y, **attributes))
        return y

    def weight(self, name, *dims):
        fan = np.prod(dims[1:]) if len(dims) == 4 else dims[0]
        return self.const(name, (rng.standard_normal(dims) / np.sqrt(fan / 2)).astype(np.float32))

    def conv(self, x, y, i, o, stride=1):
        return self.add(
            "Conv",
            [x, self.weight(y + "_w", o, i, 3, 3),
             self.const(y + "_b", np.zeros(o, np.float32))],
            y,
            pads=[1] * 4,
            strides=[stride] * 2)

    def dense(self, x, y, i, o):
        z = self.add("MatMul", [x, self.weight(y + "_w", i, o)], y + "_p")
        return self.add("Add", [z, self.const(y + "_b", np.zeros(o, np.float32))], y)

    def model(self, inputs, outputs):
        g = h.make_graph(self.nodes, "g", inputs, outputs, self.consts)
        return h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def floats(name, *dims):
    return h.make_tensor_value_info(name, T.FLOAT, list(dims))


def segmenter():
    """Down by 4 and up again to the size of the input, with a skip; classes per pixel."""
    n = Net()
    a = n.add("Relu", [n.conv("image", "stem", 3, 24)], "r0")
    b = n.add("Relu", [n.conv(a, "down1", 24, 32, 2)], "r1")
    c = n.add("Relu", [n.conv(b, "down2", 32, 48, 2)], "r2")
    c = n.add("Relu", [n.conv(c, "deep", 48, 32)], "r3")
    shape = n.add("Shape", ["image"], "shape")
    size = n.add("Slice",
                 [shape, n.const("two", np.array([2])),
                  n.const("four", np.array([4]))], "size")
    head = n.add("Slice",
                 [n.add("Shape", [c], "deep_shape"),
                  n.const("zero", np.array([0])), "two"], "head")
    sizes = n.add("Concat", [head, size], "sizes", axis=0)
    up = n.add("Resize", [c, "", "", sizes],
               "up",
               mode="linear",
               coordinate_transformation_mode="half_pixel")
    joined = n.add("Concat", [up, a], "joined", axis=1)
    y = n.add("Relu", [n.conv(joined, "fuse", 56, 32)], "r4")
    n.conv(y, "classes", 32, 5)
    return n.model([floats("image", "batch", 3, "height", "width")],
                   [floats("classes", "batch", 5, "height", "width")])


def transformer():
    """Two blocks of width 32, 4 heads; reshapes from Shape, Gather and Concat."""
    n = Net()
    x = n.dense("tokens", "embed", 16, 32)
    dims = n.add("Shape", ["tokens"], "dims")
    batch = n.add("Gather", [dims, n.const("i0", np.array([0]))], "b")
    length = n.add("Gather", [dims, n.const("i1", np.array([1]))], "t")
    heads = n.add("Concat", [batch, length, n.const("h", np.array([4, 8]))], "split", axis=0)
    flat = n.add("Concat", [batch, length, n.const("w", np.array([32]))], "join", axis=0)
    scale = n.const("scale", np.float32(8**-0.5))
    for k in range(2):
        u = n.add("LayerNormalization", [
            x,
            n.const(f"g{k}", np.ones(32, np.float32)),
            n.const(f"z{k}", np.zeros(32, np.float32))
        ],
                  f"ln{k}",
                  axis=-1)
        q, key, v = (n.add("Transpose",
                           [n.add("Reshape", [n.dense(u, f"{c}{k}", 32, 32), heads], f"{c}{k}_r")],
                           f"{c}{k}_t",
                           perm=perm)
                     for c, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])))
        p = n.add("Softmax", [n.add("Mul", [n.add("MatMul", [q, key], f"qk{k}"), scale], f"s{k}")],
                  f"p{k}",
                  axis=-1)
        o = n.add("Reshape", [
            n.add("Transpose", [n.add("MatMul", [p, v], f"pv{k}")], f"pv{k}_t", perm=[0, 2, 1, 3]),
            flat
        ], f"o{k}")
        x = n.add("Add", [x, n.dense(o, f"out{k}", 32, 32)], f"x{k}")
        m = n.dense(n.add("Relu", [n.dense(x, f"up{k}", 32, 64)], f"m{k}"), f"down{k}", 64, 32)
        x = n.add("Add", [x, m], f"y{k}")
    n.dense(x, "answers", 32, 6)
    return n.model([floats("tokens", "batch", "length", 16)],
                   [floats("answers", "batch", "length", 6)])


# Network, name of the input, samples to learn from, --shape, sizes to run at.
NETS = {
    "segmenter": (segmenter, "image", (32, 3, 24, 32), "image=1x3x24x32", [(2, 3, 24, 32),
                                                                           (1, 3, 40, 28),
                                                                           (3, 3, 17, 23)]),
    "transformer":
    (transformer, "tokens", (64, 12, 16), "tokens=1x12x16", [(2, 12, 16), (1, 31, 16), (5, 7, 16)]),
}
JOBS = {"prune": (["prune", "--flops", "0.85"], 12), "quantize": (["quantize", "--steps", "0"], 18),
        "job": (["--flops", "0.85", "--steps", "20", "--batch", "16"], 12)}


def run(path, x):
    s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return s.run(None, {s.get_inputs()[0].name: x})[0]


def drawn(dims):
    x = rng.standard_normal(dims)
    return (x if len(dims) == 3 else x.cumsum(-1).cumsum(-2) / 12).astype(np.float32)


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.returncode, done.stderr


def go(name):
    make, x, samples, shape, sizes = NETS[name]
    before = make()
    onnx.save(before, "in.onnx")
    np.savez("x.npz", **{x: drawn(samples)})
    rc, err = ehapc("inspect", "in.onnx")
    check(f"{name}: the default is reported", rc == 0 and
          f"input '{x}' is analysed as float[1," in err, err.strip())
    rc, err = ehapc("inspect", "in.onnx", "--shape", shape)
    check(f"{name}: --shape is taken", rc == 0 and "is analysed as" not in err, err.strip())
    for job, (words, least) in JOBS.items():
        for more in ([], ["--shape", shape]):
            rc, err = ehapc(*words, "in.onnx", "-o", "out.onnx", "--data", "x.npz", *more)
            check(f"{name} {job} {' '.join(more)}", rc == 0, err.strip()[-200:])
        if rc:
            continue
        onnx.checker.check_model("out.onnx", full_check=True)
        after = onnx.load("out.onnx")
        check(
            f"{name} {job}: names of dimensions",
            list(after.graph.input) == list(before.graph.input) and
            list(after.graph.output) == list(before.graph.output))
        for dims in sizes:
            data = drawn(dims)
            want, got = run("in.onnx", data), run("out.onnx", data)
            snr = 10 * np.log10((want**2).sum() / ((got - want)**2).sum())
            check(f"{name} {job} at {dims}", got.shape == want.shape and snr > least,
                  f"{snr:.1f} dB")
        if job == "prune":
            count = lambda m: sum(
                int(np.prod(i.dims)) for i in m.graph.initializer if i.data_type == T.FLOAT)
            check(f"{name} {job}: smaller",
                  count(after) < 0.95 * count(before), f"{count(after)} of {count(before)}")


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    for name in NETS:
        print(name, flush=True)
        go(name)
finish()
