"""The program that loads the library of an `isolated.IsolatedBackend`.

    python -m deployconv.runtimes.isolated_worker MODULE

MODULE is the adapter: it has the functions ``version`` and ``open_model``.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from deployconv.runtimes.array_files import read_array, write_array
from deployconv.runtimes.base import Array
from deployconv.runtimes.isolated import Executor, OpenModel
from deployconv.runtimes.worker_events import Request
from deployconv.runtimes.worker_main import Action, Answers, NotAvailable, Send, serve

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass
class _Loaded:
    """A loaded model, the dtypes of its outputs by name, and the inputs of its next runs."""

    executor: Executor
    outputs: Mapping[str, str]
    feeds: Mapping[str, Array] = field(default_factory=dict)


class IsolatedAnswers(Answers):
    """Loads models with one library, and runs and times them."""

    def __init__(self, send: Send, module: str) -> None:
        super().__init__(send)
        self._module = module
        self._sessions: dict[int, _Loaded] = {}

    def actions(self) -> Mapping[str, Action]:
        """Every action by the name that requests give."""
        return {
            "describe": self._describe,
            "prepare": self._prepare,
            "bind": self._bind,
            "run": self._run,
            "time": self._time,
        }

    def _describe(self, request: Request) -> dict[str, Any]:
        adapter = importlib.import_module(self._module)
        try:
            return {"runtime": adapter.version()}
        except (ImportError, OSError) as error:
            raise NotAvailable(f"cannot be imported ({error})") from error

    def _prepare(self, request: Request) -> dict[str, Any]:
        """Load a model as the session that the request names."""
        for number in request["released"]:
            self._sessions.pop(number, None)
        open_model: OpenModel = importlib.import_module(self._module).open_model
        with self.stage("parse"):
            executor = open_model(
                Path(request["model"]),
                threads=request["threads"],
                optimise=request["optimise"],
                shapes={name: tuple(shape) for name, shape in request["shapes"].items()},
                dtypes=request["dtypes"],
                outputs=list(request["outputs"]),
                folder=Path(request["folder"]),
            )
        self._sessions[request["session"]] = _Loaded(executor, request["outputs"])
        return {"provider": executor.provider}

    def _bind(self, request: Request) -> dict[str, Any]:
        loaded = self._sessions[request["session"]]
        loaded.feeds = {one["name"]: read_array(one) for one in request["inputs"]}
        return {}

    def _run(self, request: Request) -> dict[str, Any]:
        loaded, folder = self._sessions[request["session"]], Path(request["folder"])
        with self.stage("run"):
            loaded.executor.set_inputs(loaded.feeds)
            loaded.executor.run()
            made = loaded.executor.outputs()
            found = [
                write_array(folder / f"output_{number}", name, _as_declared(array, dtype))
                for number, ((name, dtype), array) in enumerate(
                    zip(loaded.outputs.items(), made, strict=True)
                )
            ]
        return {"outputs": found}

    def _time(self, request: Request) -> dict[str, Any]:
        loaded = self._sessions[request["session"]]
        with self.stage("run"):
            loaded.executor.set_inputs(loaded.feeds)
            start = time.perf_counter()
            loaded.executor.run()
            milliseconds = 1e3 * (time.perf_counter() - start)
        return {"milliseconds": milliseconds}


def _as_declared(array: Array, dtype: str) -> Array:
    """``array`` in the float type that the model declares, as libraries compute in another."""
    declared = np.dtype(getattr(ml_dtypes, dtype, dtype))
    both = {array.dtype.name, declared.name}
    return array.astype(declared) if len(both) > 1 and both <= _FLOATS else array


if __name__ == "__main__":
    serve(lambda send: IsolatedAnswers(send, sys.argv[1]))
