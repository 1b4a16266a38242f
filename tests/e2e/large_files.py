"""Weights beside the model, more than a protobuf can hold: read and written, one aligned file each
way, in less memory than 1.2 times the file for a run that only quantizes. As large as 2 GiB where
disk and memory allow (EHAP_LARGE=1), else 1 GiB of the same shape; a model of too much inline is
refused.
Usage: large_files.py EHAPC"""
import glob
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

SIDE = 2880  # of a weight: 33 MB


def external(name, shape, path, offset):
    t = onnx.TensorProto(name=name, dims=shape, data_type=T.FLOAT, data_location=T.EXTERNAL)
    for key, value in (("location", path), ("offset", offset), ("length", 4 * int(np.prod(shape)))):
        t.external_data.add(key=key, value=str(value))
    return t


def write(layers):
    """x -> MatMul, Relu, ... -> y; every weight is the one before with its rows turned."""
    rng = np.random.default_rng(0)
    base = (rng.standard_normal((SIDE, SIDE)) / np.sqrt(SIDE / 2)).astype(np.float32)
    inside = [nh.from_array(rng.standard_normal((32, SIDE)).astype(np.float32) * 0.2, "w_in"),
              nh.from_array(rng.standard_normal((SIDE, 8)).astype(np.float32) * 0.1, "w_out")]
    nodes = [h.make_node("MatMul", ["x", "w_in"], ["h0"], name="in")]
    with open("big.bin", "wb") as f:
        for k in range(layers):
            f.write(np.roll(base, k, 0).tobytes())
            inside.append(external(f"w{k}", (SIDE, SIDE), "big.bin", k * base.nbytes))
            nodes += [h.make_node("Relu", [f"h{k}"], [f"r{k}"]),
                      h.make_node("MatMul", [f"r{k}", f"w{k}"], [f"h{k + 1}"], name=f"fc{k}")]
    nodes.append(h.make_node("MatMul", [f"h{layers}", "w_out"], ["y"], name="out"))
    g = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["N", 32])],
                     [h.make_tensor_value_info("y", T.FLOAT, ["N", 8])], inside)
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    open("big.onnx", "wb").write(m.SerializeToString())
    np.savez("x.npz", x=rng.standard_normal((64, 32)).astype(np.float32))
    return os.path.getsize("big.bin")


def ehapc(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def data_of(path):
    files = glob.glob(f"{path}.*.data")
    assert len(files) == 1, files
    return files[0]


program = os.path.realpath(sys.argv[1])
large = bool(os.environ.get("EHAP_LARGE"))
layers = 66 if large else 32
with tempfile.TemporaryDirectory() as work:
    os.chdir(work)
    room = os.statvfs(work)
    if room.f_bavail * room.f_frsize < 3 * layers * SIDE * SIDE * 4:
        print("skipped: not enough disk")
        sys.exit(77)
    size = write(layers)
    assert not large or size > 2**31
    ehapc("quantize", "big.onnx", "-o", "q.onnx", "--data", "x.npz", "--steps", "0", "--json",
          "q.json")
    report = json.load(open("q.json"))
    ratio = report["peak_rss_bytes"] / size
    print(f"{size / 2**20:.0f} MiB in, {report['output']['bytes'] / 2**20:.0f} MiB out, "
          f"peak {ratio:.3f} of the file, agreement {report['accuracy']}")
    assert ratio < 1.2
    assert report["accuracy"]["output"] > (0.5 if large else 0.8)  # the layers are random
    assert os.path.getsize(data_of("q.onnx")) < 0.27 * size
    # Out again as large as in.
    ehapc("big.onnx", "--passes", "dce", "-o", "same.onnx")
    assert os.path.getsize(data_of("same.onnx")) >= size
    m = onnx.load("same.onnx", load_external_data=False)
    for t in m.graph.initializer:
        e = {e.key: int(e.value) for e in t.external_data if e.key != "location"}
        if e:
            assert e["offset"] % 4096 == 0 or e["length"] < 1 << 20, (t.name, e)
    last = next(t for t in m.graph.initializer if t.name == f"w{layers - 1}")
    offset = next(int(e.value) for e in last.external_data if e.key == "offset")
    with open(data_of("same.onnx"), "rb") as now, open("big.bin", "rb") as was:
        now.seek(offset)
        was.seek((layers - 1) * SIDE * SIDE * 4)
        assert now.read(1 << 20) == was.read(1 << 20)
