"""The documented limits of the DLA: what is just allowed, and what just is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployconv.match.operators import Window
from deployconv.targets.dla import (
    operator_obstacles,
    resize_obstacles,
    size_obstacles,
    window_obstacles,
)

CONV = Window(
    transposed=False,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    pads=((1, 1), (1, 1)),
    group=1,
    channels=(64, 32),
    dtype="float16",
)
DECONV = replace(CONV, transposed=True, kernel=(4, 4), stride=(2, 2), pads=((0, 0), (0, 0)))


def codes(layer: Window) -> list[str]:
    return [found.code for found in window_obstacles(layer)]


@pytest.mark.parametrize("layer", [CONV, DECONV], ids=["convolution", "deconvolution"])
def test_what_both_share(layer: Window) -> None:
    assert codes(layer) == []
    assert codes(replace(layer, dtype="int8")) == []
    assert codes(replace(layer, dtype=None)) == []
    assert codes(replace(layer, channels=(8192, 8192))) == []
    assert codes(replace(layer, kernel=(32, 1), pads=((0, 0), (0, 0)))) == []
    for dtype in ("float32", "bfloat16", "float64"):
        assert codes(replace(layer, dtype=dtype)) == ["dtype"]
    assert codes(replace(layer, kernel=(33, 3), pads=((0, 0), (0, 0)))) == ["kernel"]
    assert codes(replace(layer, channels=(8193, 1))) == ["channels"]
    assert codes(replace(layer, kernel=(3,), group=2)) == ["rank"]
    assert codes(replace(layer, kernel=(3, 3, 3), dtype="float32")) == ["dtype", "rank"]
    assert codes(replace(layer, pads=None)) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"group": 32}, []),
        ({"dilation": (32, 1)}, []),
        ({"dilation": (33, 1)}, ["dilation"]),
        ({"stride": (8, 8)}, []),
        ({"stride": (9, 1)}, ["stride"]),
        ({"pads": ((2, 2), (0, 1))}, []),
        ({"pads": ((3, 0), (0, 0))}, ["padding"]),
        ({"kernel": (32, 32), "pads": ((31, 31), (0, 0))}, []),
        ({"kernel": (64, 1), "pads": ((0, 0), (0, 0))}, ["kernel"]),
    ],
)
def test_convolution(changed: dict[str, object], found: list[str]) -> None:
    assert codes(replace(CONV, **changed)) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"group": 2}, ["group"]),
        ({"dilation": (1, 2)}, ["dilation"]),
        ({"pads": ((1, 1), (1, 1))}, ["padding"]),
        ({"pads": ((0, -1), (0, 0))}, ["padding"]),
        ({"kernel": (64, 1)}, []),
        ({"kernel": (1, 128)}, []),
        ({"kernel": (64, 64)}, ["kernel"]),
        ({"kernel": (65, 1)}, ["kernel"]),
        ({"kernel": (22, 22)}, []),
        ({"kernel": (23, 23)}, ["kernel"]),
        ({"kernel": (23, 24)}, []),
        ({"stride": (22, 22)}, []),
        ({"stride": (32, 32)}, ["stride"]),
        ({"stride": (96, 1)}, []),
        ({"stride": (33, 2)}, ["stride"]),
        ({"group": 4, "pads": ((1, 1), (1, 1)), "dtype": "float32"}, ["dtype", "group", "padding"]),
    ],
)
def test_deconvolution(changed: dict[str, object], found: list[str]) -> None:
    assert codes(replace(DECONV, **changed)) == found  # type: ignore[arg-type]


def test_a_text_says_what_there_is_and_what_there_may_be() -> None:
    (found,) = window_obstacles(replace(DECONV, pads=((1, 0), (1, -1))))
    assert found.text == "pads (1, 0), (1, -1), where a deconvolution takes none"
    (found,) = window_obstacles(replace(CONV, dtype="float32"))
    assert "TensorRT 10 converts it with --fp16" in found.text


def test_resize_and_sizes() -> None:
    assert list(resize_obstacles((2, 32))) == []
    assert [one.code for one in resize_obstacles((2, 33))] == ["stride"]
    assert [one.code for one in resize_obstacles((2,))] == ["rank"]
    assert list(size_obstacles([8192, None])) == []
    assert [one.code for one in size_obstacles([1, 8193])] == ["size"]


def test_operators() -> None:
    fitting = [("Relu", None), ("Slice", 4), ("Reshape", 4), ("Resize", 4)]
    assert list(operator_obstacles(fitting)) == []
    absent, deep = operator_obstacles(
        [("Pad", 4), ("Transpose", 6), ("Pad", 6), ("DepthToSpace", 4), ("Reshape", None)]
    )
    assert absent.text == "Pad, DepthToSpace, which the DLA does not have"
    assert deep.text == "Transpose over 6 dimensions, where the DLA shuffles tensors of 4"
