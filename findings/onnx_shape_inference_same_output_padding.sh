#!/usr/bin/env bash
# onnx 1.23.2: shape inference and the reference evaluator of the same package give different sizes for
# a ConvTranspose with auto_pad SAME_UPPER or SAME_LOWER and output_padding.
#
# Expected: SAME means output size = input size x stride, whatever output_padding is: 5 x 2 = 10.
# Seen:     shape inference says 11. The reference evaluator and onnxruntime 1.32.0 give 10. With
#           output_padding 0 all three say 10. strict_mode does not object.
#
# Who reads sizes from inferred shapes (a rewriter, a memory planner) gets one pixel too many. Models
# should write such padding as numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import parser
from onnx.reference import ReferenceEvaluator

def lengths(auto_pad: str, extra: int) -> tuple[int, int, int]:
    """Length of the output: inferred, in the reference evaluator, in onnxruntime."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,5] x) => (float[1,1,n] y) <float[1,1,3] w = {{1, 10, 100}}> {{
            y = ConvTranspose<strides=[2], auto_pad="{auto_pad}", output_padding=[{extra}]>(x, w)
        }}"""
    )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    row = np.ones((1, 1, 5), np.float32)
    reference = ReferenceEvaluator(model).run(None, {"x": row})[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    computed = session.run(None, {"x": row})[0]
    size = inferred.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    return size, reference.shape[2], computed.shape[2]

for auto_pad in ("SAME_UPPER", "SAME_LOWER"):
    for extra in (0, 1):
        found = lengths(auto_pad, extra)
        print(f"onnx {onnx.__version__}, {auto_pad}, output_padding {extra}: inferred {found[0]}, "
              f"reference {found[1]}, onnxruntime {found[2]}")
        assert found[1] == found[2] == 10
        assert found[0] == 10 + extra, "another size is inferred: this was changed"
print("as described: shape inference adds output_padding to a SAME size")
PYTHON
