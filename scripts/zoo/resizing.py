"""Networks that enlarge or shrink by a linear or cubic Resize, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SegformerHead(nn.Module):
    """Features of four levels -> classes ``[N, classes, H, W]``, the size of the first level.

    Xie et al. 2021: a linear layer of the pixels per level, all enlarged to the first, Concat, a
    1x1 Conv that mixes them, a 1x1 Conv to classes.
    """

    def __init__(
        self, levels: Sequence[int] = (32, 64, 160, 256), width: int = 256, classes: int = 150
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(channels, width) for channels in levels)
        self.mix = nn.Sequential(
            nn.Conv2d(width * len(levels), width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, level_1: Tensor, level_2: Tensor, level_3: Tensor, level_4: Tensor) -> Tensor:
        made, features = [], (level_1, level_2, level_3, level_4)
        for feature, project in zip(features, self.project, strict=True):
            batch, _, height, width = feature.shape
            x = project(feature.flatten(2).transpose(1, 2))
            x = x.transpose(1, 2).reshape(batch, -1, height, width)
            made.append(
                F.interpolate(x, features[0].shape[2:], mode="bilinear", align_corners=False)
            )
        # The deepest level comes first.
        classes: Tensor = self.classify(self.mix(torch.cat(made[::-1], dim=1)))
        return classes


def _residual(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
    )


class DptFusion(nn.Module):
    """Features ``[N, width, H, W]`` and a deeper image of that size -> ``[N, width, 2H, 2W]``.

    Ranftl et al. 2021 (DPT): residual units, bilinear x2 with aligned corners, a 1x1 Conv.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.first, self.second = _residual(width), _residual(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, deeper: Tensor, features: Tensor) -> Tensor:
        x = deeper + features + self.first(features)
        x = x + self.second(x)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        fused: Tensor = self.project(x)
        return fused


class BicubicSkip(nn.Module):
    """Image ``[N, 3, H, W]`` -> ``[N, 3, scale * H, scale * W]``.

    Kim et al. 2016 (VDSR), with a pixel shuffle: a network adds details to the bicubic enlargement.
    """

    def __init__(self, scale: int = 2, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.body, self.scale = nn.Sequential(*layers), float(scale)

    def forward(self, image: Tensor) -> Tensor:
        enlarged = F.interpolate(
            image, scale_factor=self.scale, mode="bicubic", align_corners=False
        )
        details: Tensor = self.body(image)
        return enlarged + details


class BilinearUnet(nn.Module):
    """``[N, width, H, W]`` and a skip ``[N, width/2, 2H, 2W]`` -> classes ``[N, classes, 2H, 2W]``.

    A U-Net whose decoder enlarges by bilinear interpolation instead of a ConvTranspose.
    """

    def __init__(self, width: int = 64, classes: int = 2) -> None:
        super().__init__()
        half = width // 2
        self.up = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True)
        self.mix = nn.Sequential(
            nn.Conv2d(width + half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, classes, 1),
        )

    def forward(self, bottom: Tensor, skip: Tensor) -> Tensor:
        classes: Tensor = self.mix(torch.cat([skip, self.up(bottom)], dim=1))
        return classes


class Preprocessing(nn.Module):
    """Image ``[N, 3, H, W]`` -> the same, normalised, in another size, as classifiers expect it."""

    def __init__(self, size: tuple[int, int] = (224, 224), mode: str = "bilinear") -> None:
        super().__init__()
        self.size, self.mode = size, mode
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = F.interpolate(image, self.size, mode=self.mode, antialias=True, align_corners=False)
        normalised: Tensor = (x - self.mean) / self.std  # type: ignore[operator]
        return normalised


class TrilinearDecoder(nn.Module):
    """Volume ``[N, width, D, H, W]`` -> classes ``[N, classes, 2D, 2H, 2W]``, as in a 3-D U-Net."""

    def __init__(self, width: int = 32, classes: int = 3) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv3d(width, width // 2, 3, padding=1), nn.ReLU())
        self.classify = nn.Conv3d(width // 2, classes, 1)

    def forward(self, volume: Tensor) -> Tensor:
        x = F.interpolate(
            self.before(volume), scale_factor=2.0, mode="trilinear", align_corners=False
        )
        classes: Tensor = self.classify(x)
        return classes


class Descriptors(nn.Module):
    """Grey image ``[N, 1, H, W]`` -> descriptors ``[N, width, H, W]``.

    DeTone et al. 2018 (SuperPoint): a small encoder to an eighth of the size, descriptors of length
    1 there, bicubic x8.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in (64, 64, 128):
            layers += [nn.Conv2d(channels, stage, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = stage
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        x = F.normalize(self.body(image), dim=1)
        return F.interpolate(x, scale_factor=8.0, mode="bicubic", align_corners=False)
