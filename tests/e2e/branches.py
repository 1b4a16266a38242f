"""If whose condition hangs on inputs that are single numbers: `--fix` says what they always are,
the branch taken is compressed, and ONNX Runtime runs what comes out like the original with those
values, whatever it is fed there. A condition that is constant needs no option; `run` decides by
the arrays it is given.
Usage: branches.py EHAPC"""

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


class Body:
    """Nodes with constants (initializers or Constant nodes); names may be another body's, too."""

    def __init__(self, inline=False):
        self.nodes, self.consts, self.inline = [], [], inline

    def const(self, name, value):
        t = nh.from_array(np.asarray(value), name)
        if self.inline:
            self.nodes.append(h.make_node("Constant", [], [name], value=t))
        else:
            self.consts.append(t)
        return name

    def add(self, op, inputs, y, **attributes):
        self.nodes.append(
            h.make_node(op, inputs, [y] if isinstance(y, str) else y, name=f"n_{y}", **attributes)
        )
        return y

    def conv(self, x, y, i, o, k=3):
        w = self.const(
            y + "_w",
            (rng.standard_normal((o, i, k, k)) / np.sqrt(i * k * k / 2)).astype(np.float32),
        )
        b = self.const(y + "_b", (0.1 * rng.standard_normal(o)).astype(np.float32))
        return self.add("Relu", [self.add("Conv", [x, w, b], y + "_c", pads=[k // 2] * 4)], y)

    def head(self, x, y, i):
        f = self.add("Flatten", [self.add("GlobalAveragePool", [x], y + "_p")], y + "_f")
        return self.add(
            "Gemm",
            [f, self.const(y + "_w", rng.standard_normal((10, i)).astype(np.float32))],
            y,
            transB=1,
        )

    def graph(self, name, outputs, inputs=()):
        return h.make_graph(
            self.nodes,
            name,
            list(inputs),
            [h.make_tensor_value_info(o, T.FLOAT, None) for o in outputs],
            self.consts,
        )


def nested():
    """The branch of 16000: an If inside, on `loud`, reads values of this body and of the graph."""
    b = Body(inline=True)
    a = b.conv("x", "a", 3, 32)
    quiet, loud = Body(), Body(inline=True)
    quiet.add("Identity", [quiet.conv("a", "b", 32, 40)], "m")
    loud.add("Mul", [loud.conv("a", "b", 32, 40), "gain"], "m")
    b.add(
        "If",
        ["loud"],
        "c",
        then_branch=loud.graph("loud", ["m"]),
        else_branch=quiet.graph("quiet", ["m"]),
    )
    b.head(b.conv("c", "d", 40, 24), "scores", 24)
    b.add("Identity", ["x"], "z")
    b.const("number", np.array([2], np.float32))
    return b.graph("then", ["scores", "z", "number"])


def other():
    b = Body()
    b.head(b.conv(b.conv("x", "a", 3, 24, 5), "b", 24, 32), "scores", 32)
    b.add("Neg", ["x"], "z")
    b.const("number", np.array([3], np.float32))
    return b.graph("else", ["scores", "z", "number"])


def network(constant=False):
    g = Body()
    g.const("usual", np.int64(16000))
    g.const("yes", np.array(True))
    rate = g.add("Equal", ["rate", "usual"], "is_usual")
    g.add(
        "If",
        ["yes" if constant else rate],
        ["y", "same", "factor"],
        then_branch=nested(),
        else_branch=other(),
    )
    inputs = [
        h.make_tensor_value_info("x", T.FLOAT, ["N", 3, 16, 16]),
        h.make_tensor_value_info("rate", T.INT64, []),
        h.make_tensor_value_info("loud", T.BOOL, [1]),
        h.make_tensor_value_info("gain", T.FLOAT, [1]),
    ]
    outputs = [
        h.make_tensor_value_info("y", T.FLOAT, ["N", 10]),
        h.make_tensor_value_info("same", T.FLOAT, ["N", 3, 16, 16]),
        h.make_tensor_value_info("factor", T.FLOAT, [1]),
    ]
    graph = h.make_graph(g.nodes, "g", inputs, outputs, g.consts)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def feeds(n, rate, loud, gain=0.5):
    x = rng.standard_normal((n, 3, 16, 16)).cumsum(-1).cumsum(-2)
    return {
        "x": (2 * np.tanh(x / x.std())).astype(np.float32),
        "rate": np.array(rate),
        "loud": np.array([loud]),
        "gain": np.array([gain], np.float32),
    }


def run(path, f):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, f)


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def runs_both():
    """`run` takes the branch that the arrays choose."""
    for rate, loud in ((16000, True), (16000, False), (8000, True)):
        f = feeds(2, rate, loud)
        np.savez("one.npz", **f)
        rc, _, err = ehapc("run", "in.onnx", "--data", "one.npz", "-o", "y.npz")
        check(f"run {rate} {loud}", rc == 0, err.strip())
        if rc == 0:
            got = np.load("y.npz")
            off = max(
                np.abs(got[n] - w).max() for n, w in zip(("y", "same", "factor"), run("in.onnx", f))
            )
            check(f"run {rate} {loud}: as ONNX Runtime", off < 1e-5, f"{off:.1g}")


JOBS = {
    "prune": (["prune", "--flops", "0.8"], 8),
    "quantize": (["quantize", "--steps", "0"], 18),
    "job": (["--flops", "0.8", "--steps", "20", "--batch", "32"], 8),
}


def compressed(what, rate, loud, fixes, data):
    f = feeds(4, rate, loud)
    want = run("in.onnx", f)
    for job, (words, least) in JOBS.items():
        rc, _, err = ehapc(*words, "in.onnx", "-o", "out.onnx", *fixes, *data)
        name = f"{what} {job} {' '.join(fixes + data)}"
        check(name, rc == 0, err.strip()[-300:])
        if rc:
            continue
        onnx.checker.check_model("out.onnx", full_check=True)
        model, before = onnx.load("out.onnx"), onnx.load("in.onnx")
        check(
            f"{name}: inputs and outputs as before",
            [i.SerializeToString() for i in model.graph.input]
            == [i.SerializeToString() for i in before.graph.input]
            and [o.name for o in model.graph.output] == ["y", "same", "factor"],
        )
        check(f"{name}: no If", all(n.op_type != "If" for n in model.graph.node))
        if job != "prune":
            check(f"{name}: integers", any(n.op_type == "QuantizeLinear" for n in model.graph.node))
        # What is fixed is not looked at any more.
        for other_rate in (rate, 24000 - rate):
            got = run("out.onnx", {**f, "rate": np.array(other_rate)})
            snr = min(
                10 * np.log10((w**2).sum() / max(((g - w) ** 2).sum(), 1e-30))
                for w, g in zip(want, got)
            )
            check(f"{name} at {other_rate}", snr > least, f"{snr:.1f} dB")


def errors():
    for words, says in (
        (["--fix", "nosuch=1"], "no input 'nosuch'"),
        (["--fix", "x=1"], "input 'x' is float[N,3,16,16]"),
        (["--fix", "rate=1:2"], "gives '1:2', input 'rate' is int64"),
        (["--fix", "rate"], "NAME=VALUE"),
        (["--fix", "rate=1e3"], "'1e3'"),
        (["--fix", "rate=99999999999999999999"], "is no int64"),
        (["--fix", "rate=nan"], "is no int64"),
        (["--fix", "gain=nan"], "is no float"),
        (["--fix", "gain=1e39"], "is no float"),
        (["--fix", "loud=2"], "is no bool"),
        (["--fix", "rate="], "is no int64"),
        (["--fix", "rate=1", "--fix", "rate=2"], "fixed twice"),
    ):
        for job in (["quantize"], ["prune"], [], ["inspect"]):
            rc, _, err = ehapc(
                *job, "in.onnx", *(["-o", "bad.onnx"] if job != ["inspect"] else []), *words
            )
            check(
                f"error {' '.join(job + words)}",
                rc == 2 and says in err and not os.path.exists("bad.onnx"),
                err.strip()[-200:],
            )


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    onnx.save(network(), "in.onnx")
    runs_both()
    np.savez(
        "x.npz", x=feeds(96, 0, False)["x"], gain=np.array([0.5], np.float32), loud=np.array([True])
    )
    fix = ["--fix", "rate=16000", "--fix", "loud=true"]
    compressed("then", 16000, True, fix, ["--data", "x.npz"])
    compressed("quiet", 16000, False, ["--fix", "rate=16000,loud=0,gain=0.5"], ["--data", "x.npz"])
    compressed("else", 8000, True, ["--fix", "rate=8000"], ["--data", "x.npz"])
    rc, out, err = ehapc("in.onnx", "-o", "out.onnx")
    check("undecided: told what would", rc == 3 and "--fix rate=16000" in err, err.strip()[-300:])
    rc, out, err = ehapc("in.onnx", "-o", "out.onnx", "--fix", "rate=16000", "--steps", "0")
    check(
        "undecided inside: told what would", rc == 0 and "--fix loud=1" in err, err.strip()[-300:]
    )
    rc, out, err = ehapc("inspect", "in.onnx", "--fix", "rate=16000", "--fix", "loud=1")
    check(
        "inspect: what is inside",
        rc == 0 and "n_d_c" in out and "replaced by the branch taken" in err,
        err.strip()[-300:],
    )
    rc, _, err = ehapc(
        "sensitivity", "in.onnx", "-o", "s.json", "--fix", "rate=8000", "--criterion", "l2"
    )
    check("sensitivity", rc == 0 and "n_b_c" in open("s.json").read(), err.strip()[-300:])
    errors()
    onnx.save(network(constant=True), "in.onnx")
    compressed("constant", 0, True, ["--fix", "loud=1"], ["--data", "x.npz"])
finish()
