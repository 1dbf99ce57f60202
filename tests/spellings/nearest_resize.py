"""Nearest upsampling, then a Conv."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import repeat as einops_repeat
from torch import Tensor, nn
from torch.nn import functional as F

from tests.spellings.chain import LINE, VOLUME, Step, conv, table
from tests.spellings.corpus import Shape


def scale(
    factor: float | Sequence[float], mode: str = "nearest", again: bool | None = None
) -> Step:
    """``F.interpolate`` by ``scale_factor``; ``again`` is recompute_scale_factor."""
    made = tuple(factor) if isinstance(factor, Sequence) else factor
    return lambda x: F.interpolate(x, scale_factor=made, mode=mode, recompute_scale_factor=again)


def size(*factors: int) -> Step:
    """``F.interpolate`` by ``size``, computed from the input's."""
    return lambda x: F.interpolate(
        x, size=[s * f for s, f in zip(x.shape[2:], factors, strict=True)], mode="nearest"
    )


def literal_size(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(6, 8), mode="nearest")


def repeat_interleave(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def repeat_interleave_line(x: Tensor) -> Tensor:
    return x.repeat_interleave(3, dim=-1)


def expand_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def expand_reshape_volume(x: Tensor) -> Tensor:
    n, c, d, h, w = x.shape
    spread = x[:, :, :, None, :, None, :, None].expand(n, c, d, 2, h, 2, w, 1)
    return spread.reshape(n, c, 2 * d, 2 * h, w)


def tile_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].repeat(1, 1, 1, 2, 1, 2).reshape(n, c, 2 * h, 2 * w)


def kron(x: Tensor) -> Tensor:
    return torch.kron(x, torch.ones(1, 1, 2, 2, dtype=x.dtype))


def einops_tile(x: Tensor) -> Tensor:
    return einops_repeat(x, "n c h w -> n c (h r) (w s)", r=2, s=2)


def stack_reshape(x: Tensor) -> Tensor:
    columns = torch.stack((x, x), dim=-1).flatten(-2)
    return torch.stack((columns, columns), dim=3).flatten(2, 3)


def concat_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    columns = torch.cat((x.unsqueeze(-1), x.unsqueeze(-1)), dim=-1).reshape(n, c, h, 2 * w)
    return torch.cat((columns, columns), dim=3).reshape(n, c, 2 * h, 2 * w)


def gather(x: Tensor) -> Tensor:
    rows, columns = torch.arange(2 * x.shape[2]) // 2, torch.arange(2 * x.shape[3]) // 2
    return x[:, :, rows][..., columns]


def shuffle_of_copies(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x.repeat_interleave(4, dim=1), 2)


def pad(*amounts: int, mode: str = "constant", value: float | None = None) -> Step:
    return lambda x: F.pad(x, amounts, mode=mode, value=value)


def times(factor: float) -> Step:
    return lambda x: x * factor


