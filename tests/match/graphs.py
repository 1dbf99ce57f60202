"""Small models written as text, and the check of every rewrite: the output must not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper, parser

from deployconv.errors import DeployconvError
from deployconv.results import SiteReport
from tests.build import Array, assert_equal, integers, ops, rewrite, run, tensor

CONV = "y = Conv<pads=[1,1,1,1]>(z, w, b)"
"""A 3x3 Conv on two channels; its weights are in every `parsed` model that reads them."""
NEAREST = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
"""Attributes of a Resize that repeats each pixel."""
SIZES = ((1, 1), (1, 2), (2, 1), (2, 3), (4, 3), (5, 4), (7, 9), (17, 33), (50, 130))
"""Heights and widths, small and large, odd and even; none is one that `Shapes` tries."""

_IR_VERSIONS = ((7, 3), (9, 4), (10, 5), (11, 6), (13, 7), (15, 8), (19, 9), (21, 10))


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def parsed(
    body: str,
    constants: Mapping[str, Any] | None = None,
    dims: str = "1,2,4,3",
    *,
    opset: int = 17,
    dtype: Any = np.float32,
    ir_version: int | None = None,
) -> ModelProto:
    """The nodes of ``body`` from ``x`` of shape ``dims`` to ``y``; the weights are whole numbers.

    ``constants`` become initializers.
    """
    version = ir_version or max(ir for first, ir in _IR_VERSIONS if first <= opset)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    named = {1: "float", 10: "float16", 11: "double", 16: "bfloat16"}[kind]
    model = parser.parse_model(
        f'<ir_version: {version}, opset_import: ["" : {opset}]>'
        f" parsed ({named}[{dims}] x) => ({named} y) {{ {body} }}"
    )
    made = {"w": integers(3, 2, 3, 3, seed=1), "b": integers(3, seed=2), **(constants or {})}
    used = {name for proto in model.graph.node for name in proto.input}
    for name, values in made.items():
        if name in used:
            known = tensor(name, values.astype(dtype) if name in ("w", "b") else values)
            model.graph.initializer.append(known)
            if version < 4:  # then an initializer is an input as well
                shape = helper.make_tensor_value_info(name, known.data_type, known.dims)
                model.graph.input.append(shape)
    return model


def feeds(*shape: int, dtype: Any = np.float32, seed: int = 3) -> dict[str, Array]:
    return {"x": integers(*shape, seed=seed, dtype=dtype)}


def dynamic_shapes(channels: int = 2, rank: int = 2) -> list[tuple[int, ...]]:
    """Input shapes at all of `SIZES`, with batches of 1 and 3."""
    sizes = SIZES if rank == 2 else [(size,) for size in range(1, 10)] + [(17,), (33,), (130,)]
    return [(1 + 2 * (at % 2), channels, *size) for at, size in enumerate(sizes)]


def assert_never_wrong(
    model: ModelProto, shapes: Sequence[tuple[int, ...]] = (), **options: Any
) -> tuple[SiteReport, ...]:
    """Rewrite, and require equal bits at every size the original runs with; returns the sites.

    A site that is rewritten must be certified; a model in which none is stays as it was.
    """
    done, after = rewrite(model, verify=False, **options)
    if not any(site.status == "rewritten" for site in done.sites):
        assert after.SerializeToString(deterministic=True) == model.SerializeToString(
            deterministic=True
        )
        return done.sites
    ran = 0
    for shape in shapes or [declared(model)]:
        given = feeds(*shape)
        try:
            expected = run(model, given)
        except DeployconvError:  # no size of this model
            continue
        assert_equal(expected, run(after, given))
        ran += 1
    assert ran, "the original runs at none of these sizes"
    return done.sites


def declared(model: ModelProto) -> tuple[int, ...]:
    """The shape of the input, of a model with static sizes."""
    return tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)


def codes(sites: Sequence[SiteReport]) -> list[str | None]:
    """The reason code of each site, None if it is rewritten."""
    return [site.reason.code if site.reason else None for site in sites]


def upsampled(body: str, dims: str = "n,2,h,w", opset: int = 17, **constants: Array) -> ModelProto:
    """A model of ``body``, from ``x`` to ``z``, and the Conv after it."""
    return parsed(f"{body} {CONV}", constants, dims, opset=opset)


def resize(sizes: str, dims: str = "n,2,h,w", opset: int = 17, **constants: Array) -> ModelProto:
    """A Resize of ``x`` to ``hw``, which ``sizes`` computes from the shape ``s``, and the Conv."""
    body = (
        f"s = Shape(x) nc = Slice(s, k0, k2) {sizes} to = Concat<axis=0>(nc, hw)"
        f" z = Resize<{NEAREST}>(x, , , to)"
    )
    numbers = {f"k{number}": ints(number) for number in range(9)}
    return upsampled(body, dims, opset, **{**numbers, **constants})


__all__ = [
    "CONV",
    "NEAREST",
    "SIZES",
    "assert_never_wrong",
    "codes",
    "dynamic_shapes",
    "feeds",
    "floats",
    "ints",
    "ops",
    "parsed",
    "resize",
    "upsampled",
]
