"""What figures say of a site: who has won, who may, who cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployconv.results import Candidate, Prediction
from deployconv.search.choice import AS_IT_WAS, Choice
from deployconv.search.figures import Figures

COL2IM, DCR = Choice("crop", "col2im"), Choice("crop", "dcr")
FORMS = {str(choice): choice for choice in (COL2IM, DCR)}
Spread = tuple[float, float, float]
"""low, ratio, high"""


def candidate(name: str, spread: Spread) -> Candidate:
    low, ratio, high = spread
    return Candidate(name, 10.0 / ratio, ratio, low, high, False)


def figures(col2im: Spread | None = None, dcr: Spread | None = None) -> Figures:
    found = [(str(COL2IM), col2im), (str(DCR), dcr)]
    entries = [candidate(name, spread) for name, spread in found if spread is not None]
    first = [candidate(AS_IT_WAS, (1.0, 1.0, 1.0))] if entries else []
    return Figures(FORMS, (*first, *entries))


@pytest.mark.parametrize(
    ("found", "winner", "hopeful", "undecided"),
    [
        (figures((1.1, 1.2, 1.3), (1.3, 1.4, 1.5)), DCR, DCR, False),
        (figures((1.1, 1.2, 1.3), (0.9, 1.4, 1.5)), COL2IM, DCR, False),
        (figures((0.98, 1.02, 1.1), (0.97, 1.01, 1.2)), None, COL2IM, True),
        (figures((1.005, 1.006, 1.007), (0.8, 0.9, 1.2)), None, COL2IM, True),
        (figures((0.8, 0.9, 1.2), (0.5, 0.6, 0.7)), None, None, False),
        (figures((1.1, 1.2, 1.3)), COL2IM, COL2IM, False),
        (figures(), None, None, True),
    ],
    ids=["both", "one for sure", "perhaps", "hardly", "neither", "one timed", "none timed"],
)
def test_who_is_faster(
    found: Figures, winner: Choice | None, hopeful: Choice | None, undecided: bool
) -> None:
    first = found.winners[0][0] if found.winners else None
    assert first == winner
    assert (found.hopeful.name if found.hopeful else "None") == str(hopeful)
    assert found.undecided is undecided


def test_a_form_that_is_not_there_wins_nothing() -> None:
    """As a broken cache may have it."""
    found = Figures({}, (candidate("crop, magic", (1.1, 1.2, 1.3)),))
    assert found.winners == []
    assert not found.undecided


@pytest.mark.parametrize(
    ("col2im", "taken", "out"),
    [
        ((0.8, 0.9, 0.99), None, True),
        ((0.8, 0.9, 1.01), None, False),
        ((1.2, 1.25, 1.29), DCR, True),
        ((1.2, 1.25, 1.31), DCR, False),
        (None, None, False),
        (None, DCR, False),
    ],
    ids=["slower", "perhaps", "slower than dcr", "perhaps not", "not timed", "nor beside dcr"],
)
def test_what_figures_rule_out(col2im: Spread | None, taken: Choice | None, out: bool) -> None:
    assert figures(col2im, (1.3, 1.4, 1.5)).rules_out(COL2IM, taken) is out


PREDICTED = (Prediction(AS_IT_WAS, 4.0, True), Prediction(str(COL2IM), 3.0, False))


@pytest.mark.parametrize(
    ("found", "taken", "shown"),
    [
        (figures((1.1, 1.2, 1.3)), COL2IM, [(AS_IT_WAS, False), (COL2IM, True)]),
        (figures(None, (0.8, 0.9, 1.2)), None, [(AS_IT_WAS, True), (DCR, False)]),
        (
            figures(None, (0.8, 0.9, 1.2)),
            COL2IM,
            [(AS_IT_WAS, False), (DCR, False), (COL2IM, True)],
        ),
        (figures(), COL2IM, [(AS_IT_WAS, False), (COL2IM, True)]),
        (figures(), None, [(AS_IT_WAS, True), (COL2IM, False)]),
    ],
    ids=["timed", "as it was", "another was timed", "predicted", "predicted and kept"],
)
def test_what_the_report_has(
    found: Figures, taken: Choice | None, shown: list[tuple[object, bool]]
) -> None:
    """Figures for what was timed, a prediction for what was taken without."""
    entries = found.shown(PREDICTED, AS_IT_WAS if taken is None else str(taken))
    assert [(entry.name, entry.chosen) for entry in entries] == [
        (str(name), chosen) for name, chosen in shown
    ]
    measured = [entry for entry in entries if isinstance(entry, Candidate)]
    assert [replace(entry, chosen=False) for entry in measured] == list(found.timed)
