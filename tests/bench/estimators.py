"""Which criterion? Accuracy by criterion, budget and seed, after removing channels, after the refit
and after a short fixed training; and accuracy against scoring time. Tables in docs/results.md.

  estimators.py train EHAPC SHARED FASHION OUT.jsonl [--seconds S] [--nets …] [--criteria …]
                [--flops …] [--seeds …] [--steps 60]
  estimators.py curve EHAPC SHARED FASHION OUT.jsonl [--seconds S] [--nets …] [--flops …]
  estimators.py table OUT.jsonl

SHARED holds models/ and data/, FASHION is the folder of Debian's dataset-fashion-mnist. Every run
of the program adds a line to OUT.jsonl and is not repeated when the line is there: with --seconds
the script stops after so long and goes on from there the next time. Seeds draw the probes and
labels of a criterion, the refit's positions and the training. Accuracy is taken on the first 1,000
test samples."""
import argparse
import gzip
import itertools
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTED = 1000
CIFAR = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
FASHION = "scale=1/255,mean=0.2860,std=0.3530"
CRITERIA = ["gate-ggn", "gate-fisher", "taylor", "ehap-ggn", "ehap", "l1", "l2", "random"]
# What the probing criteria may spend in the training table.
BUDGET = {"ehap": ["--probes", "64", "--batch", "128"], "ehap-ggn": ["--probes", "16"]}
CURVE = ([("gate-ggn", ["--batch", b]) for b in ("32", "128", "512")] +
         [("gate-fisher", ["--batch", b]) for b in ("128", "512")] + [("taylor", [])] +
         [("ehap-ggn", ["--probes", p]) for p in ("1", "4", "16")] +
         [("ehap", ["--batch", "128", "--probes", p]) for p in ("4", "16", "64")] +
         [(c, []) for c in ("l1", "l2", "random")])


def idx(path):
    data = gzip.open(path).read()
    rank = data[3]
    return data[4 + 4 * rank:], struct.unpack(f">{rank}I", data[4:4 + 4 * rank])


def fashion_test(folder, scratch):
    """The first TESTED images and labels as idx files of their own."""
    for kind in ("images-idx3", "labels-idx1"):
        body, dims = idx(os.path.join(folder, f"t10k-{kind}-ubyte.gz"))
        size = len(body) // dims[0]
        with open(os.path.join(scratch, f"t10k-{kind}-ubyte"), "wb") as f:
            f.write(struct.pack(f">I{len(dims)}I", 0x800 | len(dims), TESTED, *dims[1:]))
            f.write(body[:TESTED * size])
    return os.path.join(scratch, "t10k-images-idx3-ubyte")


def cifar_test(shared, scratch):
    path = os.path.join(scratch, "test.bin")
    with open(path, "wb") as f:
        f.write(open(os.path.join(shared, "data/cifar10/test_batch.bin"), "rb").read(TESTED * 3073))
    return path


def networks(o, scratch):
    """Name -> model, training data, test data, preprocessing."""
    models, data = os.path.join(o.shared, "models"), os.path.join(o.shared, "data")
    cifar = ",".join(os.path.join(data, f"cifar10/data_batch_{k}.bin") for k in (1, 2))
    fashion = os.path.join(o.fashion, "train-images-idx3-ubyte.gz")
    tests = cifar_test(o.shared, scratch), fashion_test(o.fashion, scratch)
    nets = {f"resnet{k}": (os.path.join(models, f"resnet{k}_cifar10jpeg_folded_op17.onnx"), cifar,
                           tests[0], CIFAR) for k in (20, 56)}
    nets["fashion"] = (os.path.join(HERE, "../../examples/fashion_resnet.onnx"), fashion, tests[1],
                       FASHION)
    nets["mobilenet"] = (os.path.join(models, "fmnist_mobilenetv2s_bn_op17.onnx"), fashion,
                         tests[1], FASHION)
    nets["digits"] = (os.path.join(models, "digits_resnet_folded_op17.onnx"),
                      os.path.join(data, "digits_train.bin"), os.path.join(data, "digits_test.bin"),
                      "scale=1/16")
    return nets


