"""The Python environments of the toolchains, in the user's data folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.locks import take_lock
from deployconv.results import EnvironmentState, ToolchainEnvironment
from deployconv.runtimes.toolchains.catalogue import (
    TOOLCHAINS,
    Toolchain,
    get_toolchain,
    toolchain_of,
)

_DONE = "deployconv.json"
"""The file that is written last: what pip was asked for."""
_UNREACHED = re.compile(r"after connection broken by|^WARNING: .*Could not fetch URL")
"""What pip says of an index that does not answer."""

OnWait = Callable[[], None]


def environments_folder() -> Path:
    """Where the environments are: ``toolchains`` in the user's data folder.

    Raises BackendUnavailable if this user has no folders.
    """
    try:
        return Path(platformdirs.user_data_dir("deployconv")).absolute() / "toolchains"
    except RuntimeError as error:  # neither HOME nor the user database names a home
        raise BackendUnavailable(f"there is no folder for toolchains: {error}") from error


def state_of(toolchain: Toolchain, folder: Path | None = None) -> EnvironmentState:
    """Say whether an environment is installed, and has the versions that are pinned now."""
    try:
        home = _home(toolchain, folder)
    except BackendUnavailable:
        return "not installed"
    if not home.exists():
        return "not installed"
    try:
        done = json.loads((home / _DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "incomplete"
    if not _python(home).exists():
        return "incomplete"
    return "installed" if done == _wanted(toolchain) else "other versions"


def installed(toolchain: Toolchain, folder: Path | None = None) -> Path | None:
    """The Python of the toolchain's environment; None if these versions are not installed."""
    if state_of(toolchain, folder) != "installed":
        return None
    return _python(_home(toolchain, folder))


def toolchain_installed(target: str) -> bool:
    """Whether there is a toolchain for ``target``, and it is installed here."""
    toolchain = toolchain_of(target)
    return toolchain is not None and installed(toolchain) is not None


def why_unusable(target: str) -> str | None:
    """Why the toolchain of ``target`` is here and cannot be used; None if it is not or can be."""
    toolchain = toolchain_of(target)
    state = None if toolchain is None else state_of(toolchain)
    install = f"deployconv target install {target}"
    if state == "other versions":
        return f"its toolchain is installed in other versions than deployconv now uses: {install}"
    if state == "incomplete":
        return f"its toolchain is being installed, or that was cut off: {install} completes it"
    return None


def environments(folder: Path | None = None) -> tuple[ToolchainEnvironment, ...]:
    """The environments of all toolchains, and folders beside them that no toolchain uses."""
    place = folder or environments_folder()
    others = {one.name for one in _folders(place)} - set(TOOLCHAINS)
    return (
        *(
            ToolchainEnvironment(
                name,
                tuple(row.targets),
                state := state_of(row, folder),
                row.megabytes << 20 if state == "not installed" else _size(place / name),
                place / name,
            )
            for name, row in TOOLCHAINS.items()
        ),
        *(
            ToolchainEnvironment(name, (), "unused", _size(place / name), place / name)
            for name in sorted(others)
        ),
    )


def install(
    toolchain: Toolchain, folder: Path | None = None, on_wait: OnWait | None = None
) -> Path:
    """Make the environment of ``toolchain``, and return its Python.

    An environment of other versions is replaced; one that is there is kept. Another process that
    installs or removes it is waited for.

    Args:
        toolchain: which one.
        folder: where the environments are; by default that of this user.
        on_wait: called before a wait for another process.

    Raises BackendUnavailable, in one line, if it cannot be installed.
    """
    there = installed(toolchain, folder)
    if there is not None:
        return there
    base = _base_python(toolchain)
    home = _home(toolchain, folder)
    try:
        with _locked(home, on_wait) as lock:
            if installed(toolchain, folder) is None:  # else another process has just done it
                _make(toolchain, home, base, lock)
    except OSError as error:
        raise BackendUnavailable(
            f"{toolchain.name} cannot be installed: {error}: if this folder cannot be written, set"
            " XDG_DATA_HOME to another"
        ) from error
    return _python(home)


