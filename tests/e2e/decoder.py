"""Decoders with a cache, as exporters write them: tokens, a mask over past and present, positions,
keys and values of each layer as inputs [batch, heads, past, width] with open lengths, and those
that come out longer by what is new. Heads of their own, or keys shared by groups of them. Each
job, with data and without, ends with a file that ONNX Runtime runs like the original, at other
lengths, too.
Usage: decoder.py EHAPC"""

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
VOCABULARY, WIDTH, HEADS, HIDDEN, LAYERS, LONGEST = 61, 32, 4, 64, 2, 512
EACH = WIDTH // HEADS


class Net:
    def __init__(self):
        self.nodes, self.consts, self.count = [], [], 0

    def const(self, value):
        self.count += 1
        self.consts.append(nh.from_array(np.asarray(value), f"c{self.count}"))
        return f"c{self.count}"

    def add(self, op, inputs, y=None, **attributes):
        self.count += 1
        y = y or f"{op.lower()}{self.count}"
        self.nodes.append(h.make_node(op, inputs, [y], name=f"node_{y}", **attributes))
        return y

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def dense(self, x, i, o, y=None):
        return self.add(
            "MatMul",
            [x, self.const((rng.standard_normal((i, o)) / np.sqrt(i)).astype(np.float32))],
            y,
        )

    def size(self, x, axis):
        return self.add("Gather", [self.add("Shape", [x]), self.ints(axis)])

    def norm(self, x):
        power = self.add("ReduceMean", [self.add("Mul", [x, x])], axes=[-1])
        root = self.add("Sqrt", [self.add("Add", [power, self.const(np.float32(1e-6))])])
        gain = self.const((1 + 0.2 * rng.standard_normal(WIDTH)).astype(np.float32))
        return self.add("Mul", [self.add("Div", [x, root]), gain])


