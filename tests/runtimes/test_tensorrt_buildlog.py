"""The build log as tensorrt_rtx 1.7.1 prints it."""

from __future__ import annotations

from deployconv.runtimes.tensorrt import buildlog

MEMORY = [
    "Max Scratch Memory: 9625600 bytes",
    "Total Activation Memory: 9625601 bytes",
    "Total Weights Memory: 96000 bytes",
    "Engine generation completed in 0.0213214 seconds.",
]

TENSOR = "{{ Name: {0}, Dimensions: [1,2], Strides: [2,1], Datatype: {1}, Format: (Linear) Row }}"
LAYER = (
    "Name: {0}, LayerType: {1}, Inputs: [ {2}], Constants: [ {3}], Outputs: [ {4}], "
    "TacticName: __myl_0x1, StreamId: 0, Metadata: {5}"
)
LAYERS = "\n".join(
    [
        "Layers:",
        LAYER.format(
            "copy", "kgen", TENSOR.format("x", "Float"), "", TENSOR.format("a", "Float"), ""
        ),
        LAYER.format(
            "a, b: [conv]",
            "correlation",
            ", ".join((TENSOR.format("a", "Float"), TENSOR.format("s", "Int8"))),
            TENSOR.format("w", "Half"),
            TENSOR.format("y", "BFloat16"),
            "[ONNX Layer: up]\x1f[ONNX Layer: relu | then_branch]\x1e[ONNX Layer: last]",
        ),
        "",
        "Bindings:",
        " Name: x, IOMode: Input, DataType: Float",
    ]
)


def test_memory() -> None:
    assert buildlog.memory(MEMORY) == {
        "activation_bytes": 9625601,
        "weights_bytes": 96000,
        "scratch_bytes": 9625600,
    }


def test_memory_that_is_not_told_is_none() -> None:
    assert set(buildlog.memory(["Total Weights Memory: unknown"]).values()) == {None}


def test_kernels() -> None:
    assert buildlog.kernels(["before", LAYERS, "after"]) == [
        {"name": "copy", "kind": "kgen", "inputs": ["Float"], "outputs": ["Float"], "nodes": []},
        {
            "name": "a, b: [conv]",
            "kind": "correlation",
            "inputs": ["Float", "Int8"],
            "outputs": ["BFloat16"],
            "nodes": ["up", "relu | then_branch", "last"],
        },
    ]


def test_kernels_in_another_form_are_not_guessed() -> None:
    assert buildlog.kernels([]) is None
    assert buildlog.kernels(["Layer(Reformat): conv, Tactic: 0x1, x -> y"]) is None
    assert buildlog.kernels([LAYERS.replace("LayerType", "Kind")]) is None
