"""One Conv a phase: its own taps and no others, the same bits, nothing to crop in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.polyphase import (
    Axis,
    multiplications,
    smallest_kernel,
    split_multiplications,
    without_shift,
)
from deployconv.proof.certificate import certify_sites
from deployconv.results import Macs
from deployconv.rewrites.planning import apply
from deployconv.search.choice import Choice
from tests.build import Size, assert_equal, conv_transpose, integers, ops, rewrite, run
from tests.match.graphs import assert_never_wrong, floats, parsed
from tests.rewrites.plans import chosen

# (kernel, stride, pads, output_padding): multiplications of the smallest kernel and of split
COUNTS = [
    (2, 2, (0, 0), 0, 2, 2),
    (3, 2, (1, 1), 1, 4, 3),
    (5, 2, (2, 2), 1, 6, 5),
    (4, 2, (1, 1), 0, 4, 4),
    (4, 3, (0, 0), 0, 6, 4),
    (7, 4, (2, 2), 1, 8, 7),
    (1, 2, (0, 0), 1, 2, 2),  # a phase without a tap still needs a Conv
]


@pytest.mark.parametrize(("kernel", "stride", "pads", "extra", "smallest", "split"), COUNTS)
def test_multiplications_are_those_of_the_taps(
    kernel: int, stride: int, pads: tuple[int, int], extra: int, smallest: int, split: int
) -> None:
    axis = Axis.transposed(stride, kernel, 1, pads, extra)
    assert multiplications([smallest_kernel(axis)]) == smallest
    assert split_multiplications([without_shift(axis)]) == split


def upsampler(kernel: int, sizes: Sequence[Size], opset: int = 18, **attributes: Any) -> ModelProto:
    rank = len(sizes)
    weight = integers(4, 3, *[kernel] * rank, seed=1)
    return conv_transpose(weight, sizes, integers(3, seed=2), opset=opset, **attributes)


@pytest.mark.parametrize(
    "shuffle", ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
)
def test_a_kernel_that_is_no_multiple_of_the_stride(shuffle: str) -> None:
    original = upsampler(3, (5, 4), strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])
    done, after = rewrite(original, form="split", shuffle=shuffle)
    (site,) = done.sites
    assert (site.form, site.shuffle, site.certificate) == ("split", shuffle, "exact")
    assert (site.macs, site.conv_kernel) == (Macs(9 * 12, 9 * 12), (2, 2))
    found = ops(after)
    assert (found["Conv"], found["Concat"], found["Slice"]) == (4, 1, 0)
    kernels = [t.dims[2:] for t in after.graph.initializer if len(t.dims) == 4]
    assert sorted(map(tuple, kernels)) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    feeds = {"x": integers(1, 4, 5, 4)}
    assert_equal(run(original, feeds), run(after, feeds))


def test_the_bias_is_stored_once() -> None:
    _, after = rewrite(upsampler(3, (5, 4), strides=[2, 2], pads=[1] * 4), form="split")
    assert sum(list(tensor.dims) == [3] for tensor in after.graph.initializer) == 1


@pytest.mark.parametrize("shuffle", ["dcr", "crd", "transpose", "col2im"])
@pytest.mark.parametrize("sizes", [(None, 4), (None, None)], ids=["rows", "rows_and_columns"])
def test_dynamic_sizes_are_no_obstacle(sizes: tuple[Size, Size], shuffle: str) -> None:
    original = upsampler(5, sizes, strides=[2, 2], pads=[2] * 4)
    done, after = rewrite(original, form="split", shuffle=shuffle, verify=False)
    assert (done.sites[0].form, done.sites[0].shuffle) == ("split", shuffle)
    for size in (1, 2, 7):
        feeds = {"x": integers(1, 4, size, sizes[1] or size + 1)}
        assert_equal(run(original, feeds), run(after, feeds))


def test_where_it_does_not_fit_the_smallest_kernel_is_taken_and_said_so() -> None:
    original = upsampler(8, (3, 3), strides=[8, 8])  # too many phases
    done, _ = rewrite(original, form="split", verify=False)
    (site,) = done.sites
    assert site.form in ("crop", "pad")
    assert done.warnings == (f"{site.id}: form 'split' does not fit, '{site.form}' taken",)


def test_taps_that_a_nearest_resize_sums() -> None:
    body = (
        'z = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
        ' nearest_mode="floor">(x, , k) y = Conv<pads=[1,1,1,1]>(z, w, b)'
    )
    model = parsed(body, {"k": floats(1, 1, 2, 2)})
    (site,) = assert_never_wrong(model, form="split")
    assert (site.form, site.macs) == ("split", Macs(36 * 6, 16 * 6))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("pads", [(0, 0), (1, 0), (0, 2)])
def test_phases_that_need_another_padding_than_the_rest(
    kernel: int, stride: int, pads: tuple[int, int]
) -> None:
    original = upsampler(kernel, (5,), strides=[stride], pads=list(pads))
    done, after = rewrite(original, form="split")
    assert done.sites[0].certificate == "exact"
    feeds = {"x": integers(1, 4, 5)}
    assert_equal(run(original, feeds), run(after, feeds))
    assert np.isfinite(run(after, feeds)["y"]).all()


@pytest.mark.parametrize("shuffle", ["dcr", "crd", "transpose", "two-step", "col2im"])
@pytest.mark.parametrize("channels", [2, 3])
def test_in_halves(channels: int, shuffle: Any) -> None:
    """First some of the output channels, then the rest."""
    weight = integers(4, channels, 3, 3, seed=1)
    geometry = {"strides": [2, 2], "pads": [1] * 4, "opset": 18}
    proto = conv_transpose(weight, (5, 4), integers(channels, seed=2), **geometry)
    choices = {"main/up": Choice("split", shuffle, channel_split=True)}
    planning = certify_sites(chosen(proto, choices), seed=0)
    assert [report.certificate for report in planning.reports] == ["exact"]
    after = apply(planning).proto
    assert (ops(after)["Conv"], ops(after)["Concat"]) == (8, 3)
    feeds = {"x": integers(1, 4, 5, 4)}
    assert_equal(run(proto, feeds), run(after, feeds))
