"""Single operators at random shapes, types, attributes and values, corners among them: what ONNX
Runtime computes is what run_onnx must. The same cases for the same seed.
Usage: random_ops.py RUN_ONNX [OPERATOR [KEEP]]"""
import os
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

SEED, CASES, OPSET = 1, 10, 22
ort.set_default_logger_severity(4)

F = [np.float32]
FLOATS = [np.float32, np.float64, np.float16]
INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


class Case:
    """Draws what an operator takes."""

    def __init__(self, op, k):
        self.rng = np.random.default_rng([SEED, zlib.crc32(op.encode()), k])
        self.op, self.k, self.opset = op, k, OPSET
        self.inputs, self.attrs, self.nout = [], {}, 1

    def int(self, lo, hi):  # both ends included
        return int(self.rng.integers(lo, hi + 1))

    def flip(self, p=0.5):
        return bool(self.rng.random() < p)

    def choose(self, items):
        return items[self.int(0, len(items) - 1)]

    def shape(self, lo=0, hi=4, empty=0.1):
        dims = [self.choose([1, 2, 3, 5]) for _ in range(self.int(lo, hi))]
        if dims and self.flip(empty):
            dims[self.int(0, len(dims) - 1)] = 0
        return dims

    def array(self, shape, dtype=np.float32, lo=None, hi=None, odd=False):
        dtype = np.dtype(dtype)
        if dtype == bool:
            return self.rng.random(shape) < 0.5
        if dtype.kind == "f":
            x = self.rng.normal(0, 2, shape) if lo is None else self.rng.uniform(lo, hi, shape)
            x = np.asarray(x).astype(dtype)
            if odd and x.size:
                special = np.array(
                    [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, 2.5, -1.5, 60, -60], dtype)
                at = self.rng.random(x.shape) < 0.3
                x = np.where(at, self.rng.choice(special, x.shape), x).astype(dtype)
            return x
        info = np.iinfo(dtype)
        if lo is None:
            x = self.rng.integers(max(info.min, -100),
                                  min(info.max, 100),
                                  shape,
                                  dtype,
                                  endpoint=True)
            if odd and x.size:
                at = self.rng.random(x.shape) < 0.3
                x = np.where(at,
                             self.rng.choice(np.array([info.min, info.max, 0, 1], dtype), x.shape),
                             x)
            return np.asarray(x, dtype)
        return np.asarray(self.rng.integers(lo, hi, shape, dtype, endpoint=True))

    def add(self, x, const=False):
        """An input; const: an initializer. None: omitted."""
        self.inputs.append(
            (None if x is None else np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x),
             const))
        return x

    def ints(self, *x, const=True):
        return self.add(np.array(x, np.int64).reshape(-1), const)

    def broadcast(self, n):
        """n shapes that broadcast together."""
        full = self.shape(0, 4)
        out = []
        for _ in range(n):
            s = [1 if self.flip(0.25) else d for d in full]
            out.append(s[self.int(0, len(s)) if self.flip(0.3) else 0:])
        return out

    def axis(self, rank):
        return self.int(-rank, rank - 1)


OPERATORS = {}


def operator(*names, cases=CASES):
    def add(f):
        for name in names:
            OPERATORS[name] = (f, cases)
        return f
    return add


# ---- element by element ----------------------------------------------------------------


@operator("Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Erf", "Exp",
          "Floor", "Ceil", "Round", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Elu",
          "Selu", "Celu", "ThresholdedRelu", "Shrink", "Softplus", "Softsign", "Mish", "IsNaN",
          "IsInf", "Sqrt", "Log", "Reciprocal", "Asin", "Acos", "Acosh", "Atanh")
def float_unary(c):
    dtype = c.choose(FLOATS)
    c.add(c.array(c.shape(), dtype, odd=True))
    if c.op == "HardSwish":  # ours has the limits of x * hard_sigmoid(x)
        c.inputs = [(np.nan_to_num(c.inputs[0][0], posinf=9, neginf=-9), False)]
    if c.op in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid") and c.flip():
        c.attrs["alpha"] = c.choose([0.3, 1.7])
    if c.op == "Shrink":
        c.attrs.update(lambd=c.choose([0.5, 1.0]), bias=c.choose([0.0, 0.25]))
    if c.op == "Gelu":
        c.attrs["approximate"] = c.choose(["none", "tanh"])
    if c.op == "IsInf":
        c.attrs.update(detect_negative=c.int(0, 1), detect_positive=c.int(0, 1))


@operator("Abs", "Neg", "Sign", "Identity", "BitwiseNot", "Not")
def unary(c):
    signed = [t for t in INTS if np.iinfo(t).min < 0]
    dtype = {"BitwiseNot": INTS, "Not": [bool], "Neg": FLOATS + signed}.get(c.op, FLOATS + INTS)
    x = c.array(c.shape(), c.choose(dtype), odd=True)
    c.add(np.nan_to_num(x) if c.op == "Sign" else x)  # of no number: 0 for ONNX Runtime


@operator("Add",
          "Sub",
          "Mul",
          "Div",
          "Pow",
          "Mod",
          "Greater",
          "Less",
          "GreaterOrEqual",
          "LessOrEqual",
          "Equal",
          "PRelu",
          cases=20)
