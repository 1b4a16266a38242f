"""How fashion_resnet.onnx was made (PyTorch 2.15, 8 epochs, 92.74 % on the test set): a residual
CNN for Fashion-MNIST with BatchNormalization kept. ehapc itself needs none of this; it is here so
that the example can be made again."""
import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DATA = "/usr/share/datasets/fashion-mnist/"  # Debian package dataset-fashion-mnist
EPOCHS, BATCH, PEAK_LR = 8, 128, 0.1


def read(split):
    def raw(kind, offset):
        with gzip.open(f"{DATA}{split}-{kind}-ubyte.gz") as f:
            return np.frombuffer(f.read(), np.uint8, offset=offset)

    x = torch.tensor(raw("images-idx3", 16).reshape(-1, 1, 28, 28), dtype=torch.float32)
    y = torch.tensor(raw("labels-idx1", 8).astype(np.int64))
    return (x / 255 - 0.2860) / 0.3530, y


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.c2, self.b2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        same = stride == 1 and cin == cout
        conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
        self.sc = nn.Identity() if same else nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(y + self.sc(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.body = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1),
                                  Block(32, 64, 2), Block(64, 64, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.body(F.relu(self.bn(self.stem(x)))).mean((2, 3)))


def augment(x):
    flip = torch.rand(len(x)) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    a, b = torch.randint(0, 5, (2,)).tolist()
    return F.pad(x, (2, 2, 2, 2), value=-0.8102)[:, :, a:a + 28, b:b + 28]


torch.manual_seed(0)
X, Y = read("train")
net = Net()
opt = torch.optim.SGD(net.parameters(), PEAK_LR, 0.9, weight_decay=5e-4, nesterov=True)
total, step = EPOCHS * (len(X) // BATCH), 0
for epoch in range(EPOCHS):
    order = torch.randperm(len(X))
    for i in range(0, len(X) - BATCH + 1, BATCH):
        opt.param_groups[0]["lr"] = PEAK_LR * min(
            1, step / 200) * 0.5 * (1 + np.cos(np.pi * step / total))
        j = order[i:i + BATCH]
        loss = F.cross_entropy(net(augment(X[j])), Y[j])
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
net.eval()
torch.onnx.export(net, torch.randn(1, 1, 28, 28), "fashion_resnet.onnx", opset_version=17,
                  input_names=["image"], output_names=["logits"],
                  dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, dynamo=False,
                  training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
