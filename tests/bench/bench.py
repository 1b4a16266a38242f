"""Our program and what its users would run instead, side by side: make bench.

  bench.py EHAPC ROOFLINE SHARED [--only hvp memory …] [--runs 3] [--threads 2]
           [-o docs/performance.md]

SHARED holds models/, data/cifar10 and peers/ (PyTorch, Torch-Pruning, ONNX Runtime). The two sides
run in turn, A B A B …; medians count, and every figure is a ratio of two that were measured in this
run. Results go to stdout as they come, and into the page between its two "bench" marks."""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

PRE = ["--preprocess", "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"]

a = argparse.ArgumentParser()
a.add_argument("ehapc")
a.add_argument("roofline")
a.add_argument("shared")
a.add_argument("--only", nargs="+")
a.add_argument("--models", nargs="+", default=["resnet20", "resnet56"])
a.add_argument("--runs", type=int, default=3)
a.add_argument("--threads", type=int, default=2)
a.add_argument("--steps", type=int, default=312, help="of the whole job")
a.add_argument("-o", "--output", help="the page to write the tables into")
o = a.parse_args()
models, peers = os.path.join(o.shared, "models"), os.path.join(o.shared, "peers")
records = os.path.join(o.shared, "data", "cifar10")
train = [os.path.join(records, f"data_batch_{k}.bin") for k in (1, 2)]
test = os.path.join(records, "test_batch.bin")
folder = tempfile.mkdtemp()
lines = []


def say(text=""):
    lines.append(text)
    print(text, flush=True)


def path(name):
    return os.path.join(folder, name)


def model(name, style="bn"):
    return os.path.join(models, f"{name}_cifar10jpeg_{style}_op17.onnx")


