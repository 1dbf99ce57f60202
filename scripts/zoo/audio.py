"""Vocoders, 1-D."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1
"""HiFi-GAN's LeakyReLU."""


class _ResBlock(nn.Module):
    """``[N, C, L]`` -> the same: a residual sum over dilated Convs k3."""

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(SLOPE),
                weight_norm(nn.Conv1d(channels, channels, 3, padding=d, dilation=d)),
                nn.LeakyReLU(SLOPE),
                weight_norm(nn.Conv1d(channels, channels, 3, padding=1)),
            )
            for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return x


class HifiganVocoder(nn.Module):
    """Mel spectrogram ``[N, mels, L]`` -> waveform ``[N, 1, L * prod(rates)]``.

    Kong et al. 2020: ConvTranspose with kernel twice the stride, each followed by residual
    blocks; the weights are normalised (``g * v / |v|``).
    """

    def __init__(
        self, mels: int = 80, width: int = 32, rates: Sequence[int] = (8, 8, 2, 2)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [weight_norm(nn.Conv1d(mels, width, 7, padding=3))]
        for rate in rates:
            layers += [
                nn.LeakyReLU(SLOPE),
                weight_norm(
                    nn.ConvTranspose1d(width, width // 2, 2 * rate, rate, padding=rate // 2)
                ),
                _ResBlock(width // 2, (1, 3)),
            ]
            width //= 2
        layers += [nn.LeakyReLU(), weight_norm(nn.Conv1d(width, 1, 7, padding=3)), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, mel: Tensor) -> Tensor:
        waveform: Tensor = self.body(mel)
        return waveform
