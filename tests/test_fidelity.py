"""What is not rewritten is byte for byte what it was.

From the original the replaced node is taken away, with the parameters that fed it alone; from
the rewritten model what a rewrite may add. What is left must be the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import set_external_data

import deployconv
from tests.build import conv_transpose, integers, ops, owners, rewrite, tensor
from tests.fidelity.network import FEATURES, Feature
from tests.fidelity.words import annotate

for name in ("functions", "structure", "tensors", "words"):
    import_module(f"tests.fidelity.{name}")  # fills FEATURES

features = pytest.mark.parametrize("feature", FEATURES.values(), ids=list(FEATURES))


def without(
    model: ModelProto, node: Callable[[NodeProto], bool], parameter: Callable[[str], bool]
) -> ModelProto:
    """A copy without the nodes, initializers and inputs that the predicates choose."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for owner in owners(copy):
        _drop(owner.node, node)
        if isinstance(owner, onnx.GraphProto):
            _drop(owner.initializer, lambda initializer: parameter(initializer.name))
            _drop(owner.input, lambda value: parameter(value.name))
    return copy


def _drop(entries: Any, chosen: Callable[[Any], bool]) -> None:
    for index in reversed(range(len(entries))):
        if chosen(entries[index]):
            del entries[index]


def is_new(name: str) -> bool:
    """Names of what a rewrite adds start with the name of the node that it replaces."""
    return name.startswith("up/")


def accepted(model: ModelProto) -> bool:
    """Whether the checker takes the model, with full shape inference."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@features
def test_everything_else_is_the_same_bytes(feature: Feature) -> None:
    original = feature.build()
    before = original.SerializeToString(deterministic=True)

    _, after = rewrite(original, verify=False)

    assert original.SerializeToString(deterministic=True) == before
    assert ops(after)["ConvTranspose"] == 0
    rest_before = without(
        original,
        lambda node: node.name == "up" or bool(feature.gone.intersection(node.output)),
        lambda name: name in feature.gone,
    )
    rest_after = without(after, lambda node: is_new(node.name), is_new)
    # The text first: where it differs, it shows what.
    assert str(rest_after) == str(rest_before)
    assert rest_after.SerializeToString(deterministic=True) == rest_before.SerializeToString(
        deterministic=True
    )


@features
def test_the_checker_passes_wherever_it_passed_before(feature: Feature) -> None:
    original = feature.build()
    assert accepted(original) == feature.checks
    _, after = rewrite(original, verify=False)
    assert accepted(after) == feature.checks


@pytest.mark.parametrize(
    "feature",
    [feature for feature in FEATURES.values() if feature.runs],
    ids=[name for name, feature in FEATURES.items() if feature.runs],
)
def test_the_rewritten_model_computes_the_same(feature: Feature) -> None:
    done, _ = rewrite(feature.build())
    assert [site.certificate for site in done.sites] == ["exact"]
    assert done.parity is not None
    assert done.parity.passed


@pytest.mark.parametrize("files", [["all.bin"], ["one.bin", "two.bin"]], ids=["one", "several"])
def test_external_data_stays_external_and_the_same(tmp_path: Path, files: list[str]) -> None:
    source, output = tmp_path / "model.onnx", tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    onnx.save(with_external_data(tmp_path, files), source)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}

    done = deployconv.rewrite(source, output=output, bench=False)

    assert {file: file.read_bytes() for file in before} == before
    assert [site.certificate for site in done.sites] == ["exact"]
    onnx.checker.check_model(str(output), full_check=True)
    original, after = onnx.load(source), onnx.load(output)
    rest_before = without(original, lambda node: node.name == "up", {"w", "b"}.__contains__)
    rest_after = without(after, lambda node: is_new(node.name), is_new)
    # Loaded, every tensor holds its bytes itself, wherever they were.
    assert rest_after.SerializeToString(deterministic=True) == rest_before.SerializeToString(
        deterministic=True
    )
    stored = onnx.load(output, load_external_data=False).graph.initializer
    external = {t.name for t in stored if t.data_location == TensorProto.EXTERNAL}
    assert {"large", "other", "up/weight"} <= external


def with_external_data(folder: Path, files: list[str]) -> ModelProto:
    """A model whose tensors lie in ``files`` of ``folder``, one after the other in turn."""
    made = conv_transpose(integers(4, 16, 4, 4), (4, 5), integers(16), strides=[2, 2])
    made.graph.initializer.append(tensor("large", integers(300, 2)))
    made.graph.initializer.append(tensor("other", integers(257)))
    annotate(made, origin="elsewhere")
    for number, initializer in enumerate(made.graph.initializer):
        path = folder / files[number % len(files)]
        offset = path.stat().st_size if path.exists() else 0
        with path.open("ab") as file:
            file.write(initializer.raw_data)
        length = len(initializer.raw_data)
        set_external_data(initializer, path.name, offset, length)
        initializer.ClearField("raw_data")
    return made


def test_there_are_enough_features() -> None:
    assert len(FEATURES) >= 40
