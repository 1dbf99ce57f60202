"""Heads and decoders that bring features back to the image's size, 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UnetDecoder(nn.Module):
    """``[N, width, H, W]`` and two skip connections -> classes ``[N, classes, 4H, 4W]``.

    Ronneberger et al. 2015: k2 s2, Concat with the encoder's features of that size, two 3x3
    Convs. ``skip_2x`` is ``[N, width/2, 2H, 2W]``, ``skip_4x`` is ``[N, width/4, 4H, 4W]``.
    """

    def __init__(self, width: int = 64, classes: int = 2) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.up_2x = nn.ConvTranspose2d(width, half, 2, stride=2)
        self.conv_2x = _double_conv(2 * half, half)
        self.up_4x = nn.ConvTranspose2d(half, quarter, 2, stride=2)
        self.conv_4x = _double_conv(2 * quarter, quarter)
        self.classify = nn.Conv2d(quarter, classes, 1)

    def forward(self, bottom: Tensor, skip_2x: Tensor, skip_4x: Tensor) -> Tensor:
        x = self.conv_2x(torch.cat([skip_2x, self.up_2x(bottom)], dim=1))
        x = self.conv_4x(torch.cat([skip_4x, self.up_4x(x)], dim=1))
        classes: Tensor = self.classify(x)
        return classes


class TextDetectorHead(nn.Module):
    """Features ``[N, inputs, H, W]`` -> probability map ``[N, 1, 4H, 4W]``.

    Liao et al. 2020 (DB): Conv 3x3, then two k2 s2 with nothing but pointwise layers between.
    """

    def __init__(self, inputs: int = 96, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 2, stride=2),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        probability: Tensor = self.body(features)
        return probability


def _bilinear_upsampling(channels: int, scale: int) -> nn.ConvTranspose2d:
    """A depthwise ConvTranspose k=2*scale s=scale with frozen bilinear weights.

    ``[N, C, H, W]`` -> ``[N, C, (H + 1) * scale, (W + 1) * scale]``; `scale` is even.
    """
    kernel = 2 * scale
    layer = nn.ConvTranspose2d(channels, channels, kernel, scale, groups=channels, bias=False)
    tent = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / scale
    layer.weight = nn.Parameter(torch.outer(tent, tent).repeat(channels, 1, 1, 1), False)
    return layer


def _crop(x: Tensor, like: Sequence[int], offset: int) -> Tensor:
    height, width = like
    return x[:, :, offset : offset + height, offset : offset + width]


class FcnBilinear(nn.Module):
    """Features at 1/32, 1/16 and 1/8 of the image's size -> class scores at full size.

    Long et al. 2015 (FCN-8s): ``deep [N, D, H, W]``, ``pool4 [N, P4, 2H, 2W]`` and
    ``pool3 [N, P3, 4H, 4W]`` -> ``[N, classes, 32H, 32W]``. Every upsampling is depthwise and
    bilinear, without pads, and cropped by a Slice.
    """

    def __init__(self, deep: int = 64, pool4: int = 48, pool3: int = 32, classes: int = 21) -> None:
        super().__init__()
        self.score_deep = nn.Conv2d(deep, classes, 1)
        self.score_pool4 = nn.Conv2d(pool4, classes, 1)
        self.score_pool3 = nn.Conv2d(pool3, classes, 1)
        self.up_deep = _bilinear_upsampling(classes, 2)
        self.up_pool4 = _bilinear_upsampling(classes, 2)
        self.up_pool3 = _bilinear_upsampling(classes, 8)

    def forward(self, deep: Tensor, pool4: Tensor, pool3: Tensor) -> Tensor:
        x = _crop(self.up_deep(self.score_deep(deep)), pool4.shape[2:], 1)
        x = x + self.score_pool4(pool4)
        x = _crop(self.up_pool4(x), pool3.shape[2:], 1)
        x = x + self.score_pool3(pool3)
        return _crop(self.up_pool3(x), [8 * size for size in pool3.shape[2:]], 4)


class DilatedUpsampler(nn.Module):
    """Features ``[N, width, H, W]`` -> ``[N, channels, 4H, 4W]`` with stride and dilation.

    Dilation 2 shares a factor with the stride, so three phases in four see no tap and hold the
    bias alone; dilation 3 shares none.
    """

    def __init__(self, width: int = 48, channels: int = 8) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            nn.ConvTranspose2d(width, half, 3, stride=2, padding=2, output_padding=1, dilation=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(half, half, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(half, channels, 4, stride=2, padding=4, dilation=3),
        )

    def forward(self, features: Tensor) -> Tensor:
        y: Tensor = self.body(features)
        return y


class _LayerNorm2d(nn.Module):
    """Normalises each pixel of ``[N, C, H, W]`` over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        return self.weight * (centred / torch.sqrt(variance + 1e-6)) + self.bias


class SamMaskDecoder(nn.Module):
    """``embedding [N, width, H, W]``, ``tokens [N, M, width/8]`` -> masks ``[N, M, 4H, 4W]``.

    Kirillov et al. 2023, the end of the mask decoder: two k2 s2 with LayerNorm2d and GELU, then
    each token's product with the upscaled embedding.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            _LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )

    def forward(self, embedding: Tensor, tokens: Tensor) -> Tensor:
        upscaled: Tensor = self.upscaling(embedding)
        batch, channels, height, width = upscaled.shape
        masks = tokens @ upscaled.view(batch, channels, height * width)
        return masks.view(batch, -1, height, width)


class VnetDecoder(nn.Module):
    """``[N, width, D, H, W]`` and two skips -> classes ``[N, classes, 4D, 4H, 2W]``, 3-D.

    Milletari et al. 2016: k2 s2, Concat, Conv and a residual sum; the second step has stride
    (2, 2, 1), as for scans whose slices are further apart than their pixels.
    ``skip_2x`` is ``[N, width/2, 2D, 2H, 2W]``, ``skip_4x`` is ``[N, width/4, 4D, 4H, 2W]``.
    """

    def __init__(self, width: int = 32, classes: int = 2) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.up_2x = nn.ConvTranspose3d(width, half, 2, stride=2)
        self.conv_2x = nn.Conv3d(2 * half, half, 3, padding=1)
        self.act_2x = nn.PReLU(half)
        self.up_4x = nn.ConvTranspose3d(half, quarter, (2, 2, 1), stride=(2, 2, 1))
        self.conv_4x = nn.Conv3d(2 * quarter, quarter, 3, padding=1)
        self.act_4x = nn.PReLU(quarter)
        self.classify = nn.Conv3d(quarter, classes, 1)

    def forward(self, bottom: Tensor, skip_2x: Tensor, skip_4x: Tensor) -> Tensor:
        up = self.up_2x(bottom)
        x = self.act_2x(up + self.conv_2x(torch.cat([up, skip_2x], dim=1)))
        up = self.up_4x(x)
        x = self.act_4x(up + self.conv_4x(torch.cat([up, skip_4x], dim=1)))
        classes: Tensor = self.classify(x)
        return classes
