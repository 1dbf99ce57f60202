#!/usr/bin/env bash
# onnxruntime 1.32.0 with onnx 1.23.2: quantize_static changes what an Upsample computes, by far more
# than the rounding to 8 bits.
#
# It raises models below opset 11 to opset 11, by the version converter of onnx. That makes an Upsample
# a Resize without attributes, and the defaults of Resize are others: half_pixel instead of asymmetric,
# and round_prefer_floor instead of floor. (The conversion itself is known: onnx/onnx#8480 on GitHub.)
#
# Expected, for pixels between 0 and 1: errors below 0.01.
# Seen:     linear x2 0.37, nearest x1.75 0.81, nearest x2 below 0.01. A warning names the new opset
#           and asks to verify the model. The files converted by onnx alone have these errors too, so
#           no setting of the quantization helps.
#
# Models of opset 9 and 10 should be exported again, or their Upsample replaced by a Resize with
# coordinate_transformation_mode asymmetric and nearest_mode floor, before they are quantized.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import logging
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import parser, version_converter
from onnxruntime.quantization import CalibrationDataReader, quantize_static

logging.disable(logging.WARNING)
source, target = f"{sys.argv[1]}/model.onnx", f"{sys.argv[1]}/quantized.onnx"
image = np.random.default_rng(0).uniform(0, 1, (1, 1, 8, 8)).astype(np.float32)

class OneImage(CalibrationDataReader):
    def __init__(self) -> None:
        self.feeds = iter([{"x": image}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)

def run(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": image})[0]

def errors(mode: str, scale: float) -> tuple[float, float]:
    """Largest error after quantization, and after the conversion to opset 11 alone."""
    size = int(8 * scale)
    model = parser.parse_model(
        f"""<ir_version: 4, opset_import: ["" : 9]>
        net (float[1,1,8,8] x) => (float[1,1,{size},{size}] y)
        <float[1,1,1,1] weight = {{1}}, float[4] scales = {{1, 1, {scale}, {scale}}}> {{
            t = Conv(x, weight)
            y = Upsample<mode="{mode}">(t, scales)
        }}"""
    )
    onnx.save(model, source)
    quantize_static(source, target, OneImage())
    right = run(model)
    raised = version_converter.convert_version(model, 11)
    return tuple(float(np.abs(run(other) - right).max()) for other in (onnx.load(target), raised))

print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}")
found = {case: errors(*case) for case in (("linear", 2.0), ("nearest", 1.75), ("nearest", 2.0))}
for (mode, scale), (quantized, raised) in found.items():
    print(f"{mode} x{scale}: error {quantized:.3f} of 1 quantized, {raised:.3f} only converted")
assert max(found["nearest", 2.0]) < 0.02
for case in (("linear", 2.0), ("nearest", 1.75)):
    assert min(found[case]) > 0.1, "the error is smaller: this was changed"
print("as described: an Upsample computes other values after quantize_static")
PYTHON
