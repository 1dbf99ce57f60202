"""Pixel shuffle: phases from the channels into space, with and without a Conv in front."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tests.spellings.chain import Step, conv, table
from tests.spellings.corpus import Shape


def crd(*strides: int) -> Step:
    """view - permute - view with the channels first: ``c (r s)``."""

    def shuffle(x: Tensor) -> Tensor:
        n, channels, *sizes = x.shape
        rank, blocks = len(strides), 1
        for stride in strides:
            blocks *= stride
        y = x.view(n, channels // blocks, *strides, *sizes)
        order = [0, 1]
        for axis in range(rank):
            order += [2 + rank + axis, 2 + axis]
        y = y.permute(order).contiguous()
        return y.view(
            n, channels // blocks, *(s * size for s, size in zip(strides, sizes, strict=True))
        )

    return shuffle


def dcr(*strides: int) -> Step:
    """view - permute - view with the channels last: ``(r s) c``."""

    def shuffle(x: Tensor) -> Tensor:
        n, channels, *sizes = x.shape
        rank, blocks = len(strides), 1
        for stride in strides:
            blocks *= stride
        y = x.reshape(n, *strides, channels // blocks, *sizes)
        order = [0, 1 + rank]
        for axis in range(rank):
            order += [2 + rank + axis, 1 + axis]
        return y.permute(order).reshape(
            n, channels // blocks, *(s * size for s, size in zip(strides, sizes, strict=True))
        )

    return shuffle


def functional(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x, 2)


def einops_crd(x: Tensor) -> Tensor:
    return rearrange(x, "n (c r s) h w -> n c (h r) (w s)", r=2, s=2)


def einops_dcr(x: Tensor) -> Tensor:
    return rearrange(x, "n (r s c) h w -> n c (h r) (w s)", r=2, s=2)


def einops_2x3(x: Tensor) -> Tensor:
    return rearrange(x, "n (c r s) h w -> n c (h r) (w s)", r=2, s=3)


def einops_line(x: Tensor) -> Tensor:
    return rearrange(x, "n (c r) l -> n c (l r)", r=3)


def einops_line_dcr(x: Tensor) -> Tensor:
    return rearrange(x, "n (r c) l -> n c (l r)", r=3)


def einops_volume(x: Tensor) -> Tensor:
    return rearrange(x, "n (c r s t) d h w -> n c (d r) (h s) (w t)", r=2, s=2, t=2)


def einops_swapped_blocks(x: Tensor) -> Tensor:
    """The factors stand in the channels as ``s r``: each 2x2 block is transposed."""
    return rearrange(x, "n (c s r) h w -> n c (h r) (w s)", r=2, s=2)


def unflatten_flatten(x: Tensor) -> Tensor:
    y = torch.unflatten(x, 1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
    return y.flatten(4, 5).flatten(2, 3)


def two_transposes(x: Tensor) -> Tensor:
    """One axis after the other: two shuffles, neither of them a DepthToSpace."""
    n, c, h, w = x.shape
    columns = x.reshape(n, c // 2, 2, h, w).permute(0, 1, 3, 4, 2).reshape(n, c // 2, h, 2 * w)
    rows = columns.reshape(n, c // 4, 2, h, 2 * w).transpose(2, 3)
    return rows.reshape(n, c // 4, 2 * h, 2 * w)


def swap_by_transposes(x: Tensor) -> Tensor:
    """The permutation as a chain of transpositions."""
    n, c, h, w = x.shape
    y = x.view(n, c // 4, 2, 2, h, w).transpose(2, 4).transpose(3, 4).transpose(4, 5)
    return y.reshape(n, c // 4, 2 * h, 2 * w)


def einsum(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = torch.einsum("ncrshw->nchrws", x.reshape(n, c // 4, 2, 2, h, w))
    return y.reshape(n, c // 4, 2 * h, 2 * w)


def folded_batch(x: Tensor) -> Tensor:
    """Batch and channels in one axis."""
    n, c, h, w = x.shape
    y = x.reshape(-1, 2, 2, h, w).permute(0, 3, 1, 4, 2)
    return y.reshape(n, c // 4, 2 * h, 2 * w)


_spelling = table("pixel_shuffle")
_IMAGE: tuple[Shape, ...] = ((2, 8, 3, 2),)
_BARE: tuple[Shape, ...] = ((2, 12, 3, 2),)
_LINE: tuple[Shape, ...] = ((2, 6, 5),)
_VOLUME: tuple[Shape, ...] = ((2, 8, 2, 3, 2),)


def _conv(channels: int, **options: int) -> nn.Module:
    return conv(3, channels=(2, channels), **options)


SPELLINGS = (
    # already DepthToSpace
    _spelling("module", lambda: (_conv(8), nn.PixelShuffle(2)), expect="kept"),
    _spelling("module_x3", lambda: (_conv(9), nn.PixelShuffle(3)), (3, 3), "kept"),
    _spelling("module_bare", lambda: (nn.PixelShuffle(2),), expect="kept", inputs=_BARE),
    _spelling("functional", lambda: (_conv(8), functional), expect="kept"),
    _spelling(
        "module_conv1x1", lambda: (conv(1, channels=(2, 4)), nn.PixelShuffle(2)), expect="kept"
    ),
    _spelling("module_groups", lambda: (_conv(8, groups=2), nn.PixelShuffle(2)), expect="kept"),
    _spelling(
        "module_relu_between", lambda: (_conv(8), nn.ReLU(), nn.PixelShuffle(2)), expect="kept"
    ),
    _spelling(
        "module_batchnorm_between",
        lambda: (_conv(8), nn.BatchNorm2d(8, eps=0), nn.PixelShuffle(2)),
        expect="kept",
    ),
    _spelling(
        "module_then_conv",
        lambda: (_conv(8), nn.PixelShuffle(2), nn.ReLU(), conv(1)),
        expect="kept",
    ),
    _spelling(
        "module_twice",
        lambda: (_conv(8), nn.PixelShuffle(2), _conv(8), nn.PixelShuffle(2)),
        expect="kept",
    ),
    # view - permute - view
    _spelling("view_crd", lambda: (_conv(8), crd(2, 2))),
    _spelling("view_crd_bare", lambda: (crd(2, 2),), inputs=_BARE),
    _spelling("view_crd_x3", lambda: (_conv(9), crd(3, 3)), (3, 3)),
    _spelling("view_crd_one_channel", lambda: (_conv(4), crd(2, 2))),
    _spelling("view_dcr", lambda: (_conv(8), dcr(2, 2))),
    _spelling("view_dcr_bare", lambda: (dcr(2, 2),), inputs=_BARE),
    _spelling("view_dcr_one_channel", lambda: (_conv(4), dcr(2, 2))),
    _spelling("view_crd_relu_between", lambda: (_conv(8), nn.ReLU(), crd(2, 2))),
    _spelling("view_crd_groups", lambda: (_conv(8, groups=2), crd(2, 2))),
    _spelling("view_crd_no_bias", lambda: (conv(3, channels=(2, 8), bias=False), crd(2, 2))),
    _spelling("view_crd_then_conv", lambda: (_conv(8), crd(2, 2), nn.ReLU(), conv())),
    _spelling("unflatten_flatten", lambda: (_conv(8), unflatten_flatten)),
    _spelling("einsum", lambda: (_conv(8), einsum)),
    _spelling("folded_batch", lambda: (_conv(8), folded_batch)),
    _spelling("two_transposes", lambda: (_conv(8), two_transposes)),
    _spelling("swap_by_transposes", lambda: (_conv(8), swap_by_transposes)),
    _spelling("einops_crd", lambda: (_conv(8), einops_crd)),
    _spelling("einops_crd_bare", lambda: (einops_crd,), inputs=_IMAGE),
    _spelling("einops_dcr", lambda: (_conv(8), einops_dcr)),
    _spelling("einops_swapped_blocks", lambda: (_conv(8), einops_swapped_blocks), expect=None),
    # no DepthToSpace: unequal factors, 1-D, 3-D
    _spelling("view_crd_2x1", lambda: (_conv(4), crd(2, 1)), (2, 1), "kept"),
    _spelling("view_crd_2x3", lambda: (_conv(6), crd(2, 3)), (2, 3), "kept"),
    _spelling("view_dcr_2x3", lambda: (_conv(12), dcr(2, 3)), (2, 3), "kept"),
    _spelling("einops_2x3", lambda: (_conv(6), einops_2x3), (2, 3), "kept"),
    _spelling(
        "view_crd_1d",
        lambda: (conv(3, channels=(6, 4), rank=1), crd(2)),
        (2,),
        "kept",
        inputs=_LINE,
    ),
    _spelling("view_dcr_1d", lambda: (dcr(3),), (3,), "kept", inputs=_LINE),
    _spelling("einops_1d", lambda: (einops_line,), (3,), "kept", inputs=_LINE),
    _spelling("einops_1d_dcr", lambda: (einops_line_dcr,), (3,), "kept", inputs=_LINE),
    _spelling("view_crd_3d", lambda: (crd(2, 2, 2),), (2, 2, 2), "kept", inputs=_VOLUME),
    _spelling("view_dcr_3d", lambda: (dcr(2, 2, 2),), (2, 2, 2), "kept", inputs=_VOLUME),
    _spelling("einops_3d", lambda: (einops_volume,), (2, 2, 2), "kept", inputs=_VOLUME),
    _spelling("view_crd_3d_1x2x2", lambda: (crd(1, 2, 2),), (1, 2, 2), "kept", inputs=_VOLUME),
)
