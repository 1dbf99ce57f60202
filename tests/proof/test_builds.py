"""The gate on the real compiler, and what it says of single layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from onnx import ModelProto

import deployconv
from deployconv.cli import main
from deployconv.errors import BackendUnavailable, CheckFailed, UsageError
from deployconv.proof.builds import _warnings
from deployconv.report.layer_lines import target_lines
from deployconv.report.lines import compiled_line
from deployconv.results import Rewriting, StageResult, TargetBuild
from deployconv.runtimes.tensorrt import compile as building
from tests.build import conv_transpose, integers, node, tensor, upsampler
from tests.report import samples
from tests.runtimes.rtx import MODELS, RECORD, needs_record, needs_rtx, tells

pytestmark = needs_rtx

DILATED = {"strides": [2, 2], "dilations": [2, 2]}


def rewrite(model: ModelProto | Path, *targets: str, **options: Any) -> Rewriting:
    return deployconv.rewrite(model, target=targets or ("sm89",), bench=False, **options)


def test_a_model_that_builds_as_it_is() -> None:
    done = rewrite(upsampler(), "sm86", "sm89")
    assert done.compiled is not None
    assert done.compiled.passed
    assert [before.builds for before, _ in done.compiled.pairs] == [True, True]
    assert done.sites[0].target_note is None
    assert done.parity is not None
    assert done.parity.backend == "ort"


@needs_record
@pytest.mark.parametrize("name", RECORD.kernels)
def test_more_kernels_are_a_warning(name: str) -> None:
    done = rewrite(MODELS / f"{name}.onnx")
    before, after = (RECORD.kernels[name][state] for state in ("exported", "rewritten"))
    assert f"sm89: {after} kernels, {before} as exported" in done.warnings


@needs_record
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("2-D dilation", conv_transpose(integers(2, 3, 3, 3), (5, 6), **DILATED)),
        (
            "bfloat16",
            conv_transpose(integers(2, 3, 4, 4, dtype=bfloat16), (5, 6), strides=[2, 2], opset=22),
        ),
        (
            "1-D output_shape",
            conv_transpose(integers(2, 3, 4), (5,), strides=[2], output_shape=[10]),
        ),
    ],
)
def test_a_layer_that_a_target_cannot_take_is_needed(name: str, model: ModelProto) -> None:
    done = rewrite(model, "sm86", "sm89")
    assert done.compiled is not None
    assert [(before.builds, after.builds) for before, after in done.compiled.pairs] == [
        (False, True)
    ] * 2
    (site,) = done.sites
    assert site.target_note is not None
    assert site.target_note.mark == "needed"
    assert site.target_note.targets == ("sm86", "sm89")
    assert tells(site.target_note.text, RECORD.fails(name, "sm86")["sm86"])


@needs_record
def test_only_the_layer_that_is_to_blame_is_marked() -> None:
    done = rewrite(MODELS / "dilated_upsampler.onnx")
    assert [site.target_note.mark if site.target_note else None for site in done.sites] == [
        "needed"
    ] * 2
    mixed = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2])
    mixed.graph.node[0].output[0] = "h"
    mixed.graph.node.append(node("ConvTranspose", ["h", "v"], ["y"], name="last", **DILATED))
    mixed.graph.initializer.append(tensor("v", integers(3, 2, 3, 3)))
    first, last = rewrite(mixed).sites
    assert first.target_note is None
    assert last.target_note is not None
    assert last.target_note.mark == "needed"


MISREAD: dict[str, dict[str, Any]] = {
    "output_shape": {"output_shape": [10, 12]},
    "SAME_UPPER with output_padding": {"auto_pad": "SAME_UPPER", "output_padding": [1, 1]},
}
"""The layers of `RECORD.misread_pads`. ONNX pads each axis by 1 before the image, 0 behind it."""


def pads(axes: list[list[int]]) -> str:
    return ", ".join(f"({before}, {after})" for before, after in axes)


@needs_record
@pytest.mark.parametrize("name", RECORD.misread_pads)
def test_pads_that_the_importer_misreads(name: str) -> None:
    attributes, read = MISREAD[name], pads(RECORD.misread_pads[name])
    model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], **attributes)
    (site,) = rewrite(model).sites
    assert site.target_note is not None
    assert site.target_note.mark == "misread"
    assert site.target_note.text == f"ONNX pads (1, 0), (1, 0), TensorRT's importer reads {read}"


@needs_record
@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 0, 0]},
        {"pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"output_padding": [1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"output_shape": [9, 11]},
    ],
)
def test_pads_that_it_reads_as_onnx_does(attributes: dict[str, Any]) -> None:
    model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], **attributes)
    (site,) = rewrite(model).sites
    assert site.status == "rewritten"
    assert site.target_note is None


@needs_record
def test_a_layer_of_one_axis_that_is_parsed_as_two() -> None:
    plain = conv_transpose(integers(2, 3, 4), (5,), strides=[2], pads=[1, 1])
    assert rewrite(plain).sites[0].target_note is None
    same = {"auto_pad": "SAME_UPPER", "output_padding": [1]}
    note = (
        rewrite(conv_transpose(integers(2, 3, 3), (5,), strides=[2], **same)).sites[0].target_note
    )
    assert note is not None
    read = pads(RECORD.misread_pads["SAME_UPPER with output_padding"][:1])
    assert note.text == f"ONNX pads (1, 0), TensorRT's importer reads {read}"


@needs_record
def test_a_bias_that_is_left_out_on_the_border() -> None:
    model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], output_padding=[1, 1])
    model.graph.node[0].input.append("sum")
    model.graph.node.insert(0, node("Add", ["b", "b"], ["sum"]))
    model.graph.initializer.append(tensor("b", integers(3)))
    (site,) = rewrite(model).sites
    assert site.status == "rewritten"
    note = site.target_note
    assert (note is not None) == RECORD.bias_left_out_on_the_border
    if note is not None:
        assert note.mark == "misread"
        assert "leaves the bias out" in note.text


def test_a_rewrite_that_breaks_the_build_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = building.compile_model

    def refusing(model: Path, *rest: Any, **options: Any) -> TargetBuild:
        built = real(model, *rest, **options)
        if model.name != "net.deploy.onnx":
            return built
        refused = StageResult("build", "failed", 0.1, "no tactic")
        stages = tuple(refused if one.name == "build" else one for one in built.stages)
        return replace(built, stages=stages)

    monkeypatch.setattr(building, "compile_model", refusing)
    output = tmp_path / "net.deploy.onnx"
    with pytest.raises(CheckFailed, match="sm89: builds as exported, not rewritten: no tactic"):
        rewrite(upsampler(), output=output)
    assert list(tmp_path.iterdir()) == []


@needs_record
def test_a_target_that_takes_neither_is_a_warning() -> None:
    model = conv_transpose(integers(2, 3, 2, 2, 2), (4, 4, 4), strides=[2, 2, 2])
    done = rewrite(model, "sm75", "sm86")
    assert done.compiled is not None
    assert done.compiled.passed
    (neither,) = (one for one in done.warnings if one.startswith("sm75"))
    assert "builds neither as exported nor rewritten: " in neither
    assert tells(neither, RECORD.fails("3-D float32", "sm75", rewritten=True)["sm75"])


def test_weights_that_grow_are_a_warning() -> None:
    grown = replace(samples.BUILT, weights_bytes=samples.BUILT.weights_bytes * 2)
    assert list(_warnings(samples.BUILT, grown)) == [
        "weights grow 2.0 times, from 96,000 to 192,000 bytes"
    ]
    assert list(_warnings(grown, samples.BUILT)) == []
    assert list(_warnings(samples.BUILT, replace(samples.BUILT, kernels=None))) == []


def test_a_backend_that_can_only_compile_here_runs_nothing_and_says_so() -> None:
    done = rewrite(upsampler(), backend="tensorrt-rtx")
    assert done.parity is None
    assert next((step.step, step.reason) for step in done.not_run) == (
        "parity",
        "tensorrt-rtx finds no GPU on this machine; compiled only",
    )
    assert done.sites[0].certificate == "exact"


def test_without_target_execution_was_asked_for() -> None:
    with pytest.raises(BackendUnavailable, match="no CUDA driver"):
        deployconv.rewrite(upsampler(), backend="tensorrt-rtx")


def test_a_target_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="--target sm1: there is no such target: did you mean"):
        rewrite(upsampler(), "sm1")
    with pytest.raises(UsageError, match=r"--target sm90: tensorrt_rtx .* compiles for sm"):
        rewrite(upsampler(), "sm90")


def test_dynamic_sizes_are_those_of_the_call() -> None:
    done = rewrite(upsampler(("h", "w"), batch="n"), shape={"x": (1, 2, 8, 9)})
    assert done.compiled is not None
    for report in (done.compiled.before, done.compiled.after):
        assert report.builds
        assert [bound.opt for bound in report.shapes] == [(1, 2, 8, 9)]


@needs_record
def test_float16_stays_float16() -> None:
    model = conv_transpose(integers(2, 3, 4, 4, dtype=np.float16), (5, 6), strides=[2, 2])
    done = rewrite(model)
    assert done.compiled is not None
    for _, after in done.compiled.pairs:
        assert after.kernels is not None
        assert {kind for kernel in after.kernels for kind in kernel.outputs} == {"Half"}


@needs_record
def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "rewrite",
        str(MODELS / "dilated_upsampler.onnx"),
        "--no-bench",
        "--target",
        "sm89",
    ]
    assert main([*arguments, "-o", str(tmp_path / "out.onnx")]) == 0
    out = capsys.readouterr().out
    assert "\nmain/node_convolution: needed for sm89 - tensorrt_rtx " in out
    assert "\ncompile evidence: passed, sm89 fails -> builds (" in out
    assert main([*arguments, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["compiled"]["evidence"] == "compile"
    assert document["compiled"]["passed"] is True
    (target,) = document["compiled"]["targets"]
    assert (target["before"]["builds"], target["after"]["builds"]) == (False, True)
    assert [site["target_note"]["mark"] for site in document["sites"]] == ["needed", "needed"]


def test_lines_of_a_model_without_targets() -> None:
    assert target_lines(samples.REWRITING.sites) == []
    assert samples.REWRITING.compiled is None


def test_models_that_build_nowhere_have_passed_nothing() -> None:
    nowhere = replace(samples.BUILD_REPORT, targets=(samples.NOT_BUILT,))
    compiled = deployconv.results.Compilation(nowhere, nowhere)
    assert compiled.passed is None
    line = compiled_line(compiled)
    assert line.startswith("compile evidence: none, as neither builds, sm89 fails -> fails")


def test_the_line_of_a_failed_gate() -> None:
    compiled = deployconv.results.Compilation(
        samples.BUILD_REPORT,
        replace(samples.BUILD_REPORT, targets=(replace(samples.NOT_BUILT, target="sm86"),)),
    )
    assert not compiled.passed
    assert compiled_line(compiled) == (
        "compile evidence: failed, sm86 builds (3 kernels) -> fails "
        "(tensorrt_rtx 1.7.1; nothing was executed)"
    )
