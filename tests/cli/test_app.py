"""Exit statuses, and one line on standard error for every failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployconv._version import __version__
from deployconv.cli import main
from deployconv.errors import (
    BackendUnavailable,
    CheckFailed,
    DeployconvError,
    ModelError,
    UsageError,
)
from tests.cli.conftest import FakeApi

LONG = "x" * 500


def only_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text[:-1]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CheckFailed("parity failed"), 1),
        (UsageError("net.deploy.onnx exists; give --force"), 2),
        (ModelError("net.onnx is not an ONNX model"), 2),
        (BackendUnavailable("ort:cuda is not available"), 3),
        (DeployconvError("something"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_statuses(
    api: FakeApi, capsys: pytest.CaptureFixture[str], error: DeployconvError, status: int
) -> None:
    api.answers["inspect"] = error
    assert main(["inspect", "net.onnx"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert only_line(captured.err) == f"deployconv: error: {error}"


def test_a_long_message_of_several_lines_is_one_line(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["inspect"] = ModelError(f"first\n  second \x1b[2J {LONG}\n")
    assert main(["inspect", "net.onnx"]) == 2
    expected = rf"deployconv: error: first second \x1b[2J {LONG}"
    assert only_line(capsys.readouterr().err) == expected


def test_an_unexpected_error_is_called_internal(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["inspect"] = KeyError("weight")
    assert main(["inspect", "net.onnx"]) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith("deployconv: internal error: KeyError: 'weight' (rerun as ")
    assert "--debug" in line


@pytest.mark.parametrize("error", [KeyError("weight"), ModelError("broken")])
def test_debug_shows_the_traceback(
    api: FakeApi, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    api.answers["inspect"] = error
    assert main(["--debug", "inspect", "net.onnx"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.splitlines()[-1].startswith("deployconv: ")


def test_ctrl_c(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["inspect"] = KeyboardInterrupt()
    assert main(["inspect", "net.onnx"]) == 130
    assert only_line(capsys.readouterr().err) == "deployconv: error: interrupted"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["inspect"],
        ["inspect", "net.onnx", "-"],
        ["rewrite", "net.onnx", "another.onnx", "-o", "-"],
        ["rewrite", "net.onnx", "--unknown"],
        ["rewrite", "net.onnx", "--form", "square"],
        ["rewrite", "net.onnx", "--policy", "quickest"],
        ["rewrite", "net.onnx", "--seed", "-1"],
        ["rewrite", "net.onnx", "--seed", "one"],
        ["rewrite", "net.onnx", "--output"],
        ["rewrite", "net.onnx", "--shape", "x"],
        ["verify", "net.onnx"],
        ["bench", "net.onnx", "--runs", "0"],
        ["bench", "net.onnx", "--threads", "0"],
        ["check"],
        ["check", "models", "--junit", "missing/folder/report.xml"],
        ["check", "models", "--junit", "."],
        ["check", "--junit", "first.onnx", "second.onnx"],
    ],
    ids=" ".join,
)
def test_usage_errors(
    api: FakeApi, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert only_line(captured.err).startswith("deployconv: error: ")
    assert api.calls == []


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["rewrite", "-h"]], ids=" ".join)
def test_help_and_version(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "deployconv" in captured.out
    assert captured.err == ""


def test_the_module_is_the_script(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployconv", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    first = run.stdout.partition("\n")[0]
    assert (run.returncode, first, run.stderr) == (0, f"deployconv {__version__}", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes a stream")
@pytest.mark.parametrize("arguments", ["--help", "inspect models/fsrcnn_x3.onnx"])
def test_output_that_is_closed_from_the_start_goes_nowhere(arguments: str) -> None:
    command = f"'{sys.executable}' -m deployconv {arguments} >&-"
    run = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("folder", ["", ".", ".."])
def test_a_folder_without_a_model_is_one_line(
    folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["rewrite", folder]) == 2
    assert only_line(capsys.readouterr().err).startswith("deployconv: error: ")


@pytest.mark.skipif(os.name != "posix", reason="other systems report a closed pipe otherwise")
def test_a_closed_pipe_is_not_an_error_message() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.run(
        [sys.executable, "-m", "deployconv", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (run.returncode, run.stderr) == (141, "")
