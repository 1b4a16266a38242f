"""What is not understood passes through, and the rest is compressed: custom operators, If, Loop and
Scan that read outer values, local functions, sequences, optional, strings, complex numbers, sparse
initializers, parts that are quantized already. Each in the middle of a small network, through
inspect, prune, quantize and the main job; ONNX Runtime judges what comes out.
Usage: passthrough.py EHAPC [NAME...]"""
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
WIDTH = 32


def constant(consts, name, value):
    consts.append(nh.from_array(np.asarray(value), name))


def conv(consts, name, x, y, inputs, outputs):
    w = rng.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(4.5 * inputs)
    constant(consts, name + "_w", w.astype(np.float32))
    constant(consts, name + "_b", (0.1 * rng.standard_normal(outputs)).astype(np.float32))
    return h.make_node("Conv", [x, name + "_w", name + "_b"], [y], name=name, pads=[1] * 4)


def network(middle, behind=(), outputs=(), domains=(), functions=()):
    """x -> c1 -> r1 -> c2 -> r2 -> middle -> m -> c3 -> c4 -> fc -> y; `behind` follows y."""
    c = []
    nodes = [
        conv(c, "c1", "x", "a1", 3, WIDTH),
        h.make_node("Relu", ["a1"], ["r1"], name="relu1"),
        conv(c, "c2", "r1", "a2", WIDTH, WIDTH),
        h.make_node("Relu", ["a2"], ["r2"], name="relu2")
    ]
    nodes += middle(c)
    nodes += [
        conv(c, "c3", "m", "a3", WIDTH, WIDTH),
        h.make_node("Relu", ["a3"], ["r3"], name="relu3"),
        conv(c, "c4", "r3", "a4", WIDTH, 16),
        h.make_node("GlobalAveragePool", ["a4"], ["p"]),
        h.make_node("Flatten", ["p"], ["f"])
    ]
    constant(c, "fc_w", rng.standard_normal((10, 16)).astype(np.float32))
    constant(c, "fc_b", np.zeros(10, np.float32))
    nodes.append(h.make_node("Gemm", ["f", "fc_w", "fc_b"], ["y"], transB=1, name="fc"))
    g = h.make_graph(nodes + list(behind), "g",
                     [h.make_tensor_value_info("x", T.FLOAT, ["N", 3, 16, 16])],
                     [h.make_tensor_value_info("y", T.FLOAT, ["N", 10]), *outputs], c)
    return h.make_model(
        g,
        ir_version=8,
        functions=list(functions),
        opset_imports=[h.make_opsetid("", 18), *(h.make_opsetid(d, 1) for d in domains)])


def custom(c):
    return [h.make_node("Frob", ["r2"], ["m"], name="frob", domain="com.acme")]


def custom_beside(c):
    return [h.make_node("Identity", ["r2"], ["m"]),
            h.make_node("Frob", ["r1"], ["side"], name="frob", domain="com.acme")]


def if_(c):
    constant(c, "zero", np.float32(0))
    one = h.make_graph([h.make_node("Neg", ["r1"], ["n1"]),
                        h.make_node("Neg", ["n1"], ["t"])], "then", [],
                       [h.make_tensor_value_info("t", T.FLOAT, None)])
    two = h.make_graph([h.make_node("Identity", ["r1"], ["e"])], "else", [],
                       [h.make_tensor_value_info("e", T.FLOAT, None)])
    return [
        h.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        h.make_node("Greater", ["s", "zero"], ["gt"]),
        h.make_node("If", ["gt"], ["i"], name="if", then_branch=one, else_branch=two),
        h.make_node("Add", ["i", "r2"], ["m"], name="sum")
    ]


def loop(c):
    constant(c, "trips", np.int64(2))
    constant(c, "go", np.array(True))
    body = h.make_graph(
        [h.make_node("Add", ["acc", "r1"], ["acc2"]),
         h.make_node("Identity", ["cin"], ["cout"])], "body", [
             h.make_tensor_value_info("it", T.INT64, []),
             h.make_tensor_value_info("cin", T.BOOL, []),
             h.make_tensor_value_info("acc", T.FLOAT, None)
         ], [
             h.make_tensor_value_info("cout", T.BOOL, []),
             h.make_tensor_value_info("acc2", T.FLOAT, None)
         ])
    return [h.make_node("Loop", ["trips", "go", "r2"], ["m"], name="loop", body=body)]


