"""The certificate of a Resize: integers along its axes, and its own weights.

The old nodes of the trial are products with matrices of integers, each along the last axis of a
transposed image: neither form writes these. The weights are held against those that the operator
itself shows on an image that is 1 at one pixel and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor, prod

import numpy as np
from onnx import NodeProto, helper

from deployconv.match import ResampleSite
from deployconv.match.resample_site import ResampledAxis
from deployconv.resampling import resampling_matrix
from deployconv.rewrites.base import Oracle, Rewrite, Trial
from deployconv.rewrites.trial import EXACT, Array, build_trial, oracle_model

_ULPS = 4
"""How many roundings the weights of the runtime may be off: each is a sum of a few products."""
_IMAGE_RANK = 4
"""Axes of an image for onnxruntime's cubic kernel, if it has a batch and channels."""
SMALL = 3
"""Size of an axis that does not change, in a trial."""
_LARGEST_IMAGE = 1 << 8


def resample_trial(
    rewrite: Rewrite,
    site: ResampleSite,
    shape: Sequence[int],
    matrices: Mapping[int, Array],
    weights: Mapping[ResampledAxis, tuple[Array, float]],
    rng: np.random.Generator,
    divided: bool = False,
) -> Trial:
    """Build the trial of a rewrite of ``site``.

    Args:
        rewrite: with integers for weights.
        site: the layer, which reads an image of ``shape``.
        shape: all sizes of the image.
        matrices: the integers of each axis as a matrix ``[outputs, inputs]``, by its position.
        weights: of each axis, its real matrix, and how far a weight of the runtime may be off
            besides a few roundings.
        rng: random numbers.
        divided: whether the result is divided by that of an image of ones.
    """
    nodes, constants, x = on_integers(site, shape, matrices, rng, divided)
    trial = build_trial(rewrite, nodes, constants, {site.source: x}, batch=site.shape[0])
    return with_oracles(trial, site, weights)


