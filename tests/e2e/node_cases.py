"""ONNX's own cases of operators that are newer than the data that Debian packages, or are read as
others: made by the onnx package, run by run_onnx. Usage: node_cases.py RUN_ONNX"""
import copy
import os
import subprocess
import sys
import tempfile

import onnx.backend.test.case.node as node
from onnx import TensorProto, numpy_helper

# By operator, the inputs that have to be constants.
OPERATORS = {
    "AffineGrid": [1], "Attention": [], "BitShift": [], "CenterCropPad": [1], "Col2Im": [1, 2],
    "CumProd": [], "DeformConv": [], "Mod": [], "RMSNormalization": [], "RotaryEmbedding": [],
    "SpaceToDepth": [], "SwiGLU": [], "Swish": [], "TensorScatter": [],
}
# The reference rounds to 16 bits after every step of its own order.
ROUNDED = ("bf16", "fp16", "float16")


def tensor(value, name):
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)


def write(case, folder):
    model, (inputs, outputs) = copy.deepcopy(case.model), case.data_sets[0]
    graph = model.graph
    inputs = [tensor(value, info.name) for value, info in zip(inputs, graph.input)]
    outputs = [tensor(value, info.name) for value, info in zip(outputs, graph.output)]
    for k in reversed(OPERATORS[graph.node[0].op_type]):
        graph.initializer.append(inputs.pop(k))
        del graph.input[k]
    os.makedirs(f"{folder}/{case.name}/test_data_set_0")
    with open(f"{folder}/{case.name}/model.onnx", "wb") as f:
        f.write(model.SerializeToString())
    for what, tensors in (("input", inputs), ("output", outputs)):
        for k, value in enumerate(tensors):
            with open(f"{folder}/{case.name}/test_data_set_0/{what}_{k}.pb", "wb") as f:
                f.write(value.SerializeToString())


def wanted(case):
    nodes = case.model.graph.node
    mine = len(nodes) == 1 and nodes[0].op_type in OPERATORS and not nodes[0].domain
    return mine and not any(case.name.endswith(end) for end in ROUNDED)


with tempfile.TemporaryDirectory() as folder:
    cases = [case for case in node.collect_testcases(None) if wanted(case)]
    for case in cases:
        write(case, f"{folder}/node")
    with open(f"{folder}/none", "w"):
        pass
    done = subprocess.run([sys.argv[1], f"{folder}/none", f"{folder}/node"])
    print(f"{len(cases)} cases of {len(OPERATORS)} operators")
    sys.exit(done.returncode or not cases)
