"""Which of the runtimes for the CPU, besides onnxruntime, are installed here."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from deployconv.runtimes import RUNTIMES

NAMES = ("openvino", "tract", "mnn")


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where the library of the runtime ``name`` is not installed."""
    package = RUNTIMES[name].package
    reason = f"{package} is not installed: {RUNTIMES[name].install}"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


INSTALLED = [pytest.param(name, marks=needs(name)) for name in NAMES]
