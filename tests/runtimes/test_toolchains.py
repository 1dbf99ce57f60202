"""A toolchain runs in a process of its own: whatever it does becomes an answer or a refusal."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes.toolchains import environments
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import TOOLCHAINS, get_toolchain, toolchain_of
from deployconv.runtimes.worker_process import Limits
from deployconv.targets.catalogue import target_names
from tests.runtimes.toolchains import TWICE, failing, toolchain

LIMITS = Limits(seconds=60)
FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}


def process(folder: Path, adapter: str = TWICE, limits: Limits = LIMITS) -> ToolchainProcess:
    return ToolchainProcess(toolchain(folder, adapter), Path(sys.executable), limits)


def test_a_model_is_converted_run_and_timed(tmp_path: Path) -> None:
    with process(tmp_path) as npu:
        assert npu.version() == "twice 1.0"
        converted = npu.convert(b"model", FEEDS, ["y"])
        assert converted.executes
        assert converted.notes == {"cycles": 7}
        (computed,), _ = npu.run()
        np.testing.assert_array_equal(computed, 2 * FEEDS["x"])
        assert len(npu.milliseconds(3)) == 3


def test_a_bfloat16_input_reaches_the_toolchain(tmp_path: Path) -> None:
    with process(tmp_path) as npu:
        npu.convert(b"model", {"x": np.ones((1, 2), bfloat16)}, ["y"])
        (computed,), _ = npu.run()
    np.testing.assert_array_equal(computed, np.full((1, 2), 2, np.float32))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no ConvTranspose in the model.onnx')", "ValueError: no"),
        ("raise SystemExit('stopped')", "SystemExit: stopped"),
        ("raise RuntimeError('two\\nlines')", "two lines"),
        ("raise ValueError('Traceback (most recent call last):\\n a\\nIndexError: 3')", "Index"),
    ],
)
def test_a_refusal_is_one_line_in_its_own_words(tmp_path: Path, body: str, words: str) -> None:
    with process(tmp_path, failing(body)) as npu, pytest.raises(Refusal, match=f"^{words}") as info:
        npu.convert(b"model", FEEDS, ["y"])
    assert not info.value.crashed
    assert info.value.stage == "convert"
    assert "\n" not in str(info.value)
    assert "/root" not in str(info.value)


@pytest.mark.parametrize(
    ("body", "limits", "words"),
    [
        ("import os; os._exit(3)", LIMITS, "ended with status 3"),
        ("import os; os.abort()", LIMITS, "was killed by SIGABRT"),
        ("import time; time.sleep(60)", replace(LIMITS, seconds=1), "gave no answer within 1 s"),
        ("while True: print('x' * 9999)", replace(LIMITS, output=1 << 20), "more than 1 MiB"),
    ],
    ids=["exits", "crashes", "hangs", "floods"],
)
def test_a_toolchain_that_dies_is_started_again(
    tmp_path: Path, body: str, limits: Limits, words: str
) -> None:
    once = f"if job.model.read_bytes() == b'bad':\n        {body}\n    return Session()"
    with process(tmp_path, failing(once), limits) as npu:
        with pytest.raises(Refusal, match=words) as info:
            npu.convert(b"bad", FEEDS, ["y"])
        assert info.value.crashed
        assert npu.convert(b"good", FEEDS, ["y"]).executes


def test_a_library_that_cannot_be_imported_is_a_refusal(tmp_path: Path) -> None:
    words = "No module named 'no_such_library'"
    with process(tmp_path, "import no_such_library") as npu, pytest.raises(Refusal, match=words):
        npu.version()


def test_output_of_native_code_is_collected(tmp_path: Path) -> None:
    body = """with job.output() as written:
        import os
        os.write(1, b"E one"); os.write(2, b" two")
    raise RuntimeError(written.text)"""
    with process(tmp_path, failing(body)) as npu, pytest.raises(Refusal, match=r"^E one two$"):
        npu.convert(b"model", FEEDS, ["y"])


def test_a_toolchain_that_overwrites_its_input_gets_a_copy(tmp_path: Path) -> None:
    import onnx
    from matrix.forms import FORMS

    file = tmp_path / "model.onnx"
    onnx.save(FORMS["k2s2"].model(), file)
    before = file.read_bytes()
    body = "job.model.write_bytes(b'other'); return Session()"
    with process(tmp_path, failing(body)) as npu:
        npu.convert(file, FEEDS, ["y"])
    assert file.read_bytes() == before


def test_every_toolchain_has_an_adapter_and_targets_that_exist() -> None:
    for row in TOOLCHAINS.values():
        assert row.program.is_file()
        assert set(row.targets) <= set(target_names())
        assert all("==" in one for one in (*row.requirements, *row.alone))
    targets = [target for row in TOOLCHAINS.values() for target in row.targets]
    assert len(targets) == len(set(targets))


def test_a_toolchain_is_found_by_its_name_and_its_targets() -> None:
    assert get_toolchain("rknn") is get_toolchain("rk3588") is toolchain_of("rv1106")
    assert toolchain_of("sm89") is None
    with pytest.raises(UsageError, match=r"^abacus: no toolchain for it; there is one for esp32p4"):
        get_toolchain("abacus")


def test_a_python_that_is_too_new_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(toolchain(tmp_path), python=((3, 8), (3, 9)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"^npu needs Python 3.8 to 3.9, this is .*3.9"):
        environments.install(old, tmp_path)


def test_another_python_of_the_machine_is_used_if_this_one_is_too_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python3.7", "python3.8", "python3.10"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", partial(_run, made := []))
    old = replace(toolchain(tmp_path), python=((3, 8), (3, 9)))
    environments.install(old, tmp_path)
    assert made[0][0] == str(tmp_path / "python3.8")


def test_a_full_disk_is_named_before_anything_is_downloaded(tmp_path: Path) -> None:
    large = replace(toolchain(tmp_path), megabytes=1 << 40)
    with pytest.raises(BackendUnavailable, match=r"^npu takes about .* MB free: make room"):
        environments.install(large, tmp_path)
    assert environments.installed(large, tmp_path) is None


RETRY = "WARNING: Retrying (Retry(total=0)) after connection broken by 'refused': /simple/npu/"


@pytest.mark.parametrize(
    ("errors", "output", "reason"),
    [
        ("hint\nERROR: No matching distribution\nnotice\n", "", "ERROR: No matching distribution"),
        ("ERROR: [Errno 28] No space left on device\n", "", "ERROR: .* No space left on device"),
        (f"{RETRY}\nERROR: No matching distribution", "", f"the package index .*{RETRY[-20:]}"),
        ("", "ensurepip is not available. Try\n\nFailing command: x", "this Python has no .*-venv"),
        ("", "", "no message"),
    ],
    ids=["no such version", "no space", "no index", "no ensurepip", "nothing said"],
)
def test_an_install_that_fails_leaves_nothing(
    errors: str, output: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        fails = "pip" in command
        return subprocess.CompletedProcess(command, int(fails), output, errors)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BackendUnavailable, match=rf"^npu cannot be installed: {reason}$"):
        environments.install(toolchain(tmp_path), tmp_path / "here")
    assert not (tmp_path / "here" / "npu").exists()


def test_an_install_that_was_interrupted_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu = toolchain(tmp_path)
    left = tmp_path / "npu" / "bin" / "half"
    left.parent.mkdir(parents=True)
    left.touch()
    assert environments.installed(npu, tmp_path) is None
    monkeypatch.setattr(subprocess, "run", partial(_run, []))
    assert environments.install(npu, tmp_path) == environments.installed(npu, tmp_path)
    assert not left.exists()


def _run(made: list, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Note a command of an installation, and make the Python of an environment."""
    made.append(command)
    if "venv" in command:
        python = Path(command[-1], "bin", "python")
        python.parent.mkdir(parents=True)
        python.touch()
    return subprocess.CompletedProcess(command, 0, "", "")


def test_an_environment_of_other_versions_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", partial(_run, made))
    npu = toolchain(tmp_path)
    python = environments.install(npu, tmp_path)
    assert environments.installed(npu, tmp_path) == python
    assert environments.install(npu, tmp_path) == python
    assert len(made) == 2
    newer = replace(npu, requirements=("npu==2.0",), alone=("old==1.0",))
    assert environments.installed(newer, tmp_path) is None
    environments.install(newer, tmp_path)
    assert "--no-deps" in made[-1]
