#!/usr/bin/env bash
# openvino 2026.4.1, CPU: it reads a Resize with `keep_aspect_ratio_policy` and ignores the attribute.
# The output has another size than the operator defines. There is no error and no warning.
#
# Expected, 3x4 pixels with sizes (6, 100): not_larger 6x8, not_smaller 75x100 (onnxruntime 1.32.0).
# Seen:     6x100 in both cases, as with the default policy, stretch.
#
# Who exports such a Resize for OpenVINO should compute the sizes in the model instead.
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

def sizes(policy: str) -> tuple[list[int], list[int]]:
    """Height and width of the output in onnxruntime and in OpenVINO."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net (float[1,1,3,4] x) => (float[1,1,h,w] y) <int64[2] to = {{6, 100}}> {{
            y = Resize<mode="nearest", axes=[2,3], keep_aspect_ratio_policy="{policy}">(x, , , to)
        }}"""
    ).SerializeToString()
    image = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    right = session.run(None, {"x": image})[0]
    core = openvino.Core()
    found = core.compile_model(core.read_model(model), "CPU")([image])[0]
    return list(right.shape[2:]), list(found.shape[2:])

expected = {"stretch": [6, 100], "not_larger": [6, 8], "not_smaller": [75, 100]}
for policy, size in expected.items():
    right, found = sizes(policy)
    print(f"{policy}: onnxruntime {right}, openvino {openvino.__version__[:8]} {found}")
    assert right == size
    assert found == [6, 100], "the size is another one: this was changed"
print("as described: the policy is ignored")
PYTHON
