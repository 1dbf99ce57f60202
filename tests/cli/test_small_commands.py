"""``diff``, ``explain``, ``doctor``, ``completion``, ``--version`` and NO_COLOR."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deployconv
from deployconv.cli import main
from deployconv.report import console
from deployconv.report.reasons import explanations
from deployconv.results import DlaCode, TargetNote, TargetVerdict
from deployconv.results.site import Status
from deployconv.runtimes.toolchains import environments
from tests.build import node, tensor, upsampler


def changed_model() -> onnx.ModelProto:
    """The upsampler with a node more, other weights, and another name of its output."""
    made = upsampler()
    weight = numpy_helper.to_array(made.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] += 0.5
    made.graph.initializer[0].CopyFrom(tensor("w", weight))
    made.graph.initializer.append(tensor("unused", np.ones(2, np.float32)))
    made.graph.node.append(node("Relu", ["y"], ["z"], name="last"))
    made.graph.output[0].name = "z"
    return made


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    onnx.save(upsampler(), paths[0])
    onnx.save(changed_model(), paths[1])
    return [str(path) for path in paths]


def test_models_that_differ(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *pair]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    *lines, end = captured.out.splitlines()
    assert "+ node Relu main/last" in lines
    assert "+ weight main/unused" in lines
    assert "~ weight main/w: float32 [2, 3, 4, 4], max |difference| 0.5" in lines
    assert any(line.startswith("  output removed: y float32") for line in lines)
    assert end == (
        "nodes: 0 removed, 1 added; weights: 0 removed, 1 added, 1 changed; interface: differs"
    )
    assert main(["diff", *reversed(pair), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["equal"] is False
    assert document["nodes_removed"] == [{"scope": "main", "name": "last", "operator": "Relu"}]
    assert document["weights_changed"][0]["max_abs"] == 0.5


def test_models_that_are_equal(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", pair[0], pair[0]]) == 0
    assert capsys.readouterr().out == "the models are equal\n"
    documented = upsampler()
    documented.graph.node[0].doc_string = "from model.py, line 3"
    assert deployconv.diff(upsampler(), documented).equal


def test_external_weights_are_compared_by_their_values(tmp_path: Path) -> None:
    inside = upsampler()
    place = {"save_as_external_data": True, "location": "w", "size_threshold": 0}
    onnx.save(upsampler(), tmp_path / "outside.onnx", **place)
    assert deployconv.diff(inside, tmp_path / "outside.onnx").equal


def test_a_rewrite_is_what_differs() -> None:
    original = upsampler()
    done = deployconv.rewrite(original, bench=False)
    assert done.model is not None
    found = deployconv.diff(original, done.model)
    assert [one.operator for one in found.nodes_removed] == ["ConvTranspose"]
    assert {one.operator for one in found.nodes_added} >= {"Conv", "DepthToSpace"}
    assert found.interface == ()


@pytest.mark.parametrize("code", ["runtime-weight", "slower", "interpolating-resize"])
def test_a_reason_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{code}: ")
    assert not set("`[]|") & set(said)


def test_every_word_of_a_report_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    marks = get_args(get_type_hints(TargetNote)["mark"])
    for word in (*get_args(TargetVerdict), *marks, *get_args(Status), *get_args(DlaCode)):
        assert main(["explain", word]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{word}: ")
        assert said.endswith(".\n")
        assert not set("`[]|") & set(said)


def test_a_reason_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "runtime-wieght"]) == 2
    assert "did you mean runtime-weight" in capsys.readouterr().err
    assert len(explanations()) > 30


def test_what_can_be_used_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in said if line and not line.startswith("for ")}
    assert " usable " in states["ort"]
    assert "onnxruntime" in states["ort"]
    for name in (line.split()[0] for line in said if " missing " in line):
        assert any(line.startswith("for ") and name in line and "pip" in line for line in said)


@pytest.mark.parametrize(("state", "shown"), [("installed", "iree"), ("incomplete", "none")])
def test_doctor_names_the_toolchains_that_build_can_use(
    state: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "state_of", lambda toolchain: state)
    assert main(["doctor"]) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if "toolchains" in one)
    assert shown in line


def test_the_version_lists_the_runtimes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    first, *runtimes = capsys.readouterr().out.splitlines()
    assert first == f"deployconv {deployconv.__version__}"
    assert any(line.startswith("onnxruntime") for line in runtimes)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_DEPLOYCONV_COMPLETE" in capsys.readouterr().out


def test_a_word_is_completed() -> None:
    asked = {"_DEPLOYCONV_COMPLETE": "bash_complete", "COMP_WORDS": "deployconv ch"}
    run = subprocess.run(
        [sys.executable, "-m", "deployconv"],
        env={**os.environ, **asked, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "plain,check\n"


@pytest.mark.parametrize(("setting", "coloured"), [(None, True), ("1", False)])
def test_colours_are_off_where_nobody_wants_them(
    setting: str | None,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if setting is not None:
        monkeypatch.setenv("NO_COLOR", setting)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = console.Table(("verdict",), [(console.Verdict("passed"),)])
    console.print_table(console.stdout(), table)
    assert ("\x1b[32m" in capsys.readouterr().out) is coloured
