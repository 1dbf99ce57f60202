"""A stand-in for the pipeline: most tests of the commands need not run a model."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import deployconv
from tests.report import samples

SIGNATURES = {
    function.__name__: inspect.signature(function)
    for function in (
        *(deployconv.inspect, deployconv.rewrite, deployconv.verify),
        *(deployconv.bench, deployconv.build, deployconv.check, deployconv.run_all),
    )
}


@dataclass
class FakeApi:
    """Answers as `deployconv.api` would, and remembers what it was asked.

    A call that the real function would not take is an error here too.
    """

    answers: dict[str, Any] = field(
        default_factory=lambda: {
            "inspect": samples.INSPECTION,
            "rewrite": samples.REWRITING,
            "verify": (samples.PARITY,),
            "bench": (samples.LATENCY,),
            "build": samples.BUILD_REPORT,
            "check": samples.CHECK_REPORT,
            "run_all": replace(samples.CHECK_REPORT, command="rewrite"),
        }
    )
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the only call."""
        ((_, _, options),) = self.calls
        return options

    def inspect(self, *models: Any, **options: Any) -> Any:
        return self._answer("inspect", models, options)

    def rewrite(self, *models: Any, **options: Any) -> Any:
        return self._answer("rewrite", models, options)

    def verify(self, *models: Any, **options: Any) -> Any:
        return self._answer("verify", models, options)

    def bench(self, *models: Any, **options: Any) -> Any:
        return self._answer("bench", models, options)

    def build(self, *models: Any, **options: Any) -> Any:
        return self._answer("build", models, options)

    def run_all(self, *given: Any, on_progress: Any, **options: Any) -> Any:
        return self._answer("run_all", given, options)

    def check(self, paths: Any, *, on_result: Any, on_progress: Any = None, **options: Any) -> Any:
        report = self._answer("check", (paths,), options)
        for model in report.models:
            on_result(model)
        return report

    def _answer(self, name: str, models: tuple[Any, ...], options: dict[str, Any]) -> Any:
        SIGNATURES[name].bind(*models, **options)
        self.calls.append((name, models, options))
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(deployconv, "api", fake)
    return fake
