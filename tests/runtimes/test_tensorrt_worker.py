"""The program that loads TensorRT, without TensorRT."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from deployconv.runtimes.tensorrt.worker import TensorRtAnswers
from deployconv.runtimes.worker_events import Done, Event


class Cyclic:
    """What only the collector of garbage frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_garbage_is_collected_between_requests_only() -> None:
    sent: list[Event] = []
    answers = TensorRtAnswers(sent.append)
    assert not gc.isenabled()
    garbage = weakref.ref(Cyclic())
    assert garbage() is not None
    answers.actions = lambda: {"is it gone?": lambda _: {"gone": garbage() is None}}  # type: ignore[method-assign]
    answers.answer({"action": "is it gone?"})
    assert sent == [Done({"gone": True})]
