"""What ehapc does not understand passes through, and the rest of the model is compressed: unknown
operators in front, in the middle and behind, bodies, local functions, odd types, sparse
initializers. What is preserved is compared field by field.
Usage: behind.py EHAPC"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from checks import check, finish

ehapc = sys.argv[1]
rng = np.random.default_rng(0)
NOTHING = 3
F = TensorProto.FLOAT


def weight(name, *dims):
    return numpy_helper.from_array(
        (rng.standard_normal(dims) / np.sqrt(dims[1])).astype(np.float32), name)


def chain(prefix, x, y, size=1):
    """Two convolutions with a Relu between, 1x1 unless told: 8 -> 16 -> 8 channels."""
    nodes = [
        helper.make_node("Conv", [x, prefix + "w1"], [prefix + "a"],
                         prefix + "conv1",
                         pads=4 * [size // 2]),
        helper.make_node("Relu", [prefix + "a"], [prefix + "b"], prefix + "relu"),
        helper.make_node("Conv", [prefix + "b", prefix + "w2"], [y],
                         prefix + "conv2",
                         pads=4 * [size // 2])
    ]
    return nodes, [
        weight(prefix + "w1", 16, 8, size, size),
        weight(prefix + "w2", 8, 16, size, size)
    ]


def info(name, dims=("N", 8, 6, 6)):
    return helper.make_tensor_value_info(name, F, list(dims))


def model(nodes, weights, value_info=(), outputs=None, inputs=None, opsets=(), **rest):
    graph = helper.make_graph(nodes, "g", inputs or [info("x")], outputs or [info("y")], weights,
                              value_info=list(value_info))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1), *opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **rest)


def odd(x, y, name="odd"):
    return helper.make_node("Odd", [x], [y], name, domain="com.example")


def run(*words):
    done = subprocess.run([ehapc, *words], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stderr + done.stdout


def width(path, name):
    """Rows of the weight of node `name`."""
    m = onnx.load(path)
    node = next(n for n in m.graph.node if n.name == name)
    return next(w.dims[0] for w in m.graph.initializer if w.name == node.input[1])


def pruned(what, m, smaller, work, said=""):
    """prune takes channels from the nodes `smaller`, and the result is a valid model."""
    onnx.save(m, f"{work}/m.onnx")
    rc, text = run("inspect", f"{work}/m.onnx")
    check(f"{what}: inspect", rc == 0, text)
    rc, text = run("sensitivity", f"{work}/m.onnx", "-o", f"{work}/s.json")
    check(f"{what}: sensitivity", rc == 0, text)
    rc, text = run("prune", f"{work}/m.onnx", "-o", f"{work}/p.onnx", "--flops", "0.6", "--align",
                   "1", "--json", f"{work}/p.json")
    check(f"{what}: prune", rc == 0 and said in text, text)
    if rc == 0:
        onnx.checker.check_model(onnx.load(f"{work}/p.onnx"))
        check(f"{what}: inputs",
              list(onnx.load(f"{work}/p.onnx").graph.input) == list(m.graph.input))
        for name in smaller:
            check(f"{what}: {name} is smaller", width(f"{work}/p.onnx", name) < 16, text)
        layers = {l["node"]: l for l in json.load(open(f"{work}/p.json"))["layers"]}
        check(f"{what}: report", all(layers[n]["after"] < layers[n]["before"] for n in smaller),
              str(layers))


def unknown_operators(work):
    a, wa = chain("f/", "x", "m")
    b, wb = chain("b/", "n", "y")
    pruned("unknown in the middle", model([*a, odd("m", "n"), *b], wa + wb, [info("n")]),
           ["f/conv1", "b/conv1"], work, "behind node 'odd' (Odd)")
    rc, text = run(f"{work}/m.onnx", "-o", f"{work}/p.onnx", "--align", "1", "--steps", "0",
                   "--flops", "0.6")
    check("main job around an unknown node", rc == 0, text)
    check("it quantizes in front",
          any(n.op_type == "QuantizeLinear" for n in onnx.load(f"{work}/p.onnx").graph.node))
    check("and prunes behind", width(f"{work}/p.onnx", "b/conv1") < 16)
    rc, text = run("prune", f"{work}/m.onnx", "-o", f"{work}/p.onnx", "--align", "1", "--flops",
                   "0.6", "--keep", "b/conv1")
    check("a node behind is kept", rc == 0 and width(f"{work}/p.onnx", "b/conv1") == 16, text)
    c, wc = chain("b/", "n", "y")
    pruned("unknown in front", model([odd("x", "n"), *c], wc, [info("n")]), ["b/conv1"], work)
    d, wd = chain("f/", "x", "m")
    pruned("unknown behind", model([*d, odd("m", "y")], wd), ["f/conv1"], work)
    pruned("of unknown shape", model([odd("x", "n"), *c], wc), ["b/conv1"], work)


def one_budget(work):
    """What is behind can lose nothing: what is in front makes up for it, down to half of what was
    asked."""
    for behind, least, most in ((1, 0.5, 0.6), (12, 0.5, 0.6), (60, 0.65, 0.75)):
        nodes, weights = chain("f/", "x", "m", 3)
        nodes.append(odd("m", "n0"))
        for k in range(behind):
            nodes.append(
                helper.make_node("Conv", [f"n{k}", f"w{k}"],
                                 ["y" if k + 1 == behind else f"n{k + 1}"], f"fixed{k}"))
            weights.append(weight(f"w{k}", 8, 8, 1, 1))
        onnx.save(model(nodes, weights, [info("n0")]), f"{work}/m.onnx")
        keep = ",".join(f"fixed{k}" for k in range(behind))
        rc, text = run("prune", f"{work}/m.onnx", "-o", f"{work}/p.onnx", "--params", "0.6",
                       "--align", "1", "--keep", keep)
        check(f"{behind} layers behind are kept", rc == 0 and "gives less than its part" in text,
              text)
        count = lambda path: sum(int(np.prod(w.dims)) for w in onnx.load(path).graph.initializer)
        share = count(f"{work}/p.onnx") / count(f"{work}/m.onnx")
        check(f"one budget over {behind} layers behind", least <= share <= most,
              f"{share:.3f} {text}")


def nothing(work):
    onnx.save(model([odd("x", "y")], []), f"{work}/m.onnx")
    if os.path.exists(f"{work}/p.onnx"):
        os.remove(f"{work}/p.onnx")
    for words in (["prune"], ["quantize"], []):
        rc, text = run(*words, f"{work}/m.onnx", "-o", f"{work}/p.onnx")
        check(f"only unknown: {words or 'job'}", rc == NOTHING and "(Odd)" in text, f"{rc} {text}")
        check("nothing is written", not os.path.exists(f"{work}/p.onnx"))


def function(ops):
    """A local function of one node, y = ops[0](x)."""
    node = helper.make_node(ops[0], ["fx"], ["fy"], "inside", domain=ops[1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_function("com.example", "Odd", ["fx"], ["fy"], [node], opsets)


def structure(work):
    """If with captures, functions, sparse initializers, sequences, strings, complex numbers."""
    a, wa = chain("f/", "x", "m")
    b, wb = chain("b/", "n", "y")
    both = ["f/conv1", "b/conv1"]
    branch = [
        helper.make_graph([helper.make_node(op, ["m"], [op])], op, [], [info(op)])
        for op in ("Relu", "Neg")
    ]
    pick = helper.make_node("If", ["flag"], ["n"],
                            "pick",
                            then_branch=branch[0],
                            else_branch=branch[1])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    pruned("If with captures", model([*a, pick, *b], wa + wb, [info("n")],
                                     inputs=[info("x"), flag]), both, work)
    for what, ops in (("known function", ("Relu", "")), ("unknown function", ("Odder",
                                                                              "com.example"))):
        pruned(what, model([*a, odd("m", "n"), *b], wa + wb, [info("n")],
                           functions=[function(ops)]), both, work)
    if os.path.exists(f"{work}/p.onnx"):
        check("the function is kept", len(onnx.load(f"{work}/p.onnx").functions) == 1)
    sparse = model([*a, helper.make_node("Add", ["m", "sp"], ["n"], "add"), *b], wa + wb,
                   [info("n")])
    values = numpy_helper.from_array(np.array([1.5], np.float32), "sp")
    index = numpy_helper.from_array(np.array([3], np.int64), "sp_i")
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, index, [6]))
    pruned("sparse initializer", sparse, both, work)
    seq = [helper.make_node("SequenceConstruct", ["m"], ["s"], "seq"),
           helper.make_node("SequenceAt", ["s", "zero"], ["n"], "at")]
    zero = numpy_helper.from_array(np.array(0), "zero")
    pruned("sequence", model([*a, *seq, *b], wa + wb + [zero], [info("n")]), both, work)
    for what, kind in (("string", TensorProto.STRING), ("complex", TensorProto.COMPLEX64)):
        extra = helper.make_tensor_value_info("t", kind, ["K"])
        made = helper.make_tensor_value_info("u", kind, ["K"])
        same = helper.make_node("Identity", ["t"], ["u"], "same")
        pruned(what, model([*a, same], wa, inputs=[info("x"), extra], outputs=[info("m"), made]),
               both[:1], work)


def preserved(work):
    """What stays, field by field, and the same bytes twice."""
    a, wa = chain("f/", "x", "y", 3)
    m = model(a, wa)
    m.doc_string, m.domain, m.model_version, m.ir_version = "a model", "org.example", 7, 8
    m.graph.doc_string, m.graph.node[0].doc_string = "a graph", "a node"
    helper.set_model_props(m, {"key": "value"})
    m.graph.node[1].metadata_props.add(key="where", value="here")
    for external in (False, True):
        save = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0
                } if external else {}
        onnx.save(onnx.ModelProto.FromString(m.SerializeToString()), f"{work}/m.onnx", **save)
        made = []
        for k, threads in enumerate(("1", "2")):
            folder = f"{work}/out{external}{k}"
            os.mkdir(folder)
            rc, text = run("prune", f"{work}/m.onnx", "-o", f"{folder}/p.onnx", "--flops", "0.6",
                           "--align", "1", "--threads", threads)
            check("prune", rc == 0, text)
            made.append({f: open(f"{folder}/{f}", "rb").read() for f in sorted(os.listdir(folder))})
        check("the same bytes", made[0] == made[1])
        check("data stays where it was", len(made[0]) == 1 + external, str(list(made[0])))
        p = onnx.load(f"{work}/out{external}0/p.onnx", load_external_data=False)
        for t in p.graph.initializer:
            entry = {e.key: e.value for e in t.external_data}
            check("external" if external else "inline",
                  bool(entry) == external or not t.name.endswith(("w1", "w2")))
            check("aligned", int(entry.get("offset", 0)) % 64 == 0, str(entry))
        for field in ("doc_string", "domain", "model_version"):
            check(field, getattr(p, field) == getattr(m, field))
        check("IR version", p.ir_version <= m.ir_version)
        check("metadata", {e.key: e.value for e in p.metadata_props}["key"] == "value")
        check("graph doc", p.graph.doc_string == "a graph")
        check(
            "inputs and outputs",
            list(p.graph.input) == list(m.graph.input) and
            list(p.graph.output) == list(m.graph.output))
        check("node names", [n.name for n in p.graph.node] == [n.name for n in m.graph.node])
        check("node doc", p.graph.node[0].doc_string == "a node")
        check("node metadata",
              list(p.graph.node[1].metadata_props) == list(m.graph.node[1].metadata_props))
        check("initializer names", {t.name
                                    for t in m.graph.initializer}
              <= {t.name
                  for t in p.graph.initializer})


with tempfile.TemporaryDirectory() as work:
    unknown_operators(work)
    one_budget(work)
    nothing(work)
    structure(work)
    preserved(work)
finish()
