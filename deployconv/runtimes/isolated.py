"""Run models with a library that is loaded in a worker process only.

A library that may crash, hang or exit is a module with three things: a function ``load(name)`` that
returns an `IsolatedBackend`, a function ``version()``, and a function ``open_model`` with the
signature of `OpenModel`. The last two run in the worker (`isolated_worker`), which imports the
module. Only they import the library.
"""

from __future__ import annotations

import importlib.util
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.results import StageResult
from deployconv.runtimes.array_files import read_array, write_array
from deployconv.runtimes.base import (
    Array,
    Feeds,
    ModelSource,
    TensorSpec,
    label_of,
    model_file,
)
from deployconv.runtimes.machine import chosen_threads
from deployconv.runtimes.registry import Runtime, get_runtime
from deployconv.runtimes.shapes import input_specs, output_specs, read_structure
from deployconv.runtimes.worker_events import Request
from deployconv.runtimes.worker_process import (
    DEFAULT_LIMITS,
    Limits,
    RequirementMissing,
    RestartingWorker,
    Worker,
    WorkerFailed,
    python_module,
)
from deployconv.temporary import temporary_folder


class Executor(Protocol):
    """A model that a library has loaded, for inputs of given shapes; it lives in the worker.

    The methods raise `worker_main.Refused`, or whatever the library raises.
    """

    provider: str
    """What executes the model, as the library reports it."""

    def set_inputs(self, feeds: Feeds) -> None:
        """Give the library the inputs of the next run; called before each run."""
        ...

    def run(self) -> None:
        """Run once. Only this is timed."""
        ...

    def outputs(self) -> Sequence[Array]:
        """The outputs of the last run, in the order of the model."""
        ...


class OpenModel(Protocol):
    """The signature of the function ``open_model`` of an adapter."""

    def __call__(
        self,
        model: Path,
        *,
        threads: int,
        optimise: bool,
        shapes: Mapping[str, tuple[int, ...]],
        dtypes: Mapping[str, str],
        outputs: Sequence[str],
        folder: Path,
    ) -> Executor:
        """Load ``model`` for inputs of these ``shapes``.

        Args:
            model: an ONNX file, which is not to be changed.
            threads: of the CPU.
            optimise: whether it may compute float32 less exactly to be faster.
            shapes: of every input, by name.
            dtypes: the same for the names of their types, e.g. ``float32``.
            outputs: the names of the outputs, in the order of the model.
            folder: for files that are needed while the model is loaded, such as a converted one.
        """
        ...


