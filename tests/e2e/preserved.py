"""What is about a network and not of it comes out as it went in: names, types and symbolic
dimensions of inputs and outputs, metadata, doc strings, node names, versions, where weights are
kept. In prune and in the main job, with weights inside the model and beside it; the same bytes for
any number of threads.
Usage: preserved.py EHAPC"""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

from checks import failures, finish

rng = np.random.default_rng(0)


def conv(consts, name, x, y, inputs, outputs):
    w = (rng.standard_normal((outputs, inputs, 3, 3)) / np.sqrt(4.5 * inputs)).astype(np.float32)
    consts.append(nh.from_array(w, name + ".weight"))
    consts.append(nh.from_array(np.full(outputs, 0.1, np.float32), name + ".bias"))
    consts[-2].doc_string = f"the weights of {name}"
    n = h.make_node("Conv", [x, name + ".weight", name + ".bias"], [y],
                    name=f"/{name}/Conv",
                    pads=[1] * 4,
                    doc_string=f"convolution {name}")
    n.metadata_props.add(key="layer", value=name)
    return n


def model(ir_version, opset):
    c = []
    nodes = [
        conv(c, "c1", "image", "a1", 3, 32),
        h.make_node("Relu", ["a1"], ["r1"], name="/relu1"),
        conv(c, "c2", "r1", "a2", 32, 192),
        h.make_node("Relu", ["a2"], ["r2"], name="/relu2"),
        conv(c, "c3", "r2", "heat", 192, 4),
        h.make_node("GlobalAveragePool", ["heat"], ["p"], name="/pool"),
        h.make_node("Flatten", ["p"], ["class"], name="/flat")
    ]
    image = h.make_tensor_value_info("image", T.FLOAT, ["batch", 3, "height", "width"],
                                     "what the camera saw")
    outputs = [h.make_tensor_value_info("heat", T.FLOAT, ["batch", 4, "height", "width"], "where"),
               h.make_tensor_value_info("class", T.FLOAT, ["batch", 4])]
    image.metadata_props.add(key="unit", value="lux")
    g = h.make_graph(nodes, "net", [image], outputs, c, "a small network")
    g.metadata_props.add(key="stage", value="beta")
    m = h.make_model(g,
                     ir_version=ir_version,
                     opset_imports=[h.make_opsetid("", opset)],
                     producer_name="maker",
                     producer_version="3.1",
                     domain="org.example",
                     model_version=7,
                     doc_string="of the test")
    h.set_model_props(m, {"labels": "a,b,c,d", "author": "N. N."})
    return m


JOBS = {"prune": ["prune", "--flops", "0.6"], "job": ["--flops", "0.6", "--steps", "2"]}


def same(what, got, want):
    if got != want:
        failures.append(what)
        print(f"  FAIL {what}: {got!r}, not {want!r}", flush=True)


def texts(values):
    return [v.SerializeToString() for v in values]