def remove(name: str, folder: Path | None = None, on_wait: OnWait | None = None) -> Path:
    """Remove an environment, and return the folder that it was in.

    Args:
        name: of a toolchain or a target, or of a folder that no toolchain uses.
        folder: where the environments are; by default that of this user.
        on_wait: called before a wait for another process that installs or removes it.

    Raises:
        UsageError: there is no such environment.
        BackendUnavailable: it cannot be removed.
    """
    place = folder or environments_folder()
    homes = {one.name: one for one in _folders(place)}
    home = homes.get(name) or homes.get(get_toolchain(name).name)
    if home is None:
        raise UsageError(f"{name}: its toolchain is not installed: nothing to remove in {place}")
    try:
        with _locked(home, on_wait):
            _clear(home)
    except OSError as error:
        raise BackendUnavailable(f"{name} cannot be removed: {error}") from error
    return home


def _make(toolchain: Toolchain, home: Path, base: str, lock: tuple[int, ...]) -> None:
    """Make the environment anew with the Python ``base``. What fails leaves nothing."""
    _clear(home)
    _require_space(toolchain, home.parent)
    # Isolated: packages that PYTHONPATH shows would count as installed.
    pip = [str(_python(home)), "-I", "-m", "pip", "install", "--quiet"]
    pip.append("--disable-pip-version-check")
    steps = [[base, "-I", "-m", "venv", str(home)], [*pip, *toolchain.requirements]]
    if toolchain.alone:
        steps.append([*pip, "--no-deps", *toolchain.alone])
    try:
        for step in steps:
            status, output, errors = run_program(step, lock)
            if status:
                said = _reason(errors, output)
                raise BackendUnavailable(f"{toolchain.name} cannot be installed: {said}")
        (home / _DONE).write_text(json.dumps(_wanted(toolchain)), encoding="utf-8")
    except BaseException:
        with contextlib.suppress(OSError):
            _clear(home)
        raise


def _clear(home: Path) -> None:
    """Remove an environment. Raises OSError if that fails; it no longer counts as installed."""
    if home.is_symlink():
        home.unlink()
    elif home.exists():
        (home / _DONE).unlink(missing_ok=True)
        shutil.rmtree(home)


@contextlib.contextmanager
def _locked(home: Path, on_wait: OnWait | None) -> Iterator[tuple[int, ...]]:
    """Let no other process install or remove the environment; wait for one that does.

    Yields the descriptor of the lock, if the file system has locks. A program that inherits it
    holds the lock too.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("wb") as file:
        try:
            take_lock(file)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            take_lock(file, wait=True)
        except OSError:
            yield ()
            return
        yield (file.fileno(),)


def run_program(command: list[str], descriptors: tuple[int, ...]) -> tuple[int, str, str]:
    """Run a program to its end; return its status and what it wrote to output and errors.

    If this process is told to end, the program and all that it started are killed. If this process
    is killed, the program keeps ``descriptors`` open until it ends.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=descriptors,
    )
    try:
        output, errors = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, output, errors


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


def _home(toolchain: Toolchain, folder: Path | None) -> Path:
    return (folder or environments_folder()) / toolchain.name


def _wanted(toolchain: Toolchain) -> list[str]:
    return [*toolchain.requirements, *toolchain.alone]


def _python(home: Path) -> Path:
    return home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _folders(place: Path) -> list[Path]:
    """The folders in ``place``; none if it is not there or cannot be read."""
    try:
        return [one for one in place.iterdir() if one.is_dir()]
    except OSError:
        return []


def _size(home: Path) -> int:
    """How many bytes the files of a folder have."""
    files = (Path(folder, name) for folder, _, names in os.walk(home) for name in names)
    size = 0
    for file in files:
        with contextlib.suppress(OSError):
            size += file.lstat().st_size
    return size


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


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
