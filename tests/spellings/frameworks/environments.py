"""Environments of the frameworks' exporters, and the exports that they make.

Each is a virtual environment of its own: the exporters pin different versions of onnx and protobuf,
and none of them belongs into the project's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.spellings.corpus import Framework, Row, row_of
from tests.spellings.frameworks.case import Case

_ROOT = Path(__file__).parents[3]
_TENSORFLOW = ("tensorflow-cpu==2.21.0", "keras==3.15.1", "tf2onnx==1.17.0", "onnx==1.23.2")
REQUIREMENTS: Mapping[Framework, tuple[str, ...]] = {
    "tensorflow": _TENSORFLOW,
    "keras": _TENSORFLOW,
    "jax": ("jax==0.10.2", "flax==0.12.8", "dm-pix==0.4.5", "einops==0.8.2", "jax2onnx==0.17.1"),
    "paddle": ("paddlepaddle==3.2.2", "paddle2onnx==2.1.0", "onnx==1.17.0", "setuptools==65.5.0"),
}
"""Versions whose exports are committed. paddle2onnx 2.1.0 cannot read Paddle 3.3's Resize."""


def cases(framework: Framework) -> tuple[Case, ...]:
    """The networks of a framework; it need not be installed."""
    module = import_module(f"tests.spellings.frameworks.{framework}")
    found: tuple[Case, ...] = module.CASES
    return found


def environment(framework: Framework, folder: Path) -> Path:
    """The Python of the framework's environment in ``folder``; made if it is not there."""
    name = "tensorflow" if framework == "keras" else framework
    home = folder / name
    python = home / "bin" / "python"
    done = home / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[framework])
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print(f"installing {wanted.replace(chr(10), ', ')} into {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[framework]], check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


def exports_of(
    framework: Framework, python: Path, names: Iterable[str]
) -> tuple[list[tuple[Row, bytes]], list[dict[str, Any]]]:
    """Rows with their graphs, and what the exporter refused, for the rows of these names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-m", f"tests.spellings.frameworks.{framework}", folder, "--only"]
        ended = subprocess.run([*command, *names], cwd=_ROOT, capture_output=True, text=True)
        manifest = Path(folder) / f"{framework}.json"
        if ended.returncode or not manifest.exists():
            raise RuntimeError(f"{framework} ended with {ended.returncode}: {ended.stderr[-2000:]}")
        made = json.loads(manifest.read_text(encoding="utf-8"))
        rows = list(map(row_of, made["rows"]))
        return [(row, (Path(folder) / row.file).read_bytes()) for row in rows], made["refused"]
