"""The picture of the matrices is what its script draws."""

from __future__ import annotations

from xml.etree import ElementTree

from scripts.draw_matrix import FACTOR, FIGURE, INPUTS, picture


def test_the_picture_is_as_the_script_draws_it() -> None:
    assert FIGURE.read_text(encoding="utf-8") == picture()


def test_it_has_a_cell_for_each_weight_of_both_matrices() -> None:
    root = ElementTree.fromstring(picture())
    cells = [one for one in root.iter() if one.tag.endswith("rect") and one.get("rx")]
    assert len(cells) == 2 * INPUTS * INPUTS * FACTOR
