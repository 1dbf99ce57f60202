#!/usr/bin/env bash
# onnxruntime 1.32.0: quantize_static with per_channel=True gives a ConvTranspose with groups no scale
# for each output channel. A Conv with groups gets one.
#
# The scales run along axis 1 of the weight, whose shape is (C, M/group, ...). With groups that axis has
# M/group entries, so channels of different groups share a scale.
#
# Expected: as many scales as output channels, or a message that groups are not supported.
# Seen:     depthwise (4 groups, 4 channels): one scale for all channels, and nothing is said. If the
#           channels differ by factors of 10, the errors are 1 %, 6 %, 51 % and 100 %: the smallest
#           channel becomes 0. A depthwise Conv has 4 scales and errors up to 1.5 %.
#           2 groups, 8 channels, with a bias: "operands could not be broadcast together with shapes
#           (8,) (4,)". Without a bias it runs, with 4 scales.
#
# Who needs a scale for each channel can write such a layer as Conv and DepthToSpace first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import logging
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, quantize_static

logging.disable(logging.WARNING)
source, target = f"{sys.argv[1]}/model.onnx", f"{sys.argv[1]}/quantized.onnx"
rng = np.random.default_rng(0)
image = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)

class OneImage(CalibrationDataReader):
    def __init__(self) -> None:
        self.feeds = iter([{"x": image}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)

def run(path: str) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0]

def quantize(operator: str, group: int, arrays: dict[str, np.ndarray]) -> tuple[int, list[float]]:
    """The number of scales of the weight, and the relative error of each channel."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,8,8] x) => (float[1,m,h,w] y) {{
            y = {operator}<strides=[2,2], group={group}>(x, {", ".join(arrays)})
        }}"""
    )
    for name, values in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, source)
    options = {"OpTypesToExcludeOutputQuantization": [operator]}
    quantize_static(source, target, OneImage(), per_channel=True, extra_options=options)
    right, found = run(source), run(target)
    tensors = onnx.load(target).graph.initializer
    scales = next(values for values in tensors if values.name == "weight_scale")
    wrong = np.abs(found - right).max((0, 2, 3)) / np.abs(right).max((0, 2, 3))
    return numpy_helper.to_array(scales).size, wrong.tolist()

print("onnxruntime", onnxruntime.__version__)
sizes = np.array([1, 0.1, 0.01, 0.001]).reshape(4, 1, 1, 1)
weight = {"weight": rng.standard_normal((4, 1, 4, 4)) * sizes}
for operator, wanted in (("Conv", 4), ("ConvTranspose", 1)):
    scales, errors = quantize(operator, 4, weight)
    print(f"depthwise {operator}: {scales} scales, errors {[f'{error:.1%}' for error in errors]}")
    assert scales == wanted, "another number of scales: this was changed"
    assert errors[0] < 0.05
    assert (errors[3] < 0.05) == (operator == "Conv")

weight = {"weight": rng.standard_normal((4, 4, 4, 4))}
scales, errors = quantize("ConvTranspose", 2, weight)
print(f"2 groups, 8 channels, no bias: {scales} scales, largest error {max(errors):.1%}")
assert scales == 4
try:
    quantize("ConvTranspose", 2, weight | {"bias": rng.standard_normal(8)})
except ValueError as error:
    text = str(error).strip()
else:
    text = "quantized"
print("2 groups, 8 channels, with a bias:", text)
assert "(8,) (4,)" in text, "another outcome: this was changed"
print("as described: groups share scales, and a bias is an error")
PYTHON
