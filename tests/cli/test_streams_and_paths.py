"""Models from standard input and to standard output, and paths that are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deployconv
from deployconv.cli import main
from deployconv.errors import DeployconvError, ModelError, UsageError
from tests.build import feeds_for, ops, upsampler


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("net.onnx")
    onnx.save(upsampler(), path)
    return path


def deploy(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "deployconv", *arguments]
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(command, input=given, capture_output=True, env={"PYTHONPATH": root})


def test_a_model_goes_through_a_pipe(model: Path) -> None:
    done = deploy("rewrite", "-", "-o", "-", "--no-bench", given=model.read_bytes())
    report = done.stderr.decode()
    assert done.returncode == 0, report
    assert ops(onnx.load_from_string(done.stdout))["ConvTranspose"] == 0
    assert "certificate: exact" in report
    assert report.splitlines()[-1] == "wrote -"
    assert main(["rewrite", str(model), "--no-bench"]) == 0
    assert Path("net.deploy.onnx").read_bytes() == done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rewrite", "-"], "has no name: give -o OUT, or -o -"),
        (["rewrite", "net.onnx", "-o", "-", "--json"], "both write to standard output"),
        (["rewrite", "-", "-o", "-"], "the model: is empty"),
        (["rewrite", ""], "a path is empty"),
        (["rewrite", "net.onnx", "-o", ""], "a path is empty"),
        (["check", ""], "a path is empty"),
        (["rewrite", "empty"], "empty: holds no .onnx file"),
        (["inspect", "https://example.com/net.onnx"], "is a URL: download the file"),
        (["inspect", "pointer.onnx"], "is a Git LFS pointer, not the model: run git lfs pull"),
    ],
)
def test_what_is_no_model_is_one_line(model: Path, arguments: list[str], words: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    model.with_name("pointer.onnx").write_text(pointer)
    model.with_name("empty").mkdir()
    done = deploy(*arguments)
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in line


def test_a_model_as_bytes_and_inputs_as_arrays() -> None:
    original = upsampler()
    done = deployconv.rewrite(original.SerializeToString(), inputs=feeds_for(original), bench=False)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert done.parity is not None
    assert done.parity.passed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "x:1,2,5,6"}, "shape is 'x:1,2,5,6': give sizes by input name"),
        ({"shape": {"x": "1,2,5,6"}}, "give sizes by input name"),
        ({"shape": {"x": 5}}, "give sizes by input name"),
        ({"inputs": {"z": np.zeros(3)}}, "inputs lacks 'x'"),
        ({"output": ""}, "a path is empty"),
        ({"threads": 10**30}, "threads is 1.*: give a number from 1 to 1024"),
    ],
)
def test_arguments_of_another_kind_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        deployconv.rewrite(upsampler(), bench=False, **options)


@pytest.mark.parametrize("given", [None, 5, b"", ["net.onnx"]])
def test_what_is_neither_path_nor_model_is_refused(given: Any) -> None:
    kind: type[DeployconvError] = ModelError if given == b"" else UsageError
    with pytest.raises(kind, match=r"neither a path nor a model|is empty"):
        deployconv.inspect(given)


def test_check_takes_for_each_model_the_options_that_concern_it(tmp_path: Path) -> None:
    for name, batch in (("fixed", 1), ("free", "n")):
        made = upsampler(batch=batch)
        made.graph.node[0].name = f"{name}_up"
        if batch == "n":
            made.graph.input[0].name = made.graph.node[0].input[0] = "free_x"
        onnx.save(made, tmp_path / f"{name}.onnx")
    shape = {"free_x": (3, 2, 5, 6)}
    report = deployconv.check([tmp_path], skip="fixed_up", shape=shape, strict=True)
    fixed, free = report.models
    assert (fixed.status, free.status) == ("failed", "passed")
    assert "--strict: left alone: main/fixed_up" in str(fixed.message)
    with pytest.raises(UsageError, match="--shape other: no model has an input of this name"):
        deployconv.check([tmp_path], shape={"other": (1,)})


def test_a_shuffle_without_effect_is_a_warning() -> None:
    done = deployconv.rewrite(upsampler(), shuffle="crd", skip="*", bench=False)
    assert done.warnings == ("shuffle 'crd' has no effect: no layer is rewritten with a shuffle",)
