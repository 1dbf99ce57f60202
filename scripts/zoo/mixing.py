"""Networks that join images of several sizes by a 1x1 Conv behind linear Resizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LevelFusion(nn.Module):
    """Features of four levels, each half as large as the one before -> ``[N, width, H, W]``.

    Xie et al. 2021 (SegFormer), the fusion of its decode head by itself: all levels are enlarged to
    the first, then Concat, a 1x1 Conv, BatchNorm and Relu.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(4 * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, level_1: Tensor, level_2: Tensor, level_3: Tensor, level_4: Tensor) -> Tensor:
        enlarged = [
            F.interpolate(level, level_1.shape[2:], mode="bilinear", align_corners=False)
            for level in (level_4, level_3, level_2)
        ]
        mixed: Tensor = self.mix(torch.cat([*enlarged, level_1], dim=1))
        return mixed


def _conv(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DeeplabHead(nn.Module):
    """Features ``[N, deep, H, W]`` -> classes ``[N, classes, 4H, 4W]``.

    Chen et al. 2017 (DeepLab v3): Convs of several dilations and the mean of the image, which a
    bilinear Resize repeats; Concat and a 1x1 Conv; classes, bilinear x4.
    """

    def __init__(self, deep: int = 256, width: int = 256, classes: int = 21) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [_conv(deep, width), *(_conv(deep, width, 3, dilation) for dilation in (6, 12, 18))]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv(deep, width))
        self.project = _conv(5 * width, width)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        mean = F.interpolate(
            self.pool(features), features.shape[2:], mode="bilinear", align_corners=False
        )
        joined = torch.cat([*(conv(features) for conv in self.convs), mean], dim=1)
        classes: Tensor = F.interpolate(
            self.classify(self.project(joined)),
            scale_factor=4.0,
            mode="bilinear",
            align_corners=False,
        )
        return classes
