"""Sizes that are declared dynamic, but fixed by a Reshape to sizes of the exported image."""

from __future__ import annotations

import pytest

from deployconv.graph.load import load
from deployconv.graph.view import view
from tests.build import assert_equal, integers, rewrite, run
from tests.match.graphs import CONV, codes, ints, ops, parsed

TALL = {"tall": ints(1, 2, 4, 1, 3, 1), "flat": ints(1, 2, 8, 6)}
PADS = {"pads": ints(*[0] * 9, 1, 0, 1)}
ZEROS = "a = Reshape(x, tall) p = Pad(a, pads) z = Reshape(p, flat)"
REPEATED = "a = Unsqueeze(x, axes) p = Expand(a, one) z = Reshape(p, flat)"
REPEATS = {"axes": ints(3, 5), "one": ints(1, 1, 1, 2, 1, 2), "flat": ints(1, 2, 8, 6)}
SHUFFLE = "a = Reshape(x, split) t = Transpose<perm=[0,1,4,2,5,3]>(a) y = Reshape(t, wide)"

LAYERS = {
    "zeros, batch of 1": (f"{ZEROS} {CONV}", {**TALL, **PADS}, "n,2,4,3", (1, 2, 4, 3)),
    "zeros, batch of 3": (
        f"{ZEROS} {CONV}",
        {"tall": ints(3, 2, 4, 1, 3, 1), "flat": ints(3, 2, 8, 6), **PADS},
        "n,2,4,3",
        (3, 2, 4, 3),
    ),
    "zeros, height of 4": (
        f"{ZEROS} {CONV}",
        {"tall": ints(0, 2, 4, 1, 3, 1), "flat": ints(0, 2, 8, 6), **PADS},
        "1,2,h,3",
        (1, 2, 4, 3),
    ),
    "zeros, height and kept batch": (
        f"{ZEROS} {CONV}",
        {"tall": ints(0, 0, 4, 1, 3, 1), "flat": ints(0, 0, 8, 6), **PADS},
        "n,2,h,3",
        (2, 2, 4, 3),
    ),
    "unnamed": (f"{ZEROS} {CONV}", {**TALL, **PADS}, "?,2,4,3", (1, 2, 4, 3)),
    "repeated": (f"{REPEATED} {CONV}", REPEATS, "n,2,4,3", (1, 2, 4, 3)),
    "pixel shuffle": (
        SHUFFLE,
        {"split": ints(1, 2, 2, 2, 4, 3), "wide": ints(1, 2, 8, 6)},
        "n,8,4,3",
        (1, 8, 4, 3),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_size_that_a_reshape_fixes_is_known(name: str) -> None:
    body, constants, dims, shape = LAYERS[name]
    original = parsed(body, constants, dims)
    done, after = rewrite(original, shape={"x": shape})
    assert codes(done.sites) == [None]
    assert [site.certificate for site in done.sites] == ["exact"]
    assert not {"Pad", "Expand", "Transpose"} & set(ops(after))
    # The interface stays as it was.
    assert after.graph.input[0] == original.graph.input[0]
    feeds = {"x": integers(*shape)}
    assert_equal(run(original, feeds), run(after, feeds))


@pytest.mark.parametrize(
    ("body", "constants", "pattern"),
    [
        (f"{ZEROS} {CONV}", {**TALL, **PADS}, "zero_insertion"),
        (f"{REPEATED} {CONV}", REPEATS, "nearest_resize"),
    ],
)
@pytest.mark.parametrize("dims", ["n,2,h,w", "1,2,h,w"])
def test_two_sizes_that_a_reshape_fixes_are_named_as_the_reason(
    body: str, constants: dict[str, object], pattern: str, dims: str
) -> None:
    """Twice as high and half as wide fits the Reshape too, and is another layer."""
    done, _ = rewrite(parsed(body, constants, dims), verify=False)
    assert [site.pattern for site in done.sites] == [pattern]
    assert codes(done.sites) == ["baked-sizes"]


def test_an_input_whose_size_has_the_same_name_is_not_fixed() -> None:
    """Runtimes do not compare the sizes of two inputs."""
    original = parsed(f"{ZEROS} {CONV}", {**TALL, **PADS}, "n,2,4,3")
    other = original.graph.input.add()
    other.CopyFrom(original.graph.input[0])
    other.name = "other"
    original.graph.node.add(op_type="Relu", input=["other"], output=["o"])
    original.graph.output.add().CopyFrom(original.graph.output[0])
    original.graph.output[1].name = "o"
    seen = view(load(original))
    shapes = {node.inputs[0].name: node.inputs[0].shape for node in seen.scopes[0].nodes}
    assert shapes["x"][0] == 1
    assert shapes["other"][0] == "n"


@pytest.mark.parametrize("used", [True, False])
def test_a_reshape_that_nothing_needs_fixes_no_size(used: bool) -> None:
    """A runtime may leave it out."""
    source = "r" if used else "x"
    body = f"r = Reshape(x, flat) y = Relu({source})"
    seen = view(load(parsed(body, {"flat": ints(2, 24)}, "n,2,4,3")))
    assert seen.shapes.dynamic is not used
