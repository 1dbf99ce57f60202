from __future__ import annotations

import pytest

import deployconv
from deployconv import pipeline
from deployconv.model.view import View, view
from tests.backends.tiny import upsampler


def test_a_model_that_keeps_its_opset_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[View] = []

    def counting(*arguments: object) -> View:
        seen.append(view(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(pipeline, "view", counting)
    deployconv.rewrite(upsampler(), verify=False, bench=False)
    assert len(seen) == 1
