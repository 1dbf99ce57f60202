#!/usr/bin/env bash
# tract 0.23.9: a ConvTranspose with `output_shape` gets all its padding at the end, so that the values
# are those of other pixels. The length is right.
#
# The operator splits the padding that leads to this length in two halves; only the odd pixel depends on
# auto_pad.
#
# Expected: 5 pixels, kernel 4, stride 2, output_shape 10: the total padding is 2, so 1 is cut off in
#           front and 1 at the end, as in onnxruntime 1.32.0.
# Seen:     2 are cut off at the end, none in front, as with pads=[0,2]. For output_shape 8 it is 4 and
#           none, so the row is shifted by two pixels. pads=[1,1] and pads=[2,2] are computed right.
#
# Who exports for tract should write `pads`: the two spellings mean the same layer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9
"$folder/venv/bin/python" - "$folder/layer.onnx" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import tract
from onnx import parser

path = sys.argv[1]
row = np.array([[[1, 2, 3, 4, 5]]], np.float32)
whole = np.zeros(12)
for pixel in range(5):
    whole[2 * pixel : 2 * pixel + 4] += (pixel + 1) * np.array([1, 10, 100, 1000])

def outputs(attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """The row in onnxruntime and in tract."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,5] x) => (float[1,1,n] y) <float[1,1,4] w = {{1, 10, 100, 1000}}> {{
            y = ConvTranspose<strides=[2], {attribute}>(x, w)
        }}"""
    )
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    runnable = tract.onnx().load(path).into_model().into_runnable()
    found = runnable.run([row])[0].to_numpy()
    return session.run(None, {"x": row})[0].ravel(), found.ravel()

for length in (10, 8):
    half = (12 - length) // 2
    other, found = outputs(f"output_shape=[{length}]")
    print(f"output_shape {length}, onnxruntime:", other.astype(int).tolist())
    print(f"output_shape {length}, tract:      ", found.astype(int).tolist())
    assert (other == whole[half : 12 - half]).all()
    assert (found == whole[:length]).all(), "the values are others: this was changed"
    assert all((values == other).all() for values in outputs(f"pads=[{half},{half}]"))
print("as described: tract cuts the whole padding off at the end")
PYTHON
