"""The program that loads a toolchain: ``python -I program.py ADAPTER.py``.

The Python of the toolchain's environment runs it, so that it imports the standard library and
NumPy only. It answers requests in the lines of JSON that `worker_process.Worker` reads.

An adapter is one file with the functions

- ``version()``: the library and its version,
- ``prepare(job)``: convert or compile a model. It returns an object with ``run(feeds)``, which
  takes arrays by input name and returns the outputs in the order of the model, and ``notes``, a
  dictionary such as the compiler's estimate of cycles. ``run`` is None if nothing here can execute
  the result. A refusal is any exception; its text are the words of the toolchain.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_QUOTED = 400
_KEPT_OUTPUT = 1 << 18
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FOLDER = re.compile(r"(/[\w.+-]+)+/")

Feeds = Mapping[str, Any]


class Output:
    """What a toolchain wrote while `Job.output` was open."""

    text = ""


@dataclass(frozen=True)
class Job:
    """One model for a toolchain.

    Attributes:
        model: the file, a copy that may be overwritten.
        folder: where the toolchain may write.
        feeds: example inputs by name, in the order of the model; their shapes are the sizes to
            compile for.
        outputs: the names of the outputs, in the order of the model.
        platform: the device to compile for, if the toolchain knows several.
        threads: how many threads it may use.
    """

    model: Path
    folder: Path
    feeds: Feeds
    outputs: tuple[str, ...]
    platform: str
    threads: int

    @contextlib.contextmanager
    def output(self) -> Iterator[Output]:
        """Collect what is written to standard output and standard error, also by native code."""
        collected = Output()
        with tempfile.TemporaryFile(dir=self.folder) as file:
            saved = os.dup(1), os.dup(2)
            try:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                yield collected
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                _flush_native()
                for number, descriptor in enumerate(saved, 1):
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                file.seek(max(0, file.seek(0, os.SEEK_END) - _KEPT_OUTPUT))
                collected.text = _ESCAPE.sub("", file.read().decode(errors="replace"))


class Program:
    """Answers requests with one adapter."""

    def __init__(self, adapter: Path) -> None:
        spec = importlib.util.spec_from_file_location("adapter", adapter)
        assert spec is not None
        assert spec.loader is not None
        self._adapter = importlib.util.module_from_spec(spec)
        self._load: Callable[[Any], None] = spec.loader.exec_module
        self._loaded = False
        self._session: Any = None
        self._feeds: Feeds = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The event that answers ``request``, also if it fails."""
        try:
            if not self._loaded:
                self._load(self._adapter)
                self._loaded = True
        except ImportError as error:
            return {"Unavailable": {"reason": words(error)}}
        actions = {"describe": self._describe, "prepare": self._prepare, "run": self._run}
        actions["time"] = self._time
        try:
            return {"Done": {"value": actions[request["action"]](request)}}
        except (Exception, SystemExit) as error:
            return {"Done": {"value": {"refused": words(error)}}}

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        del request
        return {"version": self._adapter.version(), "python": sys.version.split()[0]}

    def _prepare(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._session = None
        with np.load(request["feeds"]) as arrays:
            self._feeds = {name: _with_type(arrays[name]) for name in request["inputs"]}
        self._session = self._adapter.prepare(
            Job(
                Path(request["model"]),
                Path(request["folder"]),
                self._feeds,
                tuple(request["outputs"]),
                request["platform"],
                request["threads"],
            )
        )
        return {"notes": self._session.notes, "executes": self._session.run is not None}

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        arrays = [_plain(np.asarray(array)) for array in self._session.run(self._feeds)]
        np.savez(request["results"], *arrays)
        return {"count": len(arrays), "notes": self._session.notes}

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Milliseconds of each of some runs."""
        times = []
        for _ in range(request["runs"]):
            start = time.perf_counter()
            self._session.run(self._feeds)
            times.append(1000 * (time.perf_counter() - start))
        return {"milliseconds": times}


def _flush_native() -> None:
    """Write out what C's own streams hold back."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def _with_type(array: Any) -> Any:
    """An array as it was before it was saved: NumPy's files have no bfloat16."""
    if array.dtype.kind != "V":
        return array
    from ml_dtypes import bfloat16

    return array.view(bfloat16)


def _plain(array: Any) -> Any:
    """An array of a type that NumPy's files have."""
    return array if array.dtype.kind in "biufc" else array.astype(np.float32)


def words(error: BaseException) -> str:
    """The text of ``error`` in one line, without the folders of this machine."""
    text = str(error).strip() or type(error).__name__
    if text.startswith("Traceback (most recent call last)"):
        text = text.splitlines()[-1]
    elif not isinstance(error, RuntimeError):
        text = text if text == type(error).__name__ else f"{type(error).__name__}: {text}"
    if error.__cause__ is not None:
        text = f"{text}: {error.__cause__}"
    line = " ".join(_ESCAPE.sub("", text).split("Stack backtrace")[0].split())
    return _FOLDER.sub("", line)[:_QUOTED]


def main() -> None:
    """Answer the requests on standard input, one per line, until that closes."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    program = Program(Path(sys.argv[1]))
    while True:
        line = json.dumps(program.answer(json.loads(requests.get()))).encode() + b"\n"
        view = memoryview(line)
        while view:
            view = view[os.write(descriptor, view) :]


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Queue each line of standard input; end the process as soon as that is closed."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