def scan(c):
    body = h.make_graph(
        [h.make_node("Add", ["s", "xi"], ["s2"]),
         h.make_node("Mul", ["s2", "half"], ["o"])], "body", [
             h.make_tensor_value_info("s", T.FLOAT, None),
             h.make_tensor_value_info("xi", T.FLOAT, None)
         ], [
             h.make_tensor_value_info("s2", T.FLOAT, None),
             h.make_tensor_value_info("o", T.FLOAT, None)
         ])
    constant(c, "half", np.float32(0.5))
    constant(c, "start", np.zeros((WIDTH, 16, 16), np.float32))
    return [
        h.make_node("Scan", ["start", "r2"], ["last", "m"],
                    name="scan",
                    body=body,
                    num_scan_inputs=1)
    ]


def function(name, nodes, attributes=(), domains=()):
    f = h.make_function("my", name, ["X"], ["Y"], nodes,
                        [h.make_opsetid("", 18), *(h.make_opsetid(d, 1) for d in domains)])
    f.attribute.extend(attributes)
    return f


def call(op, **attributes):
    return lambda c: [h.make_node(op, ["r2"], ["m"], name="call", domain="my", **attributes)]


SILU = function("Silu",
                [h.make_node("Sigmoid", ["X"], ["s"]),
                 h.make_node("Mul", ["X", "s"], ["Y"])])
ODD = function(
    "Odd",
    [h.make_node("Frob", ["X"], ["s"], domain="com.acme"),
     h.make_node("Mul", ["X", "s"], ["Y"])],
    domains=["com.acme"])
NESTED = function(
    "Nested", [h.make_node("Silu", ["X"], ["s"], domain="my"),
               h.make_node("Neg", ["s"], ["Y"])],
    domains=["my"])
AFFINE = function("Affine", [h.make_node("LeakyRelu", ["X"], ["Y"])], ["slope"])
reference = AFFINE.node[0].attribute.add()
reference.name, reference.ref_attr_name = "alpha", "slope"
reference.type = onnx.AttributeProto.FLOAT


DEFAULT = function("Default", [h.make_node("LeakyRelu", ["X"], ["Y"])])
DEFAULT.node[0].attribute.add().CopyFrom(reference)
DEFAULT.attribute_proto.append(h.make_attribute("slope", 0.4))


def sequence(c):
    constant(c, "first", np.int64(0))
    return [h.make_node("SequenceConstruct", ["r2", "r1"], ["sq"], name="seq"),
            h.make_node("SequenceAt", ["sq", "first"], ["m"], name="at")]


def optional(c):
    return [
        h.make_node("Optional", ["r2"], ["op"], name="optional"),
        h.make_node("OptionalGetElement", ["op"], ["m"])
    ]


def plain(c):
    return [h.make_node("Identity", ["r2"], ["m"])]


def complex_beside(c):
    return plain(c) + [h.make_node("Cast", ["r1"], ["side"], to=T.COMPLEX64, name="tocomplex")]


def pair(c):
    constant(c, "qs", np.float32(0.03))
    constant(c, "qz", np.uint8(0))
    return [h.make_node("QuantizeLinear", ["r2", "qs", "qz"], ["q"], name="q_r2"),
            h.make_node("DequantizeLinear", ["q", "qs", "qz"], ["m"], name="dq_r2")]


def qlinear(c):
    nodes = pair(c)
    constant(c, "qw", rng.integers(-127, 127, (WIDTH, WIDTH, 3, 3)).astype(np.int8))
    constant(c, "qws", np.float32(0.001))
    constant(c, "qwz", np.int8(0))
    names = ["q", "qs", "qz", "qw", "qws", "qwz", "qs", "qz"]
    nodes[1].input[0] = "q2"
    return [
        nodes[0],
        h.make_node("QLinearConv", names, ["q2"], pads=[1] * 4, name="qconv"), nodes[1]
    ]


def sparse(model):
    w = next(i for i in model.graph.initializer if i.name == "c3_w")
    dense = nh.to_array(w).ravel()
    at = np.nonzero(np.abs(dense) > 0.05)[0].astype(np.int64)
    s = onnx.SparseTensorProto(dims=w.dims)
    s.values.CopyFrom(nh.from_array(dense[at], "c3_w"))
    s.indices.CopyFrom(nh.from_array(at, "c3_w_at"))
    model.graph.initializer.remove(w)
    model.graph.sparse_initializer.append(s)
    return model


