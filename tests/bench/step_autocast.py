"""Time of a PyTorch training step under torch.autocast(bfloat16), plain and QAT with distillation,
on the folded ResNets of SHARED/models: what peers/qat_torch.py measures in float.

  step_autocast.py SHARED MODEL_bn.onnx --data data_batch_1.bin [--batch 128] [--steps 8]
                   [--threads 2]"""
import argparse
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

a = argparse.ArgumentParser()
a.add_argument("shared")
a.add_argument("model")
a.add_argument("--data", nargs="+", required=True)
a.add_argument("--batch", type=int, default=128)
a.add_argument("--steps", type=int, default=8)
a.add_argument("--threads", type=int, default=2)
o = a.parse_args()
sys.path.insert(0, os.path.join(o.shared, "peers"))
from common import fold_bn, load, records  # noqa: E402

torch.set_num_threads(o.threads)
torch.manual_seed(0)


def of_weight(w):
    """127 steps either way per output channel. The quantizers of PyTorch take float alone."""
    scale = w.detach().flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    return torch.fake_quantize_per_channel_affine(w, scale,
                                                  torch.zeros_like(scale, dtype=torch.int32), 0,
                                                  -127, 127)


class OnGrid(nn.Module):
    """A layer whose weights and input lie on 8-bit grids; the input's follows its moving
    extremes."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.ends = layer, torch.tensor([0., 1.])

    def forward(self, x):
        x = x.float()
        with torch.no_grad():
            self.ends.lerp_(torch.stack((x.amin().clamp(max=0), x.amax().clamp(min=0))), 0.01)
            scale = (self.ends[1] - self.ends[0]) / 255
            zero = (-self.ends[0] / scale).round().to(torch.int32)
        x, w = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0,
                                                     255), of_weight(self.layer.weight)
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, w, self.layer.bias)
        return F.conv2d(x, w, self.layer.bias, self.layer.stride, self.layer.padding)


def on_grids(module):
    for name, child in module.named_children():
        layer = isinstance(child, (nn.Conv2d, nn.Linear))
        setattr(module, name, OnGrid(child) if layer else on_grids(child))
    return module


def step_seconds(student, teacher, x, y):
    optimizer = torch.optim.SGD(student.parameters(), 1e-3, 0.9)
    times = []
    for _ in range(o.steps + 2):
        pick = torch.randint(0, len(x), (o.batch,))
        images, labels = x[pick], y[pick]
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            z = student(images)
        loss = F.cross_entropy(z.float(), labels)
        if teacher:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                wanted = teacher(images).float().softmax(1)
            loss = loss + F.kl_div(z.float().log_softmax(1), wanted, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


x, y = records(o.data)
network = lambda: fold_bn(load(o.model))
print(f"plain {1e3 * step_seconds(network(), None, x, y):.1f} ms/step")
print(f"qat+distill {1e3 * step_seconds(on_grids(network()), network(), x, y):.1f} ms/step")
