"""The question's own numbers, as it prints them, and the answer to it, bit for bit."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="the reference question is computed with PyTorch")
import torch

from deployconv.polyphase import Axis, Polyphase, smallest_kernel, without_shift
from scripts import reference_question
from scripts.reference_question import (
    COLOURS,
    Question,
    corrected,
    subpixel_axis,
    taps_of_answer,
    taps_of_question,
)

PRINTED = {
    "x_up_pixshuff": """
        0.73 0.43 0.26 0.33 0.74 0.64 0.36 0.17
        1.17 1.29 0.17 0.82 0.61 1.24 0.79 0.69
        0.88 0.62 0.41 0.21 0.56 0.50 0.56 0.28
        1.15 1.35 1.07 0.87 0.89 1.36 1.12 1.03
        0.92 0.90 1.21 0.93 0.94 0.78 0.64 0.37
        0.84 1.94 1.67 2.35 1.32 2.08 0.96 1.03
        0.36 0.44 0.78 0.71 0.63 0.55 0.34 0.23
        0.23 1.09 0.61 1.57 0.51 1.20 0.30 0.45""",
    "x_up_subpix": """
        0.73 0.33 0.26 0.64 0.74 0.17
        1.15 0.87 1.07 1.36 0.89 1.03
        0.88 0.21 0.41 0.50 0.56 0.28
        0.84 2.35 1.67 2.08 1.32 1.03
        0.92 0.93 1.21 0.78 0.94 0.37
        0.23 1.57 0.61 1.20 0.51 0.45""",
    "x_up_subpix_padded": """
        0.73 0.33 0.26 0.64 0.74 0.17 0.36 0.00
        1.15 0.87 1.07 1.36 0.89 1.03 1.12 0.00
        0.88 0.21 0.41 0.50 0.56 0.28 0.56 0.00
        0.84 2.35 1.67 2.08 1.32 1.03 0.96 0.00
        0.92 0.93 1.21 0.78 0.94 0.37 0.64 0.00
        0.23 1.57 0.61 1.20 0.51 0.45 0.30 0.00
        0.36 0.71 0.78 0.55 0.63 0.23 0.34 0.00
        0.00 0.00 0.00 0.00 0.00 0.00 0.00 0.00""",
}
"""The matrices that the question prints."""

SHIFTS = {"purple": (0, 0), "blue": (0, 1), "green": (1, 0), "red": (1, 1)}
"""Low-resolution pixels by which the question finds each phase shifted."""

EXTRA = {"subpix": -2, "subpix_padded": 0}
Form = Callable[[Axis], Polyphase]
FORMS = (smallest_kernel, without_shift)


@pytest.fixture(scope="module")
def exact() -> Question:
    return Question.ask(torch.float64)


@pytest.fixture(scope="module")
def printed() -> str:
    """What the script prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        reference_question.main()
    torch.set_printoptions(profile="default")
    return output.getvalue()


@pytest.mark.parametrize("name", PRINTED)
def test_matrices_are_printed_as_in_the_question(name: str, printed: str) -> None:
    rows = [", ".join(row.split()) for row in PRINTED[name].strip().splitlines()]
    indent = ",\n" + " " * len("tensor([[[[")
    tensor = "tensor([[[[" + f"]{indent[:-1]}[".join(rows) + "]]]])"
    assert f"\n{name}\n{tensor}\n" in printed


def test_sizes_and_zero_borders_are_printed_as_in_the_question(printed: str) -> None:
    for line in (
        "x_up_pixshuff.shape = torch.Size([1, 1, 8, 8])",
        "x_up_subpix.shape = torch.Size([1, 1, 6, 6])",
        "x_up_subpix_padded.shape = torch.Size([1, 1, 8, 8])",
        "torch.all(x_up_subpix_padded[..., :, -1] == 0) = tensor(True)",
        "torch.all(x_up_subpix_padded[..., -1, :] == 0) = tensor(True)",
    ):
        assert f"\n{line}\n" in printed


@pytest.mark.parametrize("colour", COLOURS)
def test_phases_are_shifted_as_in_the_question(colour: str, exact: Question, printed: str) -> None:
    assert exact.shift(COLOURS[colour]) == SHIFTS[colour]
    assert f"\n{colour:8}{SHIFTS[colour]}\n" in printed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EXTRA)
def test_corrected_conv_and_shuffle_equal_subpixel_bit_for_bit(
    name: str, form: Form, exact: Question
) -> None:
    ours = corrected(exact.x, exact.kernel, form(subpixel_axis(EXTRA[name])))
    assert torch.equal(ours, getattr(exact, name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EXTRA)
def test_in_float32_they_differ_by_rounding_at_most(name: str, form: Form) -> None:
    asked = Question.ask(torch.float32)
    ours = corrected(asked.x, asked.kernel, form(subpixel_axis(EXTRA[name])))
    # Each of the four products, all positive, is rounded at most four times on its way into
    # the sum, by half an epsilon, on either side.
    bound = 4 * torch.finfo(torch.float32).eps * getattr(asked, name).max()
    assert (ours - getattr(asked, name)).abs().max() <= bound


def test_float64_rounds_no_sum(exact: Question) -> None:
    # What makes bit equality independent of the processor.
    for tensor in (exact.x, exact.kernel):
        assert torch.equal(tensor * 2**24 % 1, torch.zeros_like(tensor))
        assert ((tensor >= 0) & (tensor < 1)).all()


def test_crop_form_has_the_2x2_kernel_of_the_question() -> None:
    form = smallest_kernel(subpixel_axis(extra=-2))
    assert (form.span, form.crop) == (2, (1, 1))
    assert without_shift(subpixel_axis(extra=-2)).span == 3
    assert subpixel_axis(extra=-2).output_size(4) == 6
    assert subpixel_axis(extra=0).output_size(4) == 8


@pytest.mark.parametrize("colour", COLOURS)
def test_taps_of_a_phase(colour: str) -> None:
    """PixelShuffle's phase p reads taps r*u + p; SubPixel's r*u - p, u from 1 where p > 0."""
    row, column = COLOURS[colour]
    question = [[f"{2 * u + row}{2 * v + column}" for v in range(2)] for u in range(2)]
    assert taps_of_question((row, column)) == question
    form = without_shift(subpixel_axis(extra=0))

    def tap(phase: int, offset: int) -> str | None:
        number = 2 * offset - phase
        return str(number) if 0 <= number < 4 else None

    answer = [[(tap(row, u) or "") + (tap(column, v) or "") for v in range(3)] for u in range(3)]
    expected = [[name if len(name) == 2 else " ." for name in taps] for taps in answer]
    assert taps_of_answer((row, column), form) == expected
