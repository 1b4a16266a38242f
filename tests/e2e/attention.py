"""Attention and RotaryEmbedding as one operator each: `ehapc run` equals ONNX Runtime, and so does
a network without some of its heads or widths.
Usage: attention.py EHAPC"""
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

HEADS, WIDTH, HIDDEN, TOKENS, BATCH = 4, 8, 12, 6, 3
rng = np.random.default_rng(0)


def weight(name, *shape):
    return numpy_helper.from_array((rng.standard_normal(shape) / shape[0]**0.5).astype(np.float32),
                                   name)


def network(path, rotary, shared):
    """One block: projections, Attention with `shared` heads of keys and values, projection."""
    kv = shared * WIDTH
    init = [weight("wq", HIDDEN, HEADS * WIDTH), weight("wk", HIDDEN, kv), weight("wv", HIDDEN, kv),
            weight("wo", HEADS * WIDTH, HIDDEN)]
    nodes = [helper.make_node("MatMul", ["x", f"w{k}"], [k], f"proj_{k}") for k in "qkv"]
    q, k = "q", "k"
    if rotary:
        angle = np.tile(np.arange(TOKENS)[None, :, None] / 3**np.arange(WIDTH // 2), (BATCH, 1, 1))
        init += [
            numpy_helper.from_array(f(angle).astype(np.float32), n)
            for f, n in ((np.cos, "cos"), (np.sin, "sin"))
        ]
        for name, heads in (("q", HEADS), ("k", shared)):
            nodes.append(
                helper.make_node("RotaryEmbedding", [name, "cos", "sin"], [f"{name}_turned"],
                                 f"turn_{name}",
                                 num_heads=heads))
        q, k = "q_turned", "k_turned"
    nodes += [
        helper.make_node("Attention", [q, k, "v"], ["a"],
                         "attend",
                         q_num_heads=HEADS,
                         kv_num_heads=shared,
                         is_causal=1),
        helper.make_node("MatMul", ["a", "wo"], ["y"], "proj_o")
    ]
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT,
                                                    [BATCH if rotary else "N", TOKENS, HIDDEN])
    graph = helper.make_graph(nodes, "block", [value("x")], [value("y")], init)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def run(path, x):
    onnx.checker.check_model(path, full_check=True)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def ehapc(*words):
    done = subprocess.run([sys.argv[1], *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stderr


with tempfile.TemporaryDirectory() as folder:
    x = rng.standard_normal((BATCH, TOKENS, HIDDEN)).astype(np.float32)
    np.savez(f"{folder}/x.npz", x=x)
    for rotary, shared in ((False, HEADS), (False, 2), (True, HEADS)):
        name = f"{folder}/{'rotary' if rotary else 'plain'}{shared}.onnx"
        network(name, rotary, shared)
        want = run(name, x)
        ehapc("run", name, "--data", f"{folder}/x.npz", "-o", f"{folder}/y.npz")
        off = np.abs(np.load(f"{folder}/y.npz")["y"] - want).max()
        assert off < 1e-5, (name, off)
        for kind in ["heads"] + ([] if rotary else ["widths", "both"]):
            small = f"{folder}/small.onnx"
            said = ehapc("prune", name, "-o", small, "--data", f"{folder}/x.npz", "--flops", "0.7",
                         "--align", "1", "--attention", kind, "--criterion", "l1")
            assert "equal to the network with those channels zeroed" in said, said
            ehapc("run", small, "--data", f"{folder}/x.npz", "-o", f"{folder}/y.npz")
            got = run(small, x)
            assert got.shape == want.shape
            off = np.abs(np.load(f"{folder}/y.npz")["y"] - got).max()
            assert off < 1e-5, (name, kind, off)
            left = [list(i.dims) for i in onnx.load(small).graph.initializer if len(i.dims) == 2]
            if kind == "both" and shared == HEADS:  # whole heads, and positions of those that stay
                target = next(
                    numpy_helper.to_array(i)
                    for i in onnx.load(small).graph.initializer
                    if i.dims[:] == [4])
                heads = int(target[2])
                assert heads < HEADS and left[2][1] < heads * WIDTH, (heads, left)
            print(f"{name.rsplit('/', 1)[1]}: {kind}: {left}")
