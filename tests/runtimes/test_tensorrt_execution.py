"""Which nodes a layer is made of, from what the inspector and the layer's name say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from deployconv.runtimes.tensorrt.execution import layer_nodes, make_profiler, named_nodes


def engine(text: str) -> Any:
    inspector = SimpleNamespace(get_engine_information=lambda format: text)
    return SimpleNamespace(create_engine_inspector=lambda: inspector)


TRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))


def test_metadata_names_the_nodes() -> None:
    layers = [
        {"Name": "__myl_Conv", "Metadata": "[ONNX Layer: up]\x1f[ONNX Layer: relu | then_branch]"},
        {"Name": "copy"},
        "a layer of which only the name is known",
    ]
    text = json.dumps({"Layers": layers, "Bindings": ["x"]})
    assert layer_nodes(TRT, engine(text), None) == {
        "__myl_Conv": ["up", "relu | then_branch"],
        "copy": [],
    }


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"Layers": null}', '{"Bindings": []}'])
def test_what_cannot_be_read_names_nothing(text: str) -> None:
    assert layer_nodes(TRT, engine(text), None) == {}


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        ("/up/ConvTranspose", ["/up/ConvTranspose"]),
        ("conv1 + relu1", ["conv1", "relu1"]),
        ("PWN(PWN(sigmoid), mul)", ["sigmoid", "mul"]),
        ("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", ["conv1", "relu1"]),
        ("{ForeignNode[first...last]}", ["first", "last"]),
    ],
)
def test_names_of_fused_layers(layer: str, names: list[str]) -> None:
    assert named_nodes(layer) == names


def test_the_profiler_adds_up_by_name() -> None:
    class IProfiler:
        pass

    profiler = make_profiler(SimpleNamespace(IProfiler=IProfiler))
    for name, ms in (("a", 1.0), ("b", 0.5), ("a", 2.0)):
        profiler.report_layer_time(name, ms)
    assert profiler.milliseconds == {"a": 3.0, "b": 0.5}
