"""A cache that is broken, shared or not writable costs time, but no result."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from deployconv.results import Candidate
from deployconv.search import cache
from deployconv.search.cache import Key, TimingCache

KEY = Key(
    model="a" * 64,
    site="main/up",
    options="auto auto",
    shapes=((1, 3, 8, 8),),
    opset=18,
    backend="ort",
    runtime="onnxruntime 1.32.0",
    machine="x86_64, 2 CPUs",
    threads=2,
)
FOUND = (
    Candidate("as it was", ms=2.0, ratio=1.0, low=1.0, high=1.0, chosen=False),
    Candidate("crop, col2im", ms=1.0, ratio=2.0, low=1.9, high=2.1, chosen=False),
)
OTHER = {
    **{"model": "b" * 64, "site": "main/down", "options": "pad auto", "shapes": ((1, 3, 8, 9),)},
    **{"opset": 19, "backend": "ort:cuda", "runtime": "onnxruntime 1.33.0", "threads": 1},
    "machine": "aarch64, 2 CPUs",
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    TimingCache(tmp_path / "deep" / "folder").write(KEY, FOUND)
    assert TimingCache(tmp_path / "deep" / "folder").read(KEY) == FOUND


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert TimingCache(tmp_path).read(KEY) is None


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_all_that_a_timing_depends_on_is_in_the_key(tmp_path: Path, field: str) -> None:
    memory = TimingCache(tmp_path)
    memory.write(KEY, FOUND)
    assert memory.read(replace(KEY, **{field: OTHER[field]})) is None


def test_another_version_has_other_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = TimingCache(tmp_path)
    memory.write(KEY, FOUND)
    monkeypatch.setattr(cache, "__version__", "0.0.0.dev0")
    assert memory.read(KEY) is None


def test_a_model_in_memory_is_not_remembered(tmp_path: Path) -> None:
    memory = TimingCache(tmp_path)
    memory.write(replace(KEY, model=None), FOUND)
    assert memory.read(replace(KEY, model=None)) is None
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_remembered() -> None:
    memory = TimingCache(None)
    memory.write(KEY, FOUND)
    assert memory.read(KEY) is None


def entry(**changed: Any) -> dict[str, Any]:
    good = {"name": "dcr", "ms": 1.0, "ratio": 2.0, "low": 1.9, "high": 2.1, "chosen": False}
    return {**good, **changed}


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"candidates": [{"name": "dcr", "ms": 1.',
    "not UTF-8": b'{"candidates": "\xff"}',
    "zeros": bytes(200),
    "nested too deep": b"[" * 100_000,
    "null": b"null",
    "a list": b"[]",
    "without candidates": b'{"key": {}}',
    **{
        f"candidates {content!r}": json.dumps({"candidates": content}).encode()
        for content in (None, 3, "text", {"name": "dcr"}, [None], [3], ["text"], [[]], [{}])
    },
    **{
        f"{field} {value!r}": json.dumps({"candidates": [entry(**{field: value})]}).encode()
        for field, value in [
            *(("name", 3), ("name", None), ("chosen", 1), ("chosen", "yes")),
            *((field, value) for field in ("ms", "ratio", "low", "high") for value in ("1", None)),
            *(("ms", True), ("ms", -1.0), ("ratio", float("nan")), ("high", float("inf"))),
            *(("low", 3.0), ("ratio", 10**400), ("ms", [1.0])),
        ]
    },
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=[name[:30] for name in BROKEN])
def test_a_broken_file_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    memory = TimingCache(tmp_path)
    memory.write(KEY, FOUND)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert memory.read(KEY) is None
    memory.write(KEY, FOUND)
    assert memory.read(KEY) == FOUND


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    memory = TimingCache(tmp_path)
    (tmp_path / f"{KEY.digest}.json").mkdir()
    memory.write(KEY, FOUND)
    assert memory.read(KEY) is None
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY.digest}.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = TimingCache(tmp_path / "file" / "timings")
    memory.write(KEY, FOUND)
    assert memory.read(KEY) is None


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = TimingCache(tmp_path)
    memory.write(KEY, FOUND)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        memory.write(KEY, FOUND[:1])

    assert memory.read(KEY) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY.digest}.json"]


def test_a_reader_beside_writers_sees_a_whole_entry(tmp_path: Path) -> None:
    memory = TimingCache(tmp_path)
    memory.write(KEY, FOUND)
    written = [tuple(replace(entry, ms=float(writer)) for entry in FOUND) for writer in (1, 2)]

    def write(candidates: tuple[Candidate, ...]) -> None:
        for _ in range(50):
            memory.write(KEY, candidates)

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, candidates) for candidates in written]
        seen = [memory.read(KEY) for _ in range(200)]
        for writer in writers:
            writer.result()

    assert set(seen) <= {FOUND, *written}
    assert memory.read(KEY) in written
    assert len(list(tmp_path.iterdir())) == 1


def test_the_user_s_own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    TimingCache.of_user().write(KEY, FOUND)
    assert (tmp_path / "deployconv" / "timings" / f"{KEY.digest}.json").is_file()


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: str) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    stores_nothing = TimingCache.of_user()
    stores_nothing.write(KEY, FOUND)
    assert stores_nothing.read(KEY) is None
