"""`deployconv.build` on the real parser and compiler, without a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest

import deployconv
from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.report import document
from deployconv.runtimes.tensorrt.installation import find_installation
from tests.build import conv_transpose, integers, upsampler
from tests.runtimes.rtx import (
    MODELS,
    RECORD,
    assert_fails,
    build,
    build_one,
    needs_record,
    needs_rtx,
    with_unknown_operator,
)

pytestmark = needs_rtx


def test_a_build_gives_stages_sizes_and_layers() -> None:
    built = build_one(MODELS / "text_detector_head.onnx")
    assert built.builds
    assert built.failure is None
    assert [(stage.name, stage.status) for stage in built.stages] == [
        ("check", "ok"),
        ("parse", "ok"),
        ("build", "ok"),
        ("deserialize", "not-run"),
        ("run", "not-run"),
        ("profile", "not-run"),
    ]
    assert all((stage.seconds is None) == (stage.status == "not-run") for stage in built.stages)
    model_bytes = (MODELS / "text_detector_head.onnx").stat().st_size
    assert built.weights_bytes == pytest.approx(model_bytes, rel=0.05)
    assert built.engine_bytes is not None
    assert built.engine_bytes > built.weights_bytes
    assert [layer.kind for layer in built.layers] == ["convolution"] + ["deconvolution"] * 2


@needs_record
@pytest.mark.parametrize("name", RECORD.scratch_bytes)
def test_the_memory_that_is_recorded(name: str) -> None:
    built = build_one(MODELS / f"{name}.onnx")
    assert built.activation_bytes == built.scratch_bytes == RECORD.scratch_bytes[name]


@needs_record
def test_kernels_name_their_nodes_and_types() -> None:
    built = build_one(MODELS / "text_detector_head.onnx")
    assert built.kernels is not None
    read = {node for kernel in built.kernels for node in kernel.nodes}
    assert {"/body/body.3/ConvTranspose", "/body/body.6/ConvTranspose"} <= read
    assert {kernel.inputs for kernel in built.kernels} == {("Float",)}


def test_every_target_that_the_library_knows_is_a_build_of_its_own() -> None:
    known = find_installation("tensorrt-rtx").targets
    report = build(upsampler(), *known, *known)
    assert tuple(built.target for built in report.targets) == known
    assert report.builds
    assert report.runtime.startswith("tensorrt_rtx ")


@needs_record
def test_the_targets_that_are_recorded() -> None:
    assert list(find_installation("tensorrt-rtx").targets) == RECORD.targets


@needs_record
@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.float16, "Half"), (np.float64, "Float")], ids=["float16", "float64"]
)
def test_types_of_kernels_follow_the_model(dtype: type, kind: str) -> None:
    built = build_one(conv_transpose(integers(2, 3, 4, 4, dtype=dtype), (5, 6), strides=[2, 2]))
    assert built.kernels is not None
    assert {type_ for kernel in built.kernels for type_ in kernel.inputs} == {kind}
    assert {type_ for kernel in built.kernels for type_ in kernel.outputs} == {kind}


@needs_record
def test_one_target_that_fails_is_told_beside_one_that_builds() -> None:
    report = build(
        conv_transpose(integers(2, 3, 2, 2, 2), (4, 4, 4), strides=[2] * 3), "sm75", "sm86"
    )
    assert_fails(report, RECORD.fails("3-D float32", "sm75", "sm86"))
    assert [built.builds for built in report.targets] == [False, True]
    assert not report.builds
    assert report.targets[0].stage("deserialize").reason == "build failed"


def test_a_parse_error_names_node_and_operator() -> None:
    built = build_one(with_unknown_operator())
    assert built.failure is not None
    assert built.failure.name == "parse"
    assert (built.failure.node, built.failure.operator) == ("odd", "NoSuchOperator")
    assert built.failure.reason
    assert built.layers == ()


def test_dynamic_sizes_are_chosen_and_told() -> None:
    report = build(upsampler(("h", "w"), batch="n"))
    (bound,) = report.shapes
    assert bound.min == bound.opt == bound.max == (1, 2, 64, 64)
    assert report.note == "shapes chosen by deployconv: x:1,2,64,64 (set with --shape)"
    assert report.builds


@pytest.mark.parametrize("shape", [(2, 2, 8, 9), ((1, 2, 4, 4), (2, 2, 8, 9), (4, 2, 32, 32))])
def test_dynamic_sizes_as_given(shape: tuple[int, ...]) -> None:
    report = build(upsampler(("h", "w"), batch="n"), shape={"x": shape})
    (bound,) = report.shapes
    assert bound.opt == (2, 2, 8, 9)
    assert (bound.min == bound.max) == (len(shape) == 4)
    assert report.note is None
    assert report.builds


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"y": (1, 2, 8, 8)}, "no such input"),
        ({"x": (1, 3, 8, 8)}, "axis 1 has size 3"),
        ({"x": (1, 2, 8)}, "rank 3"),
        ({"x": ((1, 2, 8, 8), (1, 2, 4, 8), (1, 2, 8, 8))}, "must ascend along every axis"),
        ({"x": ((1, 2, 8, 8), (1, 2, 8, 8))}, "smallest, optimal and largest"),
    ],
)
def test_shapes_that_do_not_fit(shape: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(upsampler(("h", "w")), shape=shape)


def test_the_engine_is_written_where_asked(tmp_path: Path) -> None:
    place = tmp_path / "net.engine"
    built = build_one(upsampler(), engine=place)
    assert built.engine is not None
    assert built.engine.path == str(place)
    assert place.stat().st_size == built.engine_bytes
    with pytest.raises(UsageError, match="exists: pass --force"):
        build(upsampler(), engine=place)
    build(upsampler(), engine=place, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["net.engine"]


def test_several_targets_are_several_engines(tmp_path: Path) -> None:
    report = build(upsampler(), "sm86", "sm89", engine=tmp_path / "net.engine")
    assert [Path(built.engine.path).name for built in report.targets if built.engine] == [
        "net.sm86.engine",
        "net.sm89.engine",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_build_writes_no_engine(tmp_path: Path) -> None:
    built = build_one(with_unknown_operator(), engine=tmp_path / "net.engine")
    assert not built.builds
    assert built.engine is None
    assert list(tmp_path.iterdir()) == []


def test_an_engine_never_replaces_the_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(upsampler(), path)
    with pytest.raises(UsageError, match="belongs to the model"):
        build(path, engine=path, force=True)
    with pytest.raises(UsageError, match="does not exist"):
        build(path, engine=tmp_path / "absent" / "net.engine")


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(upsampler(), path, save_as_external_data=True, size_threshold=0)
    inside, beside = build_one(upsampler()), build_one(path)
    assert (tmp_path / path.name).stat().st_size < 1000
    assert beside.builds
    assert beside.weights_bytes == inside.weights_bytes


def test_without_target_a_gpu_is_needed() -> None:
    known = ", ".join(find_installation("tensorrt-rtx").targets)
    with pytest.raises(BackendUnavailable, match=f"no GPU .* name one of {known} with --target"):
        deployconv.build(upsampler(), backend="tensorrt-rtx")


def test_targets_and_flags_that_the_library_lacks() -> None:
    known = ", ".join(find_installation("tensorrt-rtx").targets)
    with pytest.raises(UsageError, match=f"--target sm87: tensorrt_rtx .* compiles for {known}$"):
        build(upsampler(), "sm87")
    with pytest.raises(UsageError, match=r"--fp16: .* takes the precision from the model's types"):
        build(upsampler(), fp16=True)


@pytest.mark.parametrize("backend", ["ort", "nope", ""])
def test_what_compiles_nothing(backend: str) -> None:
    with pytest.raises(UsageError, match="choose one of tensorrt-rtx, tensorrt"):
        deployconv.build(upsampler(), backend=backend, target="sm89")


def test_for_a_dla_there_is_another_command() -> None:
    with pytest.raises(UsageError, match="deployconv inspect --target dla says"):
        build(upsampler(), "dla")


def test_float64_that_becomes_float32_is_told() -> None:
    proto = conv_transpose(integers(2, 3, 4, 4, dtype=np.float64), (5, 6), strides=[2, 2])
    report = build(proto)
    assert report.builds
    assert report.note == "TensorRT computes the model's float64 in float32"


def test_a_library_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(BackendUnavailable, match=r"backend 'tensorrt': .*deployconv\[gpu\]"):
        deployconv.build(upsampler(), backend="tensorrt", target="sm89")


def test_broken_files_never_reach_tensorrt(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for content in (
        b"",
        b"# a text\n",
        bytes(range(256)) * 9,
        upsampler().SerializeToString()[:60],
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"net\.onnx: "):
            build(path)


def test_what_tensorrt_reads_over_is_refused_before() -> None:
    without_outputs = upsampler()
    del without_outputs.graph.output[:]
    with pytest.raises(ModelError, match="has no outputs"):
        build(without_outputs)
    without_opset = upsampler()
    del without_opset.opset_import[:]
    with pytest.raises(ModelError, match="imports no opset"):
        build(without_opset)
    with pytest.raises(ModelError, match=r"'up' \(ConvTranspose\) disagrees .*pads 1, .*weight 2"):
        build(conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1, 1]))
    with pytest.raises(ModelError, match=f"a dimension of {1 << 40}"):
        build(upsampler((1 << 40, 6)))


def test_the_document_is_json() -> None:
    report = build(upsampler(), "sm86", "sm89")
    written = json.loads(document.dumps(document.of_build(report)))
    assert written["evidence"] == "compile"
    assert [entry["builds"] for entry in written["targets"]] == [True, True]
    stages = json.loads(json.dumps(asdict(report.targets[0])["stages"]))
    assert written["targets"][0]["stages"] == stages