class IsolatedBackend:
    """A library in a worker process; it starts when the backend is made.

    Args:
        name: of the runtime.
        most_threads: how many threads the library can use; None for any number.
        limits: what the worker may use for one request.

    Attributes:
        runtime: library and version.
        worker: the process, which ends with the backend.
        session_numbers: a number for each session, by which requests name it.
        released: numbers of sessions that the worker may forget.

    Raises BackendUnavailable if the library is not installed or cannot be loaded.
    """

    def __init__(
        self, name: str, *, most_threads: int | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.name = name
        self.most_threads = most_threads
        self._row: Runtime = get_runtime(name)
        self.session_numbers = count()
        self.released: list[int] = []
        if importlib.util.find_spec(self._row.package) is None:
            raise BackendUnavailable(
                f"backend {name!r} needs {self._row.package}, which is not installed: "
                f"{self._row.install}"
            )
        command = python_module("deployconv.runtimes.isolated_worker", self._row.module)
        self.worker = RestartingWorker(partial(Worker, name, command, limits))
        weakref.finalize(self, self.worker.close)
        self.runtime = str(self.ask({"action": "describe"})["runtime"])

    def prepare(
        self, model: ModelSource, *, threads: int | None = None, optimise: bool = True
    ) -> IsolatedSession:
        """Load ``model``; with dynamic inputs, for the shapes of its first run.

        ``optimise`` makes a difference only if the runtime's row says `optimises_inexactly`.

        Raises:
            BackendUnavailable: the library refuses the model, crashes or exceeds a limit.
            UsageError: ``threads`` is not positive, or more than the library can use.
        """
        wanted, most = chosen_threads(threads), self.most_threads
        if most is not None and wanted > most:
            if threads is not None:
                raise UsageError(
                    f"--threads {threads}: backend {self.name!r} uses {most} at most: leave it out"
                )
            wanted = most
        return IsolatedSession(self, model, wanted, optimise)

    def ask(self, request: Request, label: str = "") -> dict[str, Any]:
        """Send ``request`` to the worker and return the value of its answer.

        Raises BackendUnavailable if a stage fails or no answer comes.
        """
        start = f"backend {self.name!r}: {label}: " if label else f"backend {self.name!r}: "
        stages: list[StageResult] = []
        try:
            value = self.worker.ask(request, stages.append)
        except RequirementMissing as missing:
            raise BackendUnavailable(f"{start}{missing}: {self._row.install}") from missing
        except WorkerFailed as failure:
            raise BackendUnavailable(f"{start}{failure}: try another --backend") from failure
        for stage in stages:
            if stage.status == "failed":
                words = self.worker.last_words()
                said = f" (it last said: {words})" if words else ""
                raise BackendUnavailable(
                    f"{start}{stage.name} failed: {stage.reason}{said}: try another --backend"
                )
        return value

    def take_released(self) -> list[int]:
        """The sessions that the worker may forget, each of them once."""
        taken = list(self.released)
        self.released.clear()
        return taken


class IsolatedSession:
    """A model in the worker of its backend; it is loaded again for inputs of other shapes."""

    def __init__(
        self,
        backend: IsolatedBackend,
        model: ModelSource,
        threads: int,
        optimise: bool,
    ) -> None:
        proto = read_structure(model)
        self.inputs: Sequence[TensorSpec] = input_specs(proto)
        self.outputs: Sequence[TensorSpec] = output_specs(proto)
        self.threads = threads
        self.provider = backend.runtime
        self._backend = backend
        self._model = model
        self._label = label_of(model)
        self._optimise = optimise
        self._number: int | None = None
        self._failures = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._bound: Feeds | None = None
        self._release: weakref.finalize[..., IsolatedSession] | None = None
        if all(spec.is_static for spec in self.inputs):
            self._load({spec.name: _sizes(spec) for spec in self.inputs})

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once and return every output by name. Raises BackendUnavailable if it cannot."""
        self._bind(feeds)
        with temporary_folder() as folder:
            outputs = self._ask("run", folder=str(folder))["outputs"]
            return {one["name"]: read_array(one) for one in outputs}

    def timed_run(self, feeds: Feeds) -> float:
        """Milliseconds of one run in the worker, without copying inputs and outputs."""
        self._bind(feeds)
        return float(self._ask("time")["milliseconds"])

    def _ask(self, action: str, **content: Any) -> dict[str, Any]:
        request = {"action": action, "session": self._number, **content}
        return self._backend.ask(request, self._label)

    def _load(self, shapes: dict[str, tuple[int, ...]]) -> None:
        number = next(self._backend.session_numbers)
        with temporary_folder() as folder, model_file(self._model) as path:
            value = self._ask(
                "prepare",
                session=number,
                model=str(path.resolve()),
                threads=self.threads,
                optimise=self._optimise,
                shapes=shapes,
                dtypes={spec.name: spec.dtype.name for spec in self.inputs},
                outputs={spec.name: spec.dtype.name for spec in self.outputs},
                folder=str(folder),
                released=self._backend.take_released(),
            )
        if self._release is not None:
            self._release()
        self._number, self.provider = number, value["provider"]
        self._shapes, self._failures, self._bound = shapes, self._backend.worker.failures, None
        self._release = weakref.finalize(self, self._backend.released.append, number)

    def _bind(self, feeds: Feeds) -> None:
        """Send ``feeds`` to the worker, and before that the model, if it does not have them."""
        known = self._number is not None and self._failures == self._backend.worker.failures
        if known and self._bound is feeds:
            return
        shapes = {spec.name: _shape(feeds, spec.name) for spec in self.inputs}
        if not known or shapes != self._shapes:
            self._load(shapes)
        with temporary_folder() as folder:
            inputs = [
                write_array(folder / f"input_{number}", spec.name, feeds[spec.name])
                for number, spec in enumerate(self.inputs)
            ]
            self._ask("bind", inputs=inputs)
        self._bound = feeds


def _shape(feeds: Feeds, name: str) -> tuple[int, ...]:
    """The shape of the input ``name``. Raises UsageError if ``feeds`` lack it."""
    if name not in feeds:
        raise UsageError(f"the inputs do not fit the model: {name!r} is missing")
    return tuple(feeds[name].shape)


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape if isinstance(size, int))
