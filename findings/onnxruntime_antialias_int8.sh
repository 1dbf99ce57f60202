#!/usr/bin/env bash
# onnxruntime 1.32.0, CPU: a linear Resize of int8 with antialias=1 turns negative values into 0.
#
# Expected: an image of one value is that value after any resize: all -50 for an image of -50.
# Seen:     all 0, enlarged and made smaller, linear. An image of 50 stays 50. int32 with antialias,
#           int8 without it and OpenVINO 2026.4.1 (both ways) give -50. Nothing is raised.
#
# Quantized models with signed values need a Cast to float32 around such a Resize, or uint8.
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

def values(kind: str, antialias: int, scale: float, value: int) -> tuple[set[int], set[int]]:
    """The values of a resized image of one value: in onnxruntime, in OpenVINO."""
    size = int(16 * scale)
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net ({kind}[1,1,16,16] x) => ({kind}[1,1,{size},{size}] y)
        <float[4] scales = {{1, 1, {scale}, {scale}}}> {{
            y = Resize<mode="linear", antialias={antialias}>(x, , scales)
        }}"""
    ).SerializeToString()
    image = np.full((1, 1, 16, 16), value, kind)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    other = core.compile_model(core.read_model(model), "CPU")([image])[0]
    found = session.run(None, {"x": image})[0]
    return set(found.ravel().tolist()), set(other.ravel().tolist())

print("onnxruntime", onnxruntime.__version__)
for kind in ("int8", "int32"):
    for antialias in (0, 1):
        for scale in (2.0, 0.5):
            for value in (50, -50):
                found, other = values(kind, antialias, scale, value)
                print(f"{kind}, antialias {antialias}, scale {scale}, {value}: {found}, OpenVINO {other}")
                assert other == {value}
                lost = kind == "int8" and antialias == 1 and value < 0
                assert found == {0 if lost else value}, "another value: this was changed"
print("as described: negative int8 values become 0 with antialias")
PYTHON
