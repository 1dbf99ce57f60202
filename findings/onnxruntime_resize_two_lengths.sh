#!/usr/bin/env bash
# onnxruntime 1.32.0, CPU: a Resize with scale 1.4 makes 14 pixels of 10, but the same session reckons
# with 13. Since 1.28.0 the shapes are inferred in float64 and the kernel still computes in float32.
#
# 1.4 as float32 is 1.39999998: times 10 that is 13.9999998 in float64 and 14 in float32. (onnx changed
# its shape inference so in onnx/onnx#7874 on GitHub. onnx 1.23.2 infers 13 too.)
#
# Expected: one length, whichever. onnxruntime 1.27.0 has 14 everywhere, as PyTorch has.
# Seen:     a Shape behind the Resize is (1, 1, 1, 13), while its input has 14 columns. A model that
#           adds the output to 14 columns is refused: "Incompatible dimensions". 1.27.0 runs it.
#           Scales 0.7, 0.35, 1.3 and 1.9 do the same for lengths such as 10 or 20; 1.5, 1.6 and 2 do
#           not.
#
# Models that add a resized map to another one should give `sizes` instead of `scales`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.27.0 1.32.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install --quiet --disable-pip-version-check \
        onnx==1.23.2 "onnxruntime==$version"
done
cat >"$folder/compare.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import parser

def run(text: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)

def lengths(length: int, scale: float) -> tuple[int, int, int]:
    """Columns of the output: as computed, by a Shape behind it, as onnx infers them."""
    text = f"""net (float[1,1,1,{length}] x) => (float[1,1,1,n] y, int64[4] shape)
        <float[4] scales = {{1, 1, 1, {scale}}}> {{
            y = Resize<mode="linear">(x, , scales)
            shape = Shape(y)
        }}"""
    values, shape = run(text, {"x": np.zeros((1, 1, 1, length), np.float32)})
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    output = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type
    return values.shape[3], int(shape[3]), output.shape.dim[3].dim_value

def added() -> str:
    """What happens to a model that adds 14 columns to the output of 10 columns x 1.4."""
    row = np.zeros((1, 1, 1, 10), np.float32)
    try:
        found = run(
            """net (float[1,1,1,10] x, float[1,1,1,14] other) => (float[1,1,1,14] y)
            <float[4] scales = {1, 1, 1, 1.4}> {
                larger = Resize<mode="linear">(x, , scales)
                y = Add(larger, other)
            }""",
            {"x": row, "other": np.zeros((1, 1, 1, 14), np.float32)},
        )
    except Exception as error:
        return str(error).rpartition("] ")[2]
    return str(found[0].shape)

version = onnxruntime.__version__
old = version == "1.27.0"
print("onnxruntime", version)
for length, scale, right in ((10, 1.4, 14), (10, 0.7, 7), (20, 0.35, 7), (10, 1.3, 13), (20, 1.9, 38)):
    found = lengths(length, scale)
    print(f"{length} x {scale}: computed {found[0]}, by Shape {found[1]}, inferred by onnx {found[2]}")
    assert found == (right, right if old else right - 1, right - 1), "this was changed"
for length, scale, right in ((10, 1.5, 15), (10, 1.6, 16), (10, 2, 20)):
    assert lengths(length, scale) == (right, right, right)
outcome = added()
print("added to 14 columns:", outcome)
assert outcome == ("(1, 1, 1, 14)" if old else "Incompatible dimensions"), "this was changed"
PYTHON
"$folder/1.27.0/bin/python" "$folder/compare.py"
"$folder/1.32.0/bin/python" "$folder/compare.py"
echo "as described: two lengths in one session since 1.28.0"
