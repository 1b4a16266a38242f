"""Real networks of other people through every command, with ONNX Runtime as judge: inspect, run
(equal to 1e-3), sensitivity, prune to 70 % of the FLOPs (the refit must not lead away), quantize
for two targets (outputs at least LEAST_DB above the noise).
Usage: zoo.py EHAPC [NAME...]; the networks are in $EHAP_SHARED/models (../shared beside the
clone), see its MANIFEST.md."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, TensorProto

import checks

# Per network: sizes of open dimensions, the value of inputs that are no signals.
ZOO = {
    "zoo/dnsmos_sig_bak_ovr": {},
    "zoo/fastestdet": {},
    "zoo/mnist-8": {},
    "zoo/mtcnn_rnet": {},
    "zoo/ppocr_mobile_v2_cls": {"x": [1, 3, 48, 192]},
    "zoo/silero_vad_op18_ifless": {"input": [1, 576], "state": [2, 1, 128], "sr": 16000},
    "zoo/super-resolution-10": {"input": [1, 1, 224, 224]},
    "zoo/swift_f0": {"audio": [1, 16000], "fmin": 50, "fmax": 1500},
    "zoo/ultraface_rfb320": {},
    "zoo/yunet_n_dynamic": {"input": [1, 3, 320, 320]},
    "digits_vit_op17": {},
    "fmnist_vit_op17": {},
    "fmnist_mobilenetv2s_bn_op17": {},
}
NOTHING = 3
# What has nothing to remove, and why.
FIXED = {"zoo/silero_vad_op18_ifless": "the whole network is inside an If"}
# Run only when named: 38 GFLOPs a sample take minutes.
LARGE = {"zoo/dnsmos_sig_bak_ovr"}
# Of the worst output, quantized without training; docs/zoo.md has the figures.
LEAST_DB = 12

ehapc = sys.argv[1]
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
models = os.path.join(os.environ.get("EHAP_SHARED", os.path.join(root, "..", "shared")), "models")


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(*words):
    done = subprocess.run([ehapc, *words], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stderr + done.stdout


def voice(shape, rng):
    """A hummed tone with overtones and a little noise; no silence, of which any pitch is as
    good."""
    t = np.arange(shape[-1]) / 16000
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 1.3 * t)) / 16000
    tone = sum(np.sin(k * phase) / k**1.5
               for k in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.1 * t))
    return 0.2 * tone + 0.002 * rng.standard_normal(shape)


def samples(name, s):
    """One batch for every input: of the test data where there is one, else a voice or smooth
    noise."""
    given, rng = ZOO[name], np.random.default_rng(0)
    folder = os.path.join(models, "zoo/testdata", os.path.basename(name), "test_data_set_0")
    out = {}
    for k, i in enumerate(s.get_inputs()):
        file = os.path.join(folder, f"input_{k}.pb")
        want = given.get(i.name, [d if isinstance(d, int) else 1 for d in i.shape])
        kind = np.int64 if i.type == "tensor(int64)" else np.float32
        if os.path.exists(file):
            out[i.name] = numpy_helper.to_array(TensorProto.FromString(open(file, "rb").read()))
        elif isinstance(want, list) and len(want) == 2 and want[-1] >= 1000 and kind == np.float32:
            out[i.name] = voice(want, rng).astype(kind)
        elif isinstance(want, list):
            x = rng.standard_normal(want).cumsum(-1)
            out[i.name] = (x / np.abs(x).max()).astype(kind)
        else:
            out[i.name] = np.full((), want, kind)
    return out


def check(what, good, detail=""):
    checks.check(f"{name} {what}", good, detail)


def runs(path, x, want):
    try:
        y = session(path).run(None, x)
    except Exception as error:  # whatever ONNX Runtime says is the verdict
        return False, str(error)[:300]
    same = [a.shape == b.shape for a, b in zip(y, want)]
    return all(same), "" if all(same) else "other shapes"


def decibels(path, x, want):
    """Signal to noise of the float output where it is least."""
    least = 99.0
    for a, b in zip(session(path).run(None, x), want):
        if b.dtype.kind == "f" and a.shape == b.shape:
            noise = max(float(((a.astype(float) - b) ** 2).sum()), 1e-30)
            least = min(least, 10 * np.log10(max(float((b.astype(float)**2).sum()), 1e-30) / noise))
    return least


def command(what, words, fixed=False):
    rc, text = run(*words)
    tail = "" if rc == 0 else f"status {rc}: {text.strip()[-600:]}"
    check(what, rc == (NOTHING if fixed else 0), "" if fixed and rc == NOTHING else tail)
    return rc == 0, text


def go(name, work):
    path = os.path.join(models, name + ".onnx")
    s = session(path)
    x = samples(name, s)
    want = s.run(None, x)
    np.savez(f"{work}/x.npz", **x)
    fixed = name in FIXED
    _, text = command("inspect", ["inspect", path])
    print("   ", text.strip().splitlines()[-1])
    if not fixed and command("run",
                             ["run", path, "--data", f"{work}/x.npz", "-o", f"{work}/y.npz"])[0]:
        y = np.load(f"{work}/y.npz")
        worst = max(float(np.abs(y[o.name] - w).max() / max(np.abs(w).max(), 1e-6))
                    for o, w in zip(s.get_outputs(), want))
        check("equal to ONNX Runtime", worst < 1e-3, f"{worst:.2g}")
    data = ["--data", f"{work}/x.npz"]
    command("sensitivity", ["sensitivity", path, "-o", f"{work}/s.json", *data], fixed)
    words = [
        "prune", path, "-o", f"{work}/p.onnx", "--flops", "0.7", "--json", f"{work}/p.json", *data
    ]
    if not fixed:
        words += ["--scores", f"{work}/s.json"]
    if command("prune", words, fixed)[0]:
        check("pruned in ONNX Runtime", *runs(f"{work}/p.onnx", x, want))
        report = json.load(open(f"{work}/p.json"))
        left = report["output"]["flops"] / report["input"]["flops"]
        check("budget", left <= 0.7, f"{left:.3f}, proof {report['proof_max_diff']:.2g}")
        error = report["relative_error"]
        check("refit", error["reconstructed"] <= 1.05 * error["pruned"],
              f"error {error['pruned']:.3g}, then {error['reconstructed']:.3g}")
    for target in ("ort", "tensorrt"):
        out = f"{work}/{target}.onnx"
        done, text = command(
            target, ["quantize", path, "-o", out, "--steps", "0", "--target", target, *data], fixed)
        if done:
            grown = os.path.getsize(out) > os.path.getsize(path) + 4096
            check(f"{target} file", grown == ("larger than the input" in text),
                  f"{100 * os.path.getsize(out) / os.path.getsize(path):.0f} %")
            good, why = runs(out, x, want)
            check(f"{target} in ONNX Runtime", good, why)
            quality = decibels(out, x, want) if good else 0
            check(f"{target} outputs", quality >= LEAST_DB, f"{quality:.1f} dB")


if not os.path.isdir(os.path.join(models, "zoo")):
    print("skipped: no models/zoo in EHAP_SHARED")
    sys.exit(77)
for name in ZOO:
    if not any(word in name for word in sys.argv[2:]) if sys.argv[2:] else name in LARGE:
        continue
    print(name, flush=True)
    with tempfile.TemporaryDirectory() as work:
        go(name, work)
checks.finish()
