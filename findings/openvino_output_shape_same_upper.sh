#!/usr/bin/env bash
# openvino 2026.4.1, CPU: a ConvTranspose with `output_shape` and auto_pad SAME_UPPER is off by one
# pixel if the total padding is odd.
#
# The operator's formula for SAME_UPPER puts the smaller half of the padding first, for the other
# values of auto_pad the larger half.
#
# Expected: 5 pixels, kernel 4, stride 2, output_shape 9: the total padding is 3, so 1 is cut off in
#           front and 2 at the end. onnxruntime 1.32.0 and the reference evaluator of onnx do that.
# Seen:     2 are cut off in front, as for SAME_LOWER. So every value stands one pixel further left.
#           SAME_UPPER without output_shape, and SAME_LOWER with it, are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
import openvino
from onnx import parser
from onnx.reference import ReferenceEvaluator

def outputs(padding: str) -> list[list[float]]:
    """The output row in onnxruntime, in onnx's reference evaluator and in OpenVINO."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,5] x) => (float[1,1,n] y) <float[1,1,4] w = {{1, 10, 100, 1000}}> {{
            y = ConvTranspose<strides=[2], {padding}>(x, w)
        }}"""
    )
    row = np.array([[[1, 2, 3, 4, 5]]], np.float32)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [
        session.run(None, {"x": row})[0],
        ReferenceEvaluator(model).run(None, {"x": row})[0],
        compiled([row])[0],
    ]
    return [values.ravel().tolist() for values in found]

whole = np.zeros(12)
for pixel in range(5):
    whole[2 * pixel : 2 * pixel + 4] += (pixel + 1) * np.array([1, 10, 100, 1000])
upper, lower = whole[1:10].tolist(), whole[2:11].tolist()
odd = outputs('auto_pad="SAME_UPPER", output_shape=[9]')
for name, values in zip(("onnxruntime", "reference", "openvino"), odd, strict=True):
    print(f"{name}: {[int(value) for value in values]}")
assert odd[0] == odd[1] == upper
assert odd[2] == lower, "the values are others: this was changed"
assert outputs('auto_pad="SAME_LOWER", output_shape=[9]') == [lower] * 3
assert outputs('auto_pad="SAME_UPPER"') == [whole[1:11].tolist()] * 3
print("as described: with output_shape, SAME_UPPER is computed as SAME_LOWER")
PYTHON
