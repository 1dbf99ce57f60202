"""The interface of a runtime: prepare a model, run it, time it, and say what really ran it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deployconv.results import LayerTime
from deployconv.temporary import temporary_folder

Array = NDArray[Any]
Feeds = Mapping[str, Array]

ModelSource = Path | bytes
"""A model file (its external data beside it) or a serialized ModelProto."""


def label_of(model: ModelSource) -> str:
    """What messages call ``model``: its file name, if it has one."""
    return model.name if isinstance(model, Path) else "model in memory"


@contextmanager
def model_file(model: ModelSource) -> Iterator[Path]:
    """Provide ``model`` as a file that exists while the body runs."""
    if isinstance(model, Path):
        yield model
        return
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        path.write_bytes(model)
        yield path


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and declared shape of an input or output.

    A dynamic size is the name of its dimension, or None if it has no name.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]

    @property
    def is_static(self) -> bool:
        """Whether every size is a number."""
        return all(isinstance(dim, int) for dim in self.shape)


class Session(Protocol):
    """A model that is ready to run."""

    provider: str
    """What executes it, as the runtime reports it, not as it was asked for."""
    threads: int
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return every output by name. Raises BackendUnavailable if it cannot."""
        ...

    def timed_run(self, feeds: Feeds) -> float | None:
        """Run once for timing: as little as possible besides the model itself.

        Returns milliseconds if the runtime measures them itself, as a GPU does with events, and
        None if the caller has to read a clock.
        """
        ...


@runtime_checkable
class GpuSession(Session, Protocol):
    """A session that can also tell the time of each layer, and run as a captured CUDA graph."""

    cuda_graph: bool
    """Whether `timed_run` captures one run in a CUDA graph and launches that."""

    def profile(self, feeds: Feeds, runs: int) -> tuple[LayerTime, ...]:
        """Return the time of each layer in milliseconds, a mean over ``runs``."""
        ...


@runtime_checkable
class InterruptibleSession(Session, Protocol):
    """A session whose run can be stopped."""

    def run_within(self, feeds: Feeds, seconds: float) -> dict[str, Array]:
        """Like `run`, but stop with BackendUnavailable after ``seconds``, between two operators."""
        ...


class Backend(Protocol):
    """One runtime; `prepare` turns a model into a session."""

    name: str
    runtime: str
    """Library and version, e.g. ``onnxruntime 1.32.0``."""

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> Session:
        """Load ``model``; without ``optimise`` its graph is run unchanged, if that is possible.

        Raises ModelError for a broken model, BackendUnavailable if the runtime cannot run it.
        """
        ...
