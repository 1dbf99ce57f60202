"""A toolchain runs in a process of its own: whatever it does becomes an answer or a refusal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from ml_dtypes import bfloat16

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes.toolchains import call, environments
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess, require_loadable
from deployconv.runtimes.toolchains.catalogue import TOOLCHAINS, get_toolchain, toolchain_of
from deployconv.runtimes.worker_process import Limits
from deployconv.targets.catalogue import target_names
from tests.runtimes.toolchains import TWICE, failing, toolchain

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_toolchain_writes_into_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    body = "open('written', 'w').close(); return Session()"
    with process(tmp_path, failing(body)) as npu:
        npu.convert(b"model", FEEDS, ["y"])
    assert list(here.iterdir()) == []


def test_a_toolchain_that_leaves_outputs_out(tmp_path: Path) -> None:
    with process(tmp_path) as npu:
        npu.convert(b"model", FEEDS, ["y", "z"])
        with pytest.raises(Refusal, match=r"^has 1 outputs of 2$"):
            npu.run()


def test_no_room_for_the_copy_of_a_model_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, "_copy", full)
    with (
        process(tmp_path) as npu,
        pytest.raises(UsageError, match=r"^a copy of the model .*No space left.*set TMPDIR"),
    ):
        npu.convert(b"model", FEEDS, ["y"])


def test_a_user_without_a_home_has_no_toolchains(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> str:
        raise RuntimeError("no home")

    monkeypatch.setattr(environments.platformdirs, "user_data_dir", homeless)
    iree = TOOLCHAINS["iree"]
    assert environments.state_of(iree) == "not installed"
    assert environments.installed(iree) is None
    with pytest.raises(BackendUnavailable, match="there is no folder for toolchains: no home"):
        environments.install(iree)


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
    monkeypatch.setattr(environments, "run_program", partial(_run, made := []))
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
    def run(command: list[str], _: object) -> tuple[int, str, str]:
        return int("pip" in command), output, errors

    monkeypatch.setattr(environments, "run_program", run)
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
    monkeypatch.setattr(environments, "run_program", partial(_run, []))
    assert environments.install(npu, tmp_path) == environments.installed(npu, tmp_path)
    assert not left.exists()


def _run(made: list, command: list[str], _: object) -> tuple[int, str, str]:
    """Note a command of an installation, and make the Python of an environment."""
    made.append(command)
    if "venv" in command:
        python = Path(command[-1], "bin", "python")
        python.parent.mkdir(parents=True)
        python.touch()
    return 0, "", ""


def test_an_environment_of_other_versions_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(environments, "run_program", partial(_run, made))
    npu = toolchain(tmp_path)
    python = environments.install(npu, tmp_path)
    assert environments.installed(npu, tmp_path) == python
    assert environments.install(npu, tmp_path) == python
    assert len(made) == 2
    newer = replace(npu, requirements=("npu==2.0",), alone=("old==1.0",))
    assert environments.installed(newer, tmp_path) is None
    assert environments.state_of(newer, tmp_path) == "other versions"
    environments.install(newer, tmp_path)
    assert "--no-deps" in made[-1]


def test_an_install_waits_for_one_of_the_same_toolchain_and_takes_what_that_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu, begun, waits, made = toolchain(tmp_path), Event(), Event(), []

    def slow(command: list[str], _: object) -> tuple[int, str, str]:
        begun.set()
        assert waits.wait(10)
        return _run(made, command, None)

    monkeypatch.setattr(environments, "run_program", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(environments.install, npu, tmp_path)
        assert begun.wait(10)
        second = pool.submit(environments.install, npu, tmp_path, waits.set)
        assert first.result(10) == second.result(10)
    assert [command[-1] for command in made] == [str(tmp_path / "npu"), "npu==1.0"]


def test_installs_of_two_toolchains_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu = toolchain(tmp_path)
    other = replace(npu, name="other")

    def nested(command: list[str], _: object) -> tuple[int, str, str]:
        if command[-1] == str(tmp_path / "npu"):
            environments.install(other, tmp_path, lambda: pytest.fail("it waits"))
        return _run([], command, None)

    monkeypatch.setattr(environments, "run_program", nested)
    environments.install(replace(npu, requirements=("x==1.0",)), tmp_path)
    assert environments.installed(other, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="the lock is that of POSIX")
def test_a_killed_install_blocks_until_its_pip_has_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
from pathlib import Path
from deployconv.runtimes.toolchains.environments import _locked, run_program
with _locked(Path({str(tmp_path)!r}, "npu"), None) as lock:
    run_program(["sh", "-c", "echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"], lock)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as killed:
        while not pid.exists():
            time.sleep(0.01)
        killed.kill()

    def end_pip() -> None:
        os.kill(int(pid.read_text()), signal.SIGKILL)

    waited = []
    with environments._locked(tmp_path / "npu", lambda: waited.append(end_pip())):
        pass
    assert len(waited) == 1


def test_what_an_interrupted_install_has_started_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
import signal, sys
from deployconv.runtimes.toolchains.environments import run_program
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
run_program(["sh", "-c", "sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"], ())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        while not pid.exists():
            time.sleep(0.01)
        process.terminate()
    assert process.returncode == 5
    while _lives(int(pid.read_text())):
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_environment_is_listed_with_its_state_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "run_program", partial(_run, []))
    iree, tvm = TOOLCHAINS["iree"], TOOLCHAINS["tvm"]
    environments.install(iree, tmp_path)
    environments.install(replace(tvm, requirements=("tvm==0.1",)), tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_bytes(b"12345")
    (tmp_path / "mnn").mkdir()
    found = {one.name: one for one in environments.environments(tmp_path)}
    assert list(found) == [*TOOLCHAINS, "old"]
    states = {name: one.state for name, one in found.items() if one.state != "not installed"}
    assert states == {
        "mnn": "incomplete",
        "iree": "installed",
        "tvm": "other versions",
        "old": "unused",
    }
    assert (found["old"].size, found["ncnn"].size) == (5, TOOLCHAINS["ncnn"].megabytes << 20)
    for name in ("iree", "tvm", "mnn", "old"):
        assert environments.remove(name, tmp_path) == tmp_path / name
    assert all(one.state == "not installed" for one in environments.environments(tmp_path))
    with pytest.raises(UsageError, match=r"^iree: its toolchain is not installed"):
        environments.remove("iree", tmp_path)
    with pytest.raises(UsageError, match="no toolchain for it"):
        environments.remove("../other", tmp_path)


def test_an_environment_behind_a_link_is_removed_without_what_it_links_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    place = tmp_path / "toolchains"
    place.mkdir()
    (place / "iree").symlink_to(elsewhere)
    environments.remove("iree", place)
    assert not (place / "iree").is_symlink()
    assert (elsewhere / "file").exists()


def test_a_toolchain_that_is_installed_and_cannot_be_loaded(tmp_path: Path) -> None:
    npu = toolchain(tmp_path, "import no_such_library")
    words = r"^npu is installed and cannot be loaded: .*no_such_library.*target remove npu"
    with pytest.raises(BackendUnavailable, match=words):
        require_loadable(npu, Path(sys.executable))
    assert require_loadable(toolchain(tmp_path), Path(sys.executable)) == "twice 1.0"
