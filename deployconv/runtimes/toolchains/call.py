"""Convert, run and time a model with a toolchain, in its own process with limits."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes.base import Array, Feeds
from deployconv.runtimes.toolchains.catalogue import Toolchain
from deployconv.runtimes.worker_process import (
    DEFAULT_LIMITS,
    Limits,
    RequirementMissing,
    RestartingWorker,
    Worker,
    WorkerFailed,
)
from deployconv.temporary import temporary_folder

_PROGRAM = Path(__file__).parent / "program.py"


class Refusal(Exception):
    """A toolchain refused a model; the text are its own words.

    Attributes:
        stage: ``convert`` or ``run``.
        crashed: whether its process crashed, was stopped at a limit, or ended.
    """

    def __init__(self, words: str, stage: str, crashed: bool = False) -> None:
        super().__init__(words)
        self.stage = stage
        self.crashed = crashed


@dataclass(frozen=True)
class Converted:
    """A model that a toolchain converted or compiled.

    Attributes:
        executes: whether it can run here, on the CPU or in a simulator.
        notes: what the toolchain said of it, such as an estimate of cycles.
    """

    executes: bool
    notes: Mapping[str, Any] = field(default_factory=dict)


class ToolchainProcess:
    """A running toolchain; it is started when it is first asked and ends with the ``with`` block.

    One that crashed is started again for the next model.

    Args:
        toolchain: which one.
        python: the Python of its environment.
        limits: what it may use for one model.
        platform: the device to compile for.
        threads: how many threads it may use.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        python: Path,
        limits: Limits,
        platform: str = "",
        threads: int = 1,
    ) -> None:
        # Isolated: neither this process's packages nor the folder of the program are imported.
        command = (str(python), "-I", str(_PROGRAM), str(toolchain.program))
        environment = _environment(python, threads)
        # Several write into the working folder, which may be the user's, and read-only.
        self._worker = RestartingWorker(
            lambda: Worker(toolchain.name, command, limits, environment, self._place)
        )
        self._platform = platform
        self._threads = threads
        self._resources = ExitStack()
        self._place = Path()
        self._number = 0
        self._outputs = 0

    def __enter__(self) -> ToolchainProcess:
        self._place = self._resources.enter_context(temporary_folder())
        self._resources.enter_context(self._worker)
        return self

    def __exit__(self, *error: Any) -> None:
        self._resources.__exit__(*error)

    def version(self) -> str:
        """The library and its version. Raises Refusal if it cannot be loaded."""
        return str(self._ask({"action": "describe"}, "convert")["version"])

    def convert(self, model: bytes | Path, feeds: Feeds, outputs: Sequence[str]) -> Converted:
        """Convert or compile ``model`` for the sizes of ``feeds``.

        The toolchain gets a copy of a file, and the file is checked by its hash afterwards.

        Raises:
            Refusal: it refuses the model, crashes, or exceeds a limit.
            UsageError: the folder for temporary files has no room for the model.
        """
        shutil.rmtree(self._place / str(self._number), ignore_errors=True)
        self._number += 1
        self._outputs = len(outputs)
        folder = self._place / str(self._number)
        copy = folder / "model.onnx"
        before = _digest(model)
        try:
            folder.mkdir()
            _copy(model, copy)
            np.savez(folder / "feeds.npz", allow_pickle=False, **feeds)
        except OSError as error:
            raise UsageError(
                f"a copy of the model cannot be written to {self._place.parent} ({error.strerror}):"
                " set TMPDIR to another folder"
            ) from error
        request = {
            "action": "prepare",
            "model": str(copy),
            "folder": str(folder),
            "feeds": str(folder / "feeds.npz"),
            "inputs": list(feeds),
            "outputs": list(outputs),
            "platform": self._platform,
            "threads": self._threads,
        }
        try:
            answer = self._ask(request, "convert")
        finally:
            if _digest(model) != before:
                raise Refusal("the toolchain changed the input file", "convert", crashed=True)
        return Converted(answer["executes"], answer["notes"])

    def run(self) -> tuple[list[Array], Mapping[str, Any]]:
        """The outputs of the model that was converted last, for its feeds, and what was noted.

        Raises Refusal if it fails, crashes, or exceeds a limit.
        """
        results = self._place / str(self._number) / "results.npz"
        answer = self._ask({"action": "run", "results": str(results)}, "run")
        if answer["count"] < self._outputs:
            raise Refusal(f"has {answer['count']} outputs of {self._outputs}", "run")
        with np.load(results) as arrays:
            return [arrays[f"arr_{index}"] for index in range(answer["count"])], answer["notes"]

    def milliseconds(self, runs: int) -> list[float]:
        """The time of each of ``runs`` runs of the model that was converted last."""
        return list(self._ask({"action": "time", "runs": runs}, "run")["milliseconds"])

    def _ask(self, request: dict[str, Any], stage: str) -> dict[str, Any]:
        try:
            answer = self._worker.ask(request)
        except RequirementMissing as error:
            raise Refusal(str(error), stage) from error
        except WorkerFailed as error:
            raise Refusal(str(error), stage, crashed=True) from error
        if "refused" in answer:
            raise Refusal(answer["refused"], stage)
        return answer


def require_loadable(toolchain: Toolchain, python: Path) -> str:
    """The library of a toolchain and its version. Raises BackendUnavailable if it cannot load."""
    try:
        with ToolchainProcess(toolchain, python, DEFAULT_LIMITS) as process:
            return process.version()
    except Refusal as refusal:
        raise BackendUnavailable(
            f"{toolchain.name} is installed and cannot be loaded: {refusal}: deployconv target"
            f" remove {toolchain.name} removes it, so that it can be installed again"
        ) from refusal


def _environment(python: Path, threads: int) -> dict[str, str]:
    """The environment variables of a toolchain's process.

    It finds the programs that were installed with ``python`` first, and no packages of others.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    programs = os.pathsep.join((str(python.parent), kept.get("PATH", os.defpath)))
    return {**kept, "PATH": programs, "OMP_NUM_THREADS": str(threads)}


def _digest(model: bytes | Path) -> str:
    data = model if isinstance(model, bytes) else model.read_bytes()
    return hashlib.sha256(data).hexdigest()


def _copy(model: bytes | Path, target: Path) -> None:
    """Write ``model`` to ``target``, with its external data in it, or beside it above 2 GiB."""
    if isinstance(model, bytes):
        target.write_bytes(model)
        return
    import onnx

    whole = onnx.load(model)
    try:
        onnx.save_model(whole, target)
    except ValueError:  # a file of Protocol Buffers holds no more
        onnx.save_model(whole, target, save_as_external_data=True, location=f"{target.name}.data")
