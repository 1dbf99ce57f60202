"""All spellings that PyTorch exports, and how; needs torch and einops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.spellings import nearest_resize, negatives, pixel_shuffle, zero_insertion
from tests.spellings.corpus import Exporter, Spelling

SPELLINGS = (
    *zero_insertion.SPELLINGS,
    *nearest_resize.SPELLINGS,
    *pixel_shuffle.SPELLINGS,
    *negatives.SPELLINGS,
    *nearest_resize.LATER,
)

LEGACY = (17, 18, 20)
DYNAMO = (18, 20, 23)
EXPORTERS: tuple[tuple[Exporter, tuple[int, ...]], ...] = (("legacy", LEGACY), ("dynamo", DYNAMO))
OLD = (11, 13)
"""Opsets that the legacy exporter still writes and old files have."""


@dataclass(frozen=True)
class Variant:
    """One way to export a spelling."""

    spelling: Spelling
    exporter: Exporter
    opset: int
    dynamic: bool


AT_EVERY_OPSET = frozenset(
    {
        # Zero insertion
        "assign",
        "assign_1d",
        "assign_2x3",
        "assign_conv_dilated",
        "assign_conv_groups",
        "assign_copy",
        "assign_plus_one",
        "assign_tight",
        "assign_x3",
        "concat_zeros",
        "nearest_times_mask",
        "one_hot_transposed_k2",
        "pad_before_assign",
        "pad_behind_assign",
        "reshape_pad_reshape",
        "stack_zeros",
        "unsqueeze_pad_reshape",
        "upfirdn2d",
        "upfirdn2d_folded_channels",
        # Nearest Resize
        "expand_reshape",
        "nearest_exact",
        "repeat_interleave",
        "scale2",
        "scale2_batchnorm",
        "scale2_conv1x1",
        "scale2_conv5",
        "scale2_pad",
        "scale2_relu",
        "scale2x3",
        "scale3",
        "scale_1d",
        "scale_3d",
        "scale_recomputed",
        "size_computed",
        "size_literal",
        "tile_reshape",
        # Pixel shuffle
        "einops_crd",
        "einops_dcr",
        "folded_batch",
        "module",
        "view_crd",
        "view_crd_1d",
        "view_crd_2x3",
        "view_crd_3d",
        "view_crd_relu_between",
        "view_dcr",
    }
)
"""The spellings that people export most, each at every opset; for the others they take turns."""


def variants() -> Iterator[Variant]:
    """Both exporters, static and dynamic, and an old opset."""
    for index, spelling in enumerate(SPELLINGS):
        for dynamic in (False,) if spelling.dynamic_axes is None else (False, True):
            turn = index + dynamic
            for exporter, opsets in EXPORTERS:
                every = spelling.name in AT_EVERY_OPSET
                for opset in opsets if every else (opsets[turn % len(opsets)],):
                    yield Variant(spelling, exporter, opset, dynamic)
        old_dynamic = spelling.dynamic_axes is not None and index // 2 % 2 == 0
        yield Variant(spelling, "legacy", OLD[index % len(OLD)], old_dynamic)
