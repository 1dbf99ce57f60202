"""The help comes at once: nothing heavy is imported on the way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "torch")

ARGUMENTS = [
    ["--help"],
    ["--version"],
    *(
        [command, "--help"]
        for command in ("inspect", "rewrite", "verify", "bench", "build", "check")
    ),
]

PROGRAM = """
import sys
from deployconv.cli import main
status = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


def cpu_seconds(arguments: list[str]) -> float:
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "deployconv", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout
    modules = run.stderr.split()
    assert "deployconv.cli.rewrite" in modules
    assert not set(HEAVY).intersection(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["rewrite", "--help"]], ids=" ".join)
def test_the_help_takes_under_300_ms_of_cpu_time(arguments: list[str]) -> None:
    assert min(cpu_seconds(arguments) for _ in range(3)) < 0.3
