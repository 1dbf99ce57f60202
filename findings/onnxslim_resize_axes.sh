#!/usr/bin/env bash
# onnxslim 0.1.98: it takes a Resize with the attribute `axes` (opset 18) for a change of rank, and
# writes the wrong shape into the model.
#
# With axes = [2, 3] the scales are two numbers. Its own shape inference makes an output of as many
# dimensions as there are scales, and scales the first dimensions of the input.
#
# Expected, 1x1x4x4 pixels, scales (2, 2) on the axes 2 and 3: the shape 1x1x8x8, as onnx infers it.
# Seen:     2x2. A Shape behind the Resize becomes the constants (2, 2): a mean value, computed as sum by
#           number of pixels, is 16 times as large, and nothing is said. If the Resize, or a Relu behind
#           it, makes an output of the model, IndexError is raised. With all four scales, or with
#           no_shape_infer=True, it is right.
#
# Give such a Resize scales for all axes before onnxslim sees it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 onnxslim==0.1.98
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import parser

image = np.ones((1, 1, 4, 4), np.float32)

def model(axes: str, scales: str, behind: str, outputs: str) -> onnx.ModelProto:
    count = scales.count(",") + 1
    made = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net (float[1,1,4,4] x) => ({outputs})
        <float[{count}] scales = {{{scales}}}, float[1,1,1,1] weight = {{1}}> {{
            larger = Resize<mode="linear"{axes}>(x, , scales)
            {behind}
        }}"""
    )
    onnx.checker.check_model(made, full_check=True)
    return made

def results(made: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": image})

behind = """y = Conv(larger, weight)
            size = Shape(larger)
            lengths = Cast<to=1>(size)
            pixels = ReduceProd<keepdims=0>(lengths)
            sum = ReduceSum<keepdims=0>(y)
            mean = Div(sum, pixels)"""
outputs = "float[1,1,8,8] y, float mean"
two = model(", axes=[2,3]", "2, 2", behind, outputs)
four = model("", "1, 1, 2, 2", behind, outputs)
found = {
    "as written": results(two),
    "slimmed": results(onnxslim.slim(two)),
    "slimmed, no_shape_infer": results(onnxslim.slim(two, no_shape_infer=True)),
    "four scales, slimmed": results(onnxslim.slim(four)),
}
print("onnxslim", onnxslim.__version__)
for name, (pixels, mean) in found.items():
    print(f"image of ones, {name}: {pixels.shape}, mean {mean}")
    assert (pixels == 1).all()
    assert mean == (16 if name == "slimmed" else 1), "another mean: this was changed"

try:
    onnxslim.slim(model(", axes=[2,3]", "2, 2", "y = Relu(larger)", "float[1,1,8,8] y"))
except IndexError as error:
    outcome = f"IndexError: {error}"
else:
    outcome = "slimmed"
print("with a Relu as the output:", outcome)
assert outcome.startswith("IndexError"), "another outcome: this was changed"
print("as described: the number of scales is taken for the rank")
PYTHON