def call(command):
    """Runs it; output, seconds, peak resident MiB."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    text = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: status {status}")
    return text, time.perf_counter() - start, usage.ru_maxrss / 1024


def ours(*args, threads=None, data=train):
    return call(
        [o.ehapc, *args, "--data", ",".join(data), *PRE, "--threads",
         str(threads or o.threads)])


def peer(script, *args):
    return call([sys.executable, os.path.join(peers, script), *args])


def in_turn(*sides, runs=None):
    """Medians of each, run A B A B."""
    rounds = [[side() for side in sides] for _ in range(runs or o.runs)]
    return [statistics.median(side) for side in zip(*rounds)]


def pass_seconds(report, name):
    return sum(p["seconds"] for p in json.load(open(report))["passes"] if p["name"] == name)


def row(what, mine, theirs, unit, target, floor=None):
    ratio = theirs / mine
    bound = "" if floor is None else f"{100 * floor / mine:.0f} %"
    say(f"| {what} | {mine:.4g} {unit} | {theirs:.4g} {unit} | **{ratio:.2f}** | {target} | "
        f"{bound} |")


HEAD = (
    "| | ehapc | peer | peer / ehapc | wanted | of the machine's limit |\n|---|---|---|---|---|---|"
)

# ---- one probe of the Hessian-vector product, one training step ----------------------------------


def roofline(name):
    text, _, _ = call([o.roofline, model(name, "folded"), "32", "20"])
    r = json.loads(text)
    return {k: v * 128 / 32 / o.threads for k, v in r.items() if k not in ("batch", "flops")}


def probe_seconds(name, precision, threads=None):
    def total(probes):
        ours("sensitivity",
             model(name),
             "--criterion",
             "ehap",
             "--precision",
             precision,
             "--batch",
             "128",
             "--probes",
             str(probes),
             "-o",
             path("s.json"),
             threads=threads,
             data=train[:1])
        s = json.load(open(path("s.json")))
        return s["seconds"], s["probes"]
    (t1, n1), (t2, n2) = total(16), total(48)
    return (t2 - t1) / (n2 - n1)


def torch_probe(name, batch=128, probes=6):
    text, _, _ = peer("hvp_torch.py", model(name), "--data", train[0], "--batch", str(batch),
                      "--probes", str(probes), "--threads", str(o.threads))
    return float(re.search(r"([\d.]+) ms/probe", text).group(1)) / 1e3


def hvp():
    """One probe: vᵀHv of every filter, batch 128"""
    say(HEAD)
    for name in o.models:
        f = roofline(name)
        floor = 3 * f["forward"] + 2 * f["by_data"]
        mine, theirs = in_turn(lambda: probe_seconds(name, "fp32"), lambda: torch_probe(name))
        row(f"{name}, fp32", mine, theirs, "s", "≥ 3", floor)
        half = statistics.median(probe_seconds(name, "fp16") for _ in range(o.runs))
        row(f"{name}, fp16 against our own fp32", half, mine, "s", "≥ 1", floor)
        brain = statistics.median(probe_seconds(name, "bf16") for _ in range(o.runs))
        row(f"{name}, bf16 against our own fp32", brain, mine, "s", "≥ 1.3 with AVX512-BF16")


def memory():
    """Peak memory of the probes, batch 128 and 2,048, above what the program holds at rest"""
    say(HEAD)
    for name in o.models:
        text, _, _ = peer("hvp_torch.py", model(name), "--data", train[0], "--batch", "128",
                          "--probes", "3", "--threads", str(o.threads))
        theirs = float(re.search(r"peak (\d+) MiB", text).group(1))
        _, _, rest = call([o.ehapc, "inspect", model(name)])
        for batch in (128, 2048):
            _, _, rss = ours("sensitivity",
                             model(name),
                             "--criterion",
                             "ehap",
                             "--precision",
                             "fp16",
                             "--batch",
                             str(batch),
                             "--probes",
                             "16",
                             "-o",
                             path("s.json"),
                             data=train[:1])
            planned = json.load(open(path("s.json")))["peak_bytes"] / 2**20
            # Announced is the whole resident set, as measured: both above the same rest.
            row(f"{name}, fp16, batch {batch} against PyTorch fp32, batch 128", rss - rest, theirs,
                "MiB", "≥ 6.7")
            say(f"| … announced {planned - rest:.0f} MiB, measured {rss - rest:.0f} MiB above rest "
                f"| | | {(rss - rest) / (planned - rest):.2f} | within 1.05 | |")


def step_seconds(run):
    """From two lengths of training, so that what comes before the first step does not count."""
    def total(steps):
        run(steps)
        return pass_seconds(path("t.json"), "train")
    return (total(32) - total(8)) / 24


def distilled(name, precision):
    return step_seconds(lambda n: ours("quantize",
                                       model(name, "folded"),
                                       "-o",
                                       path("t.onnx"),
                                       "--json",
                                       path("t.json"),
                                       "--steps",
                                       str(n),
                                       "--train-precision",
                                       precision,
                                       data=train[:1]))


def plain(name, precision):
    return step_seconds(lambda n: ours(model(name, "folded"),
                                       "-o",
                                       path("t.onnx"),
                                       "--json",
                                       path("t.json"),
                                       "--train-precision",
                                       precision,
                                       "--passes",
                                       f"canonicalize,train{{distill=0;hints=0;steps={n}}}",
                                       data=train[:1]))


def torch_steps(name, autocast=False):
    args = [model(name), "--data", train[0], "--batch", "128", "--threads", str(o.threads)]
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "step_autocast.py")
    text, _, _ = call([sys.executable, own, o.shared, *args]) if autocast else peer(
        "qat_torch.py", *args)
    return {k: float(v) / 1e3 for k, v in re.findall(r"^(\S+)\s+([\d.]+) ms/step", text, re.M)}


def step():
    """One training step, batch 128, teacher's forward pass included"""
    say(HEAD)
    for name in o.models:
        f = roofline(name)
        student = f["forward"] + f["by_data"] + f["by_weights"]
        for what, key, mine, want, floor in (("fake-quant and distillation", "qat+distill",
                                              distilled, "≥ 2", student + f["forward"]),
                                             ("plain fine-tuning", "plain", plain, "≥ 1.5",
                                              student)):
            full, default, theirs, cast = in_turn(lambda: mine(name, "fp32"),
                                                  lambda: mine(name, "auto"),
                                                  lambda: torch_steps(name)[key],
                                                  lambda: torch_steps(name, autocast=True)[key])
            row(f"{name}, {what}, fp32", full, theirs, "s", want, floor)
            row("… our default against PyTorch fp32", default, theirs, "s", want)
            row("… our default against PyTorch's autocast to bfloat16", default, cast, "s", "≥ 1")


