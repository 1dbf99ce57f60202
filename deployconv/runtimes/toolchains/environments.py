"""The Python environments of the toolchains, in the user's data folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains.catalogue import Toolchain, toolchain_of

_DONE = "deployconv.json"


def environments_folder() -> Path:
    """Where the environments are: ``toolchains`` in the user's data folder."""
    return Path(platformdirs.user_data_dir("deployconv")) / "toolchains"


def installed(toolchain: Toolchain, folder: Path | None = None) -> Path | None:
    """The Python of the toolchain's environment; None if these versions are not installed."""
    home = (folder or environments_folder()) / toolchain.name
    try:
        done = json.loads((home / _DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = _python(home)
    return python if done == _wanted(toolchain) and python.exists() else None


def toolchain_installed(target: str) -> bool:
    """Whether there is a toolchain for ``target``, and it is installed here."""
    toolchain = toolchain_of(target)
    return toolchain is not None and installed(toolchain) is not None


def install(toolchain: Toolchain, folder: Path | None = None) -> Path:
    """Make the environment of ``toolchain``, and return its Python.

    An environment of other versions is replaced; one that is there is kept.

    Raises BackendUnavailable, in one line, if it cannot be installed.
    """
    there = installed(toolchain, folder)
    if there is not None:
        return there
    oldest, newest = toolchain.python
    here = sys.version_info[:2]
    if not oldest <= here <= newest:
        raise BackendUnavailable(
            f"{toolchain.name} {' '.join(toolchain.requirements)} needs Python {_dotted(oldest)}"
            f" to {_dotted(newest)}, and this is {_dotted(here)}: run deployconv with such a Python"
        )
    home = (folder or environments_folder()) / toolchain.name
    shutil.rmtree(home, ignore_errors=True)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _run(toolchain, [sys.executable, "-m", "venv", str(home)])
        pip = [str(_python(home)), "-m", "pip", "install", "--quiet"]
        pip.append("--disable-pip-version-check")
        _run(toolchain, [*pip, *toolchain.requirements])
        if toolchain.alone:
            _run(toolchain, [*pip, "--no-deps", *toolchain.alone])
        (home / _DONE).write_text(json.dumps(_wanted(toolchain)), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise BackendUnavailable(f"{toolchain.name} cannot be installed: {error}") from error
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return _python(home)


def _wanted(toolchain: Toolchain) -> list[str]:
    return [*toolchain.requirements, *toolchain.alone]


def _python(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _run(toolchain: Toolchain, command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        said = (errors or lines or ["no message"])[-1]
        raise BackendUnavailable(f"{toolchain.name} cannot be installed: {said}")
