"""ONNX Runtime as the outside judge of emitted models. Accuracy is taken with
session.x64quantprecision=1: plain AVX2 saturates in int8 products otherwise.

  judge.py accuracy MODEL IMAGES.gz LABELS.gz      top-1 on idx files, Fashion-MNIST preprocessing
  judge.py agree A B IMAGES.gz                     share of equal top-1 answers on idx images
  judge.py records MODEL FILE.bin                  top-1 on CIFAR records
  judge.py kernels MODEL                           which kernels the optimized graph runs
  judge.py check MODEL                             onnx.checker
  judge.py same A B                                largest difference of outputs on random input
Prints one JSON object."""
import collections
import gzip
import json
import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort


def session(path, save=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.x64quantprecision", "1")
    if save:
        options.optimized_model_filepath = save
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers(path, x):
    s = session(path)
    name = s.get_inputs()[0].name
    fixed = s.get_inputs()[0].shape[0]
    step = fixed if isinstance(fixed, int) else 500
    return np.concatenate([s.run(None, {name: x[i:i + step]})[0].argmax(1)
                           for i in range(0, len(x), step)])


def top1(path, x, y):
    return float((answers(path, x) == y).mean())


def fashion(images):
    x = np.frombuffer(gzip.open(images).read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return (((x.astype(np.float32) / 255) - 0.2860) / 0.3530).astype(np.float32)


def accuracy(path, images, labels):
    y = np.frombuffer(gzip.open(labels).read(), np.uint8, offset=8)
    return {"accuracy": top1(path, fashion(images), y)}


def agree(a, b, images):
    x = fashion(images)
    return {"agreement": float((answers(a, x) == answers(b, x)).mean())}


def records(path, file):
    d = np.fromfile(file, np.uint8).reshape(-1, 3073)
    mean = np.array([.485, .456, .406], np.float32)[:, None, None]
    std = np.array([.229, .224, .225], np.float32)[:, None, None]
    x = (d[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255 - mean) / std
    return {"accuracy": top1(path, x, d[:, 0])}


def kernels(path):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "o.onnx")
        session(path, out)
        return dict(collections.Counter(n.op_type for n in onnx.load(out).graph.node))


def check(path):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return {"checked": True}


def same(a, b):
    rng = np.random.default_rng(0)
    sa, sb = session(a), session(b)
    feed = {
        i.name:
        rng.standard_normal([d if isinstance(d, int) else 4
                             for d in i.shape]).astype(np.float32)
        for i in sa.get_inputs()
    }
    return {
        "difference":
        max(float(np.abs(p - q).max()) for p, q in zip(sa.run(None, feed), sb.run(None, feed)))
    }


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
