"""The question that this project answers, recomputed, and the answer.

The question enlarges ``x`` twice by "SubPixel" (zeros inserted between the pixels, then one
large Conv) and by "PixelShuffle" (a Conv to r*r channels, then DepthToSpace), both after
"Is the deconvolution layer the same as a convolutional layer?" (Shi et al. 2016). It finds
the results shifted against each other phase by phase, and different in size::

    SubPixel       x -> zero insertion -> Conv 4x4 ---------------> y
    PixelShuffle   x -> Conv 2x2 -> DepthToSpace -----------------> not y
    deployconv     x -> Conv 2x2 -> DepthToSpace -> crop a border -> y, bit for bit

The matrices are printed as the question has them, in float32. Whether two results are equal is
asked in float64, where no sum of these tensors is ever rounded: ``torch.rand`` draws multiples
of 2**-24 below 1, so the four products of an output pixel add up to a multiple of 2**-48 below
4, which has 50 bits of the 53. In float32 the last bit depends on the order in which a Conv
adds, and so on the processor.

Run it with ``python scripts/reference_question.py``; it needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deployconv.polyphase import Axis, Polyphase, phase_weights, smallest_kernel, without_shift

RATIO = 2
COLOURS = {"purple": (0, 0), "blue": (0, 1), "green": (1, 0), "red": (1, 1)}
"""The question's names of the phases: (row, column) of an output pixel, modulo `RATIO`."""


@dataclass(frozen=True)
class Question:
    """The question's tensors and what both methods make of them.

    ``x`` is ``[1, 1, 4, 4]``, ``kernel`` ``[1, 1, 4, 4]``; ``pixshuff`` and ``subpix_padded``
    are ``[1, 1, 8, 8]``, both of ``x`` with a row and a column of zeros behind; ``subpix`` is
    ``[1, 1, 6, 6]``.
    """

    x: Tensor
    kernel: Tensor
    pixshuff: Tensor
    subpix: Tensor
    subpix_padded: Tensor

    @classmethod
    def ask(cls, dtype: torch.dtype) -> Question:
        """Draw the tensors as the question does, in float32, and compute in ``dtype``."""
        torch.manual_seed(34)
        x = torch.rand(1, 1, 4, 4).to(dtype)
        kernel_stacked = torch.rand(RATIO * RATIO, 1, 2, 2).to(dtype)
        kernel = F.pixel_shuffle(kernel_stacked.movedim(0, 1), RATIO)
        x_padded = F.pad(x, (0, 1, 0, 1))
        return cls(
            x,
            kernel,
            pixel_shuffle_method(x_padded, kernel_stacked),
            subpixel_method(x, kernel),
            subpixel_method(x_padded, kernel),
        )

    def shift(self, phase: tuple[int, int]) -> tuple[int, int]:
        """By how many low-resolution pixels ``phase`` of SubPixel lies ahead of PixelShuffle's.

        Raises ValueError where no shift makes them equal.
        """
        row, column = phase
        subpix = self.subpix_padded[..., row::RATIO, column::RATIO]
        pixshuff = self.pixshuff[..., row::RATIO, column::RATIO]
        height, width = pixshuff.shape[2:]
        for down in range(height):
            for right in range(width):
                ahead = subpix[..., : height - down, : width - right]
                if torch.equal(ahead, pixshuff[..., down:, right:]):
                    return down, right
        raise ValueError(f"phase {phase}: the methods differ by more than a shift")


def pixel_shuffle_method(x: Tensor, kernel_stacked: Tensor) -> Tensor:
    """A Conv at low resolution, its channels moved into space."""
    return F.pixel_shuffle(F.conv2d(x, kernel_stacked), RATIO)


