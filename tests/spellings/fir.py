"""The FIR filters of upfirdn2d, behind its zero insertion."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fir(nn.Module):
    """The FIR filter behind upfirdn2d's zero insertion, one channel at a time.

    ``separable`` runs it along the columns, then along the rows.
    """

    taps: Tensor

    def __init__(self, separable: bool = False) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 2.0])
        self.separable = separable
        self.register_buffer("taps", taps if separable else torch.outer(taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = F.pad(x, (2, 1, 2, 1))
        if self.separable:
            taps = self.taps.flip(0).expand(channels, 1, -1)
            return F.conv2d(
                F.conv2d(x, taps.unsqueeze(2), groups=channels),
                taps.unsqueeze(3),
                groups=channels,
            )
        taps = self.taps.flip((0, 1))[None, None].repeat(channels, 1, 1, 1)
        return F.conv2d(x, taps, groups=channels)


class PaddedFir(nn.Module):
    """The same filter, made for two channels when the network was built."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 2.0])
        self.register_buffer("kernel", torch.outer(taps, taps).flip((0, 1)).repeat(2, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 1, 2, 1)), self.kernel, groups=2)


class FirPerChannel(nn.Module):
    """upfirdn2d with the channels folded into the batch: ``reshape(-1, 1, H, W)``.

    ``minor`` keeps a last axis of one element through the zero insertion, as the first
    public implementations did, and moves it to the channels for the Conv.
    """

    kernel: Tensor

    def __init__(self, minor: bool = False) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 2.0])
        self.minor = minor
        self.register_buffer("kernel", torch.outer(taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        kernel = torch.flip(self.kernel, [0, 1])[None, None]
        if self.minor:
            y = x.reshape(-1, height, 1, width, 1, 1)
            y = F.pad(y, (0, 0, 0, 1, 0, 0, 0, 1))
            y = y.view(-1, height * 2, width * 2, 1)
            y = F.pad(y, (0, 0, 2, 1, 2, 1))
            y = y.permute(0, 3, 1, 2)
        else:
            y = x.reshape(-1, 1, height, 1, width, 1)
            y = F.pad(y, (0, 1, 0, 0, 0, 1)).reshape(-1, 1, height * 2, width * 2)
            y = F.pad(y, (2, 1, 2, 1))
        y = F.conv2d(y, kernel)
        return y.reshape(-1, channels, y.shape[2], y.shape[3])