def about_nodes(m):
    return {n.name: (n.op_type, n.doc_string, [(p.key, p.value) for p in n.metadata_props])
            for n in m.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")}


def weight_names(m):
    return {i.name for i in m.graph.initializer if i.name.startswith("c")} - {
        i.name for i in m.graph.initializer if i.name.endswith(("_scale", "_zero_point"))}


def compare(what, got, want, ir_version, opset):
    same(f"{what}: IR version", got.ir_version, ir_version)
    same(f"{what}: opset", [o.version for o in got.opset_import], [opset])
    for field in ("model_version", "domain", "doc_string"):
        same(f"{what}: {field}", getattr(got, field), getattr(want, field))
    props = {p.key: p.value for p in got.metadata_props}
    for p in want.metadata_props:
        same(f"{what}: metadata '{p.key}'", props.get(p.key), p.value)
    same(f"{what}: source", props.get("ehapc.source_producer"), "maker 3.1")
    for field in ("name", "doc_string"):
        same(f"{what}: graph {field}", getattr(got.graph, field), getattr(want.graph, field))
    same(f"{what}: graph metadata", texts(got.graph.metadata_props),
         texts(want.graph.metadata_props))
    same(f"{what}: inputs", texts(got.graph.input), texts(want.graph.input))
    same(f"{what}: outputs", texts(got.graph.output), texts(want.graph.output))
    same(f"{what}: nodes", about_nodes(got), about_nodes(want))


def compare_weights(what, got, want):
    docs = {i.name: i.doc_string for i in want.graph.initializer}
    names = {n.removesuffix("_quantized") for n in weight_names(got)}
    same(f"{what}: initializer names", names, set(docs))
    for i in got.graph.initializer:
        if i.name in docs:
            same(f"{what}: doc string of '{i.name}'", i.doc_string, docs[i.name])


def compare_place(what, path, external):
    m = onnx.load(path, load_external_data=False)
    beside = glob.glob(f"{path}.*.data")
    kept = [{e.key: e.value
             for e in i.external_data}
            for i in m.graph.initializer
            if i.data_location == T.EXTERNAL]
    same(f"{what}: data files", len(beside), int(external))
    same(f"{what}: large weights are beside the model", bool(kept), external)
    if not external:
        return
    same(f"{what}: locations", {e["location"] for e in kept}, {os.path.basename(beside[0])})
    for e in kept:
        align = 4096 if int(e["length"]) >= 1 << 20 else 64
        same(f"{what}: alignment", int(e["offset"]) % align, 0)
    ends = [int(e["offset"]) + int(e["length"]) for e in kept]
    same(f"{what}: nothing behind the last weight", max(ends), os.path.getsize(beside[0]))
    inside = [len(i.raw_data) for i in m.graph.initializer if i.data_location != T.EXTERNAL]
    same(f"{what}: only small ones inside", max(inside) < 1024, True)


def content(path):
    return [open(p, "rb").read() for p in [path, *glob.glob(f"{path}.*.data")]]


def go(job, source, want, external):
    what, words, path = f"{job} {source}", JOBS[job], f"{job}.{source}"
    for threads in ("1", "2", "2"):
        done = subprocess.run([
            program, *words, source, "-o", path, "--data", "x.npz", "--batch", "16", "--threads",
            threads
        ],
                              capture_output=True,
                              text=True)
        same(f"{what}: status", done.returncode, 0)
        if done.returncode:
            print(done.stderr[-500:])
            return
        now = content(path)
        if threads != "1":
            same(f"{what}: bytes on {threads} threads", now == first, True)
        first = now
    got = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    old = job == "job" and want.opset_import[
        0].version < 13  # scales per channel came with 13, and IR 7
    compare(what, got, want, 7 if old else want.ir_version,
            13 if old else want.opset_import[0].version)
    compare_weights(what, got, want)
    compare_place(what, path, external)
    s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n, side in ((1, 8), (3, 12)):  # what was symbolic is
        x = rng.standard_normal((n, 3, side, side)).astype(np.float32)
        same(f"{what}: shapes", [y.shape for y in s.run(None, {"image": x})], [(n, 4, side, side),
                                                                               (n, 4)])


program = os.path.realpath(sys.argv[1])
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    np.savez("x.npz", image=rng.standard_normal((64, 3, 16, 16)).astype(np.float32))
    for ir_version, opset in ((10, 18), (8, 13), (6, 11)):
        want = model(ir_version, opset)
        for external in (False, True):
            source = f"{'beside' if external else 'inside'}{ir_version}.onnx"
            onnx.save(model(ir_version, opset) if external else want,
                      source,
                      save_as_external_data=external,
                      location=source + ".bin",
                      size_threshold=1024)
            want = onnx.load(source)
            for i in want.graph.initializer:
                i.data_location = T.DEFAULT
            for job in JOBS:
                go(job, source, want, external)
finish()