def half(model):
    """All of it in FP16 but for x and y."""
    g = model.graph
    for i in g.initializer:
        if i.data_type == T.FLOAT:
            i.CopyFrom(nh.from_array(nh.to_array(i).astype(np.float16), i.name))
    g.node[0].input[0], g.node[-1].output[0] = "x16", "y16"
    g.node.insert(0, h.make_node("Cast", ["x"], ["x16"], to=T.FLOAT16))
    g.node.append(h.make_node("Cast", ["y16"], ["y"], to=T.FLOAT))
    return model


def strings():
    names = h.make_tensor("names", T.STRING, [10], [b"n%d" % i for i in range(10)])
    model = network(plain, [h.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
                            h.make_node("Gather", ["names", "best"], ["label"], name="label")],
                    [h.make_tensor_value_info("label", T.STRING, ["N"])])
    model.graph.initializer.append(names)
    return model


def side(kind):
    return [h.make_tensor_value_info("side", kind, ["N", WIDTH, 16, 16])]


# Per network: how it is made, what inspect says pins channels, layers that keep all of theirs.
NETS = {
    "custom": (lambda: network(custom, domains=["com.acme"]), "frob", ["c2"]),
    "custom_beside":
    (lambda: network(custom_beside, outputs=side(T.FLOAT), domains=["com.acme"]), "frob", ["c1"]),
    "if": (lambda: network(if_), "if", ["c1"]),
    "loop": (lambda: network(loop), "loop", ["c1", "c2"]),
    "scan": (lambda: network(scan), "scan", ["c2"]),
    "function": (lambda: network(call("Silu"), domains=["my"], functions=[SILU]), None, []),
    "function_nested":
    (lambda: network(call("Nested"), domains=["my"], functions=[SILU, NESTED]), None, []),
    "function_attribute":
    (lambda: network(call("Affine", slope=0.3), domains=["my"], functions=[AFFINE]), None, []),
    "function_default":
    (lambda: network(call("Default"), domains=["my"], functions=[DEFAULT]), None, []),
    "function_unknown": (lambda: network(call("Odd"), domains=["my", "com.acme"], functions=[ODD]),
                         "call", ["c2"]),
    "sequence": (lambda: network(sequence), "seq", ["c1", "c2"]),
    "optional": (lambda: network(optional), "optional", ["c2"]),
    "strings": (strings, None, []),
    "sparse": (lambda: sparse(network(plain)), None, []),
    "half": (lambda: half(network(plain)), None, []),
    "pair": (lambda: network(pair), None, []),
    "qlinear": (lambda: network(qlinear), "qconv", ["c2"]),
    "complex": (lambda: network(complex_beside, outputs=side(T.COMPLEX64)), "tocomplex", ["c1"]),
}
BEHIND = {name
          for name, (_, pin, kept) in NETS.items()
          if pin and kept} - {"custom_beside", "complex"}
INLINED = {"function", "function_default", "function_nested", "function_attribute"}
DATA = ["--data", "x.npz", "--batch", "16", "--threads", "2"]
JOBS = {"prune": ["prune", "--flops", "0.7"], "quantize": ["quantize", "--steps", "4"],
        "job": ["--flops", "0.7", "--steps", "4"]}


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def run(path, x):
    """Outputs by ONNX Runtime, where Frob is Neg and no one asks for complex numbers."""
    model = onnx.load(path)
    for n in [*model.graph.node, *(n for f in model.functions for n in f.node)]:
        if n.op_type == "Frob":
            n.op_type, n.domain = "Neg", ""
    for n in [n for n in model.graph.node if n.name == "tocomplex"]:
        model.graph.node.remove(n)
        del model.graph.output[1:]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    s = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return s.run(None, {"x": x})


def signal_to_noise(got, want):
    return 10 * np.log10((want**2).sum() / max(((got - want)**2).sum(), 1e-30))


def weights(model):
    return sum(
        int(np.prod(i.dims))
        for i in model.graph.initializer
        if i.data_type in (T.FLOAT, T.FLOAT16, T.INT8))


def channels(model, layer):
    names = {layer + "_w", layer + "_w_quantized"}
    return next(i.dims[0] for i in model.graph.initializer if i.name in names)


