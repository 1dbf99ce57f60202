#!/usr/bin/env bash
# esp-ppq 1.3.12: the executor, with which it calibrates a model and measures its error, ignores most
# attributes of a Resize, without a warning. Whatever the file says, linear and cubic take the coordinates
# half_pixel (unless they are align_corners), nearest takes asymmetric with floor, and cubic takes -0.75
# for cubic_coeff_a.
#
# Expected: twice as many pixels of the row 0 to 3, linear, asymmetric: 0, 0.5, 1, 1.5, ..., as in
#           onnxruntime 1.32.0 and in the reference evaluator of onnx.
# Seen:     0, 0.25, 0.75, 1.25, ...: a quarter of a pixel off. Nearest, three times as many, asymmetric and
#           round_prefer_floor: 0, 0, 0, 1, 1, 1, ... in place of 0, 0, 1, 1, 1, 2, .... Cubic with the
#           coefficient -0.5: the values of -0.75. With half_pixel (linear), asymmetric and floor (nearest),
#           and -0.75 (cubic) the executor is right.
#
# The quantized model is measured against the same executor, so its report of the error shows nothing of
# it. Who converts for ESP-DL should compare the float run of the executor with onnxruntime first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    esp-ppq==1.3.12 torch==2.13.0 onnx==1.19.1 onnxruntime==1.32.0 onnxsim==0.7.3
"$folder/venv/bin/python" - "$folder/layer.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from esp_ppq.api import load_onnx_graph
from esp_ppq.executor import TorchExecutor
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

path = sys.argv[1]
row = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)

def rows(factor: int, attributes: str) -> tuple[np.ndarray, np.ndarray]:
    """The row in onnxruntime (as in onnx's reference evaluator) and in the executor."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,1,4] x) => (float[1,1,1,{4 * factor}] y) {{
            y = Resize<{attributes}>(x, , scales)
        }}"""
    )
    scales = np.array([1, 1, 1, factor], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    right = session.run(None, {"x": row})[0]
    reference = ReferenceEvaluator(model).run(None, {"x": row})[0]
    assert np.allclose(right, reference, atol=1e-5)
    found = TorchExecutor(load_onnx_graph(path), device="cpu")(torch.from_numpy(row))[0]
    return right.ravel(), found.numpy().ravel()

COORDINATES = "coordinate_transformation_mode"
cases = [
    (2, f'mode="linear", {COORDINATES}="asymmetric"', f'mode="linear", {COORDINATES}="half_pixel"'),
    (
        3,
        f'mode="nearest", nearest_mode="round_prefer_floor", {COORDINATES}="asymmetric"',
        f'mode="nearest", nearest_mode="floor", {COORDINATES}="asymmetric"',
    ),
    (2, 'mode="cubic", cubic_coeff_a=-0.5', 'mode="cubic", cubic_coeff_a=-0.75'),
]
for factor, attributes, computed in cases:
    right, found = rows(factor, attributes)
    print(f"factor {factor}, {attributes}")
    print("    onnxruntime", right.astype(float).round(2).tolist())
    print("    executor   ", found.astype(float).round(2).tolist())
    assert np.abs(right - found).max() > 0.03, "the values are right now: this was changed"
    other, same = rows(factor, computed)
    assert np.allclose(other, same, atol=1e-5) and np.allclose(found, same, atol=1e-5)
print("as described: the executor computes another Resize")
PYTHON
