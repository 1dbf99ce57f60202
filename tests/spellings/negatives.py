"""What looks like the sub-pixel family and is something else: never to be rewritten as it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tests.spellings.chain import LINE, Step, conv, table
from tests.spellings.corpus import Shape


def resize(mode: str, factor: float, corners: bool | None = None) -> Step:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, align_corners=corners)


def pattern(equation: str, **sizes: int) -> Step:
    """An einops rearrangement."""
    return lambda x: rearrange(x, equation, **sizes)


def permuted(*order: int) -> Step:
    """A pixel shuffle's two views with another permutation between them."""

    def shuffle(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c // 4, 2, 2, h, w).permute(order).contiguous()
        return y.view(n, c // 4, 2 * h, 2 * w)

    return shuffle


def unshuffle_by_view(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * 4, h // 2, w // 2)


def unshuffle_by_slices(x: Tensor) -> Tensor:
    """YOLO's Focus layer."""
    return torch.cat(
        (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), dim=1
    )


def channel_shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def window_partition(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return y.reshape(-1, 2, 2, c)


def swapped_blocks(x: Tensor) -> Tensor:
    """Rows within a block and blocks of rows change places; the size stays."""
    n, c, h, w = x.shape
    y = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 1, 3, 2, 5, 4)
    return y.reshape(n, c, h, w)


def transposed_image_blocks(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 4, 3, 2, 5)
    return y.reshape(n, c, w // 2 * 2, h // 2 * 2)


def permute_in_groups(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).permute(0, 1, 3, 2, 4).reshape(n, 2 * h, c // 2, w)


def attention_heads(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h * w).permute(0, 3, 1, 2).reshape(n, h * w, c)


def stretched_channels(x: Tensor) -> Tensor:
    """Only one of the two factors goes to space, the other beside the channels."""
    n, c, h, w = x.shape
    y = x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 2, 4, 5, 3)
    return y.reshape(n, c // 2, h, 2 * w)


def repeat_whole(x: Tensor) -> Tensor:
    """The image twice, side by side: no neighbour is repeated."""
    return x.repeat(1, 1, 2, 2)


def assign_mask(x: Tensor) -> Tensor:
    """A border of zeros around ones, as window attention masks are built."""
    mask = torch.zeros(1, 1, x.shape[2], x.shape[3])
    mask[:, :, 1:-1, 1:-1] = 1
    return x * mask


def assign_inside(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h + 2, w + 2)
    y[..., 1:-1, 1:-1] = x
    return y


def assign_into_ones(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.new_ones(n, c, 2 * h, 2 * w)
    y[..., ::2, ::2] = x
    return y


def assign_twice(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, 2 * h, 2 * w)
    y[..., ::2, ::2] = x
    y[..., 1::2, 1::2] = x
    return y


def assign_part(x: Tensor) -> Tensor:
    """The last row and column of the input are lost."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, 2 * h, 2 * w)
    y[..., : 2 * h - 2 : 2, : 2 * w - 2 : 2] = x[..., :-1, :-1]
    return y


def assign_alternating(x: Tensor) -> Tensor:
    """Even places from one tensor, odd ones from another."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h, 2 * w)
    y[..., ::2] = x
    y[..., 1::2] = -x
    return y


def pad_to_constant(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1), value=1.0)
    return y.reshape(n, c, 2 * h, 2 * w)


def pad_neighbours(x: Tensor) -> Tensor:
    """Zeros behind each row, not behind each element."""
    n, c, h, w = x.shape
    return F.pad(x, (0, w)).reshape(n, c, 2 * h, w)


def stack_unlike(x: Tensor) -> Tensor:
    return torch.stack((x, -x), dim=-1).flatten(-2)


def stack_on_channels(x: Tensor) -> Tensor:
    """Zeros between the channels."""
    return torch.stack((x, torch.zeros_like(x)), dim=2).flatten(1, 2)


def cutout_mask(height: int, width: int) -> Callable[[], nn.Module]:
    """A mask with one more element kept than zero insertion keeps."""

    class Mask(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            mask = torch.zeros(1, 1, height, width)
            mask[..., ::2, ::2] = 1
            mask[..., 1, 1] = 1
            self.register_buffer("mask", mask)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mask

    return Mask


class Unpool(nn.Module):
    """Max pooling, then its inverse: zeros where the maximum was not."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, where, [2, 2])


class TwoHot(nn.Module):
    """A ConvTranspose that writes each input element to two places."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(2, 1, 2, 2)
        kernel[:, :, 0, 0] = kernel[:, :, 1, 1] = 1
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(F.conv_transpose2d(x, self.kernel, stride=2, groups=2))


_spelling = table("negative")
_EVEN: tuple[Shape, ...] = ((2, 2, 4, 6),)
_WIDE: tuple[Shape, ...] = ((2, 8, 3, 2),)
_TOKENS: tuple[Shape, ...] = ((2, 6, 8),)
_SQUARE: tuple[Shape, ...] = ((2, 2, 4, 4),)

_MODULES = (
    # Resize, but not to whole copies
    ("bilinear", lambda: (resize("bilinear", 2, False), conv()), None),
    ("bicubic", lambda: (resize("bicubic", 2, False), conv()), None),
    (
        "nearest_x1_5",
        lambda: (lambda x: F.interpolate(x, scale_factor=(1.5, 1.5)), conv()),
        "non-integer-scale",
    ),
    ("nearest_down", lambda: (lambda x: F.interpolate(x, scale_factor=0.5), conv()), None),
    ("nearest_exact_x1_5", lambda: (resize("nearest-exact", 1.5), conv()), None),
    ("max_unpool", Unpool, None),
    ("max_unpool_conv", lambda: (Unpool(), conv()), None),
    ("two_hot_transposed", lambda: (TwoHot(), conv()), None),
    # Reshape, Transpose, Reshape, but no pixel shuffle
    ("perm_rows_swapped", lambda: (conv(3, channels=(2, 8)), permuted(0, 1, 2, 4, 3, 5)), None),
    ("perm_blocks_outside", lambda: (conv(3, channels=(2, 8)), permuted(0, 1, 2, 4, 5, 3)), None),
    ("perm_columns_first", lambda: (conv(3, channels=(2, 8)), permuted(0, 1, 4, 3, 5, 2)), None),
    ("perm_blocks_swapped", lambda: (conv(3, channels=(2, 8)), permuted(0, 1, 2, 4, 3, 5)), None),
    # Zeros and copies, but not between the elements
    ("repeat_whole", lambda: (repeat_whole, conv()), None),
    ("assign_mask", lambda: (assign_mask, conv()), None),
    ("assign_inside", lambda: (assign_inside, conv()), None),
    ("assign_into_ones", lambda: (assign_into_ones, conv()), None),
    ("assign_twice", lambda: (assign_twice, conv()), None),
    ("assign_part", lambda: (assign_part, conv()), None),
    ("assign_alternating", lambda: (assign_alternating, conv()), None),
    ("pad_with_ones", lambda: (pad_to_constant, conv()), None),
    ("pad_behind_rows", lambda: (pad_neighbours, conv()), None),
    ("stack_unlike", lambda: (stack_unlike, conv()), None),
    ("stack_on_channels", lambda: (stack_on_channels, conv(3, channels=(4, 3))), None),
)

SPELLINGS = (
    *(_spelling(name, build, None, expect) for name, build, expect in _MODULES),
    _spelling(
        "nearest_odd_size",
        lambda: (lambda x: F.interpolate(x, size=(5, 9)), conv()),
        None,
        "non-integer-scale",
        expect_dynamic="dynamic-scale",
    ),
    _spelling(
        "mask_not_regular",
        lambda: (lambda x: F.interpolate(x, scale_factor=2.0), cutout_mask(6, 8)(), conv()),
        None,
        None,
        static_only=True,
    ),
    _spelling(
        "bilinear_align_corners",
        lambda: (
            lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
            conv(),
        ),
        None,
        None,
        static_only=True,
    ),
    _spelling(
        "linear_1d",
        lambda: (resize("linear", 2, False), conv(3, rank=1)),
        None,
        None,
        inputs=(LINE,),
    ),
    _spelling(
        "pixel_unshuffle",
        lambda: (nn.PixelUnshuffle(2), conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "unshuffle_by_view",
        lambda: (unshuffle_by_view, conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "unshuffle_by_slices",
        lambda: (unshuffle_by_slices, conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "unshuffle_einops",
        lambda: (pattern("n c (h r) (w s) -> n (c r s) h w", r=2, s=2), conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "unshuffle_then_shuffle",
        lambda: (
            nn.PixelUnshuffle(2),
            conv(3, channels=(8, 8)),
            pattern("n (c r) h w -> n c h (r w)", r=2),
        ),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "channel_shuffle",
        lambda: (channel_shuffle, conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_WIDE,
    ),
    _spelling(
        "channel_shuffle_module",
        lambda: (nn.ChannelShuffle(2), conv(3, channels=(8, 3))),
        None,
        None,
        inputs=_WIDE,
    ),
    _spelling("window_partition", lambda: (window_partition,), None, None, inputs=_EVEN),
    _spelling(
        "window_reverse",
        lambda: (pattern("n (h w) (r s c) -> n (h r) (w s) c", h=2, r=2, s=2),),
        None,
        None,
        inputs=_TOKENS,
        static_only=True,
    ),
    _spelling("swapped_blocks", lambda: (swapped_blocks, conv()), None, None, inputs=_EVEN),
    _spelling(
        "transposed_image_blocks",
        lambda: (transposed_image_blocks, conv()),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "transposed_image_blocks_square",
        lambda: (transposed_image_blocks, conv()),
        None,
        None,
        inputs=_SQUARE,
        static_only=True,
    ),
    _spelling("permute_in_groups", lambda: (permute_in_groups,), None, None, inputs=_WIDE),
    _spelling("attention_heads", lambda: (attention_heads,), None, None, inputs=_WIDE),
    _spelling("stretched_channels", lambda: (stretched_channels,), None, None, inputs=_WIDE),
    _spelling(
        "patches_side_by_side",
        lambda: (pattern("n (c r s) h w -> n c (r h) (s w)", r=2, s=2),),
        None,
        None,
        inputs=_WIDE,
    ),
    _spelling(
        "space_to_batch",
        lambda: (pattern("n c (h r) (w s) -> (n r s) c h w", r=2, s=2),),
        None,
        None,
        inputs=_EVEN,
    ),
    _spelling(
        "depth_to_batch",
        lambda: (pattern("n (c r s) h w -> (n r s) c h w", r=2, s=2),),
        None,
        None,
        inputs=_WIDE,
    ),
)
