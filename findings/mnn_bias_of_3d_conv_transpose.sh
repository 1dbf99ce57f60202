#!/usr/bin/env bash
# MNN 3.6.1, CPU: a 3-D ConvTranspose adds its bias only in some depth slices: in those that the last
# slice of the kernel reaches. With groups, only the first group gets a bias at all.
#
# Expected: the bias of a channel is added to all its values, as onnxruntime 1.32.0 does.
# Seen:     kernel 2x2x2, stride 2 (the layer that 3-D U-Nets enlarge with): the slices 0, 2, 4, ... have
#           no bias, the slices 1, 3, 5, ... have it. Stride 1: only slice 0 lacks it. With two groups,
#           the channels of the second group lack it everywhere. The rest is right: the difference is
#           exactly the bias. Right are a kernel and a stride of 1 over the depth, a layer without bias,
#           and the layer in two dimensions.
#
# Who converts such a model should write the bias as an Add after the layer: that is computed right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1
cat >"$folder/convert.py" <<'PYTHON'
import sys

import _tools

source, target = sys.argv[1:]
_tools.mnnconvert(
    ["convert", "-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "test"]
)
PYTHON
cat >"$folder/compare.py" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import MNN
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

folder = Path(sys.argv[1])
bias = np.array([10, 20, 30, 40], np.float32)
rng = np.random.default_rng(0)

def missing(
    kernel: list[int], strides: list[int], groups: int = 1, add: bool = False
) -> np.ndarray:
    """What MNN lacks of onnxruntime's values, per channel and slice of the first dimension."""
    dimensions = len(kernel)
    image = rng.standard_normal((1, 2, *[3] * dimensions)).astype(np.float32)
    weights = rng.standard_normal((2, 4 // groups, *kernel)).astype(np.float32)
    sizes = [2 * stride + length for stride, length in zip(strides, kernel)]
    attributes = f"kernel_shape={kernel}, strides={strides}, group={groups}"
    nodes = f"y = ConvTranspose<{attributes}>(x, w, b)"
    if add:
        nodes = f"t = ConvTranspose<{attributes}>(x, w) y = Add(t, b)"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,2,{",".join("3" * dimensions)}] x)
            => (float[1,4,{",".join(map(str, sizes))}] y) {{ {nodes} }}"""
    )
    shaped = bias.reshape(4, *[1] * dimensions) if add else bias
    for values, name in ((weights, "w"), (shaped, "b")):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, folder / "layer.onnx")
    command = [sys.executable, folder / "convert.py", folder / "layer.onnx", folder / "layer.mnn"]
    subprocess.run(command, check=True, capture_output=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    right = session.run(None, {"x": image})[0]
    module = MNN.nn.load_module_from_file(str(folder / "layer.mnn"), ["x"], ["y"])
    given = MNN.expr.const(image.ravel().tolist(), list(image.shape), MNN.expr.NCHW)
    found = np.array(MNN.expr.convert(module.forward(given), MNN.expr.NCHW).read())
    assert found.shape == right.shape
    lacking = (right - found)[0].reshape(4, sizes[0], -1)
    assert np.ptp(lacking, axis=2).max() < 1e-4, "the difference is more than a bias"
    return lacking[:, :, 0].round().astype(int)

column = bias.astype(int)[:, None]
volume = missing([2, 2, 2], [2, 2, 2])
print("missing, kernel 2x2x2, stride 2, by channel and slice:", volume.tolist(), sep="\n")
assert (volume == column * [1, 0, 1, 0, 1, 0]).all(), "this was changed"
dense = missing([2, 2, 2], [1, 1, 1])
print("stride 1:", dense.tolist(), sep="\n")
assert (dense == column * [1, 0, 0, 0]).all(), "this was changed"
grouped = missing([2, 2, 2], [2, 2, 2], groups=2)
print("stride 2, two groups:", grouped.tolist(), sep="\n")
assert (grouped[:2] == volume[:2]).all() and (grouped[2:] == column[2:]).all(), "this was changed"
assert not missing([1, 2, 2], [1, 2, 2]).any() and not missing([2, 2], [2, 2]).any()
for groups in (1, 2):
    assert not missing([2, 2, 2], [2, 2, 2], groups, add=True).any()
print("as described: the bias is missing in some slices")
PYTHON
"$folder/venv/bin/python" "$folder/compare.py" "$folder"
