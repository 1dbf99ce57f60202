from __future__ import annotations

import subprocess
import sys

import pytest

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.options import DEFAULT_RUNTIME
from deployconv.runtimes import RUNTIMES, Runtime, get_backend, names_with


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name.startswith("ort")])
def test_a_known_backend_carries_its_name_and_its_runtime(name: str) -> None:
    backend = get_backend(name)
    assert backend.name == name
    assert backend.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("name", ["", "ORT", "ort:rocm", "OpenVINO"])
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


def test_each_runtime_is_listed_by_its_own_name() -> None:
    assert list(RUNTIMES) == [runtime.name for runtime in RUNTIMES.values()]
    assert DEFAULT_RUNTIME in RUNTIMES


def test_the_default_runtime_can_stand_in_for_one_that_must_not_run_the_reference() -> None:
    assert RUNTIMES[DEFAULT_RUNTIME].runs_reference


def test_the_libraries_that_compile_engines() -> None:
    compiling = {name: runtime.package for name, runtime in RUNTIMES.items() if runtime.compiles}
    assert compiling == {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


def test_names_with_a_capability() -> None:
    assert names_with("profiles_layers") == ("tensorrt", "tensorrt-rtx")


def test_a_module_that_cannot_be_imported_makes_its_runtime_unavailable() -> None:
    absent = Runtime("absent", "deployconv.runtimes.absent", "nothing", "pip install nothing", "")
    with pytest.raises(BackendUnavailable, match=r"'absent' needs nothing, .*: pip install"):
        absent.load()
