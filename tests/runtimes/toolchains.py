"""Toolchains that do what a test says, run with this Python."""

from __future__ import annotations

import textwrap
from pathlib import Path

from deployconv.runtimes.toolchains.catalogue import Device, Toolchain

TWICE = """
import numpy as np

def version():
    return "twice 1.0"

class Session:
    notes = {"cycles": 7}

    def run(self, feeds):
        return [2 * array for array in feeds.values()]

def prepare(job):
    return Session()
"""
"""Converts every model, and returns twice each input."""


def toolchain(folder: Path, adapter: str = TWICE, target: str = "npu") -> Toolchain:
    """A toolchain whose adapter has this text."""
    file = folder / "adapter.py"
    file.write_text(textwrap.dedent(adapter), encoding="utf-8")
    return Toolchain("npu", str(file), {target: Device("npu-1")}, ("npu==1.0",), 1)


def failing(body: str) -> str:
    """An adapter whose ``prepare`` has this body."""
    return TWICE.replace("return Session()", body)
