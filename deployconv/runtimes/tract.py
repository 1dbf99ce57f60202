"""Run models with tract on the CPU, in a worker process. tract runs on one thread.

A model may say in its ``value_info`` that a size is a symbol. tract cannot unify the symbol with
the size of an input, so it is given a copy without these declarations, which it does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deployconv.runtimes.base import Array, Feeds
from deployconv.runtimes.isolated import IsolatedBackend
from deployconv.runtimes.worker_main import Refused

_DTYPES = {
    **{f"float{bits}": f"f{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    "bool": "bool",
}
"""What tract calls the types of NumPy that it takes."""


@cache
def load(name: str) -> IsolatedBackend:
    """Return the backend ``tract``, one worker for all models; the registry calls this."""
    return IsolatedBackend(name, most_threads=1)


def version() -> str:
    """Library and version; imports the library."""
    import tract

    return f"tract {tract.version()}"


class _Executor:
    """A model that tract has optimised for given shapes."""

    def __init__(self, runnable: Any, inputs: Sequence[str], provider: str) -> None:
        self.provider = provider
        self._state = runnable.spawn_state()
        self._inputs = inputs
        self._values: list[Any] = []
        self._results: list[Any] = []

    def set_inputs(self, feeds: Feeds) -> None:
        import tract

        arrays = (np.asarray(feeds[name], order="C") for name in self._inputs)
        self._values = [tract.Tensor.from_numpy(array) for array in arrays]

    def run(self) -> None:
        self._results = self._state.run(self._values)

    def outputs(self) -> list[Array]:
        return [np.asarray(result.to_numpy()) for result in self._results]


def open_model(
    model: Path,
    *,
    threads: int,
    optimise: bool,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    outputs: Sequence[str],
    folder: Path,
) -> _Executor:
    """Load ``model``, see `isolated.OpenModel`."""
    import tract

    try:
        return _loaded(tract, _without_symbols(model, folder), shapes, dtypes)
    except tract.TractError as error:
        raise Refused(str(error).partition("Stack backtrace")[0]) from error


def _loaded(
    tract: Any, model: Path, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
) -> _Executor:
    loaded = tract.onnx().load(str(model))
    names = [loaded.input_name(number) for number in range(loaded.input_count())]
    for number, name in enumerate(names):
        sizes = ",".join(map(str, (*shapes[name], _DTYPES.get(dtypes[name], dtypes[name]))))
        loaded.set_input_fact(number, sizes)
    for number in range(loaded.output_count()):
        loaded.set_output_fact(number, None)
    return _Executor(loaded.into_model().into_runnable(), names, "CPU")


def _without_symbols(model: Path, folder: Path) -> Path:
    """``model``, or a copy in ``folder`` without the shapes of tensors that have symbols."""
    proto = onnx.load(str(model), load_external_data=False)
    known = [value for value in proto.graph.value_info if not _has_symbols(value)]
    if len(known) == len(proto.graph.value_info):
        return model
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(known)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                beside = folder / entry.value
                beside.parent.mkdir(parents=True, exist_ok=True)
                if not beside.exists():
                    beside.symlink_to(model.parent / entry.value)
    copy = folder / "without_symbols.onnx"
    copy.write_bytes(proto.SerializeToString())
    return copy


def _has_symbols(value: onnx.ValueInfoProto) -> bool:
    return any(not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
