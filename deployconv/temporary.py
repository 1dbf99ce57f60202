"""Temporary folders that do not outlive their process, and files that are written as a whole.

A folder is locked while its process lives. The system releases the lock of a process that ends in
whatever way, so a folder whose lock is free was left behind, and the next process removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deployconv.errors import UsageError
from deployconv.locks import take_lock

_PREFIX = ".deployconv-"
_LOCK = ".lock"


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder in ``parent``, or in the system's folder for such, and remove it at the end.

    First removes the folders that killed processes have left there. Raises OSError if no folder
    can be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, which appears at ``path`` when all is written, or not at all.

    It is written in a temporary folder beside ``path``, synced and moved there. So no reader sees
    a part of it, and of several writers the last one wins. A link stays, and the file that it
    leads to is replaced. A device or a pipe stays too: it is written to. Raises OSError if it
    cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    with temporary_folder(path.parent) as folder:
        whole = folder / path.name
        with whole.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        whole.replace(path)


def check_report_path(path: Path, option: str, instead: str) -> None:
    """Raise UsageError before any work if ``path`` is no place for a report.

    That is one in a folder that is not there, a folder itself, or a model, as the first of
    ``--report models/*.onnx`` is.

    Args:
        path: where the report is to be written.
        option: what the call names it by.
        instead: what to do.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise UsageError(f"{option}: is a folder; {instead}")
    if path.suffix == ".onnx":
        raise UsageError(f"{option}: is a model; {instead}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, if the file system has locks."""
    # Locked under another name: whoever sees the lock file sees it locked.
    new = folder / f"{_LOCK}.new"
    with new.open("wb") as file:
        with contextlib.suppress(OSError):
            take_lock(file)
            new.rename(folder / _LOCK)
        yield


def remove_abandoned(place: Path) -> None:
    """Remove the folders in ``place`` that killed processes have left there."""
    for lock in place.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb+") as file:
            take_lock(file)
            shutil.rmtree(lock.parent, ignore_errors=True)
