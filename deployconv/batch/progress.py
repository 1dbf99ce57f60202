"""How far a run of several models is: what is done, what is worked on, how long is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployconv.results import ModelRun


@dataclass(frozen=True)
class Progress:
    """How far a run of several models is.

    Attributes:
        total: the number of models.
        done: the number of those that are done, those of an earlier run included.
        verdicts: how many ended with each verdict.
        running: paths of the models that are worked on.
        last: the model that was done just now; None if another one was begun.
        seconds_left: estimated from the time of the models so far; None if there are none.
    """

    total: int
    done: int
    verdicts: Mapping[str, int]
    running: tuple[str, ...]
    last: ModelRun | None = None
    seconds_left: float | None = None


Watcher = Callable[[Progress], None]
"""Is told how far a run is, each time that a model is begun or done."""


@dataclass
class Tracker:
    """Counts the models that are begun and done, and reports the progress to ``watcher``."""

    total: int
    watcher: Watcher | None
    verdicts: Counter[str]
    _before: int = field(init=False)
    running: list[str] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._before = self.verdicts.total()

    def begin(self, path: str) -> None:
        """Note that a model is worked on."""
        self.running.append(path)
        self._tell(None)

    def finish(self, run: ModelRun) -> None:
        """Note that a model is done."""
        if run.path in self.running:
            self.running.remove(run.path)
        self.verdicts[run.status] += 1
        self._tell(run)

    def _tell(self, last: ModelRun | None) -> None:
        if self.watcher is None:
            return
        done = self.verdicts.total()
        made = done - self._before
        each = (time.monotonic() - self._since) / made if made else None
        left = None if each is None else each * (self.total - done)
        running = tuple(self.running)
        self.watcher(Progress(self.total, done, dict(self.verdicts), running, last, left))
