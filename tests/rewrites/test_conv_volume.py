"""A large image is seen as a volume one voxel deep: nothing is copied into blocks of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import UpsampleSite, find_sites
from deployconv.options import Form, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites import conv
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.planning import Planning, apply
from deployconv.rewrites.region import Region
from deployconv.search.choice import Choice, FusionScope
from tests.build import (
    Size,
    assert_equal,
    conv_transpose,
    feeds_for,
    integers,
    model,
    node,
    ops,
    rewrite,
    run,
    tensor,
)
from tests.rewrites.plans import chosen
from tests.runtimes.tiny import FLOAT, graph, value


def upsampler(
    c_in: int, c_out: int, kernel: int, sizes: Sequence[Size], dtype: Any = np.float32, **rest: Any
) -> ModelProto:
    """A ConvTranspose by 2 along every axis whose result is twice as large as its input."""
    rank = len(sizes)
    pads = [(kernel - 2) // 2] * 2 * rank
    group = rest.get("group", 1)
    weight = integers(c_in, c_out // group, *[kernel] * rank, dtype=dtype)
    given = {"opset": 18, "strides": [2] * rank, "pads": pads, **rest}
    return conv_transpose(weight, sizes, integers(c_out, seed=1, dtype=dtype), **given)


def plan_of(proto: ModelProto, form: Form = "auto", shuffle: Shuffle = "col2im") -> PolyphaseConv:
    (site,) = find_sites(view(load(proto)))
    assert isinstance(site, UpsampleSite)
    plan = plan_conv(site, form, shuffle)
    assert isinstance(plan, PolyphaseConv)
    return plan


LARGE: dict[str, ModelProto] = {
    "k2_s2": upsampler(32, 16, 2, (128, 128)),
    "k2_s2_to_few_channels": upsampler(32, 4, 2, (256, 256)),
    "k4_s2": upsampler(32, 32, 4, (96, 96)),
    "any_batch": upsampler(32, 16, 2, (128, 128), batch=None),
}
NONE: dict[str, ModelProto] = {
    "small": upsampler(32, 16, 2, (127, 128)),
    "few_inputs": upsampler(31, 16, 2, (128, 128)),
    "few_phases_of_several_taps": upsampler(32, 31, 4, (128, 128)),
    "groups": upsampler(64, 64, 2, (128, 128), group=2),
    "half_floats": upsampler(32, 16, 2, (128, 128), np.float16),
    "unknown_sizes": upsampler(32, 16, 2, (None, 128)),
    "one_axis": upsampler(32, 16, 2, (1 << 15,)),
}


@pytest.mark.parametrize("proto", LARGE.values(), ids=LARGE)
def test_large_images(proto: ModelProto) -> None:
    plan = plan_of(proto)
    assert plan.volume
    assert plan.conv_kernel == (1, *(form.span for form in plan.axes))


@pytest.mark.parametrize("proto", NONE.values(), ids=NONE)
def test_what_gains_nothing(proto: ModelProto) -> None:
    plan = plan_of(proto)
    assert not plan.volume
    assert len(plan.conv_kernel) == len(plan.axes)


@pytest.mark.parametrize("shuffle", ["dcr", "crd", "transpose", "two-step", "channels-last"])
def test_other_spellings_are_for_other_runtimes(shuffle: Shuffle) -> None:
    assert not plan_of(LARGE["k2_s2"], shuffle=shuffle).volume


def test_one_conv_a_phase_has_fewer_channels() -> None:
    assert not plan_of(LARGE["k4_s2"], "split").volume


@pytest.mark.parametrize("name", ["k2_s2", "k4_s2"])
def test_the_same_bits_from_a_conv_of_five_axes(name: str) -> None:
    proto = LARGE[name]
    done, after = rewrite(proto, shuffle="col2im")
    (site,) = done.sites
    assert (site.certificate, site.conv_kernel) == ("exact", plan_of(proto).conv_kernel)
    found = ops(after)
    assert (found["Conv"], found["Unsqueeze"], found["Squeeze"]) == (1, 1, 1)
    assert [len(t.dims) for t in after.graph.initializer if len(t.dims) > 3] == [5]
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))


@pytest.fixture(name="all_large")
def fixture_all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is large enough."""
    for name in ("_LARGE_IMAGE", "_MANY_INPUTS", "_MANY_OUTPUTS"):
        monkeypatch.setattr(conv, name, 1)


