"""The parts of a program that runs as a worker process: `serve`, `Answers` and their errors.

A program defines a class of `Answers` with its actions, and ends with ``serve(ItsAnswers)``. It
is started by `worker_process.Worker`.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from deployconv.results import StageName, StageResult
from deployconv.runtimes.worker_events import Done, Event, Request, Stage, Unavailable, encode

Send = Callable[[Event], None]
Action = Callable[[Request], dict[str, Any]]


class NotAvailable(Exception):
    """A library or a device that a request needs is missing; the message says which."""


class Refused(Exception):
    """The library refused a model; ``node`` and ``operator`` if it names them."""

    def __init__(self, words: str, node: str | None = None, operator: str | None = None) -> None:
        super().__init__(words)
        self.node = node
        self.operator = operator


class StageFailed(Exception):
    """A stage failed and was reported; the rest of the request is not run."""


class Answers(ABC):
    """Answers the requests to one worker, one after another.

    A subclass says with `actions` what it can be asked. An action takes the request and returns
    the value of the answer. Each step of it that may fail stands in a ``with self.stage(name)``.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    @abstractmethod
    def actions(self) -> Mapping[str, Action]:
        """Every action by the name that requests give."""

    def answer(self, request: Request) -> None:
        """Answer ``request``, also if it fails."""
        try:
            self._send(Done(self.actions()[request["action"]](request)))
        except NotAvailable as error:
            self._send(Unavailable(_one_line(str(error))))
        except StageFailed:
            self._send(Done({}))

    def not_run(self, name: StageName, reason: str) -> None:
        """Report that a stage is not run."""
        self._send(Stage(StageResult(name, "not-run", reason=reason)))

    @contextmanager
    def stage(self, name: StageName) -> Iterator[None]:
        """Report how the body ended; raises StageFailed if it failed."""
        start = time.perf_counter()
        try:
            yield
        except NotAvailable:
            raise
        except Exception as error:
            seconds = time.perf_counter() - start
            refused = (
                error if isinstance(error, Refused) else Refused(f"{type(error).__name__}: {error}")
            )
            reason = _one_line(str(refused))
            result = StageResult(name, "failed", seconds, reason, refused.node, refused.operator)
            self._send(Stage(result))
            raise StageFailed from error
        self._send(Stage(StageResult(name, "ok", time.perf_counter() - start)))


def serve(make_answers: Callable[[Send], Answers]) -> None:
    """Answer the requests on standard input, one per line, until that closes.

    It closes when deployconv ends. Answers go to the original standard output. Standard output
    itself is redirected to standard error, so that nothing that a library prints can be read as an
    answer.
    """
    descriptor = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    answers = make_answers(lambda event: _write(descriptor, encode(event)))
    while True:
        answers.answer(json.loads(requests.get()))


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Queue each line of standard input; end the process as soon as that is closed."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _write(descriptor: int, line: bytes) -> None:
    """Write all of ``line``; a pipe may accept only part of it at a time."""
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def _one_line(text: str) -> str:
    return " ".join(text.split())
