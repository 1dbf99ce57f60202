"""Tasks that stand in for the work on a model, as the name of its file says."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployconv.api import many
from deployconv.batch.sources import Source
from deployconv.errors import BackendUnavailable, CheckFailed, ModelError
from deployconv.results import ModelInfo, Rewriting

DONE = Rewriting(ModelInfo("x", "y", 17, 8), ())


def act(source: Source, threads: int | None) -> Rewriting:
    """Do what the name of the file says, before its first dash."""
    kind = Path(source.path).name.partition("-")[0]
    if kind == "hang":
        time.sleep(600)
    if kind == "crash":
        os._exit(11)
    if kind == "broken":
        raise ModelError(f"{source.path}: not a model")
    if kind == "missing":
        raise BackendUnavailable("no such backend")
    if kind == "failed":
        raise CheckFailed("parity failed", DONE)
    if kind == "odd":
        raise ZeroDivisionError("by zero")
    if kind == "threads":
        return Rewriting(ModelInfo("x", str(threads), 17, 8), ())
    return DONE


def sources(*names: str) -> list[Source]:
    return [Source(name, Path(name)) for name in names]


_one_of = many._one_of


def hang_by_name(command: Any, options: Any, source: Source, threads: int | None) -> Any:
    """Do the real work; then hang if the file is called so, once there is something to see."""
    done = _one_of(command, options, source, threads)
    if Path(source.path).name.startswith("hang"):
        Path(source.path).with_suffix(".begun").touch()
        time.sleep(600)
    return done


@dataclass(frozen=True)
class Killing:
    """A task that kills its process with some models, and notes in a folder what was begun."""

    folder: Path

    def __call__(self, source: Source, threads: int | None) -> Rewriting:
        """Kill this process for ``poison``, and for ``once`` the first time."""
        name = Path(source.path).name
        kind = name.partition("-")[0]
        before = len(list(self.folder.glob(f"{name}.*")))
        (self.folder / f"{name}.{before}").touch()
        if kind == "poison" or (kind == "once" and not before):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return DONE