class PerChannel(nn.Module):
    """``x * gain + offset``, each ``[C, 1, 1]``."""

    gain: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor([2.0, -3.0]).reshape(2, 1, 1))
        self.register_buffer("offset", torch.tensor([1.0, 4.0]).reshape(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.offset


class PerPixel(nn.Module):
    """Times a constant of the high resolution: no pointwise layer."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.arange(48.0).reshape(1, 1, 6, 8) % 5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.window


class TwoConvs(nn.Module):
    """Both Convs read the one Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3), conv(5)

    def forward(self, x: Tensor) -> Tensor:
        y = scale(2)(x)
        z: Tensor = self.first(y) - self.second(y)
        return z


class ConvAndSkip(nn.Module):
    """The Resize is read by the Conv and by the Add around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, channels=(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = scale(2)(x)
        z: Tensor = self.conv(y) + y
        return z


class Merge(nn.Module):
    """A high-resolution tensor joins between the Resize and the Conv, as in a U-Net or FPN."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.join = join
        self.conv = conv(3, channels=(channels, 3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        z: Tensor = self.conv(self.join(scale(2)(x), skip))
        return z


class Decoder(nn.Module):
    """One step of a decoder: an upsampled image, and another one of its size, are convolved."""

    def __init__(self, taps: int, between: Step) -> None:
        super().__init__()
        self.skip = nn.ConvTranspose2d(2, 3, 2, stride=2)
        self.between = between
        self.conv = conv(taps, channels=(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(concat(self.between(scale(2)(x)), self.skip(x)))
        return z


def concat(x: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((x, skip), dim=1)


class RuntimeWeight(nn.Module):
    """The Conv's weight is a second input."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(scale(2)(x), weight, padding=1)


_spelling = table("nearest_resize")
_LINE: tuple[Shape, ...] = (LINE,)
_VOLUME: tuple[Shape, ...] = (VOLUME,)
_WITH_SKIP: tuple[Shape, ...] = ((2, 2, 3, 4), (2, 2, 6, 8))
_WITH_WEIGHT: tuple[Shape, ...] = ((2, 2, 3, 4), (3, 2, 3, 3))

SPELLINGS = (
    # F.interpolate and nn.Upsample
    _spelling("scale2", lambda: (scale(2), conv())),
    _spelling("scale3", lambda: (scale(3), conv()), (3, 3)),
    _spelling("scale4", lambda: (scale(4), conv(5)), (4, 4)),
    _spelling("scale2_pair", lambda: (scale((2.0, 2.0)), conv())),
    _spelling("scale2x1", lambda: (scale((2.0, 1.0)), conv()), (2, 1)),
    _spelling("scale2x3", lambda: (scale((2.0, 3.0)), conv()), (2, 3)),
    _spelling("size_literal", lambda: (literal_size, conv()), static_only=True),
    _spelling("size_computed", lambda: (size(2, 2), conv())),
    _spelling("size_computed_1x3", lambda: (size(1, 3), conv()), (1, 3)),
    _spelling("scale_recomputed", lambda: (scale(2, again=True), conv())),
    _spelling("scale_kept", lambda: (scale(2, again=False), conv())),
    _spelling("nearest_exact", lambda: (scale(2, "nearest-exact"), conv())),
    _spelling("nearest_exact_x3", lambda: (scale(3, "nearest-exact"), conv()), (3, 3)),
    _spelling("upsample_module", lambda: (nn.Upsample(scale_factor=2), conv())),
    _spelling(
        "upsampling_nearest2d", lambda: (nn.UpsamplingNearest2d(scale_factor=3), conv()), (3, 3)
    ),
    _spelling("scale_1d", lambda: (scale(2), conv(5, rank=1)), (2,), inputs=_LINE),
    _spelling("scale_1d_x4", lambda: (scale(4), conv(7, rank=1)), (4,), inputs=_LINE),
    _spelling("size_1d", lambda: (size(3), conv(3, rank=1)), (3,), inputs=_LINE),
    _spelling(
        "scale_3d",
        lambda: (scale(2), conv(2, 1, channels=(2, 2), rank=3)),
        (2, 2, 2),
        inputs=_VOLUME,
    ),
    _spelling(
        "scale_3d_1x2x2",
        lambda: (scale((1.0, 2.0, 2.0)), conv(2, 1, channels=(2, 2), rank=3)),
        (1, 2, 2),
        inputs=_VOLUME,
    ),
    # copies
    _spelling("repeat_interleave", lambda: (repeat_interleave, conv())),
    _spelling(
        "repeat_interleave_1d",
        lambda: (repeat_interleave_line, conv(5, rank=1)),
        (3,),
        inputs=_LINE,
    ),
    _spelling("expand_reshape", lambda: (expand_reshape, conv())),
    _spelling(
        "expand_reshape_3d",
        lambda: (expand_reshape_volume, conv(2, 1, channels=(2, 2), rank=3)),
        (2, 2, 1),
        inputs=_VOLUME,
    ),
    _spelling("tile_reshape", lambda: (tile_reshape, conv())),
    _spelling("kron_ones", lambda: (kron, conv())),
    _spelling("einops_repeat", lambda: (einops_tile, conv())),
    _spelling("stack_copies", lambda: (stack_reshape, conv())),
    _spelling("concat_copies", lambda: (concat_reshape, conv())),
    _spelling("gather_halves", lambda: (gather, conv())),
    _spelling("shuffle_of_copies", lambda: (shuffle_of_copies, conv())),
    # the Conv
    _spelling("scale2_conv5", lambda: (scale(2), conv(5))),
    _spelling("scale2_conv1x1", lambda: (scale(2), conv(1))),
    _spelling("scale2_conv1x1_padded", lambda: (scale(2), conv(1, 1))),
    _spelling("scale2_conv_1x3", lambda: (scale(2), conv((1, 3)))),
    _spelling("scale2_conv2_valid", lambda: (scale(2), conv(2, 0))),
    _spelling("scale2_conv3_valid", lambda: (scale(2), conv(3, 0))),
    _spelling("scale2_conv_same_even", lambda: (scale(2), nn.Conv2d(2, 3, 4, padding="same"))),
    _spelling("scale2_conv_dilated", lambda: (scale(2), conv(3, 2, dilation=2))),
    _spelling("scale3_conv_dilated", lambda: (scale(3), conv(3, 2, dilation=2)), (3, 3)),
    _spelling("scale2_conv_groups", lambda: (scale(2), conv(3, channels=(2, 4), groups=2))),
    _spelling("scale2_conv_depthwise", lambda: (scale(2), conv(3, channels=(2, 2), groups=2))),
    _spelling("scale2_conv_no_bias", lambda: (scale(2), conv(3, bias=False))),
    _spelling(
        "scale2_conv_batchnorm_relu",
        lambda: (scale(2), conv(3), nn.BatchNorm2d(3, eps=0), nn.ReLU()),
    ),
    _spelling(
        "scale2_twice", lambda: (scale(2), conv(3, channels=(2, 2)), nn.ReLU(), scale(2), conv())
    ),
    # a zero Pad between
    _spelling("scale2_pad", lambda: (scale(2), pad(1, 1, 1, 1), conv(3, 0))),
    _spelling("scale2_pad_asymmetric", lambda: (scale(2), pad(1, 2, 0, 1), conv(4, 0))),
    _spelling("scale2_pad_and_conv_pads", lambda: (scale(2), pad(0, 1, 0, 1), conv(3, 1))),
    _spelling("scale2_zero_pad_module", lambda: (scale(2), nn.ZeroPad2d((1, 0, 2, 0)), conv(3, 0))),
    # a pointwise layer between
    _spelling("scale2_relu", lambda: (scale(2), nn.ReLU(), conv())),
    _spelling("scale2_leaky_relu", lambda: (scale(2), nn.LeakyReLU(0.25), conv())),
    _spelling("scale2_prelu", lambda: (scale(2), nn.PReLU(2, 0.5), conv())),
    _spelling("scale2_batchnorm", lambda: (scale(2), nn.BatchNorm2d(2, eps=0), conv())),
    _spelling("scale2_times_constant", lambda: (scale(2), times(3.0), conv())),
    _spelling("scale2_per_channel", lambda: (scale(2), PerChannel(), conv())),
    _spelling("scale2_clip", lambda: (scale(2), nn.ReLU6(), conv())),
    _spelling("scale2_relu_pad", lambda: (scale(2), nn.ReLU(), pad(1, 1, 1, 1), conv(3, 0))),
    _spelling("scale2_dropout", lambda: (scale(2), nn.Dropout2d(), conv())),
    # several consumers
    _spelling("scale2_two_convs", TwoConvs),
    _spelling("scale2_conv_and_skip", ConvAndSkip),
    # left alone
    _spelling("scale2_only", lambda: (scale(2),), expect=None),
    _spelling("scale2_max_pool", lambda: (scale(2), nn.MaxPool2d(3, 1, 1)), expect=None),
    _spelling("scale2_conv_stride2", lambda: (scale(2), conv(3, stride=2)), expect="strided-conv"),
    _spelling(
        "scale2_pad_reflect",
        lambda: (scale(2), pad(1, 1, 1, 1, mode="reflect"), conv(3, 0)),
        expect="non-zero-padding",
    ),
    _spelling(
        "scale2_pad_replicate",
        lambda: (scale(2), pad(1, 1, 1, 1, mode="replicate"), conv(3, 0)),
        expect="non-zero-padding",
    ),
    _spelling(
        "scale2_pad_ones",
        lambda: (scale(2), pad(1, 1, 1, 1, value=1.0), conv(3, 0)),
        expect="non-zero-padding",
    ),
    _spelling(
        "scale2_conv_reflect",
        lambda: (scale(2), conv(3, padding_mode="reflect")),
        expect="non-zero-padding",
    ),
    _spelling(
        "scale2_conv_circular", lambda: (scale(2), conv(3, padding_mode="circular")), expect=None
    ),
    _spelling(
        "scale2_per_pixel", lambda: (scale(2), PerPixel(), conv()), expect=None, static_only=True
    ),
    _spelling("scale2_subsampled", lambda: (scale(2), nn.MaxPool2d(1, 2), conv()), expect=None),
    _spelling(
        "scale2_add_skip",
        lambda: Merge(torch.add, 2),
        expect=None,
        inputs=_WITH_SKIP,
        static_only=True,
    ),
    _spelling(
        "scale2_concat_skip",
        lambda: Merge(concat, 4),
        expect="concat-before-conv",
        inputs=_WITH_SKIP,
        static_only=True,
    ),
    _spelling(
        "scale2_runtime_weight",
        RuntimeWeight,
        expect="runtime-weight",
        inputs=_WITH_WEIGHT,
        static_only=True,
    ),
)

LATER = (
    _spelling("scale2_concat_conv", lambda: Decoder(3, nn.Identity()), expect="concat-before-conv"),
    _spelling(
        "scale2_relu_concat_conv1x1", lambda: Decoder(1, nn.ReLU()), expect="concat-before-conv"
    ),
)
"""Added later: the opsets of a spelling follow from its place among all of them."""