def on_integers(
    site: ResampleSite,
    shape: Sequence[int],
    matrices: Mapping[int, Array],
    rng: np.random.Generator,
    divided: bool = False,
) -> tuple[list[NodeProto], dict[str, Array], Array]:
    """The old nodes of a trial, their constants by name, and an image of integers for them.

    The image is so small that every sum is exact. The arguments are those of `resample_trial`.
    """
    terms = prod(int(np.abs(matrix).sum(axis=1).max()) for matrix in matrices.values())
    bound = max(1, min(_LARGEST_IMAGE, EXACT // terms))
    x = rng.integers(-bound, bound + 1, tuple(shape)).astype(np.float32)
    product = "trial/product" if divided else site.output
    nodes, constants = _one_by_one(site.source, product, len(shape), matrices)
    if divided:
        more, others = _one_by_one("trial/ones", "trial/divisor", len(shape), matrices)
        constants |= {**others, "trial/ones": np.ones(tuple(shape), np.float32)}
        nodes += [*more, helper.make_node("Div", [product, "trial/divisor"], [site.output])]
    return nodes, constants, x


def with_oracles(
    trial: Trial, site: ResampleSite, weights: Mapping[ResampledAxis, tuple[Array, float]]
) -> Trial:
    """``trial`` with the checks of the real weights of ``site``, see `resample_trial`."""
    oracles = [weights_oracle(site, axis, *found) for axis, found in weights.items()]
    missing = () if all(oracles) else (site.scope.label(site.layer),)
    known = tuple(oracle for oracle in oracles if oracle is not None)
    return replace(trial, oracles=known, parity_only=(*trial.parity_only, *missing))


def fits(weights: Array, dtype: str) -> bool:
    """Whether ``weights`` may be rounded to ``dtype``: to bfloat16 only if they are exact in it."""
    rounded = weights.astype(dtype).astype(np.float64)
    return dtype != "bfloat16" or bool((rounded == weights).all())


def drawn(band: Array, rng: np.random.Generator) -> Array:
    """Small integers where ``band`` has weights."""
    return np.where(band != 0, rng.integers(1, 9, band.shape), 0).astype(np.float64)


def weights_oracle(
    site: ResampleSite, axis: ResampledAxis, matrix: Array, besides: float
) -> Oracle | None:
    """The Resize itself on unit impulses along one axis; its output is the matrix.

    None if it would give another number of outputs alone than among the other axes, or would be
    copied alone, as its size stays the same with another scale than 1.
    """
    outputs, inputs = matrix.shape
    rank, cubic = len(site.shape), site.how.mode == "cubic"
    rank = max(_IMAGE_RANK if cubic else 2, rank)
    copied = inputs == outputs and bool((matrix == np.eye(inputs)).all())
    same = inputs == outputs and not copied
    if same and (axis.scale != 1 or not cubic):
        return None
    if not site.by_sizes and floor(np.float32(inputs) * np.float32(axis.scale)) != outputs:
        return None
    # Only where axis 1 changes does onnxruntime take axes 1 and 2 for those of the image.
    position = 1 if site.how.channels_last else axis.position + rank - len(site.shape)
    beside = 0 if position else 1
    shape, target, scales = [1] * rank, [1] * rank, [1.0] * rank
    shape[position], target[position] = inputs, outputs
    scales[position] = axis.scale
    shape[beside] = target[beside] = inputs
    expected = matrix if position < beside else matrix.T
    if cubic and not site.how.channels_last and not copied:
        # The other axis of the image has one pixel, whose weights need not add up to 1. It becomes
        # two if the size of this axis stays the same: an image that keeps its size is copied.
        other = next(at for at in (rank - 1, rank - 2) if at != position)
        target[other], scales[other] = (2, 2.0) if same else (1, 1.0)
        column = resampling_matrix(1, target[other], scales[other], site.how)
        column = column.reshape([-1 if at == other else 1 for at in range(rank)])
        expected = expected.reshape([1 if at == other else n for at, n in enumerate(target)])
        expected = expected * column
    node = NodeProto()
    node.CopyFrom(site.scope.proto.node[site.scope.index(site.layer)])
    constants = resized_to(node, target if site.by_sizes else None, scales)
    impulses = np.eye(inputs, dtype=np.float32).reshape(shape)
    model = oracle_model(node, constants, site.scope.opset, impulses)
    largest = float(np.abs(matrix).sum(axis=1).max())
    atol = _ULPS * float(np.finfo(np.float32).eps) * largest + besides
    label = site.scope.label(site.layer)
    return Oracle(model, impulses, expected.reshape(target), atol, label)


def _one_by_one(
    source: str, output: str, rank: int, matrices: Mapping[int, Array]
) -> tuple[list[NodeProto], dict[str, Array]]:
    """The products along each axis, each along the last axis of a transposed image."""
    nodes, constants, name = [], {}, source
    for number, (position, matrix) in enumerate(matrices.items()):
        order = [at for at in range(rank) if at != position] + [position]
        back = np.argsort(order).tolist()
        kinds = ("matrix", "moved", "made", "result")
        held, moved, made, result = (f"{output}/{number}/{kind}" for kind in kinds)
        result = output if number == len(matrices) - 1 else result
        constants[held] = np.ascontiguousarray(matrix.T, np.float32)
        nodes += [
            helper.make_node("Transpose", [name], [moved], perm=order),
            helper.make_node("MatMul", [moved, held], [made]),
            helper.make_node("Transpose", [made], [result], perm=back),
        ]
        name = result
    return nodes, constants


def resized_to(
    node: NodeProto, sizes: Sequence[int] | None, scales: Sequence[float]
) -> dict[str, Array]:
    """Let ``node`` take these sizes, or else scales, of all axes; returns its constants."""
    kept = [
        given
        for given in node.attribute
        if given.name not in ("axes", "scales", "keep_aspect_ratio_policy")
    ]
    stated = any(given.name == "scales" for given in node.attribute)
    del node.attribute[:]
    node.attribute.extend(kept)
    old = len(node.input)
    del node.input[1:]
    if stated:
        node.attribute.append(helper.make_attribute("scales", [float(one) for one in scales]))
        return {}
    if old == 2:  # the image and the scales
        node.input.append("scales")
        return {"scales": np.array(scales, np.float32)}
    # The region may be left out from opset 13 on, and may be empty in all.
    constants: dict[str, Array] = {"roi": np.zeros(0, np.float32)}
    if sizes is None:
        node.input.extend(["roi", "scales"])
        return {**constants, "scales": np.array(scales, np.float32)}
    node.input.extend(["roi", "no_scales", "sizes"])
    empty = np.zeros(0, np.float32)
    return {**constants, "no_scales": empty, "sizes": np.array(sizes, np.int64)}