def rotated(n, x, cosine, sine):
    first = n.add("Slice", [x, n.ints(0), n.ints(EACH // 2), n.ints(3)])
    second = n.add("Slice", [x, n.ints(EACH // 2), n.ints(EACH), n.ints(3)])
    turned = n.add("Concat", [n.add("Neg", [second]), first], axis=3)
    return n.add("Add", [n.add("Mul", [x, cosine]), n.add("Mul", [turned, sine])])


def attention(n, x, k, groups, mask, cosine, sine):
    """Heads by Reshape with the batch and length of x; `groups` keys and values, repeated for the
    heads that share them."""
    b, t = n.size(x, 0), n.size(x, 1)
    head = {}
    for c, many in (("q", HEADS), ("k", groups), ("v", groups)):
        y = n.add(
            "Reshape",
            [
                n.dense(x, WIDTH, many * EACH),
                n.add("Concat", [b, t, n.ints(many), n.ints(EACH)], axis=0),
            ],
        )
        head[c] = n.add("Transpose", [y], perm=[0, 2, 1, 3])
    head["q"], head["k"] = (rotated(n, head[c], cosine, sine) for c in "qk")
    for c, what in (("k", "key"), ("v", "value")):
        head[c] = n.add("Concat", [f"past.{k}.{what}", head[c]], f"present.{k}.{what}", axis=2)
        if groups < HEADS:
            total = n.size(head[c], 2)
            apart = n.add("Unsqueeze", [head[c], n.ints(2)])
            wide = n.add(
                "Expand",
                [
                    apart,
                    n.add(
                        "Concat",
                        [b, n.ints(groups), n.ints(HEADS // groups), total, n.ints(EACH)],
                        axis=0,
                    ),
                ],
            )
            head[c] = n.add(
                "Reshape", [wide, n.add("Concat", [b, n.ints(HEADS), total, n.ints(EACH)], axis=0)]
            )
    scores = n.add("MatMul", [head["q"], n.add("Transpose", [head["k"]], perm=[0, 1, 3, 2])])
    scores = n.add("Mul", [scores, n.const(np.float32(EACH**-0.5))])
    p = n.add("Softmax", [n.add("Add", [scores, mask])], axis=-1)
    o = n.add("Transpose", [n.add("MatMul", [p, head["v"]])], perm=[0, 2, 1, 3])
    o = n.add("Reshape", [o, n.add("Concat", [b, t, n.ints(WIDTH)], axis=0)])
    return n.dense(o, WIDTH, WIDTH)


def masked(n):
    """0 where a position may be looked at, else the least float: not behind the one that looks, and
    not where the mask is 0."""
    past, total = n.size("past.0.key", 2), n.size("attention_mask", 1)
    scalar = [n.add("Squeeze", [s]) for s in (past, total)]
    zero, one = n.const(np.int64(0)), n.const(np.int64(1))
    rows = n.add("Unsqueeze", [n.add("Range", [scalar[0], scalar[1], one]), n.ints(1)])
    columns = n.add("Unsqueeze", [n.add("Range", [zero, scalar[1], one]), n.ints(0)])
    after = n.add("Greater", [columns, rows])
    hidden = n.add(
        "Not", [n.add("Cast", [n.add("Unsqueeze", ["attention_mask", n.ints(1, 2)])], to=T.BOOL)]
    )
    either = n.add("Or", [hidden, after])
    return n.add(
        "Where", [either, n.const(np.float32(np.finfo(np.float32).min)), n.const(np.float32(0))]
    )


def decoder(groups, named):
    n = Net()
    angles = np.arange(LONGEST)[:, None] / 100 ** (np.arange(EACH // 2)[None] * 2 / EACH)
    angles = np.concatenate([angles, angles], 1).astype(np.float32)
    cosine, sine = (
        n.add("Unsqueeze", [n.add("Gather", [n.const(f(angles)), "position_ids"]), n.ints(1)])
        for f in (np.cos, np.sin)
    )
    mask = masked(n)
    x = n.add(
        "Gather",
        [n.const(rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)), "input_ids"],
    )
    for k in range(LAYERS):
        x = n.add("Add", [x, attention(n, n.norm(x), k, groups, mask, cosine, sine)])
        u = n.norm(x)
        gate, up = n.dense(u, WIDTH, HIDDEN), n.dense(u, WIDTH, HIDDEN)
        x = n.add(
            "Add",
            [
                x,
                n.dense(
                    n.add("Mul", [n.add("Mul", [gate, n.add("Sigmoid", [gate])]), up]),
                    HIDDEN,
                    WIDTH,
                ),
            ],
        )
    n.dense(n.norm(x), WIDTH, VOCABULARY, "logits")
    past, total = ("past_length", "past_length + sequence") if named else ("P", "whole")
    ids = [
        h.make_tensor_value_info(i, T.INT64, ["batch", t])
        for i, t in (
            ("input_ids", "sequence"),
            ("attention_mask", total),
            ("position_ids", "sequence"),
        )
    ]
    cache = [(f"{{}}.{k}.{what}", groups) for k in range(LAYERS) for what in ("key", "value")]
    inputs = ids + [
        h.make_tensor_value_info(c.format("past"), T.FLOAT, ["batch", g, past, EACH])
        for c, g in cache
    ]
    outputs = [h.make_tensor_value_info("logits", T.FLOAT, ["batch", "sequence", VOCABULARY])] + [
        h.make_tensor_value_info(c.format("present"), T.FLOAT, ["batch", g, total, EACH])
        for c, g in cache
    ]
    graph = h.make_graph(n.nodes, "decoder", inputs, outputs, n.consts)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def feeds(batch, past, new, groups):
    f = {
        "input_ids": rng.integers(0, VOCABULARY, (batch, new)),
        "attention_mask": np.ones((batch, past + new), np.int64),
        "position_ids": np.tile(np.arange(past, past + new), (batch, 1)),
    }
    for k in range(LAYERS):
        for what in ("key", "value"):
            f[f"past.{k}.{what}"] = rng.standard_normal((batch, groups, past, EACH)).astype(
                np.float32
            )
    return f


def run(path, f):
    s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {o.name: y for o, y in zip(s.get_outputs(), s.run(None, f))}


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    return done.returncode, done.stderr


# Words, and the least dB with data and with what is made up: noise in the cache is far from what
# random tests hold.
JOBS = {
    "prune": (["prune", "--flops", "0.85"], 6, 0),
    "quantize": (["quantize", "--steps", "0"], 12, 10),
    "job": (["--flops", "0.85", "--steps", "10", "--batch", "16"], 6, 0),
}


def go(groups, named):
    onnx.save(decoder(groups, named), "in.onnx")
    before = list(onnx.load("in.onnx").graph.input)
    np.savez("x.npz", **feeds(48, 12, 5, groups))
    tests = [feeds(2, 12, 5, groups), feeds(1, 7, 1, groups), feeds(1, 0, 9, groups)]
    np.savez("one.npz", **tests[0])
    rc, err = ehapc("run", "in.onnx", "--data", "one.npz", "-o", "y.npz")
    want = run("in.onnx", tests[0])
    check(
        f"{groups} run",
        rc == 0 and all(np.allclose(np.load("y.npz")[n], w, atol=1e-4) for n, w in want.items()),
        err.strip(),
    )
    rc, err = ehapc("sensitivity", "in.onnx", "-o", "s.json")
    check(f"{groups} sensitivity", rc == 0, err.strip()[-300:])
    for job, (words, *least) in JOBS.items():
        for data in (["--data", "x.npz"], []) if groups < HEADS else (["--data", "x.npz"],):
            rc, err = ehapc(*words, "in.onnx", "-o", "out.onnx", *data)
            what = f"{groups} {job} {' '.join(data)}"
            check(what, rc == 0, err.strip()[-300:])
            if rc:
                continue
            onnx.checker.check_model("out.onnx", full_check=True)
            check(f"{what}: inputs as before", before == list(onnx.load("out.onnx").graph.input))
            for f in tests:
                want, got = run("in.onnx", f), run("out.onnx", f)
                snr = min(
                    10 * np.log10((w**2).sum() / max(((got[n] - w) ** 2).sum(), 1e-30))
                    for n, w in want.items()
                )
                check(f"{what} of {f['input_ids'].shape}", snr > least[not data], f"{snr:.1f} dB")


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    for groups, named in ((HEADS, True), (2, False)):
        go(groups, named)
finish()
