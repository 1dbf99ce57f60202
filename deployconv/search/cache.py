"""Store timings between calls: one small file per site.

The key holds all that a timing depends on: the layer, its shape, the runtime and its version, the
processor and the threads. A file that is broken, or that another process is writing, counts as
missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from deployconv._version import __version__
from deployconv.results import Candidate
from deployconv.temporary import whole_file


@dataclass(frozen=True)
class Key:
    """Everything that the timings of a site depend on.

    Attributes:
        model: hash of the file of the model; without one nothing is kept.
        site: id of the site.
        options: the options of the rewrite.
        shapes: of the inputs of the model, in their order.
        opset: of the model.
        backend: name of the backend.
        runtime: name and version of its runtime.
        machine: processor and number of CPUs.
        threads: that the backend runs with.
    """

    model: str | None
    site: str
    options: str
    shapes: tuple[tuple[int, ...], ...]
    opset: int
    backend: str
    runtime: str
    machine: str
    threads: int

    @property
    def digest(self) -> str:
        """The name of the file; it depends on the version of deployconv, as candidates do."""
        text = json.dumps([__version__, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class TimingCache:
    """Reads and writes timings in a folder."""

    def __init__(self, folder: Path | None) -> None:
        """Use ``folder``, which is created by the first write; None stores nothing."""
        self._folder = folder

    @classmethod
    def of_user(cls) -> TimingCache:
        """The cache in the cache folder of the user; one that stores nothing if there is none."""
        from platformdirs import user_cache_path

        try:
            return cls(user_cache_path("deployconv") / "timings")
        except RuntimeError:  # neither HOME nor the user database names a home
            return cls(None)

    def read(self, key: Key) -> tuple[Candidate, ...] | None:
        """What was measured under ``key``; None if there is no readable file."""
        if self._folder is None or key.model is None:
            return None
        try:
            found = json.loads((self._folder / f"{key.digest}.json").read_text(encoding="utf-8"))
            return tuple(_candidate(entry) for entry in found["candidates"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, key: Key, candidates: tuple[Candidate, ...]) -> None:
        """Write all of ``candidates`` or nothing; a full or read-only disk is no error."""
        if self._folder is None or key.model is None:
            return
        document = {"key": asdict(key), "candidates": [asdict(entry) for entry in candidates]}
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._folder / f"{key.digest}.json") as file:
                file.write(json.dumps(document).encode())


def _candidate(entry: Mapping[str, Any]) -> Candidate:
    """Read one entry. Raises TypeError or ValueError for an impossible one."""
    found = Candidate(**entry)
    figures = (found.ms, found.ratio, found.low, found.high)
    kinds = (isinstance(found.name, str), isinstance(found.chosen, bool))
    if not all((*kinds, *(isinstance(figure, float) for figure in figures))):
        raise TypeError("not a candidate")
    if not (0 < found.ms < inf and 0 < found.low <= found.ratio <= found.high < inf):
        raise ValueError("not a timing")
    return found