def ehapc(o, *args):
    start = time.time()
    subprocess.run([o.ehapc, *args], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return time.time() - start


def scores(o, scratch, net, criterion, seed, extra):
    """The scores' file and the seconds from the command line to it."""
    model, data, _, pre = o.networks[net]
    path = os.path.join(scratch, "-".join([net, criterion, str(seed), *extra]) + ".json")
    if not os.path.exists(path):
        o.scoring[path] = ehapc(o, "sensitivity", model, "--data", data, "--preprocess", pre,
                                "--criterion", criterion, "--seed", str(seed), "-o", path, *extra)
    return path, o.scoring.get(path)


def job(o, scratch, key, extra, command):
    """One run from scores to accuracies."""
    net, criterion, keep, seed = (key[k] for k in ("net", "criterion", "flops", "seed"))
    model, data, test, pre = o.networks[net]
    path, seconds = scores(o, scratch, net, criterion, seed, extra)
    report = os.path.join(scratch, "report.json")
    ehapc(o, *command, model, "-o", os.path.join(scratch, "out.onnx"), "--scores", path, "--data",
          data, "--eval", test, "--preprocess", pre, "--flops", str(keep), "--seed", str(seed),
          "--json", report)
    r = json.load(open(report))
    return {**key, "accuracy": {k: v for k, v in r["accuracy"].items()}, "scoring_s": seconds,
            "probes": json.load(open(path))["probes"],
            "kept": r["output"]["flops"] / r["input"]["flops"]}


def plan(o):
    """Every run as (key, options of the scoring, command), the first seed first."""
    if o.what == "train":
        command = ["--steps", str(o.steps), "--batch", "32", "--lr", "0.0005"]
        for seed, net, c, f in itertools.product(o.seeds, o.nets, o.criteria, o.flops):
            yield {"what": "train", "net": net, "criterion": c, "flops": f, "seed": seed,
                   "steps": o.steps}, BUDGET.get(c, []), command
    else:
        for net, (c, extra), f in itertools.product(o.nets, CURVE, o.flops):
            yield {"what": "curve", "net": net, "criterion": c, "flops": f, "seed": 0,
                   "settings": " ".join(extra)}, extra, ["prune"]


def known(path):
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def run(o, scratch):
    end = time.time() + o.seconds
    o.networks, o.scoring = networks(o, scratch), {}
    done = known(o.out)
    for key, extra, command in plan(o):
        if any(all(d.get(k) == v for k, v in key.items()) for d in done):
            continue
        if time.time() > end:
            return print("there is more to do", file=sys.stderr)
        line = job(o, scratch, key, extra, command)
        with open(o.out, "a") as f:
            f.write(json.dumps(line) + "\n")


def cell(values):
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f}" + (f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")


def train_table(lines, net):
    flops = sorted({d["flops"] for d in lines}, reverse=True)
    print(f"\n{net} (input {100 * lines[0]['accuracy']['input']:.1f} %)\n\n| criterion | " +
          " | ".join(f"{100 * (1 - f):.0f} % off: refitted | trained, INT8" for f in flops) +
          " |\n|---|" + "---|---|" * len(flops))
    for c in [c for c in CRITERIA if any(d["criterion"] == c for d in lines)]:
        row = []
        for f in flops:
            here = [d["accuracy"] for d in lines if (d["criterion"], d["flops"]) == (c, f)]
            row += [cell([a[k] for a in here]) if here else ""
                    for k in ("reconstructed", "output")]
        print(f"| {c} | " + " | ".join(row) + " |")


def curve_table(lines, net):
    flops = sorted({d["flops"] for d in lines}, reverse=True)
    print(f"\n{net}\n\n| criterion | settings | s to the scores | " +
          " | ".join(f"{100 * (1 - f):.0f} % off: removed | refitted" for f in flops) +
          " |\n|---|---|---|" + "---|---|" * len(flops))
    for c, s in dict.fromkeys((d["criterion"], d["settings"]) for d in lines):
        here = {d["flops"]: d for d in lines if (d["criterion"], d["settings"]) == (c, s)}
        seconds = [d["scoring_s"] for d in here.values() if d["scoring_s"]]
        row = [f"{100 * here[f]['accuracy'][k]:.1f}" if f in here else ""
               for f in flops for k in ("pruned", "reconstructed")]
        print(f"| {c} | {s} | {seconds[0] if seconds else 0:.1f} | " + " | ".join(row) + " |")


def table(path):
    for what, show in (("train", train_table), ("curve", curve_table)):
        lines = [d for d in known(path) if d["what"] == what]
        for net in dict.fromkeys(d["net"] for d in lines):
            show([d for d in lines if d["net"] == net], net)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "table":
        return table(sys.argv[2])
    a = argparse.ArgumentParser()
    a.add_argument("what", choices=["train", "curve"])
    a.add_argument("ehapc")
    a.add_argument("shared")
    a.add_argument("fashion")
    a.add_argument("out")
    a.add_argument("--seconds", type=float, default=1e9)
    a.add_argument("--nets", nargs="+", default=["digits", "fashion", "resnet20"])
    a.add_argument("--criteria", nargs="+", default=CRITERIA)
    a.add_argument("--flops", nargs="+", type=float, default=[0.7, 0.5, 0.3, 0.1])
    a.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    a.add_argument("--steps", type=int, default=60)
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(o, scratch)


if __name__ == "__main__":
    main()
