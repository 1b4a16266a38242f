#!/usr/bin/env python3
"""Time per Hessian probe, peak device memory and time per QAT step on a GPU, against PyTorch on the
same device, in turn: ResNet-32, ResNet-56, WRN-28-8 (32 x 32, batch 512) and ResNet-50 (224 x 224,
batch 64). The peer's probe is a double backward, in float or under autocast; its QAT step is eager:
simulated INT8 of weights and activations, the teacher's forward pass, AdamW.

  gpu.py EHAPC [--probes 64] [--runs 3] [--write docs/performance.md]
  gpu.py EHAPC --device cpu --tiny      the same script on a small network, to see that it works

Needs torch, torchvision, onnx and nvidia-smi; with --tiny nothing but EHAPC, and compares where
torch is there. A time is the difference of two runs of different length divided by the difference
in probes or steps, so that starting up does not count; memory is the largest that nvidia-smi saw of
the process (on a CPU: resident). Every number is the best of --runs. --write puts the table between
its marks in the file."""
import argparse
import array
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETS = {
    "resnet32": (3, 32, 512), "resnet56": (3, 32, 512), "wrn28_8": (3, 32, 512), "resnet50":
    (3, 224, 64)
}
TINY = {"tiny": (1, 28, 16)}
MARKS = "<!-- gpu: made by tests/bench/gpu.py -->", "<!-- gpu ends -->"


# ---- the peer ------------------------------------------------------------------------------------


