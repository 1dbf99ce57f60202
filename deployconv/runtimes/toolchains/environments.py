"""The Python environments of the toolchains, in the user's data folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains.catalogue import Toolchain, toolchain_of

_DONE = "deployconv.json"
_UNREACHED = re.compile(r"after connection broken by|^WARNING: .*Could not fetch URL")
"""What pip says of an index that does not answer."""


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
    base = _base_python(toolchain)
    home = (folder or environments_folder()) / toolchain.name
    shutil.rmtree(home, ignore_errors=True)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _require_space(toolchain, home.parent)
        _run(toolchain, [base, "-m", "venv", str(home)])
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


def _base_python(toolchain: Toolchain) -> str:
    """This Python, or another one of this machine if the toolchain is not made for this one."""
    oldest, newest = toolchain.python
    here = sys.version_info[:2]
    if oldest <= here <= newest:
        return sys.executable
    for minor in range(newest[1], oldest[1] - 1, -1):
        found = shutil.which(f"python{oldest[0]}.{minor}")
        if found is not None:
            return found
    raise BackendUnavailable(
        f"{toolchain.name} needs Python {_dotted(oldest)} to {_dotted(newest)}, this is"
        f" {_dotted(here)}, and none of these is found on PATH: install"
        f" python{_dotted(newest)}, or run deployconv with it"
    )


def _require_space(toolchain: Toolchain, folder: Path) -> None:
    """Raise BackendUnavailable if the disk has no room for the environment."""
    free = shutil.disk_usage(folder).free >> 20
    if free < toolchain.megabytes:
        raise BackendUnavailable(
            f"{toolchain.name} takes about {toolchain.megabytes:,} MB, and {folder} has {free:,} MB"
            " free: make room, or set XDG_DATA_HOME to a folder on another disk"
        )


def _wanted(toolchain: Toolchain) -> list[str]:
    return [*toolchain.requirements, *toolchain.alone]


def _python(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _run(toolchain: Toolchain, command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        said = _reason(ended.stderr, ended.stdout)
        raise BackendUnavailable(f"{toolchain.name} cannot be installed: {said}")


def _reason(errors: str, output: str) -> str:
    """Why ``venv`` or ``pip`` failed, in one line."""
    lines = [line.strip() for line in (errors or output).splitlines() if line.strip()]
    if any("ensurepip is not available" in line for line in lines):
        return "this Python has no ensurepip: install the package python3-venv"
    # After that pip says that there is no such package, which is not the reason.
    unreached = [line for line in lines if _UNREACHED.search(line)]
    if unreached:
        return f"the package index cannot be reached: {unreached[-1]}"
    return ([line for line in lines if line.startswith("ERROR")] or lines or ["no message"])[-1]
