"""Which models load, and which are refused: real files, some that the checker would refuse."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

import deployconv
from deployconv.errors import ModelError
from deployconv.graph.load import load
from tests.build import model, node
from tests.runtimes.tiny import FLOAT, constant, graph, upsampler, value

X, Y = value("x", FLOAT, [1, 2, 5, 5]), value("y", FLOAT, [1, 3, 10, 10])


def save(proto: ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def conv_net() -> ModelProto:
    """Conv, Relu, ConvTranspose: onnxruntime fuses the first two."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "c"], ["h"], pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"]),
        node("ConvTranspose", ["r", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    weights = [
        constant("c", rng.standard_normal((16, 16, 3, 3))),
        constant("w", rng.standard_normal((16, 4, 4, 4))),
    ]
    x, y = value("x", FLOAT, [1, 16, 8, 8]), value("y", FLOAT, [1, 4, 16, 16])
    return model(graph(nodes, [x], [y], weights))


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_model_that_onnxruntime_has_optimised(level: str, tmp_path: Path) -> None:
    """Operators of com.microsoft: FusedConv, and at the last level those of the nchwc layout."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "net.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        conv_net().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    done = deployconv.rewrite(tmp_path / "net.onnx", bench=False)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert done.parity is not None
    assert done.parity.passed


def with_custom_operator() -> ModelProto:
    proto = upsampler()
    proto.graph.node[0].input[0] = "h"
    proto.graph.node.insert(0, node("Mystery", ["x"], ["h"], domain="local", secret=b"\xff\xfe"))
    return proto


def with_training_domain() -> ModelProto:
    proto = upsampler()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.training", 1))
    return proto


def with_future_domain() -> ModelProto:
    proto = upsampler()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))
    return proto


def with_function() -> ModelProto:
    opsets = [helper.make_opsetid("", 22)]
    body = [node("Add", ["a", "a"], ["b"])]
    function = helper.make_function("local", "Twice", ["a"], ["b"], body, opsets)
    proto = upsampler()
    proto.functions.append(function)
    proto.graph.node[0].input[0] = "h"
    proto.graph.node.insert(0, node("Twice", ["x"], ["h"], domain="local"))
    return proto


def of_ir_3() -> ModelProto:
    """A model as PyTorch 1.0 wrote it: every initializer is an input too."""
    proto = upsampler()
    proto.ir_version, proto.opset_import[0].version = 3, 9
    proto.graph.input.append(value("w", FLOAT, [2, 3, 4, 4]))
    return proto


def without_output_shape() -> ModelProto:
    proto = upsampler()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def without_output_type() -> ModelProto:
    proto = upsampler()
    proto.graph.output[0].ClearField("type")
    return proto


def without_input_shape() -> ModelProto:
    proto = upsampler()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


def without_graph_name() -> ModelProto:
    proto = upsampler()
    proto.graph.ClearField("name")
    return proto


def with_alias_of_the_domain() -> ModelProto:
    proto = upsampler()
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    return proto


@pytest.mark.parametrize(
    "make",
    [
        *(with_custom_operator, with_training_domain, with_future_domain, with_function, of_ir_3),
        *(without_output_shape, without_output_type, without_input_shape, without_graph_name),
        with_alias_of_the_domain,
    ],
)
def test_loads_and_is_rewritten(make: Callable[[], ModelProto], tmp_path: Path) -> None:
    path = save(make(), tmp_path / "net.onnx")
    done = deployconv.rewrite(path, output=tmp_path / "out.onnx", verify=False, bench=False)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert load(tmp_path / "out.onnx").info.opset == load(path).info.opset


def test_a_model_of_other_domains_only() -> None:
    """A classifier of ai.onnx.ml need not import the ONNX operators."""
    nodes = [node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm="L2")]
    body = graph(nodes, [value("x", FLOAT, [1, 4])], [value("y", FLOAT, [1, 4])])
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)])
    assert load(proto).info.opset == 0
    assert deployconv.inspect(proto).sites == ()


def test_a_model_in_memory_is_copied() -> None:
    proto = upsampler()
    before = proto.SerializeToString(deterministic=True)
    loaded = load(proto)
    loaded.proto.graph.node[0].name = "changed"
    assert proto.SerializeToString(deterministic=True) == before
    assert (loaded.info.path, loaded.info.sha256) == (None, None)


def test_a_model_in_memory_has_no_folder_for_external_data() -> None:
    proto = upsampler()
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="pass the path"):
        load(proto)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(upsampler(), tmp_path / "net.onnx")
    assert load(path).info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def external(folder: Path) -> Path:
    path = folder / "net.onnx"
    proto = upsampler()
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def links_of_a_download_cache(path: Path) -> Path:
    """Links as in the Hugging Face cache: each name is a link to a file named by its content."""
    blobs, snapshot = path.parent / "blobs", path.parent / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, name in enumerate((path.name, "net.data")):
        path.with_name(name).rename(blobs / str(number))
        (snapshot / name).symlink_to(Path("..", "blobs", str(number)))
    return snapshot / path.name


def a_link_in_the_folder(path: Path) -> Path:
    path.with_name("net.data").rename(path.with_name("real"))
    path.with_name("net.data").symlink_to("real")
    return path


def a_hard_link(path: Path) -> Path:
    os.link(path.with_name("net.data"), path.with_name("backup"))
    return path


def from_a_folder_that_is_a_link(path: Path) -> Path:
    folder = path.parent.parent / "link"
    folder.symlink_to(path.parent)
    return folder / path.name


@pytest.mark.parametrize(
    "lay_out",
    [
        *(links_of_a_download_cache, a_link_in_the_folder, a_hard_link),
        from_a_folder_that_is_a_link,
    ],
)
def test_links_that_stay_with_the_model(lay_out: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    path = lay_out(external(folder))
    done = deployconv.rewrite(path, output=tmp_path / "out.onnx", bench=False)
    assert done.parity is not None
    assert done.parity.passed


def test_a_path_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    deployconv.rewrite("net.onnx", output="out.onnx", bench=False)
    onnx.checker.check_model("out.onnx", full_check=True)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "ir_version",
            r"net\.onnx: IR version 1000 is not supported: the installed onnx knows 3 to",
        ),
        ("opset", r"net\.onnx: opset 1000 is not supported: the installed onnx knows 1 to"),
    ],
)
def test_a_model_from_the_future(field: str, message: str, tmp_path: Path) -> None:
    proto = upsampler()
    if field == "opset":
        proto.opset_import[0].version = 1000
    else:
        proto.ir_version = 1000
    with pytest.raises(ModelError, match=message):
        load(save(proto, tmp_path / "net.onnx"))


def test_the_checker_s_message_names_file_and_node(tmp_path: Path) -> None:
    proto = upsampler(nonsense=1)
    proto.graph.node[0].name = "up"
    with pytest.raises(ModelError, match=r"net\.onnx: .*nonsense.* \(node 'up', ConvTranspose\)"):
        load(save(proto, tmp_path / "net.onnx"))
