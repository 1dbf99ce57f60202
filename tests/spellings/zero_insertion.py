"""Zero insertion, then a Conv: the SubPixel method, upfirdn2d and their relatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.spellings.chain import IMAGE, LINE, VOLUME, Step, conv, table
from tests.spellings.corpus import Shape
from tests.spellings.fir import Fir, FirPerChannel, PaddedFir


def assign(*strides: int, extra: int = 0, tight: bool = False, first: int = 0) -> Step:
    """``y = zeros; y[..., first::r] = x`` per axis, to size r*H + extra, tight: r*(H-1)+1."""
    stop = -extra if extra else None
    where = (..., *(slice(first, stop, stride) for stride in strides))

    def spread(x: Tensor) -> Tensor:
        sizes = [
            stride * (size - 1) + 1 if tight else stride * size + extra
            for size, stride in zip(x.shape[2:], strides, strict=True)
        ]
        y = x.new_zeros(x.shape[0], x.shape[1], *sizes)
        y[where] = x
        return y

    return spread


def assign_full_slices(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = torch.zeros(n, c, 2 * h, 2 * w, dtype=x.dtype, device=x.device)
    y[:, :, ::2, ::2] = x
    return y


def assign_literal_zeros(x: Tensor) -> Tensor:
    y = torch.zeros(2, 2, 6, 8)
    y[..., ::2, ::2] = x
    return y


def assign_copy(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = torch.zeros((n, c, h * 2, w * 2), dtype=x.dtype)
    y[:, :, 0::2, 0::2].copy_(x)
    return y


def assign_zeros_like(x: Tensor) -> Tensor:
    y = torch.zeros_like(x).repeat(1, 1, 2, 2)
    y[..., ::2, ::2] = x
    return y


def assign_rows_then_columns(x: Tensor) -> Tensor:
    return assign(1, 2)(assign(2, 1)(x))


def slice_scatter(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    rows = torch.slice_scatter(x.new_zeros(n, c, 2 * h, w), x, dim=2, step=2)
    return torch.slice_scatter(x.new_zeros(n, c, 2 * h, 2 * w), rows, dim=3, step=2)


def index_put(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    rows, columns = torch.arange(h) * 2, torch.arange(w) * 2
    y = x.new_zeros(n, c, 2 * h, 2 * w)
    y[:, :, rows[:, None], columns[None, :]] = x
    return y


def reshape_pad_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)


def unsqueeze_pad_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.pad(x[:, :, :, None, :, None], (0, 2, 0, 0, 0, 2)).reshape(n, c, 3 * h, 3 * w)


def unsqueeze_pad_flatten(x: Tensor) -> Tensor:
    columns = F.pad(x.unsqueeze(-1), (0, 1)).flatten(-2)
    return F.pad(columns.unsqueeze(3), (0, 0, 0, 1)).flatten(2, 3)


def pad_line(x: Tensor) -> Tensor:
    return F.pad(x.unsqueeze(-1), (0, 2)).reshape(x.shape[0], x.shape[1], -1)


def pad_volume(x: Tensor) -> Tensor:
    n, c, d, h, w = x.shape
    spread = F.pad(x.reshape(n, c, d, 1, h, 1, w, 1), (0, 1, 0, 0, 0, 1, 0, 0, 0, 1))
    return spread.reshape(n, c, 2 * d, 2 * h, 2 * w)


def stack_zeros(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    columns = torch.stack((x, torch.zeros_like(x)), dim=-1).reshape(n, c, h, 2 * w)
    rows = torch.stack((columns, torch.zeros_like(columns)), dim=3)
    return rows.reshape(n, c, 2 * h, 2 * w)


def concat_zeros(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    columns = torch.cat((x.unsqueeze(-1), x.new_zeros(n, c, h, w, 1)), dim=-1)
    columns = columns.reshape(n, c, h, 2 * w)
    return torch.cat((columns, torch.zeros_like(columns)), dim=3).reshape(n, c, 2 * h, 2 * w)


def stack_line(x: Tensor) -> Tensor:
    return torch.stack((x, torch.zeros_like(x)), dim=-1).flatten(-2)


def shuffle_of_zeros(x: Tensor) -> Tensor:
    """Three of the four phases that the pixel shuffle interleaves are zero."""
    zeros = torch.zeros_like(x)
    return F.pixel_shuffle(torch.stack((x, zeros, zeros, zeros), dim=2).flatten(1, 2), 2)


class Mask(nn.Module):
    """Times a constant 0/1 mask ``[1, 1, H, W]`` that keeps the first of ``r`` per axis."""

    mask: Tensor

    def __init__(self, height: int, width: int, stride: int = 2) -> None:
        super().__init__()
        mask = torch.zeros(1, 1, height, width)
        mask[..., ::stride, ::stride] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


class BlockMask(nn.Module):
    """``[N, C, H, 1, W, 1]`` times a one-hot ``[r, 1, r]`` block: right for every size."""

    block: Tensor

    def __init__(self) -> None:
        super().__init__()
        block = torch.zeros(2, 1, 2)
        block[0, 0, 0] = 1
        self.register_buffer("block", block)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return (x[:, :, :, None, :, None] * self.block).reshape(n, c, 2 * h, 2 * w)


class WhereMask(Mask):
    """Zero where the mask is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.mask > 0, x, torch.zeros_like(x))


