#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator is a whole pixel off where a linear or cubic Resize meets a pixel
# of the input almost exactly.
#
# Resizing 10 pixels to 14, column 10 stands at 10.5 / 1.4 - 0.5, in float64 7.000000000000001. The
# fraction is taken from that number. Then the row gets a border of one pixel, and 1 is added to the
# position: in float64 that is 8, so the neighbours are those of a position with fraction 0, one pixel
# further left.
#
# Expected, for a row of the values 0 to 9: 7 in column 10, as in onnxruntime 1.32.0.
# Seen:     6, for linear and for cubic. The other columns are right. So are most pairs of lengths: about
#           1 % have such a column, for example 7 to 17, 10 to 14, 20 to 28.
#
# Who takes the reference evaluator for the truth should compare with a second runtime. The optimizer of
# onnxscript computes constants with it: see pytorch_export_folds_wrong_values.sh.
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

def rows(mode: str, length: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The positions, the row in onnxruntime and the row in the reference evaluator."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        net (float[1,1,1,{length}] x) => (float[1,1,1,{target}] y)
        <int64[4] sizes = {{1, 1, 1, {target}}}> {{ y = Resize<mode="{mode}">(x, , , sizes) }}"""
    )
    row = np.arange(length, dtype=np.float32).reshape(1, 1, 1, length)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    positions = (np.arange(target) + 0.5) * length / target - 0.5
    found = (session.run(None, {"x": row})[0], ReferenceEvaluator(model).run(None, {"x": row})[0])
    return positions, found[0].ravel(), found[1].ravel()

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
for mode in ("linear", "cubic"):
    for length, target, wrong in (
        (10, 14, [(10, 7, 6)]),
        (20, 28, [(10, 7, 6)]),
        (7, 17, [(8, 3, 2)]),
        (10, 15, []),
        (16, 24, []),
    ):
        positions, right, found = rows(mode, length, target)
        if mode == "linear":
            assert np.allclose(right, np.clip(positions, 0, length - 1), atol=1e-4)
        columns = np.flatnonzero(np.abs(found - right) > 0.01)
        other = [
            (int(column), round(float(right[column])), round(float(found[column])))
            for column in columns
        ]
        print(f"{mode}, {length} to {target}: (column, onnxruntime, reference) {other}")
        assert other == wrong, "other columns differ: this was changed"
print("as described: the pixel beside the right one")
PYTHON
