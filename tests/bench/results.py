"""The accuracy table of docs/results.md: real CIFAR-10 ResNets through the whole job, criteria side
by side, the output judged by ONNX Runtime, next to the peers' pipeline on the same data and steps.

  results.py EHAPC SHARED [--models resnet20 resnet56] [--criteria gate-ggn ehap l2 random]
             [--steps 312] [--peer] > docs/results.md

SHARED holds models/, data/cifar10 and (for --peer) peers/. Every row is one run of the program,
with its wall time and peak resident memory."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
JUDGE = os.path.join(HERE, "..", "e2e", "judge.py")
PRE = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"

a = argparse.ArgumentParser()
a.add_argument("ehapc")
a.add_argument("shared")
a.add_argument("--models", nargs="+", default=["resnet20", "resnet56"])
a.add_argument("--style", default="folded")
a.add_argument("--criteria", nargs="+", default=["gate-ggn", "ehap", "l2", "random"])
a.add_argument("--steps", type=int, default=312)
a.add_argument("--flops", default="0.5")
a.add_argument("--peer", action="store_true")
a.add_argument("--more", nargs=argparse.REMAINDER, default=[])
o = a.parse_args()
data = os.path.join(o.shared, "data", "cifar10")
train = [os.path.join(data, f"data_batch_{k}.bin") for k in (1, 2)]
test = os.path.join(data, "test_batch.bin")


def percent(x):
    return "" if x is None else f"{100 * x:.2f}"


def ours(model, criterion, folder):
    path = os.path.join(o.shared, "models", f"{model}_cifar10jpeg_{o.style}_op17.onnx")
    out, report = os.path.join(folder, "o.onnx"), os.path.join(folder, "o.json")
    subprocess.run([o.ehapc, path, "-o", out, "--data", ",".join(train), "--eval", test,
                    "--preprocess", PRE, "--flops", o.flops, "--steps", str(o.steps),
                    "--criterion", criterion, "--json", report] + o.more, check=True,
                   stdout=sys.stderr)
    judged = json.loads(subprocess.run([sys.executable, JUDGE, "records", out, test], check=True,
                                       capture_output=True, text=True).stdout)
    r = json.load(open(report))
    acc = r["accuracy"]
    stages = [percent(acc.get(k)) for k in ("input", "pruned", "reconstructed", "trained")]
    label = f"{criterion}, {r['scoring']['probes']} probes" if "ehap" in criterion else criterion
    return (
        f"| {model} | {label} | " + " | ".join(stages) +
        f" | **{percent(judged['accuracy'])}** | {r['output']['flops'] / r['input']['flops']:.3f} |"
        f" {r['output']['params'] / r['input']['params']:.3f} |"
        f" {r['seconds']:.0f} | {r['peak_rss_bytes'] / 2**20:.0f} |")


def peer(model, folder):
    script = os.path.join(o.shared, "peers", "prune_torch.py")
    path = os.path.join(o.shared, "models", f"{model}_cifar10jpeg_bn_op17.onnx")
    text = subprocess.run([
        sys.executable, script, path, "--train", *train, "--test", test, "--flops", o.flops,
        "--criterion", "taylor", "--distill", "--steps",
        str(o.steps), "-o",
        os.path.join(folder, "p")
    ],
                          check=True,
                          capture_output=True,
                          text=True).stdout
    acc = {k: re.search(rf"^{k}\s+([\d.]+) %", text, re.M).group(1)
           for k in ("input", "pruned", "trained", "int8")}
    flops, params = re.search(r"flops ([\d.]+) params ([\d.]+)", text).groups()
    total, peak = re.search(r"total (\d+) s, peak (\d+) MiB", text).groups()
    return (
        f"| {model} | *Torch-Pruning + ONNX Runtime, taylor* | {acc['input']} | {acc['pruned']} | |"
        f" {acc['trained']} | **{acc['int8']}** | {flops} | {params} | {total} | {peak} |")


print("| network | criterion | input | pruned | reconstructed | trained | INT8 in ONNX Runtime |"
      " FLOPs | parameters | s | MiB |\n|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
with tempfile.TemporaryDirectory() as folder:
    for model in o.models:
        for criterion in o.criteria:
            print(ours(model, criterion, folder), flush=True)
        if o.peer:
            print(peer(model, folder), flush=True)
