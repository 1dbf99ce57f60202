#!/usr/bin/env bash
# ai-edge-litert 2.1.0, CPU: an int8 BATCH_MATMUL ignores the zero point of its second input, constant or
# not. The reason is XNNPACK, which computes it unless one asks for other kernels.
#
# Expected: the sum over (a - zero point of a) * (b - zero point of b), scaled and rounded.
# Seen:     the sum over (a - zero point of a) * b. Without XNNPACK (the operator resolver
#           BUILTIN_WITHOUT_DEFAULT_DELEGATES) the same file gives the right values. So does XNNPACK if
#           that zero point is 0. Releases 2.0.2 to 2.1.2 do it; 1.4.0, 2.1.3 and 2.3.0 are right.
#
# A product of two activations (attention) and one whose constant stands second meet this. onnx2tf 1.29.24
# installs exactly 2.1.0. Who checks an int8 file with it should compare with a run without XNNPACK before
# blaming the quantization.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/compare.py" <<'PYTHON'
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

version, ignored = sys.argv[1], sys.argv[2] == "ignored"
A_SCALE, B_SCALE, Y_SCALE = 1 / 16, 1 / 16, 1 / 8
rng = np.random.default_rng(0)
a = rng.integers(-20, 21, (2, 3, 4)).astype(np.int8)
b = rng.integers(-20, 21, (2, 4, 5)).astype(np.int8)

def file(zero_points: tuple[int, int, int], constant: bool) -> bytes:
    """A model of one BATCH_MATMUL, whose second input is a constant or given."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [schema.BufferT(), schema.BufferT()], []
    model.buffers[1].data = np.frombuffer(b.tobytes(), np.uint8)
    rows = zip("aby", (a.shape, b.shape, (2, 3, 5)), (A_SCALE, B_SCALE, Y_SCALE), zero_points)
    for name, shape, scale, zero_point in rows:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), shape, schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
        tensor.buffer = int(constant and name == "b")
        graph.tensors.append(tensor)
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.BATCH_MATMUL
    code.version = 2
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
    operator.builtinOptions = schema.BatchMatMulOptionsT()
    graph.operators, graph.outputs = [operator], [2]
    graph.inputs = [0] if constant else [0, 1]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())

def run(content: bytes, kernels: OpResolverType) -> np.ndarray:
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), (a, b)):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).astype(int)

def exact(a_zero: int, b_zero: int, y_zero: int) -> np.ndarray:
    """The product in real numbers, then on the scale of the output; not rounded."""
    product = ((a.astype(int) - a_zero) * A_SCALE) @ ((b.astype(int) - b_zero) * B_SCALE)
    return np.clip(product / Y_SCALE + y_zero, -128, 127)

def same(found: np.ndarray, values: np.ndarray) -> bool:
    """Whether these are the values, rounded up or down to whole steps."""
    return bool((np.abs(found - values) < 1).all())

for constant in (False, True):
    zero_points = (7, 9, 5)
    content, right = file(zero_points, constant), exact(*zero_points)
    default = run(content, OpResolverType.AUTO)
    plain = run(content, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    print(f"ai-edge-litert {version}, second input {'constant' if constant else 'given'}:")
    print("  exact          ", right[0, 0].tolist())
    print("  default        ", default[0, 0].tolist())
    print("  without XNNPACK", plain[0, 0].tolist())
    assert same(plain, right)
    assert same(default, right) != ignored, "the default values are others: this was changed"
    assert same(default, exact(7, 0, 5)) == ignored, "the default values are others"
    assert same(run(file((7, 0, 5), constant), OpResolverType.AUTO), exact(7, 0, 5))
PYTHON
for expectation in 2.1.0:ignored 2.3.0:right; do
    version=${expectation%%:*}
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install --quiet --disable-pip-version-check \
        ai-edge-litert=="$version"
    "$folder/$version/bin/python" "$folder/compare.py" "$version" "${expectation#*:}"
done
echo "as described: the zero point of the second input is ignored in 2.1.0, not in 2.3.0"
