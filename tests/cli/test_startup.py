"""The help comes at once: nothing heavy is imported on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from deployconv.cli import run
run()
"""


def test_ctrl_c_while_the_program_starts() -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr == "deployconv: error: interrupted\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"]], ids=" ".join)
def test_a_full_disk_is_no_internal_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "deployconv", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == 2
    assert run.stderr == (
        "deployconv: error: standard output cannot be written (No space left on device): "
        "write to another place\n"
    )