@given(
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.tuples(st.integers(1, 4), st.integers(2, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    form=st.sampled_from(["crop", "pad"]),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("all_large")
def test_any_layer(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int],
    form: Form,
) -> None:
    weight = integers(*channels, *kernel)
    bias = integers(channels[1], seed=1)
    geometry = {"strides": list(stride), "dilations": list(dilation)}
    proto = conv_transpose(weight, (5, 4), bias, opset=18, **geometry)
    assert plan_of(proto, form).volume
    done, after = rewrite(proto, form=form, shuffle="col2im")
    assert [site.certificate for site in done.sites] == ["exact"]
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))


def behind(*layers: str, fusion: FusionScope = "chain") -> Planning:
    """A ConvTranspose to 3 channels and ``layers`` behind it, lowered together, certified."""
    parameters = {
        "w": integers(4, 3, 4, 4),
        "slope": integers(3, 1, 1, seed=1),
        "least": np.float32(-3),
        "channels": np.array([1]),
        "w1": integers(2, 3, 1, 1, seed=2),
    }
    second = {"PRelu": ["slope"], "Max": ["least"], "Conv": ["w1"], "ReduceSum": ["channels"]}
    nodes = [
        node("ConvTranspose", ["x", "w"], ["t0"], name="up", strides=[2, 2], pads=[1] * 4),
        *(
            node(op, [f"t{number}", *second.get(op, ())], [f"t{number + 1}"])
            for number, op in enumerate(layers)
        ),
    ]
    nodes[-1].output[0] = "y"
    body = graph(
        nodes,
        [value("x", FLOAT, [2, 4, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in parameters.items()],
    )
    proto = model(body, opset=18)
    choices = {"main/up": Choice("crop", "col2im", fusion)}
    planning = certify_sites(chosen(proto, choices), seed=0)
    assert [report.certificate for report in planning.reports] == ["exact"]
    after = apply(planning).proto
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))
    return planning


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["Relu"], ["Unsqueeze", "Conv", "Relu", "Squeeze"]),
        (["Max", "Relu"], ["Unsqueeze", "Conv", "Max", "Relu", "Squeeze"]),
        (["PRelu"], ["Unsqueeze", "Conv", "Squeeze", "PRelu"]),
        (["Relu", "PRelu", "Relu"], ["Unsqueeze", "Conv", "Relu", "Squeeze", "PRelu", "Relu"]),
    ],
)
def test_what_treats_all_elements_alike_stays_with_the_conv(
    layers: list[str], expected: list[str]
) -> None:
    """So that a runtime can make one node of them."""
    planning = behind(*layers)
    made = [proto.op_type for proto in apply(planning).proto.graph.node]
    assert made[: len(expected)] == expected


@pytest.mark.usefixtures("all_large")
def test_chains_that_mix_channels_stay_on_blocks() -> None:
    """Their second Conv finds the blocks of the first."""
    planning = behind("Relu", "Conv")
    plan = planning.sites[0].rewrite
    assert isinstance(plan, Chain)
    assert not plan.head.volume
    assert ops(apply(planning).proto)["Unsqueeze"] == 0


@pytest.mark.usefixtures("all_large")
def test_so_do_regions() -> None:
    planning = behind("Relu", "ReduceSum", fusion="region")
    plan = planning.sites[0].rewrite
    assert isinstance(plan, Region)
    assert not plan.head.volume
    assert ops(apply(planning).proto)["Unsqueeze"] == 0