def subpixel_method(x: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between the pixels, one more row and column of them behind, then a Conv."""
    height, width = x.shape[2:]
    spread = x.new_zeros(*x.shape[:2], RATIO * height + 1, RATIO * width + 1)
    spread[..., :-1:RATIO, :-1:RATIO] = x
    return F.conv2d(spread, kernel)


def subpixel_axis(extra: int) -> Axis:
    """What `subpixel_method` is along one axis: output ``o``, tap ``t`` read ``x[(o + t) / 2]``.

    ``extra`` is the output size minus twice the input size: -2 for the question's 6x6 output,
    0 for its 8x8 output, both counted from the 4x4 input.
    """
    return Axis(stride=RATIO, taps=4, step=1, origin=0, extra=extra)


def corrected(x: Tensor, kernel: Tensor, form: Polyphase) -> Tensor:
    """`subpixel_method` at low resolution: Conv, DepthToSpace, crop; ``form`` on both axes."""
    weight = torch.from_numpy(phase_weights(kernel.numpy(), (form, form)))
    stacked = weight.flatten(0, 2)  # [1, 2, 2, 1, span, span] -> [4, 1, span, span]
    y = F.pixel_shuffle(F.conv2d(F.pad(x, form.pads * 2), stacked), RATIO)
    begin, end = form.crop
    return F.pad(y, (-begin, -end) * 2)


def taps_of_question(phase: tuple[int, int]) -> list[list[str]]:
    """Kernel elements, as "row column", that PixelShuffle's ``phase`` multiplies x[m + u] with."""
    stacked = F.pixel_unshuffle(_numbered(), RATIO).int()[0]
    return _named(stacked[phase[0] * RATIO + phase[1]])


def taps_of_answer(phase: tuple[int, int], form: Polyphase) -> list[list[str]]:
    """The same for SubPixel, as the polyphase arithmetic has it."""
    phased = phase_weights(_numbered().int().numpy(), (form, form))
    return _named(torch.from_numpy(phased[0, phase[0], phase[1], 0]))


def _numbered() -> Tensor:
    """A kernel ``[1, 1, 4, 4]`` whose elements say where they stand: ten times row + column + 1."""
    return (10 * torch.arange(4.0)[:, None] + torch.arange(1.0, 5.0))[None, None]


def _named(taps: Tensor) -> list[list[str]]:
    return [[f"{tap - 1:02}" if tap else " ." for tap in row] for row in taps.tolist()]


def main() -> None:
    torch.set_printoptions(precision=2)  # type: ignore[no-untyped-call]
    as_asked, exact = Question.ask(torch.float32), Question.ask(torch.float64)
    x_up_pixshuff = as_asked.pixshuff
    x_up_subpix = as_asked.subpix
    x_up_subpix_padded = as_asked.subpix_padded

    print("THE QUESTION\n")
    print("-> SubPixel gives (6, 6); padded, it gives (8, 8), the last row and column all zero\n")
    print(f"{x_up_pixshuff.shape = }")
    print(f"{x_up_subpix.shape = }")
    print(f"{x_up_subpix_padded.shape = }")
    print(f"{torch.all(x_up_subpix_padded[..., :, -1] == 0) = }")
    print(f"{torch.all(x_up_subpix_padded[..., -1, :] == 0) = }")

    print(
        "\n-> Each phase of SubPixel is PixelShuffle's, shifted by so many low-resolution pixels\n"
    )
    for colour, phase in COLOURS.items():
        print(f"{colour:8}{exact.shift(phase)}")

    print("\n-> The complete matrices")
    print(f"\nx_up_pixshuff\n{x_up_pixshuff}")
    print(f"\nx_up_subpix\n{x_up_subpix}")
    print(f"\nx_up_subpix_padded\n{x_up_subpix_padded}")

    print("\nTHE ANSWER\n")
    print("-> Phase p reads the taps r*u - p, not r*u + p. Kernel elements as 'row column', where")
    print("   they meet the input pixels x[m, n] .. x[m + 2, n + 2]:\n")
    form = without_shift(subpixel_axis(extra=0))
    print(f"{'':8}{'PixelShuffle':16}SubPixel")
    for colour, phase in COLOURS.items():
        question, answer = taps_of_question(phase), taps_of_answer(phase, form)
        for number, taps in enumerate(answer):
            name = colour if number == 0 else ""
            others = question[number] if number < len(question) else []
            print(f"{name:8}{' '.join(others):16}{' '.join(taps)}".rstrip())
        print()

    print("-> With each tap where it belongs, Conv + DepthToSpace is SubPixel, bit for bit\n")
    for name, extra, wanted, rounded in (
        ("x_up_subpix", -2, exact.subpix, as_asked.subpix),
        ("x_up_subpix_padded", 0, exact.subpix_padded, as_asked.subpix_padded),
    ):
        axis = subpixel_axis(extra)
        for form in (smallest_kernel(axis), without_shift(axis)):
            equal = torch.equal(corrected(exact.x, exact.kernel, form), wanted)
            error = (corrected(as_asked.x, as_asked.kernel, form) - rounded).abs().max()
            print(
                f"{name:18} = Conv {form.span}x{form.span}, pads {form.pads}, DepthToSpace,"
                f" crop {form.crop}: torch.equal {equal}; in float32 within {error:.1g}"
            )


if __name__ == "__main__":
    main()
