"""A Resize and a pixel shuffle that are added: one shuffle for both, and the same values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, parser

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from deployconv.search.choice import Choice
from tests.build import Array, integers, ops, run, tensor
from tests.match.graphs import floats, ints

COST = RewriteOptions(policy="cost")
CUBIC = 'u = Resize<mode="cubic">(x, , s)'
CRD = 'd = DepthToSpace<blocksize=2, mode="CRD">(f)'
DCR = "d = DepthToSpace<blocksize=2>(f)"
ADD = "y = Add(d, u)"


def network(
    *lines: str,
    image: str = "n,3,h,w",
    features: str = "n,12,h,w",
    constants: dict[str, Array] | None = None,
    opset: int = 18,
    dtype: Any = np.float32,
) -> ModelProto:
    """The nodes of ``lines`` from an image ``x`` and features ``f`` to ``y``."""
    kinds = {1: "float", 10: "float16", 11: "double"}
    kind = kinds[helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net ({kind}[{image}] x,'
        f" {kind}[{features}] f) => ({kind} y) {{ {' '.join(lines)} }}"
    )
    known = {"s": floats(1, 1, 2, 2), **(constants or {})}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor(k, v) for k, v in known.items() if k in used)
    return model


def offered(model: ModelProto) -> Iterator[tuple[str, Choice, ModelProto]]:
    """Each form with one shuffle for both layers, certified: its site, its choice, the model."""
    candidates = Candidates.of(load(model), COST)
    for planned in candidates.planning.default:
        for option in candidates.of_site(planned):
            if option.choice.fusion != "add":
                continue
            chosen = candidates.with_choices({planned.id: option.choice})
            planning = certify_sites(chosen, 0)
            assert [site.status for site in planning.reports] == ["rewritten", "rewritten"]
            assert {site.certificate for site in planning.reports} == {"exact"}
            yield planned.id, option.choice, apply(planning).proto


def alike(model: ModelProto, after: ModelProto, *shapes: tuple[int, ...], atol: float) -> None:
    for batch, *sizes in shapes:
        rng, feeds = np.random.default_rng(4), {}
        for given in model.graph.input:
            kind = given.type.tensor_type
            shape = batch, kind.shape.dim[1].dim_value, *sizes
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            feeds[given.name] = rng.standard_normal(shape).astype(dtype)
        expected, actual = run(model, feeds)["y"], run(after, feeds)["y"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


SIZES = ((1, 1, 1), (2, 3, 5), (1, 17, 9))


@pytest.mark.parametrize("order", [CRD, DCR])
@pytest.mark.parametrize("first", ["resize", "shuffle"])
def test_one_shuffle_for_both(first: str, order: str) -> None:
    layers = (CUBIC, order) if first == "resize" else (order, CUBIC)
    model = network(*layers, ADD)
    named = next(planned.id for planned in Candidates.of(load(model), COST).planning.default)
    found = list(offered(model))
    assert found
    for site, choice, after in found:
        assert site == named
        left = ops(after)
        assert (left["Resize"], left["Conv"]) == (0, 1), choice
        assert left["DepthToSpace"] <= 1
        alike(model, after, *SIZES, atol=4e-6)


@pytest.mark.parametrize(
    ("attributes", "exact"),
    [
        ('mode="linear"', True),
        ('mode="linear", coordinate_transformation_mode="asymmetric"', True),
        ('mode="cubic", cubic_coeff_a=-0.5', False),
        ('mode="cubic", antialias=1', False),
    ],
)
def test_other_ways_to_enlarge(attributes: str, exact: bool) -> None:
    model = network(f"u = Resize<{attributes}>(x, , s)", CRD, ADD)
    ((_, _, after), *_) = offered(model)
    alike(model, after, *SIZES, atol=4e-6)
    if exact:
        feeds = {"x": integers(2, 3, 5, 7), "f": integers(2, 12, 5, 7, seed=1)}
        np.testing.assert_array_equal(run(after, feeds)["y"], run(model, feeds)["y"])


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (5, 5)])
def test_few_channels_are_read_by_one_dense_conv(channels: int, groups: int) -> None:
    model = network(CUBIC, CRD, ADD, image=f"n,{channels},h,w", features=f"n,{4 * channels},h,w")
    ((_, _, after), *_) = offered(model)
    (conv,) = (node for node in after.graph.node if node.op_type == "Conv")
    given = {one.name: helper.get_attribute_value(one) for one in conv.attribute}
    assert given.get("group", 1) == groups
    alike(model, after, *SIZES, atol=4e-6)


def test_many_channels_in_an_order_that_groups_do_not_make() -> None:
    model = network(CUBIC, DCR, ADD, image="n,5,h,w", features="n,20,h,w")
    assert not list(offered(model))


@pytest.mark.parametrize(
    ("image", "features"),
    [("n,3,h,w", "1,12,h,w"), ("1,3,h,w", "n,12,h,w"), ("1,3,4,4", "n,12,h,w")],
)
def test_an_image_may_be_repeated_along_the_batch(image: str, features: str) -> None:
    model = network(CUBIC, CRD, ADD, image=image, features=features)
    found = list(offered(model))
    assert found
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1 if image[0] == "1" else 3, 3, 4, 4)).astype(np.float32)
    f = rng.standard_normal((1 if features[0] == "1" else 3, 12, 4, 4)).astype(np.float32)
    for _, choice, after in found:
        actual = run(after, {"x": x, "f": f})["y"]
        expected = run(model, {"x": x, "f": f})["y"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6, err_msg=str(choice))


def test_a_pixel_may_be_repeated_along_an_axis_that_stays() -> None:
    """The Add may do so at some sizes and not at others."""
    shuffle = "a = Reshape(f, apart) b = Transpose<perm=[0,1,3,2,4]>(a) d = Reshape(b, together)"
    constants = {
        "s": floats(1, 1, 2, 1),
        "apart": ints(1, 3, 2, 4, 1),
        "together": ints(1, 3, 8, 1),
    }
    model = network(CUBIC, shuffle, ADD, image="1,3,4,w", features="1,6,4,1", constants=constants)
    assert not list(offered(model))


def test_float16() -> None:
    model = network('u = Resize<mode="linear">(x, , s)', CRD, ADD, dtype=np.float16)
    ((_, _, after), *_) = offered(model)
    alike(model, after, *SIZES, atol=8e-3)


def test_fixed_sizes_and_factors_that_differ() -> None:
    shuffle = "a = Reshape(f, apart) b = Transpose<perm=[0,1,4,2,5,3]>(a) d = Reshape(b, together)"
    constants = {
        "s": floats(1, 1, 2, 3),
        "apart": ints(1, 3, 2, 3, 4, 5),
        "together": ints(1, 3, 8, 15),
    }
    model = network(CUBIC, shuffle, ADD, image="1,3,4,5", features="1,18,4,5", constants=constants)
    found = list(offered(model))
    assert {choice.shuffle for _, choice, _ in found} >= {"transpose", "col2im"}
    for _, _, after in found:
        alike(model, after, (1, 4, 5), atol=4e-6)


def test_three_axes() -> None:
    shuffle = (
        "a = Reshape(f, apart) b = Transpose<perm=[0,1,5,2,6,3,7,4]>(a) d = Reshape(b, together)"
    )
    constants = {
        "s": floats(1, 1, 2, 2, 2),
        "apart": ints(1, 2, 2, 2, 2, 3, 4, 5),
        "together": ints(1, 2, 6, 8, 10),
    }
    model = network(
        'u = Resize<mode="linear">(x, , s)', shuffle, ADD,
        image="1,2,3,4,5", features="1,16,3,4,5", constants=constants,
    )  # fmt: skip
    ((_, _, after), *_) = offered(model)
    alike(model, after, (1, 3, 4, 5), atol=4e-6)


ALONE = {
    "the Resize is read twice": (CUBIC, CRD, "y1 = Add(d, u)", "y = Mul(y1, u)"),
    "the shuffle is read twice": (CUBIC, CRD, "y1 = Add(d, u)", "y = Mul(y1, d)"),
    "no Add": (CUBIC, CRD, "y = Mul(d, u)"),
    "it is added to itself": (CUBIC, CRD, "y1 = Add(u, u)", "y = Add(y1, d)"),
    "zeros are read outside and divided out": (
        'u = Resize<mode="cubic", exclude_outside=1>(x, , s)',
        CRD,
        ADD,
    ),
    "its weights depend on the size": (
        'u = Resize<mode="cubic", coordinate_transformation_mode="align_corners">(x, , s)',
        CRD,
        ADD,
    ),
}


@pytest.mark.parametrize("case", ALONE)
def test_layers_that_stay_apart(case: str) -> None:
    assert not list(offered(network(*ALONE[case])))


def test_factors_or_channels_that_do_not_fit() -> None:
    one = network(CUBIC, CRD, ADD, image="n,1,h,w")  # repeated for all channels by the Add
    assert not list(offered(one))
    other_factor = network(
        CUBIC, CRD, ADD, image="1,3,4,4", features="1,12,6,6", constants={"s": floats(1, 1, 3, 3)}
    )
    assert not list(offered(other_factor))


def test_another_form_that_is_asked_for_is_not_this_one() -> None:
    model = network(CUBIC, CRD, ADD, image="1,3,4,5", features="1,12,4,5")
    options = RewriteOptions(policy="cost", form="matrix")
    candidates = Candidates.of(load(model), options)
    found = [one for site in candidates.planning.default for one in candidates.of_site(site)]
    assert found
    assert all(option.choice.fusion == "none" for option in found)
