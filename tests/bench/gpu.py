#!/usr/bin/env python3
"""Time per Hessian probe and peak device memory on a GPU, against PyTorch's double backward in float and
under autocast, in turn on the same device: ResNet-32, ResNet-56, WRN-28-8 (32 x 32, batch 512) and
ResNet-50 (224 x 224, batch 64).

  gpu.py EHAPC [--probes 64] [--runs 3]     prints a table for docs/performance.md

Needs torch, torchvision, onnx, numpy and nvidia-smi. Time per probe is the difference of two runs of
different length divided by the difference in probes, so that starting up does not count; memory is
the largest that nvidia-smi saw of the process. Every number is the best of --runs."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

NETS = {"resnet32": (32, 512), "resnet56": (32, 512), "wrn28_8": (32, 512), "resnet50": (224, 64)}


def network(name):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.a, self.b = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.m, self.n = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
            self.c = nn.Conv2d(i, o, 1, s, bias=False) if s > 1 or i != o else nn.Identity()

        def forward(self, x):
            y = self.n(self.b(torch.relu(self.m(self.a(x)))))
            return torch.relu(y + self.c(x))

    if name == "resnet50":
        import torchvision
        return torchvision.models.resnet50(weights=None)
    depth, width = {"resnet32": (5, 1), "resnet56": (9, 1), "wrn28_8": (4, 8)}[name]
    layers, i = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for k, o in enumerate([16 * width, 32 * width, 64 * width]):
        for d in range(depth):
            layers.append(Block(i, o, 2 if d == 0 and k else 1))
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


def torch_probes(name, probes, half):
    """Run in a process of its own: v' H v per probe by double backward."""
    import torch
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    size, batch = NETS[name]
    net = network(name).cuda().eval()
    x = torch.randn(batch, 3, size, size, device="cuda")
    y = torch.randint(10, (batch,), device="cuda")
    weights = [p for p in net.parameters() if p.dim() > 1]
    for k in range(2 + probes):
        if k == 2:
            torch.cuda.synchronize()
            start = time.time()
        if k % 16 == 0 or k == 2:
            with torch.autocast("cuda", enabled=half):
                loss = torch.nn.functional.cross_entropy(net(x), y)
            grad = torch.autograd.grad(loss, weights, create_graph=True)
        v = [torch.randint(0, 2, p.shape, device="cuda") * 2. - 1 for p in weights]
        hv = torch.autograd.grad(grad, weights, v, retain_graph=True)
        [(a * b).sum((1, 2, 3) if a.dim() == 4 else 1) for a, b in zip(v, hv)]
    torch.cuda.synchronize()
    print((time.time() - start) / probes)


def used_memory(pid):
    out = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory",
                          "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout
    return sum(int(m) for p, m in (l.split(", ") for l in out.splitlines()) if int(p) == pid)


def watched(command):
    """Output, seconds and the largest MiB on the device of a command."""
    start, peak = time.time(), [0]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch():
        while p.poll() is None:
            peak[0] = max(peak[0], used_memory(p.pid))
            time.sleep(0.02)

    t = threading.Thread(target=watch)
    t.start()
    out = p.communicate()[0]
    t.join()
    if p.returncode:
        sys.exit(f"{command[0]} failed")
    return out, time.time() - start, peak[0]


def ours(ehapc, model, data, batch, probes, precision, out):
    def run(n):
        result = watched([ehapc, "sensitivity", model, "--data", data, "--device", "cuda", "--criterion",
                        "ehap", "--precision", precision, "--batch", str(batch), "--probes", str(n),
                        "--flops", "0.5", "-o", out])
        return result[1], result[2], json.load(open(out))["probes"]  # it stops when sure
    few, many = run(16), run(16 + probes)
    if many[2] == few[2]:
        sys.exit(f"{model}: the first {few[2]} probes were enough, nothing to compare")
    return (many[0] - few[0]) / (many[2] - few[2]), many[1]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("ehapc")
    a.add_argument("--probes", type=int, default=64)
    a.add_argument("--runs", type=int, default=3)
    a.add_argument("--torch", nargs=2)  # NET float|half: one measurement of the peer
    o = a.parse_args()
    if o.torch:
        return torch_probes(o.torch[0], o.probes, o.torch[1] == "half")
    import torch
    if not torch.cuda.is_available():
        print("skipped: no CUDA device")
        sys.exit(77)
    print(torch.cuda.get_device_name())
    print("| network | | ms per probe | MiB | PyTorch ms | PyTorch MiB | faster | less memory |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, batch) in NETS.items():
            model, data = os.path.join(folder, name + ".onnx"), os.path.join(folder, name + ".npz")
            torch.onnx.export(network(name).eval(), torch.randn(1, 3, size, size), model,
                              input_names=["x"], output_names=["logits"], opset_version=17,
                              dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}}, dynamo=False)
            rng = np.random.default_rng(1)
            np.savez(data, x=rng.standard_normal((batch, 3, size, size), dtype=np.float32),
                     labels=rng.integers(0, 10, batch))
            for precision, kind in (("fp32", "float"), ("fp16", "half")):
                mine = [ours(o.ehapc, model, data, batch, o.probes, precision,
                             os.path.join(folder, "s.json")) for _ in range(o.runs)]
                peer = [watched([sys.executable, __file__, o.ehapc, "--probes", str(o.probes), "--torch",
                                 name, kind]) for _ in range(o.runs)]
                t, m = min(x[0] for x in mine), min(x[1] for x in mine)
                pt, pm = min(float(x[0]) for x in peer), min(x[2] for x in peer)
                print(f"| {name} | {precision} | {1e3 * t:.2f} | {m} | {1e3 * pt:.2f} | {pm} | "
                      f"{pt / t:.2f} | {100 * (1 - m / pm):.0f} % |", flush=True)


main()
