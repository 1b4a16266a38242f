"""What each calibrator costs: INT8 without training, ONNX Runtime's answers against those of the
float network. Usage: calibrators.py EHAPC SHARED FASHION_DATA [NETWORK...]; prints a table."""
import gzip
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

CALIBRATORS = ["mse", "entropy", "percentile", "min-max", "moving-average"]
CIFAR = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
FASHION = "scale=1/255,mean=0.2860,std=0.3530"

ehapc, shared, fashion = sys.argv[1:4]
models = os.path.join(shared, "models")
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def cifar():
    raw = np.fromfile(os.path.join(shared, "data/cifar10/test_batch.bin"),
                      np.uint8).reshape(-1, 3073)
    x = raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255
    mean, std = (np.float32(v).reshape(3, 1, 1) for v in ((.485, .456, .406), (.229, .224, .225)))
    return (x - mean) / std, raw[:, 0]


def idx(name, skip):
    with gzip.open(os.path.join(fashion, name)) as f:
        return np.frombuffer(f.read()[skip:], np.uint8)


def clothes():
    x = idx("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return (x - np.float32(.286)) / np.float32(.353), idx("t10k-labels-idx1-ubyte.gz", 8)


def digits():
    raw = np.fromfile(os.path.join(shared, "data/digits_test.bin"), np.uint8).reshape(-1, 65)
    return raw[:, 1:].reshape(-1, 1, 8, 8).astype(np.float32) / 16, raw[:, 0]


CIFAR_DATA = (os.path.join(shared, "data/cifar10/data_batch_1.bin"), CIFAR, cifar)
FASHION_DATA = (os.path.join(fashion, "train-images-idx3-ubyte.gz"), FASHION, clothes)
NETWORKS = {
    "ResNet-20": (os.path.join(models, "resnet20_cifar10jpeg_folded_op17.onnx"), *CIFAR_DATA),
    "ResNet-56": (os.path.join(models, "resnet56_cifar10jpeg_folded_op17.onnx"), *CIFAR_DATA),
    "MobileNetV2": (os.path.join(models, "fmnist_mobilenetv2s_bn_op17.onnx"), *FASHION_DATA),
    "ViT": (os.path.join(models, "fmnist_vit_op17.onnx"), *FASHION_DATA),
    "digits ViT": (os.path.join(models, "digits_vit_op17.onnx"),
                   os.path.join(shared, "data/digits_train.bin"), "scale=1/16", digits),
    "example": (os.path.join(root, "examples/fashion_resnet.onnx"), *FASHION_DATA),
}


def answers(path, x):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    s = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    return np.concatenate([s.run(None, {name: x[i:i + 100]})[0] for i in range(0, len(x), 100)])


def main():
    print("| network | float | " + " | ".join(CALIBRATORS) + " |\n" + "|---" *
          (len(CALIBRATORS) + 2) + "|")
    for name in sys.argv[4:] or NETWORKS:
        model, data, preprocess, test = NETWORKS[name]
        x, labels = test()
        exact = answers(model, x)
        row = f"| {name} | {100 * np.mean(exact.argmax(1) == labels):.2f} |"
        for calibrator in CALIBRATORS:
            with tempfile.TemporaryDirectory() as folder:
                out = os.path.join(folder, "out.onnx")
                subprocess.run([
                    ehapc, "quantize", model, "-o", out, "--data", data, "--preprocess", preprocess,
                    "--steps", "0", "--calibration", calibrator, "--threads", "1"
                ],
                               check=True,
                               capture_output=True)
                y = answers(out, x)
            error = np.sum((y - exact) ** 2) / np.sum(exact ** 2)
            top, same = y.argmax(1) == labels, y.argmax(1) == exact.argmax(1)
            row += f" {100 * np.mean(top):.2f} / {100 * np.mean(same):.2f} / {100 * error:.2f} |"
        print(row, flush=True)


main()