def network(name):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.a, self.b = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.Conv2d(o,
                                                                             o,
                                                                             3,
                                                                             1,
                                                                             1,
                                                                             bias=False)
            self.m, self.n = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
            self.c = nn.Conv2d(i, o, 1, s, bias=False) if s > 1 or i != o else nn.Identity()

        def forward(self, x):
            y = self.n(self.b(torch.relu(self.m(self.a(x)))))
            return torch.relu(y + self.c(x))

    if name == "resnet50":
        import torchvision
        return torchvision.models.resnet50(weights=None)
    depth, width = {"resnet32": (5, 1), "resnet56": (9, 1), "wrn28_8": (4, 8), "tiny": (1, 1)}[name]
    first = TINY[name][0] if name in TINY else NETS[name][0]
    layers, i = [nn.Conv2d(first, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for k, o in enumerate([16 * width, 32 * width, 64 * width]):
        for d in range(depth):
            layers.append(Block(i, o, 2 if d == 0 and k else 1))
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


def torch_batch(name, device):
    import torch
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    channels, size, batch = {**NETS, **TINY}[name]
    return torch.randn(batch, channels, size, size, device=device), torch.randint(10, (batch, ),
                                                                                  device=device)


def seconds_each(run, n, device):
    """Two runs that do not count, then n."""
    import torch
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for k in range(-2, n):
        if k == 0:
            wait()
            start = time.time()
        run(k)
    wait()
    return (time.time() - start) / n


def torch_probes(name, n, device, half):
    import torch
    net = network(name).to(device).eval()
    x, y = torch_batch(name, device)
    weights = [p for p in net.parameters() if p.dim() > 1]
    grad = []

    def run(k):
        if k % 16 == 0 or not grad:
            with torch.autocast(device,
                                enabled=half,
                                dtype=torch.float16 if device == "cuda" else torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(net(x), y)
            grad[:] = torch.autograd.grad(loss, weights, create_graph=True)
        v = [torch.randint(0, 2, p.shape, device=device) * 2. - 1 for p in weights]
        hv = torch.autograd.grad(grad, weights, v, retain_graph=True)
        [(a * b).sum((1, 2, 3) if a.dim() == 4 else 1) for a, b in zip(v, hv)]

    return seconds_each(run, n, device)


def torch_qat(name, n, device):
    import torch
    from torch import nn
    from torch.nn import functional as F

    def rounded(x, axis=None):
        if axis is None:
            scale = x.detach().abs().max() / 127
            return torch.fake_quantize_per_tensor_affine(x, scale,
                                                         torch.zeros_like(scale, dtype=torch.int32),
                                                         -128, 127)
        scale = x.detach().abs().flatten(1).amax(1).clamp_min(1e-8) / 127
        return torch.fake_quantize_per_channel_affine(x, scale,
                                                      torch.zeros_like(scale, dtype=torch.int32), 0,
                                                      -127, 127)

    def simulate(net):
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                m.forward = lambda x, m=m: m._conv_forward(rounded(x), rounded(m.weight, 0), m.bias)
            elif isinstance(m, nn.Linear):
                m.forward = lambda x, m=m: F.linear(rounded(x), rounded(m.weight, 0), m.bias)
        return net

    teacher, student = network(name).to(device).eval(), simulate(network(name).to(device).train())
    optimizer = torch.optim.AdamW(student.parameters(), 1e-3)
    x, _ = torch_batch(name, device)

    def run(_):
        with torch.no_grad():
            wanted = teacher(x).softmax(1)
        loss = F.cross_entropy(student(x), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return seconds_each(run, n, device)


# ---- ours ----------------------------------------------------------------------------------------


def write_samples(path, channels, size, batch):
    """An .npz of random images and labels, without numpy."""
    def npy(kind, shape, data):
        header = str({"descr": kind, "fortran_order": False, "shape": shape}).encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data

    rng = random.Random(1)
    x = array.array("f", (rng.gauss(0, 1) for _ in range(batch * channels * size * size)))
    y = array.array("q", (rng.randrange(10) for _ in range(batch)))
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("x.npy", npy("<f4", (batch, channels, size, size), x.tobytes()))
        z.writestr("labels.npy", npy("<i8", (batch,), y.tobytes()))


def used_memory(pid, device):
    """MiB of a running process."""
    if device == "cuda":
        out = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True).stdout
        return sum(int(m) for p, m in (l.split(", ") for l in out.splitlines()) if int(p) == pid)
    try:
        pages = int(open(f"/proc/{pid}/statm").read().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def watched(command, device):
    """Output, seconds and the largest MiB of a command."""
    start, peak = time.time(), [0]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def watch():
        while p.poll() is None:
            peak[0] = max(peak[0], used_memory(p.pid, device))
            time.sleep(0.02)

    t = threading.Thread(target=watch)
    t.start()
    out, err = p.communicate()
    t.join()
    if p.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{err}")
    return out, time.time() - start, peak[0]


class Ours:
    def __init__(self, o, folder, model, data, batch):
        self.o, self.out, self.model, self.batch = o, os.path.join(folder, "out"), model, batch
        self.common = ["--data", data, "--device", o.device, "--batch", str(batch)]

    def probes(self, precision):
        """Seconds per probe, MiB."""
        def run(n):
            result = watched([
                self.o.ehapc, "sensitivity", self.model, *self.common, "--criterion", "ehap",
                "--precision", precision, "--probes",
                str(n), "--flops", "0.5", "-o", self.out
            ], self.o.device)
            return result[1], result[2], json.load(open(self.out))["probes"]  # it stops when sure
        few, many = run(16), run(16 + self.o.probes)
        if many[2] == few[2]:
            sys.exit(f"{self.model}: the first {few[2]} probes were enough, nothing to compare")
        return (many[0] - few[0]) / (many[2] - few[2]), many[1]

    def qat_step(self):
        def train_seconds(steps):
            report = self.out + ".json"
            watched([
                self.o.ehapc, "quantize", self.model, *self.common, "--steps",
                str(steps), "--json", report, "-o", self.out + ".onnx"
            ], self.o.device)
            return sum(p["seconds"]
                       for p in json.load(open(report))["passes"]
                       if p["name"] == "train")
        few, many = (4, 12) if self.o.tiny else (16, 80)
        return (train_seconds(many) - train_seconds(few)) / (many - few)


# ---- the table -----------------------------------------------------------------------------------


def has_torch():
    try:
        import torch
        return True
    except ImportError:
        return False


def peer(o, what, name):
    """Seconds each and MiB, of a process of its own; None without torch."""
    if not o.torch:
        return None
    command = [
        sys.executable,
        os.path.abspath(__file__), o.ehapc, "--device", o.device, "--probes",
        str(o.probes), "--peer", what, name
    ]
    runs = [watched(command, o.device) for _ in range(o.runs)]
    return min(float(r[0]) for r in runs), min(r[2] for r in runs)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def against(mine, theirs, wanted, memory=True):
    """Cells: our ms and MiB, theirs, times faster (of what is wanted), less memory."""
    mib = lambda x: f"{x:.0f}" if memory else ""
    if theirs is None:
        return [f"{1e3 * mine[0]:.2f}", mib(mine[1]), "", "", "", wanted, "", ""]
    less = f"{100 * (1 - mine[1] / theirs[1]):.0f} %" if memory and theirs[1] else ""
    return [f"{1e3 * mine[0]:.2f}", mib(mine[1]), f"{1e3 * theirs[0]:.2f}", mib(theirs[1]),
            f"{theirs[0] / mine[0]:.2f}", wanted, less, "≥ 40 %" if memory else ""]


def measure(o, folder, name, say):
    channels, size, batch = o.nets[name]
    model, data = os.path.join(folder, name + ".onnx"), os.path.join(folder, name + ".npz")
    if o.tiny:
        model = os.path.join(ROOT, "examples", "fashion_resnet.onnx")
    else:
        import torch
        torch.onnx.export(network(name).eval(),
                          torch.randn(1, channels, size, size),
                          model,
                          input_names=["x"],
                          output_names=["logits"],
                          opset_version=17,
                          dynamo=False,
                          dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}})
    write_samples(data, channels, size, batch)
    us, best = Ours(o, folder, model, data, batch), {}
    for precision, kind in (("fp32", "float"), ("fp16", "half")):
        runs = [us.probes(precision) for _ in range(o.runs)]
        best[precision] = min(r[0] for r in runs), min(r[1] for r in runs)
        wanted = "" if precision == "fp32" else "≥ 2" if name == "resnet50" else "≥ 4"
        say(
            row([
                name, f"probe, {precision}", *against(best[precision], peer(o, kind, name), wanted)
            ]))
    ratio = best["fp32"][0] / best["fp16"][0]
    say(row([name, "fp16 against our own fp32", "", "", "", "", f"{ratio:.2f}", "≥ 1.44", "", ""]))
    step = min(us.qat_step() for _ in range(o.runs))
    say(row([name, "QAT step", *against((step, 0), peer(o, "qat", name), "≥ 2", memory=False)]))


def between_marks(path, text):
    old = open(path).read()
    head, rest = old.split(MARKS[0])
    new = head + MARKS[0] + "\n" + text + MARKS[1] + rest.split(MARKS[1])[1]
    with open(path, "w") as f:
        f.write(new)


def options():
    a = argparse.ArgumentParser()
    a.add_argument("ehapc")
    a.add_argument("--probes", type=int, default=64)
    a.add_argument("--runs", type=int, default=3)
    a.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    a.add_argument("--tiny", action="store_true")
    a.add_argument("--write")
    a.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)  # what, net: one measurement
    o = a.parse_args()
    o.nets, o.torch = TINY if o.tiny else NETS, has_torch()
    return o


def main():
    o = options()
    if o.peer:
        what, name = o.peer
        print(torch_qat(name, o.probes, o.device) if what == "qat" else
              torch_probes(name, o.probes, o.device, what == "half"))
        return
    card = "a CPU"
    if o.device == "cuda":
        import torch
        if not torch.cuda.is_available():
            print("skipped: no CUDA device")
            sys.exit(77)
        card = torch.cuda.get_device_name()
    text = io.StringIO()

    def say(line):
        print(line, flush=True)
        text.write(line + "\n")

    say(f"Measured on {card}; the best of {o.runs}.\n")
    say(
        row([
            "network", "", "ms", "MiB", "PyTorch ms", "PyTorch MiB", "faster", "wanted",
            "less memory", "wanted"
        ]))
    say("|" + "---|" * 10)
    with tempfile.TemporaryDirectory() as folder:
        for name in o.nets:
            measure(o, folder, name, say)
    say("")
    if o.write:
        between_marks(o.write, "\n" + text.getvalue())


main()
