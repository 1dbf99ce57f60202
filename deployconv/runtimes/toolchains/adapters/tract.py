"""tract on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tract

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job


def version() -> str:
    """The library and its version."""
    return f"tract {tract.version()}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, runnable: Any) -> None:
        self._runnable = runnable
        self.notes: dict[str, Any] = {}

    def run(self, feeds: Feeds) -> list[Any]:
        return [one.to_numpy() for one in self._runnable.run(list(feeds.values()))]


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    model = tract.onnx().load(str(job.model))
    names = {"float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32", "int8": "i8"}
    for index, array in enumerate(job.feeds.values()):
        kind = names.get(str(array.dtype))
        if kind is not None:
            model.set_input_fact(index, ",".join([*map(str, array.shape), kind]))
    return Session(model.into_model().into_runnable())