# ---- the way to a selection, the whole job -------------------------------------------------------


def selection():
    """From the command line to scores that choose stably (default criterion), against 300 probes on
    512 images in PyTorch (time of one probe, times 300)"""
    say(HEAD)
    for name in o.models:
        mine, theirs = in_turn(
            lambda: ours("sensitivity", model(name, "folded"), "-o", path("s.json"))[1],
            lambda: 300 * torch_probe(name, 512, 3))
        row(name, mine, theirs, "s", "≥ 100")


def job():
    """The whole job at half the FLOPs, 312 steps, against Torch-Pruning, PyTorch and ONNX
    Runtime"""
    say(HEAD)
    for name in o.models[:1]:
        _, mine, rss = ours(model(name, "folded"), "-o", path("j.onnx"), "--eval", test, "--flops",
                            "0.5", "--steps", str(o.steps))
        text, theirs, peer_rss = peer("prune_torch.py", model(name), "--train", *train, "--test",
                                      test, "--flops", "0.5", "--criterion", "taylor", "--distill",
                                      "--steps", str(o.steps), "--threads", str(o.threads), "-o",
                                      path("p"))
        row(f"{name}, wall time", mine, theirs, "s", "≥ 2")
        row(f"{name}, peak resident memory", rss, peer_rss, "MiB", "≥ 4")


def refit():
    """Calibration and reconstruction of ResNet-56"""
    say("| samples | reconstruct | calibrate (fake-quant) | peak resident |\n|---|---|---|---|")
    name = o.models[-1]
    for some in (train[:1], train):
        _, _, rss = ours(model(name, "folded"),
                         "-o",
                         path("r.onnx"),
                         "--flops",
                         "0.5",
                         "--steps",
                         "0",
                         "--json",
                         path("r.json"),
                         data=some)
        say(f"| {10000 * len(some)} given | {pass_seconds(path('r.json'), 'reconstruct'):.2f} s |"
            f" {pass_seconds(path('r.json'), 'fake-quant'):.2f} s | {rss:.0f} MiB |")


# ---- the result, the program ---------------------------------------------------------------------

# One session at a time: the threads of an idle one spin, and on two cores they take the next one's.
LATENCY = """
import sys, time, numpy as np, onnxruntime as ort
def session(path):
    so = ort.SessionOptions(); so.intra_op_num_threads = int(sys.argv[1]); so.log_severity_level = 3
    return ort.InferenceSession(path, so, providers=["CPUExecutionProvider"])
x = np.random.default_rng(0).standard_normal((int(sys.argv[2]), 3, 32, 32)).astype(np.float32)
times = [[] for _ in sys.argv[3:]]
for turn in range(5):
    for path, t in zip(sys.argv[3:], times):
        s = session(path)
        for k in range(20):
            b = time.perf_counter()
            s.run(None, {s.get_inputs()[0].name: x})
            if k >= 5: t.append(time.perf_counter() - b)
        del s
print(*[np.median(t) for t in times])
"""
STATIC = """
import sys, numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
import onnxruntime as ort
class Reader(CalibrationDataReader):
    def __init__(self, name):
        d = np.fromfile(sys.argv[3], np.uint8)[:3073 * 512].reshape(-1, 3073)[:, 1:]
        mean, std = np.array([.485, .456, .406]), np.array([.229, .224, .225])
        x = (d.reshape(-1, 3, 32, 32) / 255 - mean[:, None, None]) / std[:, None, None]
        self.it = iter([{name: x[i:i + 64].astype(np.float32)} for i in range(0, 512, 64)])
    def get_next(self): return next(self.it, None)
name = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"]).get_inputs()[0].name
quant_pre_process(sys.argv[1], sys.argv[2] + ".pre")
quantize_static(sys.argv[2] + ".pre", sys.argv[2], Reader(name),
                quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
"""


