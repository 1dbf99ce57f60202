"""Super-resolution: the same enlargement by ConvTranspose, pixel shuffle and zero insertion."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fsrcnn(nn.Module):
    """Luminance ``[N, 1, H, W]`` -> ``[N, 1, H * scale, W * scale]``.

    Dong et al. 2016, FSRCNN(width, shrunk, mapping): all work at low resolution, then one
    ConvTranspose k9; pads 4 and output_padding ``scale - 1`` make the size come out exactly.
    """

    def __init__(self, scale: int = 3, width: int = 56, shrunk: int = 12, mapping: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 5, padding=2), nn.PReLU(width)]
        layers += [nn.Conv2d(width, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mapping):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, width, 1), nn.PReLU(width)]
        layers += [nn.ConvTranspose2d(width, 1, 9, scale, padding=4, output_padding=scale - 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, luminance: Tensor) -> Tensor:
        y: Tensor = self.body(luminance)
        return y


class Espcn(nn.Module):
    """Luminance ``[N, 1, H, W]`` -> ``[N, 1, H * scale, W * scale]``.

    Shi et al. 2016: Convs at low resolution, the last to ``scale**2`` channels, PixelShuffle.
    """

    def __init__(self, scale: int = 3, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(width // 2, scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, luminance: Tensor) -> Tensor:
        y: Tensor = self.body(luminance)
        return y


class ZeroInsertion(nn.Module):
    """Image ``[N, 3, H, W]`` -> ``[N, 3, H * scale, W * scale]``.

    Features are spread out over an image of zeros, which a Conv then fills.
    """

    def __init__(self, scale: int = 2, width: int = 32, kernel: int = 5) -> None:
        super().__init__()
        self.scale = scale
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.fill = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.image = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.features(image)
        batch, channels, height, width = x.shape
        spread = x.new_zeros(batch, channels, height * self.scale, width * self.scale)
        spread[..., :: self.scale, :: self.scale] = x
        y: Tensor = self.image(torch.relu(self.fill(spread)))
        return y


class SubPixel(nn.Module):
    """``[N, C, H, W]`` -> ``[N, C, H * scale, W * scale]``, the SubPixel form of Shi et al. 2016.

    One row and column of zeros behind the input, zeros between its pixels and one more row and
    column behind those, then a Conv of ``scale * taps`` without pads ("Is the deconvolution layer
    the same as a convolutional layer?", figure 6, with ``taps = 2``).
    """

    def __init__(self, scale: int = 2, channels: int = 24, taps: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(channels, channels, scale * taps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        batch, channels, height, width = x.shape
        size = (height * self.scale + 1, width * self.scale + 1)
        spread = x.new_zeros(batch, channels, *size)
        spread[..., : -1 : self.scale, : -1 : self.scale] = x
        y: Tensor = self.conv(spread)
        return y
