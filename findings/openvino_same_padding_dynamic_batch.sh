#!/usr/bin/env bash
# openvino 2026.4.1: a ConvTranspose with auto_pad SAME_UPPER or SAME_LOWER loses its padding if any
# dimension of the input is dynamic, be it only the batch.
#
# The padding depends on the kernel, the stride and the length of the input, not on the batch.
#
# Expected: 5 pixels, kernel 3, stride 2: 10 pixels. onnxruntime 1.32.0 does that for every input shape, and
#           OpenVINO for the shape [1, 1, 5].
# Seen:     11 pixels for the shapes [batch, 1, 5] and [1, 1, width]: nothing is cut off. With SAME_LOWER
#           every value stands one pixel further right. The padding is lost when the model is read:
#           model.reshape to [1, 1, 5] before compiling does not bring it back. `output_shape` without
#           auto_pad suffers likewise: the length is right, but all padding is cut off at the end.
#
# The padding for static shapes came with https://github.com/openvinotoolkit/openvino/pull/32608 and
# https://github.com/openvinotoolkit/openvino/pull/32854. Who exports with a dynamic batch can write `pads`
# instead, or fix the shapes in the ONNX file.
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

row = np.array([[[1, 2, 3, 4, 5]]], np.float32)
whole = np.zeros(11)
for pixel in range(5):
    whole[2 * pixel : 2 * pixel + 3] += (pixel + 1) * np.array([1, 10, 100])
right = {"SAME_UPPER": whole[:10], "SAME_LOWER": whole[1:]}

def outputs(shape: str, padding: str, fixed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The row in onnxruntime and in OpenVINO, which fixes the shape after reading if asked."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[{shape}] x) => (float[a,1,b] y) <float[1,1,3] w = {{1, 10, 100}}> {{
            y = ConvTranspose<strides=[2], {padding}>(x, w)
        }}"""
    ).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    read = core.read_model(model)
    if fixed:
        read.reshape([1, 1, 5])
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, {"x": row})[0].ravel(), compiled([row])[0].ravel()

for padding, expected in right.items():
    attribute = f'auto_pad="{padding}"'
    print(padding, "expected      ", expected.astype(int).tolist())
    other, found = outputs("1,1,5", attribute)
    assert (other == expected).all() and (found == expected).all()
    for shape, fixed in (("batch,1,5", False), ("1,1,width", False), ("batch,1,5", True)):
        other, found = outputs(shape, attribute, fixed)
        name = f"[{shape}]" + (" fixed" if fixed else "")
        print(f"{padding} {name:17s}", found.astype(int).tolist())
        assert (other == expected).all()
        assert len(found) == 11 and (found == whole).all(), "other values: this was changed"
for shape, values in (("1,1,5", whole[2:10]), ("batch,1,5", whole[:8]), ("1,1,width", whole[:8])):
    other, found = outputs(shape, "output_shape=[8]")
    print(f"output_shape 8 [{shape}]", found.astype(int).tolist())
    assert (other == whole[2:10]).all()
    assert (found == values).all(), "other values: this was changed"
for pads, expected in (("pads=[0,1]", right["SAME_UPPER"]), ("pads=[1,0]", right["SAME_LOWER"])):
    assert all((values == expected).all() for values in outputs("batch,1,5", pads))
print("as described: a dynamic dimension makes OpenVINO ignore auto_pad")
PYTHON