def latency():
    """The emitted network in ONNX Runtime, --flops 0.5, INT8"""
    name = o.models[-1]
    ours(model(name, "folded"), "-o", path("i8.onnx"), "--flops", "0.5", "--steps", "0")
    ours("prune", model(name, "folded"), "-o", path("f.onnx"), "--flops", "0.5", "--steps", "0")
    call([sys.executable, "-c", STATIC, path("f.onnx"), path("ort8.onnx"), train[0]])
    say("| | FP32 input | ehapc INT8 | input / ours | wanted "
        "| same network by ONNX Runtime's tool | its time / ours |\n|---|---|---|---|---|---|---|")
    for batch in (1, 64):
        text, _, _ = call([
            sys.executable, "-c", LATENCY,
            str(o.threads),
            str(batch),
            model(name, "folded"),
            path("i8.onnx"),
            path("ort8.onnx")
        ])
        dense, mine, tool = (1e3 * float(x) for x in text.split())
        say(f"| {name}, batch {batch} | {dense:.3f} ms | {mine:.3f} ms | **{dense / mine:.2f}** "
            f"| ≥ 4 with VNNI, ≥ 3 without | {tool:.3f} ms | **{tool / mine:.2f}** |")


def start():
    """Small commands"""
    say("| | median | wanted |\n|---|---|---|")
    for what in (["--version"], ["inspect", model(o.models[-1], "folded")]):
        t = statistics.median(call([o.ehapc, *what])[1] for _ in range(15))
        say(f"| `ehapc {what[0]}` | {1e3 * t:.1f} ms | < 20 ms |")


def threads():
    """Two threads against one, and the bytes they write"""
    say("| | one | two | ratio | wanted | same bytes |\n|---|---|---|---|---|---|")
    name = o.models[-1]

    def run(n):
        _, seconds, _ = ours(model(name, "folded"),
                             "-o",
                             path(f"n{n}.onnx"),
                             "--flops",
                             "0.5",
                             "--steps",
                             "24",
                             threads=n)
        return seconds
    one, two = in_turn(lambda: run(1), lambda: run(2), runs=1)
    same = open(path("n1.onnx"), "rb").read() == open(path("n2.onnx"), "rb").read()
    say(f"| {name}, whole job, 24 steps | {one:.1f} s | {two:.1f} s | **{one / two:.2f}** | ≥ 1.8 "
        f"| {same} |")


def ranks():
    """Two processes of one thread each (mpirun -n 2) against one"""
    name = o.models[-1]
    base = [
        o.ehapc,
        model(name, "folded"), "--flops", "0.5", "--steps", "24", "--threads", "1", "--data",
        ",".join(train), *PRE, "-o"
    ]
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]
    one, two = in_turn(lambda: call([*base, path("m1.onnx")])[1],
                       lambda: call([*mpirun, *base, path("m2.onnx")])[1],
                       runs=1)
    same = open(path("m1.onnx"), "rb").read() == open(path("m2.onnx"), "rb").read()
    say("| | one process | two | efficiency | same bytes |\n|---|---|---|---|---|")
    say(f"| {name}, whole job, 24 steps | {one:.1f} s | {two:.1f} s | **{one / two / 2:.2f}** "
        f"| {same} |")


def machine():
    text = subprocess.run(["lscpu"], capture_output=True, text=True).stdout
    cpu = re.search(r"Model name:\s*(.*)", text).group(1)
    vnni = {"avx512_vnni": "AVX-512 with VNNI", "avx_vnni": "AVX2 with VNNI"}
    isa = next((name for flag, name in vnni.items() if flag in text), "AVX2")
    versions = subprocess.run([
        sys.executable, "-c", "import torch, onnxruntime as o; print('PyTorch', torch.__version__"
        ".split('+')[0], 'and ONNX Runtime', o.__version__)"
    ],
                              capture_output=True,
                              text=True)
    return f"{o.threads} threads of {cpu} ({isa}), {platform.system()}; {versions.stdout.strip()}"


CASES = [hvp, memory, selection, step, refit, job, latency, start, threads, ranks]


def write_page(page):
    mark = ["<!-- bench: made by make bench -->", "<!-- bench ends -->"]
    text = open(page).read()
    head, rest = text.split(mark[0])
    tail = rest.split(mark[1])[1]
    open(page, "w").write(head + mark[0] + "\n" + "\n".join(lines) + "\n" + mark[1] + tail)


say(f"Measured on {machine()}.\n")
for case in CASES:
    if not o.only or case.__name__ in o.only:
        say("### " + " ".join(case.__doc__.split()) + "\n")
        case()
        say()
if o.output:
    write_page(o.output)
