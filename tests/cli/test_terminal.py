"""Progress is shown on a terminal only, never in a log."""

from __future__ import annotations

import io
import sys

import pytest

from deployconv.cli.terminal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("rewriting net.onnx") as advance:
        advance(0.5)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_from_the_first_figure_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with progress("rewriting [bold]\nnet.onnx") as advance:
        advance(0.25)
        advance(1.0)
    shown = screen.getvalue()
    assert "rewriting [bold] net.onnx" in shown
    assert "0:00:00" in shown  # no time is left
