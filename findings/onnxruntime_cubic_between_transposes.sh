#!/usr/bin/env bash
# onnxruntime 1.32.0, CPU: a cubic Resize that makes an image smaller, between two Transposes, runs as it
# stands. With the default graph optimisation it fails.
#
# Converters of channels-last models (tf2onnx) write such Transposes. The optimiser moves them together
# and removes them. Then the Resize works on channels-last data, and its kernel refuses cubic there if a
# scale is below 1. (Known since 1.12 from microsoft/onnxruntime#12302 on GitHub, which was closed.
# Enlarging was mended in #24385, making smaller was not.)
#
# Expected: an optimised model runs wherever the model as written runs.
# Seen:     8x8 to 4x4: "'Cubic' mode only supports", in the first run, or when the session is created if
#           the model gives scales. Without optimisation or with the basic level it runs. 8x8 to 16x16
#           and linear run at every level, and so does cubic with antialias.
#
# Use ORT_ENABLE_BASIC for such a model, or antialias, or compute the Resize as two MatMuls.
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

image = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
levels = onnxruntime.GraphOptimizationLevel
words = "'Cubic' mode only supports"

def outcomes(mode: str, size: int, given: str) -> list[str]:
    """What happens without optimisation, with the basic level and with the default."""
    scale = size / 8
    inputs, values = {
        "sizes": ("(t, , , to)", f"int64[4] to = {{1, 3, {size}, {size}}}"),
        "scales": ("(t, , to)", f"float[4] to = {{1, 1, {scale}, {scale}}}"),
    }[given]
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net (float[1,8,8,3] x) => (float[1,{size},{size},3] y) <{values}> {{
            t = Transpose<perm=[0,3,1,2]>(x)
            r = Resize<mode={mode}>{inputs}
            y = Transpose<perm=[0,2,3,1]>(r)
        }}"""
    ).SerializeToString()
    found = []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        step = "load"
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            step = "run"
            session.run(None, {"x": image})
        except Exception as error:
            found.append(f"{step}: {words if words in str(error) else error}")
        else:
            found.append("runs")
    return found

print("onnxruntime", onnxruntime.__version__)
for mode, size, given, wanted in (
    ('"cubic"', 4, "sizes", f"run: {words}"),
    ('"cubic"', 4, "scales", f"load: {words}"),
    ('"cubic"', 16, "sizes", "runs"),
    ('"cubic", antialias=1', 4, "sizes", "runs"),
    ('"linear"', 4, "sizes", "runs"),
):
    found = outcomes(mode, size, given)
    print(f"mode {mode}, 8x8 to {size}x{size} by {given}: none, basic, default: {found}")
    assert found == ["runs", "runs", wanted], "another outcome: this was changed"
print("as described: only the optimised model fails")
PYTHON
