"""Generators and decoders of images, 2-D."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DcganGenerator(nn.Module):
    """Latent ``[N, latent, 1, 1]`` -> image ``[N, channels, S, S]``, ``S = 4 * 2**stages``.

    Radford et al. 2015: k4 s1 p0 to 4x4, then ``stages`` times k4 s2 p1, each but the last with
    BatchNorm and ReLU.
    """

    def __init__(
        self, latent: int = 32, width: int = 16, channels: int = 3, stages: int = 3
    ) -> None:
        super().__init__()
        widths = [width << stage for stage in reversed(range(stages))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for wide, narrow in pairwise(widths):
            layers += [nn.BatchNorm2d(wide), nn.ReLU()]
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1, bias=False)]
        self.body = nn.Sequential(*layers, nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.body(latent)
        return image


class ConvUpsampler(nn.Module):
    """Features ``[N, width, H, W]`` -> ``[N, width / 2, 2H, 2W]``: Conv, k4 s2 p1, Conv.

    The smallest network whose upsampling layer stands between layers that run in integers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        y: Tensor = self.body(features)
        return y


class ResizeConv(nn.Module):
    """Image ``[N, channels, H, W]`` -> ``[N, channels, 2H, 2W]``: Conv, nearest x2, Conv.

    Odena et al. 2016, the upsampling without checkerboards.
    """

    def __init__(self, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.body(image)
        return y


class CycleganDecoder(nn.Module):
    """Features ``[N, width, H, W]`` -> image ``[N, channels, 4H, 4W]``.

    Zhu et al. 2017: k3 s2 p1 with output_padding 1, twice, with InstanceNorm; then a reflection
    pad and a 7x7 Conv.
    """

    def __init__(self, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm2d(width // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, width // 4, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm2d(width // 4),
            nn.ReLU(),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width // 4, channels, 7),
            nn.Tanh(),
        )

    def forward(self, features: Tensor) -> Tensor:
        image: Tensor = self.body(features)
        return image


class GroupedAutoencoder(nn.Module):
    """Image ``[N, channels, H, W]`` -> its reconstruction, H and W divisible by 4.

    Down by two strided Convs, up by two grouped ConvTranspose k4 s2 p1 (4 and 2 groups).
    """

    def __init__(self, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, groups=2),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, groups=4),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, width // 4, 4, stride=2, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(width // 4, channels, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


class _VaeUpBlock(nn.Module):
    """``[N, C, H, W]`` -> ``[N, C, 2H, 2W]``: a residual block, then nearest x2 and Conv 3x3."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.residual(x)
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class VaeDecoder(nn.Module):
    """Latent ``[N, 4, H, W]`` -> image ``[N, 3, S * H, S * W]``, ``S = 2**doublings``.

    The decoder of latent diffusion, all of one width.
    """

    def __init__(self, width: int = 32, groups: int = 8, doublings: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, width, 3, padding=1),
            *(_VaeUpBlock(width, groups) for _ in range(doublings)),
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.body(latent)
        return image


class QualitySwitch(nn.Module):
    """Features ``[N, width, H, W]`` -> ``[N, channels, 2H, 2W]`` on one of two paths.

    ``fine`` (a bool scalar) chooses at run time between k4 s2 p1 and the cheaper k2 s2, so each
    ConvTranspose lands in a branch of an If.
    """

    def __init__(self, width: int = 32, channels: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.fine = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
        self.coarse = nn.ConvTranspose2d(width, channels, 2, stride=2)

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        y: Tensor = torch.cond(fine, self.fine, self.coarse, (self.features(x),))
        return y
