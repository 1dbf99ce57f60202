"""Temporary folders are gone after whatever ends the process that made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployconv.temporary import temporary_folder, whole_file

ROOT = Path(__file__).resolve().parent.parent

HOLD = """
import sys, time
from pathlib import Path
from deployconv.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "large").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""


def test_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_takes_the_place_of_the_old_one_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_begun_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")

    def write_half() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="the pipe is that of POSIX")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "report"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with whole_file(path) as file:
            file.write(b"new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert path.is_fifo()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "report", tmp_path / "latest"
    path.write_bytes(b"old")
    link.symlink_to(path)
    with whole_file(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert sorted(tmp_path.iterdir()) == [link, path]


@pytest.mark.skipif(os.name != "posix", reason="the lock is that of POSIX")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (tmp_path / "mine.onnx").touch()
        with temporary_folder(tmp_path):
            assert (left / "large").exists(), "a process that lives keeps its folder"
        process.kill()
    assert (left / "large").exists()
    with temporary_folder(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / "mine.onnx"])


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_cleans_up_and_is_the_exit_status(name: str, tmp_path: Path) -> None:
    # Whoever runs the tests in the background may have these signals ignored.
    program = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from deployconv.cli import app
from deployconv.temporary import temporary_folder
def slow(*given):
    with temporary_folder():
        print("begun", flush=True)
        time.sleep(60)
app._run = slow
app.run()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        process.send_signal(signal.Signals[name])
        _, errors = process.communicate()
    said = "interrupted" if name == "SIGINT" else f"ended by {name}"
    assert (process.returncode, errors) == (
        128 + signal.Signals[name],
        f"deployconv: error: {said}\n",
    )
    assert list(tmp_path.iterdir()) == []
