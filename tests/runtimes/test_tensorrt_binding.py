"""The build log as tensorrt_rtx 1.7.1 prints it, and the files of the caches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployconv.runtimes.tensorrt.binding import CacheFile, logged_kernels, logged_memory

MEMORY = [
    "Max Scratch Memory: 9625600 bytes",
    "Total Activation Memory: 9625601 bytes",
    "Total Weights Memory: 96000 bytes",
    "Engine generation completed in 0.0213214 seconds.",
]

TENSOR = "{{ Name: {0}, Dimensions: [1,2], Strides: [2,1], Datatype: {1}, Format: (Linear) Row }}"
LAYER = (
    "Name: {0}, LayerType: {1}, Inputs: [ {2}], Constants: [ {3}], Outputs: [ {4}], "
    "TacticName: __myl_0x1, StreamId: 0, Metadata: {5}"
)
LAYERS = "\n".join(
    [
        "Layers:",
        LAYER.format(
            "copy", "kgen", TENSOR.format("x", "Float"), "", TENSOR.format("a", "Float"), ""
        ),
        LAYER.format(
            "a, b: [conv]",
            "correlation",
            ", ".join((TENSOR.format("a", "Float"), TENSOR.format("s", "Int8"))),
            TENSOR.format("w", "Half"),
            TENSOR.format("y", "BFloat16"),
            "[ONNX Layer: up]\x1f[ONNX Layer: relu | then_branch]\x1e[ONNX Layer: last]",
        ),
        "",
        "Bindings:",
        " Name: x, IOMode: Input, DataType: Float",
    ]
)


def test_memory() -> None:
    assert logged_memory(MEMORY) == {
        "activation_bytes": 9625601,
        "weights_bytes": 96000,
        "scratch_bytes": 9625600,
    }


def test_memory_that_is_not_told_is_none() -> None:
    assert set(logged_memory(["Total Weights Memory: unknown"]).values()) == {None}


def test_kernels() -> None:
    assert logged_kernels(["before", LAYERS, "after"]) == [
        {"name": "copy", "kind": "kgen", "inputs": ["Float"], "outputs": ["Float"], "nodes": []},
        {
            "name": "a, b: [conv]",
            "kind": "correlation",
            "inputs": ["Float", "Int8"],
            "outputs": ["BFloat16"],
            "nodes": ["up", "relu | then_branch", "last"],
        },
    ]


def test_kernels_in_another_form_are_not_guessed() -> None:
    assert logged_kernels([]) is None
    assert logged_kernels(["Layer(Reformat): conv, Tactic: 0x1, x -> y"]) is None
    assert logged_kernels([LAYERS.replace("LayerType", "Kind")]) is None


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
