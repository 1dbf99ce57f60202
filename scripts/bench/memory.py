"""Peak memory of a model: the high water of the resident set while it is loaded and run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.apart import apart
from bench.subjects import Shapes


@dataclass(frozen=True)
class Memory:
    """Peak of the resident set in bytes, above that with everything imported."""

    before: int
    after: int

    @classmethod
    def of(cls, original: Path, rewritten: Path, shapes: Shapes, threads: int) -> Memory:
        """Measure both, each in a process of its own."""
        paths = (original, rewritten)
        return cls(*(apart(peak_memory, path, shapes, threads) for path in paths))

    @property
    def ratio(self) -> float:
        return self.after / max(self.before, 1)


def peak_memory(path: Path, shapes: Shapes, threads: int) -> int:
    """Bytes that loading the model and running it three times takes; for a new process."""
    from deployconv.backends import get_backend
    from deployconv.backends.memory import high_water
    from deployconv.options import FeedOptions
    from deployconv.proof.inputs import make_feeds

    backend = get_backend("ort")
    before = high_water()
    session = backend.prepare(path, threads=threads)
    feeds = make_feeds(session.inputs, FeedOptions(shapes)).arrays
    for _ in range(3):
        session.timed_run(feeds)
    return high_water() - before