def binary(c):
    a, b = c.broadcast(2)
    types = FLOATS if c.op == "PRelu" else FLOATS + INTS
    dtype = np.dtype(c.choose(types))
    if c.op == "PRelu":
        a = c.shape(1, 4)
        b = [1 if c.flip(0.4) else d for d in a][c.int(0, len(a)):]
    x, y = c.array(a, dtype, odd=True), c.array(b, dtype, odd=True)
    if c.op in ("Div", "Mod"):
        y = np.where((y == 0) | (y == -1) if dtype.kind == "i" else y == 0, 3, y).astype(dtype)
    if c.op == "Pow":
        x, y = c.array(a, dtype, lo=0, hi=4), c.array(b,
                                                      c.choose(FLOATS[:1] + [np.int64, np.int32]),
                                                      lo=0,
                                                      hi=3)
    if c.op == "Mod":
        c.attrs["fmod"] = 1 if dtype.kind == "f" else c.int(0, 1)
    c.add(x)
    c.add(y, c.flip())


@operator("And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift")
def logic(c):
    a, b = c.broadcast(2)
    bits = c.op.startswith("Bit")
    dtype = c.choose([np.uint8, np.uint16, np.uint32, np.uint64] if c.op ==
                     "BitShift" else INTS if bits else [bool])
    c.add(c.array(a, dtype, odd=True))
    c.add(c.array(b, dtype, lo=0, hi=7) if c.op == "BitShift" else c.array(b, dtype, odd=True))
    if c.op == "BitShift":
        c.attrs["direction"] = c.choose(["LEFT", "RIGHT"])


@operator("Max", "Min", "Sum", "Mean")
def variadic(c):
    dtype = c.choose(FLOATS if c.op in ("Sum", "Mean") else FLOATS +
                     [np.int32, np.int64, np.uint8, np.int8])
    for s in c.broadcast(c.int(1, 4)):
        c.add(c.array(s, dtype))


@operator("Where")
def where(c):
    dtype = c.choose(FLOATS + INTS + [bool])
    a, b, d = c.broadcast(3)
    c.add(c.array(a, bool))
    c.add(c.array(b, dtype, odd=True))
    c.add(c.array(d, dtype, odd=True))


@operator("Clip", cases=15)
def clip(c):
    dtype = c.choose(FLOATS + [np.int8, np.uint8, np.int32, np.int64, np.uint32, np.uint64])
    c.add(c.array(c.shape(), dtype, odd=np.dtype(dtype).kind != "f"))
    lo, hi = (c.array([], dtype, lo=0, hi=3), c.array([], dtype, lo=4, hi=9))
    c.add(lo if c.flip(0.7) else None, c.flip())
    if c.flip(0.7):
        c.add(hi, c.flip())


@operator("Cast", cases=60)
def cast(c):
    types = FLOATS + INTS + [bool]
    a, b = np.dtype(c.choose(types)), np.dtype(c.choose(types))
    odd = b.kind == "f" or a.kind != "f"
    x = c.array(c.shape(), a, odd=odd) if odd else c.array(c.shape(), a, lo=0, hi=100)
    if b == np.float16:
        x = np.clip(x, max(-1000,
                           np.iinfo(a).min), 1000) if a.kind in "iu" and a.itemsize > 1 else x
    c.add(x)
    c.attrs["to"] = helper.np_dtype_to_tensor_dtype(b)


# ---- along axes ------------------------------------------------------------------------


@operator("ReduceSum",
          "ReduceMean",
          "ReduceMax",
          "ReduceMin",
          "ReduceProd",
          "ReduceSumSquare",
          "ReduceL1",
          "ReduceL2",
          "ReduceLogSum",
          "ReduceLogSumExp",
          cases=20)
def reduce(c):
    dtype = c.choose([np.float32, np.float64, np.int32, np.int64])
    if c.op == "ReduceLogSum":
        dtype = c.choose(FLOATS[:2])
    if c.op in ("ReduceMean", "ReduceL2", "ReduceLogSumExp"):
        dtype = c.choose(FLOATS[:2])
    s = c.shape(0, 4, 0 if c.op in ("ReduceMax", "ReduceMin", "ReduceMean") else 0.1)
    positive = c.op in ("ReduceLogSum", "ReduceProd")
    c.add(c.array(s, dtype, lo=1, hi=3) if positive else c.array(s, dtype))
    c.attrs["keepdims"] = c.int(0, 1)
    if c.flip(0.8):
        n = c.int(0, len(s))
        axes = c.rng.permutation(len(s))[:n]
        c.ints(*[a - len(s) if c.flip() else a for a in axes], const=c.flip(0.8))
        if c.flip(0.3):
            c.attrs["noop_with_empty_axes"] = 1


@operator("ArgMax", "ArgMin")
def arg(c):
    s = c.shape(1, 4, 0)
    x = c.array(s, c.choose([np.float32, np.int32, np.int8, np.uint8]), lo=0, hi=4)
    c.add(np.round(x).astype(x.dtype))
    c.attrs.update(axis=c.axis(len(s)), keepdims=c.int(0, 1), select_last_index=c.int(0, 1))


@operator("TopK", cases=15)
def topk(c):
    s = c.shape(1, 4, 0)
    axis = c.axis(len(s))
    x = c.array(s, c.choose([np.float32, np.float64, np.int64, np.int32]))
    if c.flip():
        x = (x / 3).astype(np.int64).astype(x.dtype)  # equal ones
    c.add(x)
    c.ints(c.int(0, s[axis]), const=c.flip())
    c.attrs.update(axis=axis, largest=c.int(0, 1), sorted=1)
    c.nout = 2