def bodies(model):
    """Nodes with graphs inside, and functions that are still called."""
    called = {n.op_type for n in model.graph.node if n.domain == "my"}
    return sorted(
        [n.SerializeToString() for n in model.graph.node if any(a.g.node for a in n.attribute)] +
        [f.SerializeToString() for f in model.functions if f.name in called])


def judge(name, job, x, want, before, kept):
    model = onnx.load(f"{job}.onnx")
    got = run(f"{job}.onnx", x)
    check(f"{name} {job}: shapes", all(a.shape == b.shape for a, b in zip(got, want)))
    snr = signal_to_noise(got[0], want[0])
    behind = name in BEHIND  # goes by the size of random weights, and is not refitted
    check(f"{name} {job}: near the original", snr
          > (20 if job == "quantize" else -6 if behind else 15), f"{snr:.1f} dB")
    if job != "quantize":
        check(f"{name} {job}: smaller",
              weights(model) < weights(before), f"{weights(model)} of {weights(before)}")
    else:
        check(f"{name} {job}: integers",
              any(i.name.endswith("_w_quantized") for i in model.graph.initializer))
    for layer in kept:
        check(f"{name} {job}: {layer} is whole", channels(model, layer) == WIDTH)
    if name in INLINED:
        check(f"{name} {job}: the function is gone", not model.functions and
              all(n.domain =="" for n in model.graph.node))
        check(f"{name} {job}: what follows it is compressed",
              channels(model, "c3") < WIDTH or job == "quantize")
        check(f"{name} {job}: integers behind it", job == "prune" or
              "c4_w_quantized" in {i.name
                                   for i in model.graph.initializer})
    inside = bodies(model)
    check(f"{name} {job}: what is inside is as it was", set(inside) <= set(bodies(before)) and
          len(inside) == sum(any(a.g.node for a in n.attribute) for n in before.graph.node) +
          len([f for f in model.functions if any(n.op_type == f.name for n in model.graph.node)]))


def go(name, x):
    global rng
    rng = np.random.default_rng(list(NETS).index(name))
    make, pin, kept = NETS[name]
    before = make()
    onnx.save(before, "in.onnx")
    want = run("in.onnx", x)
    rc, out, err = ehapc("inspect", "in.onnx")
    check(f"{name} inspect", rc == 0, err[-300:] if rc else "")
    if pin:
        check(f"{name} inspect: '{pin}' pins", f"by node '{pin}' (" in out)
    for job, words in JOBS.items():
        if os.path.exists(f"{job}.onnx"):
            os.remove(f"{job}.onnx")
        rc, out, err = ehapc(*words, "in.onnx", "-o", f"{job}.onnx", *DATA)
        if rc == 3 and job != "quantize":
            check(f"{name} {job}: nothing, and the reason", pin and
                  f"pinned by node '{pin}' (" in err, err[-300:])
            continue
        check(f"{name} {job}", rc == 0, f"status {rc}: {err[-400:]}" if rc else "")
        if rc == 0:
            judge(name, job, x, want, before, kept)


def hostile():
    """Functions that call themselves, one another, or twice what calls twice what …: calls as
    before."""
    def calls(k, to, times=1):
        names = ["X", *(f"s{i}" for i in range(1, times)), "Y"]
        return function(
            f"F{k}",
            [h.make_node(f"F{to}", [a], [b], domain="my") for a, b in zip(names, names[1:])],
            domains=["my"])
    last = function("F60", [h.make_node("Neg", ["X"], ["Y"])])
    for what, functions in (("itself", [calls(0, 0)]), ("circle", [calls(0, 1),
                                                                   calls(1, 0)]),
                            ("bomb", [*(calls(k, k + 1, 2) for k in range(60)),
                                      last]), ("chain", [calls(k, k + 1) for k in range(5000)
                                                         ]), ("same name", [SILU, SILU])):
        op = functions[0].name
        onnx.save(network(call(op), domains=["my"], functions=functions), "in.onnx")
        rc, out, err = ehapc("inspect", "in.onnx")
        check(f"hostile functions: {what}", rc == 0 and f"by node 'call' ({op})" in out, err[-300:])


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    x = rng.standard_normal((64, 3, 16, 16)).cumsum(-1).cumsum(-2).astype(np.float32)
    x /= x.std()
    np.savez("x.npz", x=x)
    for name in NETS:
        if not sys.argv[2:] or name in sys.argv[2:]:
            print(name, flush=True)
            go(name, x)
    hostile()
finish()
