"""1x1 Convs before the Resizes of their images: what is moved, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, parser

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from tests.build import Array, ops, run, tensor
from tests.match.graphs import floats, ints

COST = RewriteOptions(policy="cost")
IN_FRONT = "1x1 conv in front"
LINEAR = 'Resize<mode="linear">'
CUBIC = 'Resize<mode="cubic">'
CORNERS = 'Resize<mode="linear", coordinate_transformation_mode="align_corners">'


def network(
    body: str,
    inputs: Mapping[str, str],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    dtype: Any = np.float32,
) -> ModelProto:
    """The nodes of ``body`` from images of these shapes to ``y``.

    A weight ``wC_D`` is a 1x1 Conv from C to D channels, ``bD`` its bias; ``xN`` are scales of 2-D
    images. In opset 11 and 12 an empty region may not be left out: `` e`` is one.
    """
    named = {1: "float", 10: "float16", 11: "double"}
    kind = named[helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
    given = ", ".join(f"{kind}[{shape}] {name}" for name, shape in inputs.items())
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net ({given}) => ({kind} y) {{ {body} }}'
    )
    known: dict[str, Array] = dict(constants or {})
    rng = np.random.default_rng(5)
    for name in {name for node in model.graph.node for name in node.input} - known.keys():
        if name[:1] == "w" and "_" in name:
            read, made = map(int, name[1:].split("_")[:2])
            known[name] = rng.standard_normal((made, read, 1, 1)).astype(dtype)
        elif name[:1] == "b" and name[1:].isdigit():
            known[name] = rng.standard_normal(int(name[1:])).astype(dtype)
        elif name[:1] == "x" and name[1:].isdigit():
            known[name] = floats(1, 1, int(name[1:]), int(name[1:]))
        elif name == "e":
            known[name] = np.zeros(0, np.float32)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor(k, v) for k, v in known.items() if k in used)
    return model


def moved(model: ModelProto, form: str = "auto") -> ModelProto | None:
    """``model`` with the first site that offers it in this form, certified; None if none does."""
    candidates = Candidates.of(load(model), COST)
    for planned in candidates.planning.default:
        for option in candidates.of_site(planned):
            if (option.choice.fusion, option.choice.form) == (IN_FRONT, form):
                choices = {planned.id: option.choice}
                planning = certify_sites(candidates.with_choices(choices), 0)
                for report in planning.reports:
                    assert report.certificate in ("exact", None), report.certificate_failure
                return apply(planning).proto
    return None


def inputs_of(model: ModelProto, size: int, batch: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(size)
    found = {}
    for at, value in enumerate(model.graph.input):
        dims = value.type.tensor_type.shape.dim
        shape = [
            dim.dim_value or (batch if axis == 0 else size + 2 * axis)
            for axis, dim in enumerate(dims)
        ]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = rng.standard_normal(shape).astype(kind) + at
    return found


def assert_equal_results(
    before: ModelProto, after: ModelProto, sizes: Sequence[int] = (5, 8), atol: float = 2e-5
) -> None:
    """The same results of onnxruntime up to rounding, at these sizes of dynamic axes."""
    for size in sizes:
        given = inputs_of(before, size)
        expected, actual = run(before, given)["y"], run(after, given)["y"]
        assert expected.shape == actual.shape
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=atol * max(1, np.abs(expected).max())
        )


MOVES: dict[str, tuple[str, dict[str, str], Counter[str]]] = {
    "directly behind it": (
        f"r = {LINEAR}(a, , x2) y = Conv(r, w8_4, b4)",
        {"a": "1,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "behind a cubic Resize": (
        f"r = {CUBIC}(a, , x2) y = Conv(r, w8_4)",
        {"a": "2,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "through a Concat": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Concat<axis=1>(p, d, q)"
        " y = Conv(c, w24_6, b6)",
        {"a": "1,8,2,3", "b": "1,10,4,6", "d": "1,6,8,12"},
        Counter(Resize=2, Conv=3, Add=2),
    ),
    "through an Add": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Add(q, p) y = Conv(c, w8_2)",
        {"a": "1,8,2,3", "b": "1,8,4,6"},
        Counter(Resize=2, Conv=2, Add=1),
    ),
    "one after the other": (
        f"r = {LINEAR}(a, , x2) c = Conv(r, w8_6, b6) y = Conv(c, w6_2, b2)",
        {"a": "1,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "with those before it": (
        f"f = Conv(a, w4_9, b9) r = {LINEAR}(f, , x2) y = Conv(r, w9_2, b2)",
        {"a": "1,4,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "images that are not resized share one Conv": (
        f"p = {LINEAR}(a, , x4) c = Concat<axis=1>(d, p, f) y = Conv(c, w24_6, b6)",
        {"a": "1,8,2,3", "f": "1,10,8,12", "d": "1,6,8,12"},
        Counter(Resize=1, Conv=2, Add=1, Concat=1),
    ),
    "with a nearest Resize beside it": (
        f'p = {LINEAR}(a, , x4) q = Resize<mode="nearest">(b, , x2) c = Concat<axis=1>(q, p)'
        " y = Conv(c, w18_6, b6)",
        {"a": "1,8,2,3", "b": "1,10,4,6"},
        Counter(Resize=2, Conv=2, Add=1),
    ),
    "an image of one pixel becomes a bias": (
        f"p = {LINEAR}(g, , x8) c = Concat<axis=1>(d, p) y = Conv(c, w24_6, b6)",
        {"g": "2,8,1,1", "d": "2,16,8,8"},
        Counter(Conv=2, Add=1),
    ),
    "of three axes": (
        f"r = {LINEAR}(a, , s) y = Conv(r, v, b2)",
        {"a": "1,8,2,3,4"},
        Counter(Resize=1, Conv=1),
    ),
    "of one axis": (
        f"r = {LINEAR}(a, , t) y = Conv(r, u, b2)",
        {"a": "2,8,7"},
        Counter(Resize=1, Conv=1),
    ),
    "to sizes, with other channels": (
        f"r = {CORNERS}(a, , , z) y = Conv(r, w8_3, b3)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "with a BatchNormalization and factors": (
        f"r = {LINEAR}(a, , x2) h = Mul(r, k) c = Conv(h, w8_3, b3)"
        " n = BatchNormalization(c, g, b3, m, g) y = Sub(n, m1)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "of groups": (
        f"r = {LINEAR}(a, , x2) y = Conv<group=2>(r, o, b4)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "taken off another image": (
        f"r = {LINEAR}(a, , x4) c = Sub(d, r) y = Conv(c, w8_2, b2)",
        {"a": "1,8,2,3", "d": "1,8,8,12"},
        Counter(Resize=1, Conv=2, Add=1),
    ),
    "a Resize that changes nothing is left out": (
        f"p = {LINEAR}(a, , , z) q = {LINEAR}(b, , , z) c = Concat<axis=1>(p, q)"
        " y = Conv(c, w16_3, b3)",
        {"a": "1,8,4,5", "b": "1,8,9,12"},
        Counter(Resize=1, Conv=2, Add=1),
    ),
}
EXTRA = {
    "s": floats(1, 1, 2, 2, 1),
    "t": floats(1, 1, 3),
    "z": ints(1, 8, 9, 12),
    "v": np.random.default_rng(1).standard_normal((2, 8, 1, 1, 1)).astype(np.float32),
    "u": np.random.default_rng(1).standard_normal((2, 8, 1)).astype(np.float32),
    "o": np.random.default_rng(1).standard_normal((4, 4, 1, 1)).astype(np.float32),
    "k": floats(*range(1, 9)).reshape(8, 1, 1),
    "g": floats(1, 2, 0.5),
    "m": floats(1, -2, 3),
    "m1": floats(0.5, -1, 2).reshape(1, 3, 1, 1),
}


@pytest.mark.parametrize("case", MOVES.values(), ids=MOVES)
def test_it_runs_on_the_small_image(case: tuple[str, dict[str, str], Counter[str]]) -> None:
    body, inputs, expected = case
    extra = {name: values for name, values in EXTRA.items() if name not in inputs}
    before = network(body, inputs, extra)
    after = moved(before)
    assert after is not None
    assert ops(after) == expected
    assert_equal_results(before, after)
