"""Locks between processes, which the system releases when the process that holds one ends."""

from __future__ import annotations

import sys
from typing import BinaryIO


def take_lock(file: BinaryIO, wait: bool = False) -> None:
    """Lock ``file`` until it is closed, also by the end of the process.

    Args:
        file: a file that is open for writing. A process that inherits it holds the lock too.
        wait: whether to wait for another process that has locked it.

    Raises:
        BlockingIOError: it is locked, and this process is not to wait.
        OSError: it cannot be locked, as on Windows and on some network file systems.
    """
    if sys.platform == "win32":
        raise OSError("files are not locked on Windows")
    from fcntl import LOCK_EX, LOCK_NB, flock

    flock(file, LOCK_EX if wait else LOCK_EX | LOCK_NB)
