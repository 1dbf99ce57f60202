#!/usr/bin/env bash
# onnxruntime 1.32.0, CPU: a cubic Resize of uint8, int8 or int32 loads and then fails in the first run.
#
# Its list of kernels (docs/OperatorKernels.md) has these types for Resize, and the session is created.
#
# Expected: it runs, or it is refused when the session is created, as float64 is.
# Seen:     "Tensor type mismatch" in the run. Linear and nearest run, and so does cubic with float32.
#
# Who checks whether onnxruntime takes a model must run it. Cast to float32 before a cubic Resize.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import parser

def outcome(mode: str, kind: str) -> str:
    """What happens to a Resize from 4x4 to 8x8: "runs", or in which step it fails and how."""
    element = {"float32": "float", "float64": "double"}.get(kind, kind)
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net ({element}[1,1,4,4] x) => ({element}[1,1,8,8] y)
        <float[4] scales = {{1, 1, 2, 2}}> {{ y = Resize<mode="{mode}">(x, , scales) }}"""
    ).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    step = "load"
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        step = "run"
        session.run(None, {"x": np.arange(16, dtype=kind).reshape(1, 1, 4, 4)})
    except Exception as error:
        for words in ("Could not find an implementation", "Tensor type mismatch"):
            if words in str(error):
                return f"{step}: {words}"
        return f"{step}: {error}"
    return "runs"

print("onnxruntime", onnxruntime.__version__)
for kind in ("float32", "uint8", "int8", "int32", "float64"):
    found = {mode: outcome(mode, kind) for mode in ("nearest", "linear", "cubic")}
    print(kind, found)
    if kind == "float64":
        assert set(found.values()) == {"load: Could not find an implementation"}
        continue
    assert found["nearest"] == found["linear"] == "runs"
    wanted = "runs" if kind == "float32" else "run: Tensor type mismatch"
    assert found["cubic"] == wanted, "another outcome: this was changed"
print("as described: cubic of integers loads, and fails in the run")
PYTHON
