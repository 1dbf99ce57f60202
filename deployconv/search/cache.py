"""What was measured, kept for the next time: one small file a site.

The key holds all that a timing depends on: the layer, its shape, the runtime and its version,
processor and threads. A file that is broken, or is being written by someone else, is as good
as none.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from deployconv._version import __version__
from deployconv.results import Candidate


@dataclass(frozen=True)
class Key:
    """Everything that decides how fast the forms of a site are.

    ``model`` is the hash of its file; without one nothing is remembered.
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
        """Name of the file; another version of deployconv has other candidates."""
        text = json.dumps([__version__, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class TimingCache:
    """Reads and writes timings below ``folder``; without one it remembers nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls) -> TimingCache:
        """The cache in the user's own cache folder."""
        from platformdirs import user_cache_path

        return cls(user_cache_path("deployconv") / "timings")

    def read(self, key: Key) -> tuple[Candidate, ...] | None:
        """What was measured under ``key``; None where nothing readable is there."""
        if self._folder is None or key.model is None:
            return None
        try:
            found = json.loads((self._folder / f"{key.digest}.json").read_text(encoding="utf-8"))
            return tuple(_candidate(entry) for entry in found["candidates"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, key: Key, candidates: tuple[Candidate, ...]) -> None:
        """Keep ``candidates``, whole or not at all; a full or read-only disk is no error."""
        if self._folder is None or key.model is None:
            return
        document = {"key": asdict(key), "candidates": [asdict(entry) for entry in candidates]}
        # A folder of one's own: whatever happens in between, nothing half-written is left.
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                whole = Path(folder, "timings.json")
                with whole.open("w", encoding="utf-8") as file:
                    json.dump(document, file)
                whole.replace(self._folder / f"{key.digest}.json")


def _candidate(entry: Mapping[str, object]) -> Candidate:
    """Raises TypeError, KeyError or ValueError for what no race can have found."""
    name, chosen = entry["name"], entry["chosen"]
    figures = [entry[field] for field in ("ms", "ratio", "low", "high")]
    numbers = [figure for figure in figures if isinstance(figure, float)]
    if not isinstance(name, str) or not isinstance(chosen, bool) or len(numbers) < len(figures):
        raise TypeError("not a candidate")
    ms, ratio, low, high = numbers
    if not (0 < ms < inf and 0 < low <= ratio <= high < inf):
        raise ValueError("not a timing")
    return Candidate(name, ms, ratio, low, high, chosen)
