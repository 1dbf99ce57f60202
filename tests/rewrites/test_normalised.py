"""A ConvTranspose that stays, with explicit pads in place of ``auto_pad`` and ``output_shape``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from deployconv.restrictions import Restrictions
from tests.build import (
    FLOAT,
    Size,
    assert_equal,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    reasons,
    rewrite,
    run,
    tensor,
    upsampler,
    value,
)
from tests.quantized import Layer, quantized
from tests.rewrites.limited import attribute, limited


def layer(rank: int = 2, sizes: Sequence[Size] | None = None, **attributes: Any) -> ModelProto:
    group = attributes.get("group", 1)
    batch = attributes.pop("batch", 2)
    kernel = attributes.pop("kernel", 4)
    return conv_transpose(
        integers(4, 6 // group, *[kernel] * rank),
        sizes or (4, 5, 3)[:rank],
        integers(6, seed=1),
        batch=batch,
        opset=18,
        **attributes,
    )


def only_layer(after: ModelProto) -> NodeProto:
    (found,) = (one for one in after.graph.node if one.op_type == "ConvTranspose")
    return found


CASES = [
    (1, {"strides": [2], "auto_pad": "SAME_UPPER", "kernel": 5}),
    (2, {"strides": [2, 2], "auto_pad": "SAME_UPPER", "kernel": 3}),
    (2, {"strides": [2, 2], "auto_pad": "SAME_LOWER", "kernel": 3}),
    (2, {"strides": [3, 2], "auto_pad": "SAME_LOWER", "kernel": 4, "dilations": [1, 2]}),
    (2, {"strides": [2, 2], "auto_pad": "SAME_UPPER", "group": 2, "output_padding": [1, 0]}),
    (2, {"strides": [2, 2], "auto_pad": "VALID"}),
    (2, {"strides": [2, 2], "output_shape": [9, 11]}),
    (2, {"strides": [2, 2], "output_shape": [8, 9], "auto_pad": "SAME_UPPER"}),
    (2, {"strides": [2, 3], "output_shape": [11, 17]}),
    (3, {"strides": [2, 2, 2], "output_shape": [7, 9, 6]}),
    (3, {"strides": [2, 1, 2], "auto_pad": "SAME_UPPER", "kernel": 3}),
]


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize(("rank", "attributes"), CASES)
def test_padding_is_written_out(rank: int, attributes: dict[str, Any], pads: bool) -> None:
    limits = Restrictions(transposed_pads=pads)
    (site,), after = limited(layer(rank, **attributes), limits, form="normalised")
    assert (site.form, site.status) == ("normalised", "rewritten")
    written = only_layer(after)
    assert attribute(written, "auto_pad") is attribute(written, "output_shape") is None
    cropped = ops(after)["Slice"] == 1
    assert set(ops(after)) <= {"ConvTranspose", "Slice"}
    assert not (pads and cropped)


def test_weights_and_bias_are_the_same_tensors() -> None:
    before = layer(strides=[2, 2], auto_pad="SAME_UPPER")
    _, after = limited(before, Restrictions(), form="normalised")
    assert list(only_layer(after).input) == list(only_layer(before).input)
    assert after.graph.initializer == before.graph.initializer


@pytest.mark.parametrize("pads", [True, False])
def test_dynamic_sizes(pads: bool) -> None:
    before = layer(sizes=(None, None), batch=None, strides=[2, 3], auto_pad="SAME_LOWER")
    limits = Restrictions(transposed_pads=pads)
    for size in (1, 4, 6):
        feeds = {"x": integers(3, 4, size, size + 2)}
        limited(before, limits, feeds, form="normalised")


def test_explicit_pads_become_a_slice_where_the_target_takes_none() -> None:
    before = layer(strides=[2, 2], pads=[1, 0, 2, 3], output_padding=[1, 1])
    assert limited(before, Restrictions(), form="normalised")[0][0].status == "kept"
    (site,), after = limited(before, Restrictions(transposed_pads=False), form="normalised")
    assert site.form == "normalised"
    assert ops(after) == {"ConvTranspose": 1, "Slice": 1}


def test_by_the_option_of_the_command_line() -> None:
    before = layer(strides=[2, 2], auto_pad="SAME_UPPER", kernel=3)
    for policy in ("all", "cost"):
        done, after = rewrite(before, form="normalised", policy=policy)
        if policy == "all":
            assert [one.certificate for one in done.sites] == ["exact"]
            assert attribute(only_layer(after), "pads") == [0, 0, 1, 1]
        feeds = feeds_for(before)
        assert_equal(run(before, feeds), run(after, feeds))


def test_a_layer_with_explicit_pads_stays() -> None:
    assert reasons(upsampler(), form="normalised") == ["already-explicit"]
    resize = model(
        graph(
            [
                node(
                    "Resize",
                    ["x", "", "scales"],
                    ["r"],
                    mode="nearest",
                    nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric",
                ),
                node("Conv", ["r", "w"], ["y"], pads=[1] * 4),
            ],
            [value("x", FLOAT, [1, 2, 3, 4])],
            [value("y", FLOAT, [1, 3, 6, 8])],
            [
                tensor("scales", np.array([1, 1, 2, 2], np.float32)),
                tensor("w", integers(3, 2, 3, 3)),
            ],
        ),
        18,
    )
    for policy in ("all", "cost"):
        assert reasons(resize, form="normalised", policy=policy) == ["already-explicit"]


def test_other_element_types_and_integer_weights() -> None:
    half = conv_transpose(
        integers(4, 6, 3, 3, dtype=np.float16), (3, 4), strides=[2, 2], auto_pad="SAME_UPPER"
    )
    (site,), _ = limited(half, Restrictions(), form="normalised")
    assert site.status == "rewritten"
    same = quantized(Layer(attributes={"strides": [2, 2], "auto_pad": "SAME_LOWER"}))
    (site,), after = limited(same, Restrictions(), form="normalised")
    assert site.status == "rewritten"
    assert ops(after)["DequantizeLinear"] == ops(same)["DequantizeLinear"]


def test_a_wrong_pad_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployconv.rewrites import normalised

    right = normalised._Ends.of
    monkeypatch.setattr(
        normalised._Ends,
        "of",
        lambda axis: normalised._Ends(right(axis).begin + 1, right(axis).end - 1, 0),
    )
    before = layer(strides=[2, 2], auto_pad="SAME_UPPER")
    with pytest.raises(Exception, match="certificate failed"):
        rewrite(before, form="normalised")
