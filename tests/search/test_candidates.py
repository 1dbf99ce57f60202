"""Which forms of a site are worth a measurement."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.planning import plan_model
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Option
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, tensor, value
from tests.quantized import Layer, network, quantized
from tests.search.nets import head, net, shuffled, shuffled_twice, up, upsampled_and_shuffled


def options(proto: ModelProto, **asked: Any) -> list[Option]:
    """The forms of its first site."""
    candidates = Candidates.of(load(proto), RewriteOptions(**asked))
    return list(candidates.of_site(candidates.planning.default[0]))


def emitted(rewrite: Rewrite) -> bytes:
    """The new nodes and constants of ``rewrite``."""
    number = count()
    emitter = Emitter(rewrite.scope.opset, lambda suffix: f"{suffix}_{next(number)}")
    rewrite.emit(emitter)
    protos = [OnnxExporter.export_node(node) for node in emitter.nodes]
    constants = {
        tensor.name: tensor
        for node in emitter.nodes
        for tensor in node.inputs
        if isinstance(tensor, gs.Constant)
    }
    stored = [OnnxExporter.export_tensor_proto(tensor) for tensor in constants.values()]
    return b"".join(proto.SerializeToString(deterministic=True) for proto in (*protos, *stored))


def names(found: list[Option]) -> list[str]:
    return [str(option.choice) for option in found]


def kernel(*sizes: int, group: int = 1, shape: tuple[int | None, ...] = (), **rest: Any) -> Any:
    """One ConvTranspose with stride 2 of these kernel sizes."""
    weight = integers(4, 4 // group, *sizes)
    spatial = shape or (5,) * len(sizes)
    geometry = {"strides": [2] * len(sizes), "group": group, "opset": 18, **rest}
    return lambda: conv_transpose(weight, spatial, **geometry)


def product(taps: int, stride: int, opset: int = 18, columns: int = 5) -> Callable[[], ModelProto]:
    """One ConvTranspose of four channels by themselves, whose kernels are products."""
    weight = np.ones((4, 1, taps, taps), np.float32)
    geometry = {"strides": [stride] * 2, "group": 4, "opset": opset}
    return lambda: conv_transpose(weight, (5, columns), **geometry)


TABLE: dict[str, tuple[Callable[[], ModelProto], list[str]]] = {
    "overlapping taps": (
        kernel(4, 4, pads=[1] * 4),
        [
            *("crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"),
            *("split, col2im", "split, dcr"),  # which multiplies nothing that is cropped
        ],
    ),
    "overlapping taps of dynamic sizes": (
        kernel(4, 4, pads=[1] * 4, shape=(5, None)),
        ["crop, col2im", "crop, dcr", "crop, crd"],
    ),
    "unequal numbers of taps of dynamic sizes": (
        kernel(3, 3, pads=[1] * 4, shape=(5, None)),
        ["crop, col2im", "crop, dcr", "crop, crd", "split, col2im", "split, dcr"],
    ),
    "a line, where pad costs little more": (
        kernel(4, pads=[1, 1]),
        ["crop, col2im", "crop, two-step", "pad, col2im", "pad, two-step", "split, col2im"],
    ),
    "without overlap both forms are one": (
        kernel(2, 2),
        ["crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"],
    ),
    "before Col2Im": (
        kernel(2, 2, opset=17),
        ["crop, two-step", "crop, dcr", "crop, crd"],
    ),
    "before CRD": (kernel(2, 2, opset=10, ir_version=8), ["crop, two-step", "crop, dcr"]),
    "groups": (kernel(2, 2, group=2), ["crop, col2im", "crop, two-step", "crop, crd"]),
    "a volume": (kernel(2, 2, 2), ["crop, col2im", "crop, two-step"]),
    "unequal strides": (kernel(2, 2, strides=[2, 1]), ["crop, col2im", "crop, two-step"]),
    "dynamic sizes": (
        kernel(2, 2, shape=(None, None)),
        ["crop, col2im", "crop, dcr", "crop, crd"],
    ),
    "a dynamic line before Col2Im": (kernel(2, shape=(None,), opset=17), ["crop, transpose"]),
    "a product": (
        product(8, stride=4),
        [
            "crop, col2im",
            "crop, two-step",
            "crop, crd",
            "separable, col2im",
            "separable, transpose",
            "matrix",
        ],
    ),
    "a product before Col2Im": (
        product(8, stride=4, opset=17),
        ["crop, two-step", "crop, crd", "separable, transpose", "matrix"],
    ),
    "a product whose factors multiply more": (
        product(2, stride=2),
        ["crop, col2im", "crop, two-step", "crop, crd", "matrix"],
    ),
    "rows too long for a matrix": (
        product(2, stride=2, columns=160),
        ["crop, col2im", "crop, two-step", "crop, crd"],
    ),
    "stride 1": (kernel(3, 3, strides=[1, 1]), ["conv"]),
    "a pixel shuffle": (shuffled, ["col2im", "two-step", "dcr"]),
    "two pixel shuffles": (
        shuffled_twice,
        ["col2im", "two-step", "dcr", "col2im + pointwise", "dcr + pointwise"],
    ),
    "pixel shuffles behind a layer": (
        upsampled_and_shuffled,
        [
            *("crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"),
            *("crop, col2im + pointwise", "crop, dcr + pointwise"),
        ],
    ),
    "a pixel shuffle before Col2Im": (lambda: shuffled(17), ["two-step", "dcr"]),
}


BUILDERS = {**{name: build for name, (build, _) in TABLE.items()}, "a chain": head}


@pytest.mark.parametrize(("build", "expected"), TABLE.values(), ids=list(TABLE))
def test_what_fits_likely_winners_first(
    build: Callable[[], ModelProto], expected: list[str]
) -> None:
    assert names(options(build())) == expected


@pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))
def test_no_plan_comes_twice(build: Callable[[], ModelProto]) -> None:
    found = options(build())
    written = {emitted(option.rewrite) for option in found}
    assert len(written) == len(set(names(found))) == len(found)


def test_no_plan_has_much_more_work_than_the_smallest() -> None:
    for build in (kernel(4, 4, pads=[1] * 4), kernel(4, pads=[1, 1]), kernel(9, 9, pads=[4] * 4)):
        rewrites = [option.rewrite for option in options(build())]
        works = [one.macs.after for one in rewrites if isinstance(one, PolyphaseConv)]
        assert max(works) <= 1.6 * min(works)


def shared() -> ModelProto:
    """Two layers read one constant, as exporters and optimisers leave it."""
    proto = net(
        up("x", "a", "first"),
        node("Add", ["a", "c"], ["b"], name="add"),
        up("b", "d", "second"),
        node("Mul", ["d", "c"], ["e"], name="mul"),
        node("Add", ["e", "c"], ["y"], name="again"),
    )
    proto.graph.initializer.append(tensor("c", integers(2, 1, 1) + 0.5))
    return proto


@pytest.mark.parametrize("build", [*BUILDERS.values(), shared], ids=[*BUILDERS, "shared"])
def test_every_form_is_exact(build: Callable[[], ModelProto]) -> None:
    """In `head` and `shared` the layers of a chain share their weights."""
    for option in options(build()):
        assert certify(option.rewrite, "site").verdict == "exact", str(option.choice)


def test_nothing_for_a_site_that_cannot_be_rewritten() -> None:
    runtime_weight = graph(
        [up("x", "y", "up")],
        [value("x", FLOAT, [1, 2, 4, 6]), value("k2", FLOAT, [2, 2, 2, 2])],
        [value("y", FLOAT, [None] * 4)],
    )
    (site,) = plan_model(load(model(runtime_weight)), RewriteOptions()).sites
    assert site.report.status == "skipped"
    assert options(model(runtime_weight)) == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"form": "pad"}, ["pad, col2im", "pad, two-step"]),
        ({"form": "crop"}, ["crop, col2im", "crop, two-step"]),
        ({"shuffle": "col2im"}, ["crop, col2im", "pad, col2im", "split, col2im"]),
        ({"shuffle": "transpose"}, ["crop, transpose", "pad, transpose"]),
        ({"form": "pad", "shuffle": "two-step"}, ["pad, two-step"]),
        ({"shuffle": "dcr"}, []),
    ],
    ids=str,
)
def test_the_call_restricts_the_forms(asked: dict[str, Any], expected: list[str]) -> None:
    assert names(options(kernel(4, pads=[1, 1])(), **asked)) == expected


@pytest.mark.parametrize(
    ("build", "asked", "expected"),
    [
        (kernel(2, 2), {"form": "pad", "shuffle": "dcr"}, ["pad, dcr"]),
        (kernel(9, 9, pads=[4] * 4), {"form": "pad", "shuffle": "crd"}, ["pad, crd"]),
        (kernel(3, 3, strides=[1, 1]), {"form": "pad", "shuffle": "dcr"}, ["conv"]),
        (shuffled, {"form": "pad", "shuffle": "col2im"}, ["col2im"]),
        (
            product(2, stride=2),
            {"form": "separable"},
            ["separable, col2im", "separable, transpose"],
        ),
        (
            product(8, stride=4),
            {"form": "separable", "shuffle": "two-step"},
            ["separable, two-step"],
        ),
        (kernel(2, 2, group=4), {"form": "separable", "shuffle": "col2im"}, ["crop, col2im"]),
        (shuffled_twice, {"shuffle": "two-step"}, ["two-step", "two-step + pointwise"]),
        (shuffled_twice, {"shuffle": "crd"}, ["crd + pointwise"]),
    ],
    ids=[
        *("both forms are one", "much more work", "no shuffle", "no form"),
        *("more multiplications", "another shuffle", "no product", "likely", "its own"),
    ],
)
def test_what_the_call_asks_for_is_tried_wherever_it_can_be(
    build: Callable[[], ModelProto], asked: dict[str, Any], expected: list[str]
) -> None:
    assert names(options(build(), **asked)) == expected


def test_chains_are_tried_as_far_as_they_go() -> None:
    found = options(head())
    chains = {
        str(option.choice): option.rewrite for option in found if option.choice.fusion != "none"
    }
    assert {
        name: [node.name for node in chain.nodes]
        for name, chain in chains.items()
        if isinstance(chain, Chain)
    } == {
        "crop, col2im + pointwise": ["first", "relu"],
        "crop, col2im + chain": ["first", "relu", "second", "sigmoid"],
        "crop, dcr + pointwise": ["first", "relu"],
        "crop, dcr + chain": ["first", "relu", "second", "sigmoid"],
    }


@pytest.mark.parametrize("build", [shuffled_twice, upsampled_and_shuffled])
def test_pixel_shuffles_join_what_is_in_front(build: Callable[[], ModelProto]) -> None:
    first = build().graph.node[0].name
    chains = [option for option in options(build()) if option.choice.fusion != "none"]
    for option in chains:
        found = [node.name for node in option.rewrite.nodes]
        assert found == [first, "near", "relu", "far"]
    for option in options(build(), skip=("far",)):
        assert "far" not in [node.name for node in option.rewrite.nodes]


def test_a_chain_that_mixes_nothing_comes_once() -> None:
    proto = net(up("x", "a", "up"), node("Relu", ["a"], ["y"]))
    assert [name for name in names(options(proto)) if "+" in name] == [
        "crop, col2im + pointwise",
        "crop, dcr + pointwise",
    ]


def test_a_chain_stops_before_what_the_call_leaves_alone() -> None:
    found = options(head(), skip=("second",))
    assert [name for name in names(found) if "+" in name] == [
        "crop, col2im + pointwise",
        "crop, dcr + pointwise",
    ]


def test_an_integer_layer_takes_its_quantize_along() -> None:
    """Without it it would be a float layer; and Col2Im, which moves floats, is not tried."""
    found = options(network(Layer(attributes={"strides": [2, 2], "pads": [1] * 4}), opset=18))
    assert names(found) == ["crop, channels-last + quantize", "crop, dcr + quantize"]
    assert {certify(option.rewrite, "site").verdict for option in found} == {"exact"}


def test_an_integer_layer_of_several_groups_moves_one_axis_at_a_time() -> None:
    layer = Layer(group=2, attributes={"strides": [2, 2], "pads": [1] * 4})
    found = options(network(layer, opset=18))
    assert names(found) == ["crop, two-step + quantize", "crop, crd + quantize"]


def test_an_integer_layer_without_one_is_tried_by_itself() -> None:
    found = options(quantized(Layer(kernel=(2, 2)), opset=18))
    assert names(found) == ["crop, col2im", "crop, two-step", "crop, dcr", "crop, crd"]


def behind(kernel: str, channels: int, taps: int = 3) -> ModelProto:
    """A layer to 4 channels, an activation, and a Conv to ``channels`` that mixes neighbours."""
    pads = [1] * 4 if kernel == "k4" else [0] * 4
    weight = tensor("up", integers(2, 4, int(kernel[1:]), int(kernel[1:])))
    last = tensor("last", integers(channels, 4, taps, taps))
    body = graph(
        [
            node("ConvTranspose", ["x", "up"], ["a"], strides=[2, 2], pads=pads),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "last"], ["y"], pads=[taps // 2] * 4),
        ],
        [value("x", FLOAT, [1, 2, 4, 6])],
        [value("y", FLOAT, [None] * 4)],
        [weight, last],
    )
    return model(body, 18)


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (behind("k2", 3), ["crop, col2im + region + conv", "split, col2im + region + conv"]),
        (behind("k4", 3), ["split, col2im + region + conv"]),
        (behind("k4", 4), ["split, col2im + region + conv"]),
        (behind("k4", 9), []),
        (behind("k4", 16), []),
        (behind("k4", 9, taps=7), ["split, col2im + region + conv"]),
    ],
    ids=["no crop", "only one Conv a phase", "a whole block", "more", "many", "large kernel"],
)
def test_a_conv_to_few_channels_ends_a_region(proto: ModelProto, expected: list[str]) -> None:
    """It has the phases for nothing where a block of output channels is not full without them."""
    found = [option for option in options(proto) if option.choice.fusion == "region + conv"]
    assert names(found) == expected
    for option in found:
        assert certify(option.rewrite, "site").verdict == "exact"
