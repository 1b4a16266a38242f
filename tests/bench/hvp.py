"""Per-channel Hessian traces (criterion ehap) against PyTorch's double backward, the same estimator
with other probes, and FP16 against FP32 with the same probes.

  hvp.py EHAPC SHARED [--model resnet20_cifar10_bn_op17] [--batch 128] [--probes 300]

Two estimates differ by noise alone at best: the bound is the mean Spearman
correlation of two draws around the scores of PyTorch with the standard errors of each."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

a = argparse.ArgumentParser()
a.add_argument("ehapc")
a.add_argument("shared")
a.add_argument("--model", default="resnet20_cifar10_bn_op17")
a.add_argument("--batch", type=int, default=128)
a.add_argument("--probes", type=int, default=300)
o = a.parse_args()
model = os.path.join(o.shared, "models", o.model + ".onnx")
data = os.path.join(o.shared, "data", "cifar10", "data_batch_1.bin")


def spearman(x, y):
    return float(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1])


def ours(precision, folder):
    out = os.path.join(folder, precision + ".json")
    subprocess.run([
        o.ehapc, "sensitivity", model, "--data", data, "--preprocess",
        "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225", "--criterion", "ehap",
        "--precision", precision, "--batch",
        str(o.batch), "--probes",
        str(o.probes), "--flops", "0.5", "-o", out
    ],
                   check=True,
                   stdout=sys.stderr)
    s = json.load(open(out))
    return s, {layer["weight"]: layer for layer in s["layers"]}


def torch(folder):
    out = os.path.join(folder, "torch.json")
    subprocess.run([
        sys.executable,
        os.path.join(o.shared, "peers", "hvp_torch.py"), model, "--data", data, "--batch",
        str(o.batch), "--probes",
        str(o.probes), "--json", out
    ],
                   check=True,
                   stdout=sys.stderr)
    s = json.load(open(out))
    return s, s["layers"]


def joined(layers, names, key):
    return np.concatenate([np.array(layers[n][key]) for n in names])


with tempfile.TemporaryDirectory() as folder:
    s32, f32 = ours("fp32", folder)
    s16, f16 = ours("fp16", folder)
    st, t = torch(folder)
names = [n for n in t if n in f32]
x32, x16, xt = joined(f32, names, "score"), joined(f16, names, "score"), joined(t, names, "score")
e32, et = joined(f32, names, "stderr"), joined(t, names, "stderr")
rng = np.random.default_rng(0)
draw = lambda error: xt + error * rng.standard_normal(len(xt))
bound = np.mean([spearman(draw(e32), draw(et)) for _ in range(200)])
error = np.hypot(e32, et)
z = (x32 - xt)[error > 0] / error[error > 0]  # channels that nothing excites have no error
print(
    json.dumps(
        {
            "model": o.model,
            "batch": o.batch,
            "channels": len(xt),
            "layers": len(names),
            "probes": {"ehapc": s32["probes"], "pytorch": st["probes"]},
            "spearman_fp32_pytorch": spearman(x32, xt),
            "noise_bound": float(bound),
            "z_rms": float(np.sqrt(np.mean(z * z))),
            "spearman_fp16_fp32": spearman(x16, x32),
            "peak_fp16_fp32": s16["peak_bytes"] / s32["peak_bytes"],
            "seconds_per_probe": {
                "ehapc fp32": s32["seconds"] / s32["probes"], "ehapc fp16":
                s16["seconds"] / s16["probes"], "pytorch": st["ms_per_probe"] / 1e3
            },
        },
        indent=1))
