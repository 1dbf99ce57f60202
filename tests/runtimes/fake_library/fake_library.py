"""A stand-in for the library and the adapter of a runtime in a worker process.

It computes with onnxruntime. The variable ``FAKE_LIBRARY`` says how it misbehaves: an action and
the moment, such as ``exit run``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployconv.runtimes.base import Array, Feeds
from deployconv.runtimes.isolated import IsolatedBackend
from deployconv.runtimes.worker_process import Limits


def load(name: str) -> IsolatedBackend:
    action = os.environ.get("FAKE_LIBRARY", "").partition(" ")[0]
    limits = Limits(seconds=1.0 if action == "hang" else 20.0, output=1 << 20)
    return IsolatedBackend(name, most_threads=2, limits=limits)


def version() -> str:
    misbehave("describe")
    return "fake 1.0"


def misbehave(moment: str) -> None:
    action, _, wanted = os.environ.get("FAKE_LIBRARY", "").partition(" ")
    if moment != wanted:
        return
    if action == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if action == "exit":
        sys.stderr.write("no licence\n")
        sys.stderr.flush()
        os._exit(7)
    if action == "hang":
        time.sleep(60)
    if action == "flood":
        while True:
            os.write(1, b"noise " * 1000)
    if action == "refuse":
        raise ValueError("unknown operator\nMystery")
    if action == "lack":
        raise ImportError("libfake.so: cannot open shared object file")


class Executor:
    provider = "fake CPU"

    def __init__(self, model: Path, dtypes: Mapping[str, str]) -> None:
        from deployconv.runtimes import get_backend

        self._session = get_backend("ort").prepare(model, threads=1)
        self._feeds: dict[str, Array] = {}
        self._found: list[Array] = []
        assert {spec.name: spec.dtype.name for spec in self._session.inputs} == dtypes

    def set_inputs(self, feeds: Feeds) -> None:
        self._feeds = dict(feeds)

    def run(self) -> None:
        misbehave("run")
        self._found = list(self._session.run(self._feeds).values())

    def outputs(self) -> list[Array]:
        return self._found


def open_model(
    model: Path,
    *,
    threads: int,
    optimise: bool,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    outputs: Sequence[str],
    folder: Path,
) -> Any:
    misbehave("open")
    (folder / "converted").write_bytes(b"rubbish")
    return Executor(model, dict(dtypes))
