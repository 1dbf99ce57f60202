from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployconv.runtimes.tensorrt.caches import CacheFile

KEY = "tensorrt 10.3.0", "Orin (nvgpu)", "sm87", "timings"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert CacheFile(tmp_path, *KEY).read() == b""
    CacheFile(tmp_path / "new" / "folder", *KEY).write(b"kernels")
    assert CacheFile(tmp_path / "new" / "folder", *KEY).read() == b"kernels"
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.name == "tensorrt_10.3.0-Orin_nvgpu_-sm87-timings.cache"


def test_another_key_is_another_file(tmp_path: Path) -> None:
    CacheFile(tmp_path, *KEY).write(b"kernels")
    assert CacheFile(tmp_path, "tensorrt 10.7.0", *KEY[1:]).read() == b""


@pytest.mark.parametrize("damage", [b"", b"x", bytes(32), bytes(40)])
def test_damage_is_nothing_kept(tmp_path: Path, damage: bytes) -> None:
    CacheFile(tmp_path, *KEY).write(b"kernels")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert CacheFile(tmp_path, *KEY).read() == b""
    CacheFile(tmp_path, *KEY).write(b"again")
    assert CacheFile(tmp_path, *KEY).read() == b"again"


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    CacheFile(tmp_path, *KEY).write(b"kernels")
    (file,) = tmp_path.iterdir()
    before = file.stat()
    cache = CacheFile(tmp_path, *KEY)
    cache.write(cache.read())
    assert file.stat().st_ino == before.st_ino


def test_writers_and_readers_at_once_see_whole_files(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]

    def work(content: bytes) -> bytes:
        CacheFile(tmp_path, *KEY).write(content)
        return CacheFile(tmp_path, *KEY).read()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, contents * 4)) <= set(contents)
    assert len(list(tmp_path.iterdir())) == 1
