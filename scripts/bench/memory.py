"""Peak memory of a model: the largest resident set while it is loaded and run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.process import in_own_process
from bench.subjects import Shapes, random_feeds


@dataclass(frozen=True)
class Memory:
    """Largest resident sets in bytes, less what the process takes with everything imported."""

    before: int
    after: int

    @classmethod
    def of(cls, original: Path, rewritten: Path, shapes: Shapes, threads: int) -> Memory:
        """Measure both, each in a process of its own."""
        return cls(*in_own_process(_peaks, original, rewritten, shapes, threads))

    @property
    def ratio(self) -> float:
        return self.after / max(self.before, 1)


def _peaks(original: Path, rewritten: Path, shapes: Shapes, threads: int) -> list[int]:
    """The peaks of both, on the same inputs. Raises OSError if the system cannot measure them."""
    from deployconv.runtimes.peak_memory import peak_memory

    feeds = random_feeds(original, shapes, threads)
    found = []
    for path in (original, rewritten):
        peak = peak_memory(path, feeds, threads)
        if peak is None:
            raise OSError(f"{path.name}: its peak memory cannot be measured here")
        found.append(peak)
    return found