@operator("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def along(c):
    s = c.shape(1, 4, 0)
    c.add(c.array(s, c.choose(FLOATS[:2])))
    c.attrs["axis"] = c.axis(len(s))
    if c.op == "LpNormalization":
        c.attrs["p"] = c.int(1, 2)


@operator("CumSum")
def cumsum(c):
    s = c.shape(1, 4)
    c.add(c.array(s, c.choose([np.float32, np.float64, np.int32, np.int64])))
    c.add(np.array(c.axis(len(s)), np.int64), c.flip(0.7))
    c.attrs.update(exclusive=c.int(0, 1), reverse=c.int(0, 1))


@operator("Concat")
def concat(c):
    s = c.shape(1, 4)
    axis, dtype = c.axis(len(s)), c.choose(FLOATS + INTS + [bool])
    for _ in range(c.int(1, 4)):
        t = list(s)
        t[axis] = c.int(0, 3)
        c.add(c.array(t, dtype))
    c.attrs["axis"] = axis


@operator("Split")
def split(c):
    s = c.shape(1, 4)
    axis, parts = c.axis(len(s)), c.int(1, 3)
    s[axis] = c.int(parts, 7)
    c.add(c.array(s, c.choose(FLOATS + INTS)))
    if c.flip():
        cuts = sorted(c.int(0, s[axis]) for _ in range(parts - 1))
        c.ints(*np.diff([0, *cuts, s[axis]]))
    else:
        s[axis] = s[axis] // parts * parts
        c.inputs[0] = (c.array(s, c.inputs[0][0].dtype), False)
        c.attrs["num_outputs"] = parts
    c.attrs["axis"], c.nout = axis, parts


@operator("Slice", cases=25)
def slice_(c):
    s = c.shape(1, 4)
    c.add(c.array(s, c.choose(FLOATS + INTS + [bool])))
    n = c.int(1, len(s))
    axes = c.rng.permutation(len(s))[:n]
    bound = [-2**63 + 1, 2**63 - 1, *range(-7, 8)]
    const = c.flip(0.7)
    steps = [c.choose([1, 1, 2, -1, -2, 7, -2**31, 2**31]) if c.flip(0.8) else 1 for _ in axes]
    # Backwards to the largest number is to the start for ONNX Runtime, to the end for ONNX.
    ends = [c.choose(bound[:1] + bound[2:] if step < 0 else bound) for step in steps]
    c.ints(*[c.choose(bound) for _ in axes], const=const)
    c.ints(*ends, const=const)
    c.ints(*[a - len(s) if c.flip() else a for a in axes], const=const)
    if max(steps) != min(steps) or steps[0] != 1:
        c.ints(*steps, const=const)


@operator("Pad", cases=25)
def pad(c):
    mode = c.choose(["constant", "reflect", "edge", "wrap"])
    s = c.shape(1, 4, 0.1 if mode == "constant" else 0)
    dtype = c.choose([np.float32, np.float64, np.int32, np.int64, np.uint8, np.int8])
    c.add(c.array(s, dtype))
    axes = [a for a in range(len(s)) if c.flip(0.7)] if c.flip() else list(range(len(s)))
    most = [s[a] - 1 if mode == "reflect" else s[a] if mode == "wrap" else 3 for a in axes]
    least = [0 if mode != "constant" else -(s[a] // 3) for a in axes]
    c.ints(*[c.int(lo, max(lo, hi)) for _ in range(2) for lo, hi in zip(least, most)])
    c.add(c.array([], dtype) if c.flip() else None, c.flip())
    if len(axes) < len(s):
        c.ints(*[a - len(s) if c.flip() else a for a in axes])
    c.attrs["mode"] = mode


# ---- positions -------------------------------------------------------------------------

def places(c, size, shape):
    return c.array(shape, c.choose([np.int32, np.int64]), lo=-size, hi=size - 1)


@operator("Gather")
def gather(c):
    s = c.shape(1, 4, 0)
    axis = c.axis(len(s))
    c.add(c.array(s, c.choose(FLOATS + INTS + [bool])))
    c.add(places(c, s[axis], c.shape(0, 2)), c.flip())
    c.attrs["axis"] = axis


@operator("GatherElements")
def gather_elements(c):
    s = c.shape(1, 4, 0)
    axis = c.axis(len(s))
    t = [c.int(1, d) for d in s]
    t[axis] = c.int(0, 4)
    c.add(c.array(s, c.choose(FLOATS + INTS)))
    c.add(places(c, s[axis], t), c.flip())
    c.attrs["axis"] = axis


@operator("GatherND")
def gather_nd(c):
    s = c.shape(1, 4, 0)
    batch = c.int(0, len(s) - 1)
    k = c.int(1, len(s) - batch)
    t = s[:batch] + c.shape(1 - min(batch, 1), 2)
    c.add(c.array(s, c.choose(FLOATS + INTS)))
    at = [c.array(t, np.int64, lo=-s[batch + j], hi=s[batch + j] - 1) for j in range(k)]
    c.add(np.stack(at, -1), c.flip())
    c.attrs["batch_dims"] = batch


@operator("ScatterElements", "ScatterND", cases=20)
def scatter(c):
    s = c.shape(1, 4, 0)
    reduction = c.choose(["none", "add", "mul", "max", "min"])
    dtype = c.choose([np.float32, np.float64, np.int32, np.int64])
    c.add(c.array(s, dtype))
    if c.op == "ScatterElements":
        axis = c.axis(len(s))
        t = [c.int(1, d) for d in s]
        at = places(c, s[axis], t)
        if reduction == "none":
            at = np.argsort(c.rng.random([*t[:axis % len(s)], s[axis], *t[axis % len(s) + 1:]]),
                            axis).astype(np.int64)
            at = at.take(range(t[axis]), axis)
        c.attrs["axis"] = axis
        shape = t
    else:
        k, n = c.int(1, len(s)), c.int(0, 4)
        flat = c.rng.permutation(int(np.prod(s[:k])))[:n] if reduction == "none" else \
            c.rng.integers(0, int(np.prod(s[:k])), n)
        at = np.stack(np.unravel_index(flat, s[:k]), -1).astype(np.int64)
        shape = [len(flat), *s[k:]]
    c.add(at, c.flip())
    c.add(c.array(shape, dtype))
    c.attrs["reduction"] = reduction


@operator("OneHot")
def one_hot(c):
    s, depth = c.shape(0, 3, 0), c.int(1, 5)
    c.add(c.array(s, c.choose([np.int64, np.int32]), lo=-depth - 1, hi=depth + 1))
    c.add(np.array(depth, np.int64), c.flip())
    c.add(c.array([2], c.choose([np.float32, np.int64])))
    c.attrs["axis"] = c.axis(len(s) + 1)


@operator("NonZero", "Unique")
def search(c):
    s = c.shape(0 if c.op == "NonZero" else 1, 3)
    c.add(np.round(c.array(s, c.choose([np.float32, np.int32, np.int64]), lo=0, hi=2)))
    if c.op == "Unique":
        c.attrs["sorted"], c.nout = c.int(0, 1), 4
        if c.flip():
            c.attrs["axis"] = c.axis(len(s))


@operator("Compress")
def compress(c):
    s = c.shape(1, 3, 0)
    flat = c.flip(0.3)
    axis = c.axis(len(s))
    c.add(c.array(s, c.choose(FLOATS[:2] + [np.int64])))
    c.add(c.array([c.int(1, int(np.prod(s)) if flat else s[axis])], bool), c.flip())
    if not flat:
        c.attrs["axis"] = axis


@operator("NonMaxSuppression", cases=15)
def nms(c):
    b, n, k = c.int(1, 2), c.int(1, 8), c.int(1, 3)
    boxes = c.array([b, n, 4], lo=0, hi=1)
    c.attrs["center_point_box"] = c.int(0, 1)
    if not c.attrs["center_point_box"]:
        boxes[..., 2:] = boxes[..., :2] + boxes[..., 2:] * (1 if c.flip(0.7) else -1)
    c.add(boxes)
    c.add(c.array([b, k, n], lo=0, hi=1))
    c.ints(c.int(0, 5))
    c.add(c.array([1], lo=0, hi=1))
    c.add(c.array([1], lo=0, hi=0.7) if c.flip() else None)


# ---- shapes ----------------------------------------------------------------------------

@operator("Transpose")
def transpose(c):
    s = c.shape(0, 5)
    c.add(c.array(s, c.choose(FLOATS + INTS + [bool])))
    if s and c.flip(0.8):
        c.attrs["perm"] = [int(p) for p in c.rng.permutation(len(s))]


@operator("Reshape", cases=15)
def reshape(c):
    s = c.shape(0, 4)
    n = int(np.prod(s))
    targets = [s[::-1], [n], [-1] if n else [0, 5][:1], [1, n, 1], [*s, 1]
               ] + ([[0, -1], [0, 0, -1][:len(s)]] if len(s) > 1 and n else [])
    c.add(c.array(s, c.choose(FLOATS + INTS)))
    t = c.choose(targets)
    if 0 in s and t is not targets[1]:
        c.attrs["allowzero"] = 1
    c.ints(*t, const=c.flip(0.7))


@operator("Squeeze", "Unsqueeze", "Flatten")
def squeeze(c):
    s = c.shape(1 if c.op == "Flatten" else 0, 3)
    if c.op == "Squeeze":
        for _ in range(2):
            s.insert(c.int(0, len(s)), 1)
    c.add(c.array(s, c.choose(FLOATS + INTS)))
    if c.op == "Flatten":
        c.attrs["axis"] = c.int(-len(s), len(s))
        return
    if c.op == "Squeeze":
        axes, rank = [a for a, d in enumerate(s) if d == 1 and c.flip(0.7)], len(s)
        if not axes:
            return
    else:
        rank = len(s) + c.int(1, 2)
        axes = [int(a) for a in c.rng.permutation(rank)[:rank - len(s)]]
    c.ints(*[a - rank if c.flip() else a for a in axes], const=c.flip(0.8))


@operator("Expand", "Tile")
def repeat(c):
    s = c.shape(0 if c.op == "Expand" else 1, 4)
    c.add(c.array(s, c.choose([np.float32, np.int64, np.int32, np.float64, np.uint8, bool])))
    if c.op == "Tile":
        c.ints(*[c.int(0, 3) for _ in s], const=c.flip(0.7))
    else:
        t = [c.int(1, 3) if d == 1 and c.flip() else d for d in s]
        c.ints(*(c.shape(0, 2) + t if c.flip() else [d if c.flip() else 1 for d in t]),
               const=c.flip(0.7))


@operator("Trilu")
def trilu(c):
    c.add(c.array(c.shape(2, 4), c.choose([np.float32, np.int64, np.float64, bool])))
    c.add(np.array(c.int(-4, 4), np.int64) if c.flip() else None, c.flip())
    c.attrs["upper"] = c.int(0, 1)


@operator("ReverseSequence")
def reverse_sequence(c):
    s = c.shape(2, 4, 0)
    time = c.int(0, 1)
    c.add(c.array(s, c.choose([np.float32, np.int64])))
    c.add(c.array([s[1 - time]], np.int64, lo=1, hi=s[time]), c.flip())
    c.attrs.update(time_axis=time, batch_axis=1 - time)


@operator("Range")
def range_(c):
    dtype = c.choose([np.float32, np.float64, np.int32, np.int64, np.int16])
    const = c.flip()
    for lo, hi in ((-3, 3), (-5, 9), (1, 3)):
        c.add(np.round(c.array([], dtype, lo=lo, hi=hi) * 2).astype(dtype), const)


@operator("EyeLike")
def eye_like(c):
    c.add(c.array(c.shape(2, 2), c.choose([np.float32, np.int64, np.float64])))
    c.attrs["k"] = c.int(-3, 3)
    if c.flip():
        c.attrs["dtype"] = c.choose([1, 7, 6])


@operator("DepthToSpace", "SpaceToDepth")
def blocks(c):
    b = c.int(1, 3)
    n, ch, h, w = c.int(1, 2), c.int(1, 3), c.int(1, 3), c.int(1, 3)
    down = c.op == "SpaceToDepth"
    c.add(c.array([n, ch, h * b, w * b] if down else [n, ch * b * b, h, w]))
    c.attrs["blocksize"] = b
    if not down:
        c.attrs["mode"] = c.choose(["DCR", "CRD"])


# ---- windows ---------------------------------------------------------------------------

def window(c, r, size, dilate=True):
    kernel = [c.int(1, 3) for _ in range(r)]
    if c.flip(0.6):
        c.attrs["strides"] = [c.int(1, 3) for _ in range(r)]
    dilation = [1] * r
    if dilate and c.flip(0.4):
        dilation = c.attrs["dilations"] = [c.int(1, 2) for _ in range(r)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    # What ONNX Runtime makes of "same" with holes, or of convolutions with gaps, is not what ONNX
    # says.
    gaps = any(s > k for s, k in zip(c.attrs.get("strides", [1] * r), kernel))
    plain = max(dilation) == 1 and (c.op in ("AveragePool", "LpPool") or not gaps)
    if c.flip(0.3) and plain:
        c.attrs["auto_pad"] = c.choose(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif c.flip():
        c.attrs["pads"] = [c.int(0, k // 2) for k in kernel * 2]
    return kernel, [max(s, d) for s, d in zip(size, reach)]


@operator("Conv", "ConvTranspose", cases=40)
def conv(c):
    r, group = c.int(1, 3), c.choose([1, 1, 2, 3])
    kernel, size = window(c, r, [c.int(3, 6) for _ in range(r)])
    n, i, o = c.int(1, 2), group * c.int(1, 2), group * c.int(1, 3)
    c.add(c.array([n, i, *size]))
    c.add(c.array([o, i // group, *kernel] if c.op == "Conv" else [i, o // group, *kernel]),
          c.flip())
    if c.flip():
        c.add(c.array([o]), c.flip())
    if c.flip():
        c.attrs["kernel_shape"] = kernel
    c.attrs["group"] = group
    if c.op == "ConvTranspose":
        strides = c.attrs.get("strides", [1] * r)
        c.attrs.pop("auto_pad", None) if c.flip() else None
        if c.flip(0.4):
            c.attrs["output_padding"] = [c.int(0, max(s - 1, 0)) for s in strides]
        if c.flip(0.2) and "pads" not in c.attrs:
            c.attrs["output_shape"] = [s * t + c.int(0, 1) for s, t in zip(size, strides)]


@operator("MaxPool", "AveragePool", "LpPool", cases=30)
def pool(c):
    r = c.int(1, 3)
    kernel, size = window(c, r, [c.int(3, 7) for _ in range(r)])
    c.add(c.array([c.int(1, 2), c.int(1, 3), *size]))
    c.attrs["kernel_shape"] = kernel
    if "auto_pad" not in c.attrs and c.flip():
        c.attrs["ceil_mode"] = 1
    if c.op == "AveragePool":
        c.attrs["count_include_pad"] = c.int(0, 1)
    if c.op == "LpPool":
        c.attrs["p"] = c.int(1, 3)
    if c.op == "MaxPool" and c.flip(0.3):
        c.nout = 2


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "InstanceNormalization",
          "BatchNormalization", "LRN", "MeanVarianceNormalization", "GroupNormalization")
def per_channel(c):
    ch = c.choose([2, 4, 6])
    s = [c.int(1, 2), ch, *c.shape(1, 3, 0)]
    if c.op in ("LRN", "MeanVarianceNormalization"):
        s = s[:2] + [3, 4]
    c.add(c.array(s))
    if c.op == "GroupNormalization":
        c.attrs["num_groups"] = c.choose([1, 2])
    if c.op in ("InstanceNormalization", "GroupNormalization", "BatchNormalization"):
        c.add(c.array([ch]))
        c.add(c.array([ch]))
        c.attrs["epsilon"] = 1e-3
    if c.op == "BatchNormalization":
        c.add(c.array([ch]))
        c.add(c.array([ch], lo=0.5, hi=2))
    if c.op == "LRN":
        c.attrs.update(size=c.choose([1, 2, 3, 5]), alpha=0.1, beta=0.75, bias=1.5)
    if c.op == "MeanVarianceNormalization" and c.flip():
        c.attrs["axes"] = [0, 2, 3]


@operator("LayerNormalization", "RMSNormalization")
def layer_norm(c):
    s = c.shape(1, 4, 0)
    axis = c.axis(len(s))
    c.opset = 23
    c.add(c.array(s))
    c.add(c.array(s[axis % len(s):]))
    if c.op == "LayerNormalization":
        if c.flip():
            c.add(c.array(s[axis % len(s):]))
        c.nout = c.choose([1, 3])
    c.attrs["axis"] = axis


@operator("Resize", cases=60)
def resize(c):
    r = c.choose([1, 2, 2, 2, 3])
    mode = c.choose(["nearest", "linear", "cubic"] if r == 2 else ["nearest", "linear"])
    s = [c.int(1, 2), c.int(1, 3), *[c.int(2, 6) for _ in range(r)]]
    c.add(c.array(s))
    c.add(None)
    if c.flip():
        c.add(
            np.array([1, 1, *[c.choose([0.5, 0.6, 1, 1.5, 2, 3.3]) for _ in range(r)]], np.float32),
            True)
    else:
        c.add(None)
        c.ints(*s[:2], *[c.int(1, 9) for _ in range(r)])
    c.attrs.update(mode=mode,
                   coordinate_transformation_mode=c.choose([
                       "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                       "half_pixel_symmetric"
                   ]))
    if mode == "nearest":  # halfway, where rounding decides, but for these
        c.attrs["coordinate_transformation_mode"] = c.choose(
            ["asymmetric", "half_pixel", "align_corners"])
        c.attrs["nearest_mode"] = c.choose(
            ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        c.attrs.update(cubic_coeff_a=c.choose([-0.5, -0.75]), exclude_outside=c.int(0, 1))
    if mode == "linear" and c.flip():
        c.attrs["antialias"] = 1


@operator("GridSample", cases=30)
def grid_sample(c):
    r = c.choose([2, 2, 3])
    s = [c.int(1, 2), c.int(1, 3), *[c.int(1, 5) for _ in range(r)]]
    c.add(c.array(s))
    c.add(c.array([s[0], *[c.int(1, 4) for _ in range(r)], r], lo=-1.4, hi=1.4))
    c.attrs.update(
        mode=c.choose(["linear", "nearest", "cubic"] if r == 2 else ["linear", "nearest"]),
        padding_mode=c.choose(["zeros", "border", "reflection"]),
        align_corners=c.int(0, 1))


@operator("RoiAlign", cases=15)
def roi_align(c):
    n, k = c.int(1, 2), c.int(1, 3)
    c.add(c.array([n, c.int(1, 3), 6, 7]))
    box = c.array([k, 4], lo=0, hi=8)
    box[:, 2:] += box[:, :2]
    c.add(box)
    c.add(c.array([k], np.int64, lo=0, hi=n - 1))
    c.attrs.update(output_height=c.int(1, 3), output_width=c.int(1, 3), sampling_ratio=c.int(0, 3),
                   spatial_scale=c.choose([0.5, 1.0]), mode=c.choose(["avg", "max"]),
                   coordinate_transformation_mode=c.choose(["half_pixel", "output_half_pixel"]))


# ---- products --------------------------------------------------------------------------

@operator("MatMul", cases=25)
def matmul(c):
    dtype = c.choose([np.float32, np.float64, np.int32, np.int64, np.float32])
    m, k, n = (c.choose([0, 1, 2, 3, 5]) for _ in range(3))
    a, b = c.broadcast(2)
    a, b = a[-2:] + [m, k], b[-2:] + [k, n]
    if c.flip(0.2):
        a = [k]
    if c.flip(0.2):
        b = [k]
    c.add(c.array(a, dtype, lo=-3, hi=3))
    c.add(c.array(b, dtype, lo=-3, hi=3), c.flip())


@operator("Gemm", cases=20)
def gemm(c):
    m, k, n = (c.choose([1, 2, 3, 5]) for _ in range(3))
    ta, tb = c.int(0, 1), c.int(0, 1)
    c.add(c.array([k, m] if ta else [m, k]))
    c.add(c.array([n, k] if tb else [k, n]), c.flip())
    if c.flip(0.7):
        c.add(c.array(c.choose([[], [1], [n], [1, n], [m, 1], [m, n]])))
    c.attrs.update(transA=ta, transB=tb, alpha=c.choose([1.0, 0.5]), beta=c.choose([1.0, 2.0, 0.0]))


@operator("Einsum", cases=15)
def einsum(c):
    text, shapes = c.choose([("bij,bjk->bik", [[2, 3, 4], [2, 4, 5]]), ("ij->ji", [[3, 4]]),
                             ("ii->i", [[3, 3]]), ("...ij->...", [[2, 3, 4]]),
                             ("bhwc,hkc->bhwk", [[2, 3, 4, 5], [3, 6, 5]]),
                             ("ab,bc,cd->ad", [[2, 3], [3, 4], [4, 2]]), ("i,j", [[3], [2]]),
                             ("bij,bij->b", [[2, 3, 4], [2, 3, 4]]),
                             ("abcd,cde->abe", [[2, 3, 4, 5], [4, 5, 6]]),
                             ("...a,ab", [[2, 4], [4, 3]])])
    for s in shapes:
        c.add(c.array(s))
    c.attrs["equation"] = text


@operator("Det")
def det(c):
    n = c.int(1, 4)
    c.add(c.array([*c.shape(0, 2, 0), n, n]))


@operator("LSTM", "GRU", "RNN", cases=20)
def recurrent(c):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[c.op]
    t, n, i, h = c.int(1, 4), c.int(1, 3), c.int(1, 4), c.int(1, 5)
    direction = c.choose(["forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    const = c.flip()
    c.add(c.array([t, n, i]))
    c.add(c.array([d, gates * h, i], lo=-1, hi=1), const)
    c.add(c.array([d, gates * h, h], lo=-1, hi=1), const)
    c.add(c.array([d, 2 * gates * h]) if c.flip() else None, const)
    c.add(c.array([n], np.int32, lo=1, hi=t) if c.flip(0.4) else None)
    c.add(c.array([d, n, h]) if c.flip() else None)
    if c.op == "LSTM":
        c.add(c.array([d, n, h]) if c.flip() else None)
        if c.flip(0.3):
            c.add(c.array([d, 3 * h]))
    if c.op == "GRU":
        c.attrs["linear_before_reset"] = c.int(0, 1)
    if c.flip(0.3):
        c.attrs["clip"] = 0.7
    if c.flip(0.2):
        c.attrs["activations"] = {
            "LSTM": ["Sigmoid", "Tanh", "Relu"], "GRU": ["Sigmoid", "Softsign"], "RNN": ["Relu"]
        }[c.op] * d
    c.attrs.update(hidden_size=h, direction=direction)
    c.nout = 3 if c.op == "LSTM" else 2


# ---- integers --------------------------------------------------------------------------

@operator("QuantizeLinear", "DequantizeLinear", cases=20)
def quantize(c):
    dtype = c.choose([np.uint8, np.int8])
    if c.flip(0.2):
        dtype = c.choose([np.uint16, np.int16])
    s = c.shape(1, 4, 0)
    axis = c.axis(len(s))
    per = c.flip()
    scale = c.array([s[axis]] if per else [], lo=0.05, hi=0.3)
    info = np.iinfo(dtype)
    zero = c.array(scale.shape, dtype, lo=info.min // 2, hi=info.max // 2)
    if c.op == "QuantizeLinear":
        x = c.array(s, lo=-40, hi=40)
        if c.flip():  # halfway
            scale = np.full_like(scale, 0.25)
            x = (np.round(x * 8) / 8).astype(np.float32)
        c.add(x)
    else:
        c.add(c.array(s, dtype, odd=True))
    c.add(scale, c.flip())
    if c.op == "DequantizeLinear" and c.flip(0.3):
        pass
    else:
        c.add(zero, c.flip())
    c.attrs["axis"] = axis


@operator("DynamicQuantizeLinear")
def dynamic_quantize(c):
    x = c.array(c.shape(1, 3, 0))
    c.add(np.abs(x) if c.flip(0.3) else -np.abs(x) if c.flip(0.3) else x)
    c.nout = 3


@operator("MatMulInteger", "QLinearMatMul", cases=15)
def integer_product(c):
    m, k, n = (c.choose([1, 2, 3, 5]) for _ in range(3))
    a, b = c.choose([np.uint8, np.int8]), c.choose([np.uint8, np.int8])
    zero = lambda t: c.array([], t, lo=0, hi=20)
    lead = c.shape(0, 1, 0)
    c.add(c.array([*lead, m, k], a, odd=True))
    if c.op == "QLinearMatMul":
        c.add(np.float32(0.02))
        c.add(zero(a))
    c.add(c.array([k, n], b, odd=True))
    if c.op == "QLinearMatMul":
        c.add(np.float32(0.03))
        c.add(zero(b))
        c.add(np.float32(0.1))
        c.add(zero(a))
    else:
        c.add(zero(a))
        c.add(zero(b))


@operator("ConvInteger", "QLinearConv", cases=15)
def integer_conv(c):
    group = c.choose([1, 1, 2])
    kernel, size = window(c, 2, [c.int(3, 6), c.int(3, 6)])
    i, o = group * c.int(1, 3), group * c.int(1, 3)
    a = np.uint8
    b = np.uint8 if c.op == "ConvInteger" else c.choose([np.uint8, np.int8])
    zero = lambda t: c.array([], t, lo=0, hi=20)
    c.add(c.array([1, i, *size], a))
    if c.op == "QLinearConv":
        c.add(np.float32(0.02))
        c.add(zero(a))
    c.add(c.array([o, i // group, *kernel], b))
    if c.op == "QLinearConv":
        c.add(np.float32(0.03))
        c.add(zero(b))
        c.add(np.float32(0.1))
        c.add(zero(a))
        if c.flip():
            c.add(c.array([o], np.int32))
    else:
        c.add(zero(a))
        if c.flip():
            c.add(zero(b))
    c.attrs["group"] = group


# ---- attention -------------------------------------------------------------------------

@operator("Attention", cases=60)
def attention(c):
    c.opset = 23
    b, hk, d, dv = c.int(1, 2), c.int(1, 3), c.choose([1, 3, 4]), c.choose([2, 4])
    hq = hk * c.int(1, 3)
    tq, tk, past = c.int(1, 4), c.int(1, 5), c.choose([0, 0, 2, 3])
    flat = c.flip()
    dtype = np.float32

    def heads(t, h, w):
        c.add(c.array([b, t, h * w] if flat else [b, h, t, w], dtype))
    heads(tq, hq, d)
    heads(tk, hk, d)
    heads(tk, hk, dv)
    if flat:
        c.attrs.update(q_num_heads=hq, kv_num_heads=hk)
    total = tk + past
    mask = None
    if c.flip():
        shape = c.choose([[tq, total], [1, tq, total], [b, 1, tq, total], [b, hq, tq, total],
                          [1, 1, 1, total][-2:] if tq == 1 else [tq, total]])
        mask = c.array(shape, bool if c.flip() else dtype)
        if mask.dtype == bool:
            mask[..., 0] = True
    c.add(mask)
    if past:
        c.add(c.array([b, hk, past, d], dtype))
        c.add(c.array([b, hk, past, dv], dtype))
        c.nout = 3
    c.attrs["is_causal"] = c.int(0, 1) if not past or tq == tk else 0
    if c.flip(0.3):
        c.attrs["scale"] = 0.3
    if c.flip(0.3):
        c.attrs["softcap"] = c.choose([0.5, 2.0])


@operator("RotaryEmbedding", cases=30)
def rotary(c):
    c.opset = 23
    b, t, h, half = c.int(1, 2), c.int(1, 4), c.int(1, 3), c.choose([1, 2, 4])
    turned = 2 * half
    d = turned if c.flip() else turned + c.choose([2, 4])
    flat = c.flip()
    if d > turned:
        c.attrs["rotary_embedding_dim"] = turned
    c.add(c.array([b, t, h * d] if flat else [b, h, t, d]))
    if flat or d > turned:
        c.attrs["num_heads"] = h
    ids = c.flip()
    for _ in range(2):
        c.add(c.array([9, half] if ids else [b, t, half]))
    if ids:
        c.add(c.array([b, t], np.int64, lo=0, hi=8))
    c.attrs["interleaved"] = c.int(0, 1)


# ---- running ---------------------------------------------------------------------------

def model_of(c):
    names, graph_in, init = [], [], []
    for k, (x, const) in enumerate(c.inputs):
        names.append("" if x is None else f"i{k}")
        if x is None:
            continue
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        if const:
            init.append(numpy_helper.from_array(x, f"i{k}"))
        else:
            graph_in.append(helper.make_tensor_value_info(f"i{k}", kind, x.shape))
    while names and not names[-1]:
        names.pop()
    outs = [f"o{k}" for k in range(c.nout)]
    node = helper.make_node(c.op, names, outs, **c.attrs)
    graph = helper.make_graph([node], c.op, graph_in,
                              [helper.make_empty_tensor_value_info(o) for o in outs], init)
    model = helper.make_model(graph,
                              opset_imports=[helper.make_opsetid("", c.opset)],
                              ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def expected(model, c):
    """What ONNX Runtime computes; None if it does not take the model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    feeds = {f"i{k}": x for k, (x, const) in enumerate(c.inputs) if x is not None and not const}
    try:
        session = ort.InferenceSession(model.SerializeToString(),
                                       options,
                                       providers=["CPUExecutionProvider"])
        return session.run(None, feeds)
    except Exception as e:
        return str(e).splitlines()[0]


def write(folder, model, c, outputs):
    os.makedirs(f"{folder}/test_data_set_0")
    onnx.save(model, f"{folder}/model.onnx")
    inputs = [x for x, const in c.inputs if x is not None and not const]
    for what, arrays in (("input", inputs), ("output", outputs)):
        for k, x in enumerate(arrays):
            with open(f"{folder}/test_data_set_0/{what}_{k}.pb", "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(x), f"{what[0]}{k}").SerializeToString())


def main(run_onnx, only=None, keep=None):
    refused, made = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = keep or folder
        for op, (draw, cases) in OPERATORS.items():
            for k in range(cases if only in (None, op) else 0):
                c = Case(op, k)
                draw(c)
                model = model_of(c)
                outputs = expected(model, c)
                if isinstance(outputs, str):
                    refused.setdefault(op, []).append(outputs)
                    continue
                write(f"{folder}/node/test_{op}_{k}", model, c, outputs)
                made += 1
        with open(f"{folder}/none", "w"):
            pass
        done = subprocess.run([run_onnx, f"{folder}/none", f"{folder}/node"])
        for op, why in refused.items():
            print(f"{op}: ONNX Runtime refuses {len(why)} of {OPERATORS[op][1]}: {why[0][:300]}")
        print(f"{made} cases of {len(OPERATORS)} operators")
        sys.exit(done.returncode or not made)


main(*sys.argv[1:])
