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
    [[], ["net.onnx", "--from", "t.json"], ["--from", "t.json", "--runs", "3"]],
    ids=["nothing", "a model too", "an option too"],
)
def test_calls_that_mean_nothing(arguments: list[str]) -> None:
    assert main(["bench", *arguments]) == 2


@pytest.mark.skipif(os.name != "posix", reason="the script is for a shell, as on a Jetson")
def test_the_script_writes_what_bench_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a stand-in for TensorRT and its GPU, and for the tool that tells the power mode."""
    tool = tmp_path / "bin" / "nvpmodel"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_15W'; echo 2\n")
    tool.chmod(0o755)
    fake = ROOT / "tests" / "backends" / "fake_gpu"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(tool.parent), os.environ["PATH"])),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(fake))),
        "PYTHON": sys.executable,
    }
    model, out = ROOT / "models" / "unet_decoder.onnx", tmp_path / "out.json"
    arguments = [str(SCRIPT), str(out), str(model), str(model), "--runs", "2"]
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    content = json.loads(out.read_text())
    assert content["conditions"]["power mode"] == "NV Power Mode: MODE_15W 2"
    assert content["latency"][0]["provider"] == "Fake GPU"
    assert main(["bench", "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "tensorrt" in shown
    assert "power mode: NV Power Mode: MODE_15W 2" in shown

    failed = subprocess.run([str(SCRIPT), str(tmp_path / "no.json")], check=False)
    assert failed.returncode == 2