def computed_mask(x: Tensor) -> Tensor:
    """The mask follows from the size while the model runs."""
    y = F.interpolate(x, scale_factor=2.0, mode="nearest")
    rows = (torch.arange(y.shape[2]) % 2 == 0).to(y.dtype)
    columns = (torch.arange(y.shape[3]) % 2 == 0).to(y.dtype)
    return y * rows[:, None] * columns


def nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def repeat(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class OneHotTransposed(nn.Module):
    """Depthwise ConvTranspose whose kernel has a single one, at ``tap``."""

    one_hot: Tensor

    def __init__(self, kernel: int, tap: int = 0, output_padding: int = 0) -> None:
        super().__init__()
        one_hot = torch.zeros(2, 1, kernel, kernel)
        one_hot[:, :, tap, tap] = 1
        self.register_buffer("one_hot", one_hot)
        self.output_padding = output_padding

    def forward(self, x: Tensor) -> Tensor:
        extra = self.output_padding
        return F.conv_transpose2d(x, self.one_hot, stride=2, output_padding=extra, groups=2)


class Shared(nn.Module):
    """A Conv and a second consumer of the spread tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, channels=(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = assign(2, 2)(x)
        z: Tensor = self.conv(y) + y
        return z


class RuntimeWeight(nn.Module):
    """The Conv's weight is a second input."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(assign(2, 2)(x), weight, padding=1)


def pad_before(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def pad_behind(x: Tensor) -> Tensor:
    return F.pad(x, (2, 1, 0, 3))


def crop_behind(x: Tensor) -> Tensor:
    return x[..., :-1, :-1]


_spelling = table("zero_insertion")
_LINE: tuple[Shape, ...] = (LINE,)
_VOLUME: tuple[Shape, ...] = (VOLUME,)

SPELLINGS = (
    # y = zeros; y[..., ::r, ::r] = x, to each size
    _spelling("assign", lambda: (assign(2, 2), conv())),
    _spelling("assign_plus_one", lambda: (assign(2, 2, extra=1), conv())),
    _spelling("assign_tight", lambda: (assign(2, 2, tight=True), conv())),
    _spelling("assign_x3", lambda: (assign(3, 3), conv(5)), (3, 3)),
    _spelling("assign_x3_plus_one", lambda: (assign(3, 3, extra=1), conv(5)), (3, 3)),
    _spelling("assign_x3_tight", lambda: (assign(3, 3, tight=True), conv(5)), (3, 3)),
    _spelling("assign_2x1", lambda: (assign(2, 1), conv()), (2, 1)),
    _spelling("assign_2x3", lambda: (assign(2, 3), conv()), (2, 3)),
    _spelling("assign_odd_positions", lambda: (assign(2, 2, first=1), conv())),
    _spelling("assign_1d", lambda: (assign(2), conv(5, rank=1)), (2,), inputs=_LINE),
    _spelling(
        "assign_1d_tight", lambda: (assign(4, tight=True), conv(9, 8, rank=1)), (4,), inputs=_LINE
    ),
    _spelling(
        "assign_3d",
        lambda: (assign(2, 2, 2), conv(2, 1, channels=(2, 2), rank=3)),
        (2, 2, 2),
        inputs=_VOLUME,
    ),
    _spelling("assign_full_slices", lambda: (assign_full_slices, conv())),
    _spelling("assign_literal_zeros", lambda: (assign_literal_zeros, conv()), static_only=True),
    _spelling("assign_copy", lambda: (assign_copy, conv())),
    _spelling("assign_zeros_like", lambda: (assign_zeros_like, conv())),
    _spelling("assign_rows_then_columns", lambda: (assign_rows_then_columns, conv())),
    _spelling("slice_scatter", lambda: (slice_scatter, conv())),
    _spelling("index_put", lambda: (index_put, conv())),
    # reshape or unsqueeze - pad - reshape
    _spelling("reshape_pad_reshape", lambda: (reshape_pad_reshape, conv())),
    _spelling("unsqueeze_pad_reshape", lambda: (unsqueeze_pad_reshape, conv(5)), (3, 3)),
    _spelling("unsqueeze_pad_flatten", lambda: (unsqueeze_pad_flatten, conv())),
    _spelling("pad_1d", lambda: (pad_line, conv(5, rank=1)), (3,), inputs=_LINE),
    _spelling(
        "pad_3d",
        lambda: (pad_volume, conv(2, 1, channels=(2, 2), rank=3)),
        (2, 2, 2),
        inputs=_VOLUME,
    ),
    _spelling("upfirdn2d", lambda: (reshape_pad_reshape, Fir())),
    _spelling("upfirdn2d_separable", lambda: (reshape_pad_reshape, Fir(separable=True))),
    _spelling("upfirdn2d_fixed_filter", lambda: (reshape_pad_reshape, PaddedFir())),
    _spelling("upfirdn2d_folded_channels", lambda: FirPerChannel()),
    _spelling("upfirdn2d_minor_axis", lambda: FirPerChannel(minor=True)),
    # stack or concat with zeros
    _spelling("stack_zeros", lambda: (stack_zeros, conv())),
    _spelling("concat_zeros", lambda: (concat_zeros, conv())),
    _spelling("stack_zeros_1d", lambda: (stack_line, conv(5, rank=1)), (2,), inputs=_LINE),
    _spelling("shuffle_of_zeros", lambda: (shuffle_of_zeros, conv())),
    # an upsampled image times a mask
    _spelling("nearest_times_mask", lambda: (nearest, Mask(6, 8), conv()), static_only=True),
    _spelling("repeat_times_mask", lambda: (repeat, Mask(6, 8), conv()), static_only=True),
    _spelling("nearest_where_mask", lambda: (nearest, WhereMask(6, 8), conv()), static_only=True),
    _spelling("block_mask", lambda: (BlockMask(), conv())),
    _spelling("nearest_times_computed_mask", lambda: (computed_mask, conv())),
    # ConvTranspose with a one-hot depthwise kernel
    _spelling("one_hot_transposed_k1", lambda: (OneHotTransposed(1), conv())),
    _spelling(
        "one_hot_transposed_k1_even", lambda: (OneHotTransposed(1, output_padding=1), conv())
    ),
    _spelling("one_hot_transposed_k2", lambda: (OneHotTransposed(2), conv())),
    _spelling("one_hot_transposed_k2_last_tap", lambda: (OneHotTransposed(2, tap=1), conv())),
    # the Conv
    _spelling("assign_conv1x1", lambda: (assign(2, 2), conv(1))),
    _spelling("assign_conv4_valid", lambda: (assign(2, 2), conv(4, 0))),
    _spelling("assign_conv_3x5", lambda: (assign(2, 2), conv((3, 5)))),
    _spelling("assign_conv_wide_pads", lambda: (assign(2, 2), conv(3, 4))),
    _spelling("assign_conv_dilated", lambda: (assign(2, 2), conv(3, 2, dilation=2))),
    _spelling("assign_conv_dilated_x3", lambda: (assign(3, 3), conv(3, 2, dilation=2)), (3, 3)),
    _spelling("assign_conv_groups", lambda: (assign(2, 2), conv(3, channels=(2, 4), groups=2))),
    _spelling("assign_conv_no_bias", lambda: (assign(2, 2), conv(3, bias=False))),
    _spelling(
        "assign_conv_batchnorm_relu",
        lambda: (assign(2, 2), conv(3), nn.BatchNorm2d(3, eps=0), nn.ReLU()),
    ),
    _spelling("pad_before_assign", lambda: (pad_before, assign(2, 2), conv(4, 0))),
    _spelling(
        "pad_before_assign_plus_one", lambda: (pad_before, assign(2, 2, extra=1), conv(4, 0))
    ),
    _spelling("pad_behind_assign", lambda: (assign(2, 2), pad_behind, conv(3, 0))),
    _spelling("pad_behind_assign_and_conv_pads", lambda: (assign(2, 2), pad_behind, conv(3, 1))),
    _spelling("crop_behind_assign", lambda: (assign(2, 2), crop_behind, conv(3, 1))),
    # left alone
    _spelling("assign_only", lambda: (assign(2, 2),), expect=None),
    _spelling("assign_relu", lambda: (assign(2, 2), nn.ReLU()), expect=None),
    _spelling("assign_max_pool", lambda: (assign(2, 2), nn.MaxPool2d(2)), expect=None),
    _spelling(
        "assign_conv_stride2", lambda: (assign(2, 2), conv(3, stride=2)), expect="strided-conv"
    ),
    _spelling("assign_shared", Shared),
    _spelling(
        "assign_runtime_weight",
        RuntimeWeight,
        expect="runtime-weight",
        inputs=(IMAGE, (3, 2, 3, 3)),
        static_only=True,
    ),
)
