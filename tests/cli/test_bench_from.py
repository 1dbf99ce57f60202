"""A timing taken on one machine and shown on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployconv.cli import main
from deployconv.report import document
from tests.report import samples

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bench_jetson.sh"


def test_what_json_printed_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "timing.json"
    content = document.of_timing([samples.LATENCY], ["a.onnx", "b.onnx"])
    path.write_text(document.dumps({**content, "conditions": {"power mode": "MAXN\n0"}}))
    assert main(["bench", "--from", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["ort", "a.onnx", "5.41", "ms", "5.90", "ms", "30"]
    assert "power mode: MAXN 0" in lines
    assert lines[-1] == f"read from {path}; nothing was timed here"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["net.onnx", "--from", "t.json"],
        ["--from", "t.json", "--runs", "3"],
        ["--from", "t.json", "--profile"],
        ["--from", "t.json", "--backend", "ort"],
    ],
    ids=["nothing", "a model too", "an option too", "a flag too", "a default too"],
)
def test_calls_that_mean_nothing(arguments: list[str]) -> None:
    assert main(["bench", *arguments]) == 2


@pytest.mark.skipif(os.name != "posix", reason="the script is for a shell, as on a Jetson")
def test_the_script_writes_what_bench_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a stand-in for TensorRT and its GPU, and for the tool that tells the power mode."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in (
        ("nvpmodel", "echo 'NV Power Mode: MODE_15W'; echo 2"),
        ("jetson_clocks", "echo 'must be root' >&2; exit 1"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    fake = ROOT / "tests" / "runtimes" / "fake_gpu"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(tools), os.environ["PATH"])),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(fake))),
        "PYTHON": sys.executable,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    model, out = ROOT / "models" / "subpixel_figure.onnx", tmp_path / "out.json"
    arguments = [str(SCRIPT), str(out), str(model), str(model), "--runs", "2", "--profile"]
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    content = json.loads(out.read_text())
    for when in ("before", "after"):
        assert content["conditions"][f"power mode {when}"] == "NV Power Mode: MODE_15W 2"
        assert f"jetson_clocks --show {when}" not in content["conditions"]
    assert content["latency"][0]["provider"] == "Fake GPU"
    assert main(["bench", "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "tensorrt" in shown
    assert "power mode before: NV Power Mode: MODE_15W 2" in shown
    assert "main//conv/Conv" in shown


@pytest.mark.skipif(os.name != "posix", reason="the script is for a shell, as on a Jetson")
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["no.json"], 2, "usage: "),
        (["absent/no.json", "net.onnx"], 2, "no such folder"),
        (["no.json", "absent.onnx"], 2, "deployconv: error: "),
    ],
)
def test_the_script_writes_nothing_if_it_fails(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    fake = ROOT / "tests" / "runtimes" / "fake_gpu"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(fake))),
        "PYTHON": sys.executable,
    }
    failed = subprocess.run(
        [str(SCRIPT), *arguments],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert failed.returncode == status
    assert words in failed.stderr
    assert list(tmp_path.iterdir()) == []
