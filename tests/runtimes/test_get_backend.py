from __future__ import annotations

import subprocess
import sys

import pytest

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes import BACKEND_NAMES, get_backend


@pytest.mark.parametrize("name", [name for name in BACKEND_NAMES if name.startswith("ort")])
def test_a_known_backend_carries_its_name_and_its_runtime(name: str) -> None:
    backend = get_backend(name)
    assert backend.name == name
    assert backend.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("name", ["", "ORT", "ort:rocm", "openvino"])
def test_an_unknown_backend_is_a_usage_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="choose one of ort, ort:cuda") as caught:
        get_backend(name)
    assert repr(name) in str(caught.value)


def test_a_missing_runtime_is_unavailable_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "deployconv.runtimes.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailable, match="pip install"):
        get_backend("ort")


def test_importing_the_package_imports_no_runtime() -> None:
    code = (
        "import sys, deployconv.runtimes;"
        "print(*{'onnxruntime', 'onnx', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
