"""The committed sample models are what ``models/manifest.json`` says, and they run.

The counts here are taken from the files anew; nothing of `scripts.zoo` that wrote them is used,
but for the README and the comparison with a fresh export.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from scripts.zoo.manifest import render_manifest, render_readme
from scripts.zoo.structure import structure

MODELS = Path(__file__).parent.parent / "models"
LARGEST = 1_000_000
"""Bytes of the largest model that is committed."""

MANIFEST: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
ENTRIES: list[dict[str, Any]] = MANIFEST["models"]

each_model = pytest.mark.parametrize("entry", ENTRIES, ids=[entry["name"] for entry in ENTRIES])


def load(entry: dict[str, Any]) -> onnx.ModelProto:
    return onnx.load(MODELS / entry["file"], load_external_data=False)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def declared(value: onnx.ValueInfoProto) -> tuple[str, str, list[int | str]]:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return value.name, dtype.name, [dim.dim_param or dim.dim_value for dim in kind.shape.dim]


def feeds(entry: dict[str, Any], scale_dynamic: int = 1) -> dict[str, np.ndarray]:
    """Random inputs of the example shapes, the dynamic axes `scale_dynamic` times as long."""
    generator = np.random.default_rng(0)
    arrays = {}
    for value in entry["inputs"]:
        shape = [
            size * scale_dynamic if isinstance(dim, str) else size
            for dim, size in zip(value["shape"], value["example"], strict=True)
        ]
        array = generator.standard_normal(shape)
        is_bool = value["dtype"] == "bool"
        arrays[value["name"]] = np.asarray(array > 0 if is_bool else array, value["dtype"])
    return arrays


def run(entry: dict[str, Any], inputs: dict[str, np.ndarray]) -> np.ndarray:
    path = str(MODELS / entry["file"])
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    assert isinstance(output, np.ndarray)
    return output


def test_folder_and_manifest_list_the_same_models() -> None:
    # `*.deploy.onnx` is what the command line writes beside a model; git ignores it.
    present = {p.name for p in MODELS.glob("*.onnx") if not p.name.endswith(".deploy.onnx")}
    assert present == {entry["file"] for entry in ENTRIES}
    assert len(ENTRIES) == len(present)


def test_set_covers_what_it_is_for() -> None:
    layers = [layer for entry in ENTRIES for layer in entry["layers"]]
    patterns = {
        *("conv_transpose", "nearest_resize", "pixel_shuffle", "zero_insertion"),
        "interpolating_resize",
    }
    assert {layer["pattern"] for layer in layers} == patterns
    assert {len(layer["stride"]) for layer in layers} == {1, 2, 3}
    assert {layer["group"] for layer in layers} >= {1, 2, 4, 21}
    assert any(len(set(layer["stride"])) > 1 for layer in layers)
    assert any(max(layer["dilation"]) > 1 < max(layer["stride"]) for layer in layers)
    assert {(e["exporter"], e["opset"]) for e in ENTRIES} == {
        ("legacy", 17), ("legacy", 20), ("dynamo", 18), ("dynamo", 20), ("dynamo", 23),
    }  # fmt: skip
    assert any("If" in entry["operators"] for entry in ENTRIES)
    dtypes = {value["dtype"] for entry in ENTRIES for value in entry["inputs"]}
    assert dtypes == {"float32", "float16", "bool"}
    assert {entry["quantized"] for entry in ENTRIES} == {
        *(None, "int8", "uint8", "symmetric"),
    }


def test_readme_and_manifest_are_as_the_script_writes_them() -> None:
    assert (MODELS / "manifest.json").read_text(encoding="utf-8") == render_manifest(ENTRIES)
    assert (MODELS / "README.md").read_text(encoding="utf-8") == render_readme(ENTRIES)


@each_model
def test_checksum_and_size(entry: dict[str, Any]) -> None:
    data = (MODELS / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) == entry["size"] < LARGEST


@each_model
def test_checker_passes_in_full(entry: dict[str, Any]) -> None:
    onnx.checker.check_model(load(entry), full_check=True)


@each_model
def test_opset_interface_and_weights(entry: dict[str, Any]) -> None:
    model = load(entry)
    opsets = {o.domain: o.version for o in model.opset_import}
    # onnxruntime's quantizer imports all its domains, whether it needs them or not.
    assert opsets[""] == entry["opset"]
    assert entry["quantized"] or len(opsets) == 1
    assert {node.domain for node in nodes(model.graph)} == {""}
    for values, listed in (
        (model.graph.input, entry["inputs"]),
        (model.graph.output, entry["outputs"]),
    ):
        expected = [(value["name"], value["dtype"], value["shape"]) for value in listed]
        assert [declared(value) for value in values] == expected
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@each_model
def test_exporter_left_its_marks_and_no_paths(entry: dict[str, Any]) -> None:
    data = (MODELS / entry["file"]).read_bytes()
    model = load(entry)
    if entry["quantized"]:
        assert model.producer_name == "onnx.quantize"
    else:
        # Only the newer exporter records where in the module tree a node comes from.
        assert (b"pkg.torch.onnx.name_scopes" in data) == (entry["exporter"] == "dynamo")
        # The two exporters write the version with and without its build tag, "+cpu".
        assert model.producer_version in (entry["torch"], entry["torch"].partition("+")[0])
    assert b'File "' not in data
    assert b".py" not in data.replace(b"org.pytorch.aten", b"")  # a domain, not a file


@each_model
def test_quantized_models_hold_integers(entry: dict[str, Any]) -> None:
    model = load(entry)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    dtypes = {helper.tensor_dtype_to_np_dtype(w.data_type).name for w in weights.values()}
    assert ("int8" in dtypes) == bool(entry["quantized"])
    scaled = {
        node.output[0]: node for node in nodes(model.graph) if node.op_type == "DequantizeLinear"
    }
    assert bool(scaled) == bool(entry["quantized"])
    for node in nodes(model.graph):
        if scaled and node.op_type in ("Conv", "ConvTranspose"):
            quantized = scaled[node.input[1]].input
            assert weights[quantized[0]].data_type == onnx.TensorProto.INT8
            channels = attributes(scaled[node.input[1]])["axis"]
            assert channels == (node.op_type == "ConvTranspose")
            assert list(weights[quantized[1]].dims) == [weights[quantized[0]].dims[channels]]
        if node.op_type == "QuantizeLinear":
            zero_point = numpy_helper.to_array(weights[node.input[2]])
            symmetric = entry["quantized"] == "symmetric"
            assert zero_point.dtype == ("int8" if symmetric else entry["quantized"])
            assert not (symmetric and zero_point.any())


@each_model
def test_operators(entry: dict[str, Any]) -> None:
    model = load(entry)
    assert not model.functions
    assert Counter(node.op_type for node in nodes(model.graph)) == entry["operators"]


@each_model
def test_upsampling_layers(entry: dict[str, Any]) -> None:
    found: Counter[tuple[Any, ...]] = Counter()
    for node in nodes(load(entry).graph):
        if node.op_type == "ConvTranspose":
            a = attributes(node)
            geometry = (a["kernel_shape"], a["strides"], a["dilations"])
            found[(*map(tuple, geometry), a["group"])] += 1
    expected: Counter[tuple[Any, ...]] = Counter()
    sites: Counter[str] = Counter()
    for layer in entry["layers"]:
        sites[layer["pattern"]] += layer["count"]
        if layer["pattern"] == "conv_transpose":
            geometry = (layer["kernel"], layer["stride"], layer["dilation"])
            expected[(*map(tuple, geometry), layer["group"])] += layer["count"]
    assert found == expected
    assert sites == entry["sites"]
    assert sites["pixel_shuffle"] == entry["operators"].get("DepthToSpace", 0)
    # The exporters leave a Resize of an image that has its size, and one may make it smaller.
    enlarging = sites["nearest_resize"] + sites["interpolating_resize"]
    assert enlarging <= entry["operators"].get("Resize", 0) <= enlarging + 1
    assert bool(sites["zero_insertion"]) == ("ScatterND" in entry["operators"])


@each_model
def test_runs_with_outputs_of_a_sensible_size(entry: dict[str, Any]) -> None:
    output = run(entry, feeds(entry)).astype(np.float64)
    assert np.isfinite(output).all()
    assert 0.05 < output.std() < 5
    if load(entry).graph.node[-1].op_type in ("Tanh", "Sigmoid"):
        assert (np.abs(output) > 0.999).mean() < 0.05


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dynamic_upsampler", (4, 3, 96, 128)), ("hifigan_vocoder", (1, 1, 8192))],
)
def test_dynamic_axes_run_at_twice_the_example(name: str, shape: tuple[int, ...]) -> None:
    (entry,) = (entry for entry in ENTRIES if entry["name"] == name)
    assert run(entry, feeds(entry, scale_dynamic=2)).shape == shape


@pytest.mark.parametrize("name", ["text_detector_head", "unet_decoder"])
def test_fresh_export_has_the_committed_structure(name: str) -> None:
    pytest.importorskip("torch", reason="a fresh export needs the torch extra")
    from scripts.zoo.catalogue import CATALOGUE
    from scripts.zoo.export import export

    (sample,) = (sample for sample in CATALOGUE if sample.name == name)
    assert structure(export(sample)) == structure(onnx.load(MODELS / sample.file))


def test_structure_ignores_names_and_float_values_only() -> None:
    model = onnx.load(MODELS / "unet_decoder.onnx")
    operators = [node.op_type for node in model.graph.node]
    upsampling, concat = operators.index("ConvTranspose"), operators.index("Concat")
    weight = model.graph.initializer[0]

    def copy() -> onnx.ModelProto:
        twin = onnx.ModelProto()
        twin.CopyFrom(model)
        return twin

    same = copy()
    same.graph.node[0].name = "another"
    same.graph.initializer[0].raw_data = bytes(len(weight.raw_data))
    assert structure(same) == structure(model)

    padded = copy()
    (pads,) = (a for a in padded.graph.node[upsampling].attribute if a.name == "pads")
    pads.ints[0] += 1
    assert structure(padded) != structure(model)

    rewired = copy()
    rewired.graph.node[concat].input[:] = reversed(model.graph.node[concat].input)
    assert structure(rewired) != structure(model)
