#!/usr/bin/env bash
# tf2onnx 1.17.0 with tensorflow 2.21.0: a Conv2DTranspose whose stride is larger than its kernel becomes
# a ConvTranspose with negative pads, if height and width are known. No runtime takes such a file.
#
# The operator allows no negative pads. Rows that are missing at the end belong into output_padding.
#
# Expected: a model with the values of TensorFlow, or a message of the converter.
# Seen:     kernel 2, stride 3, "same": pads (0, 0, -1, -1). The conversion is silent, and so is
#           onnx.checker without full_check. onnxruntime 1.32.0 refuses the file: "Attribute pads must
#           not contain negative values". "valid" with output_padding is the same. With unknown height
#           and width the file is right, with kernel 3 and stride 2 too.
#
# Convert such a model with unknown height and width, or move the pads into output_padding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 tf2onnx==1.17.0 tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
"$folder/venv/bin/python" - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx

logging.getLogger("tf2onnx").setLevel(logging.ERROR)
image = np.random.default_rng(0).standard_normal((1, 5, 7, 3)).astype(np.float32)

def outcome(known: bool, **settings) -> tuple[list[int], str]:
    """The pads of the ConvTranspose, and the largest error in onnxruntime or its message."""
    layer = tf.keras.layers.Conv2DTranspose(4, **settings)
    right = layer(image).numpy()
    shape = [1, 5, 7, 3] if known else [1, None, None, 3]
    signature = (tf.TensorSpec(shape, tf.float32, name="x"),)
    function = tf.function(lambda x: layer(x), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    onnx.checker.check_model(model)
    node = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    pads = [value for item in node.attribute if item.name == "pads" for value in item.ints]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        return pads, str(error).rpartition("] ")[2]
    error = np.abs(session.run(None, {"x": image})[0] - right).max()
    return pads, "right" if error < 1e-5 else f"error {error}"

print("tf2onnx", tf2onnx.__version__, "tensorflow", tf.__version__)
refused = "Attribute pads must not contain negative values"
cases = [
    (True, {"kernel_size": 3, "strides": 2, "padding": "same"}, [0, 0, 1, 1], "right"),
    (True, {"kernel_size": 2, "strides": 3, "padding": "same"}, [0, 0, -1, -1], refused),
    (False, {"kernel_size": 2, "strides": 3, "padding": "same"}, [], "right"),
    (
        True,
        {"kernel_size": 3, "strides": 2, "padding": "valid", "output_padding": 1},
        [0, 0, -1, -1],
        refused,
    ),
]
for known, settings, pads, wanted in cases:
    found = outcome(known, **settings)
    print(f"{settings}, size {'known' if known else 'unknown'}: pads {found[0]}, {found[1]}")
    assert found == (pads, wanted), "another outcome: this was changed"
print("as described: negative pads where height and width are known")
PYTHON
