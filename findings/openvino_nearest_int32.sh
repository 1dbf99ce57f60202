#!/usr/bin/env bash
# openvino 2026.4.1, CPU: a nearest Resize of int32 changes values above 2**24. It computes in float32.
#
# Expected: nearest only copies, so every value of the output is one of the input, for all types.
# Seen:     16777217, 16777219 and 1073741831 become 16777216, 16777220 and 1073741824, although the
#           input and the output are int32. onnxruntime 1.32.0 copies them.
#
# Who enlarges a map of large numbers (instance labels, hashes) can use Gather or Expand.
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

model = parser.parse_model(
    """<ir_version: 8, opset_import: ["" : 18]>
    net (int32[1,1,1,4] x) => (int32[1,1,1,8] y) <float[4] scales = {1, 1, 1, 2}> {
        y = Resize<mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric">(x, , scales)
    }"""
).SerializeToString()
labels = np.array([7, 2**24 + 1, 2**24 + 3, 2**30 + 7], np.int32).reshape(1, 1, 1, 4)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
right = session.run(None, {"x": labels})[0].ravel()
core = openvino.Core()
result = core.compile_model(core.read_model(model), "CPU")([labels])[0]
found = result.ravel()
print("input      ", labels.ravel().tolist())
print("onnxruntime", right[::2].tolist())
print("openvino   ", found[::2].tolist(), result.dtype)
assert (right == np.repeat(labels.ravel(), 2)).all()
assert result.dtype == np.int32
rounded = labels.ravel().astype(np.float32).astype(np.int32)
assert (found == np.repeat(rounded, 2)).all(), "the values are others: this was changed"
assert (found[2:] != right[2:]).all()
print("as described: the labels are rounded to float32")
PYTHON
