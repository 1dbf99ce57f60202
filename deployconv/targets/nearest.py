"""The facts of a nearest Resize that stays in a model, for rules of its rounding.

It is a layer of a site only together with a Conv. Rules that name ``resize_mode = "nearest"`` are
about the operator by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto

from deployconv.graph.tensors import is_onnx
from deployconv.targets.geometry_facts import Value
from deployconv.targets.profile import Profile, Rule

Sizes = Sequence[int | None]
"""The shape of a tensor; None for a size that is not known."""

_FIRST_WITH_COORDINATES = 11
"""The version of Resize that got coordinates; the one before has ``asymmetric`` and ``floor``."""


def nearest_facts(
    node: NodeProto, opset: int, before: Sizes | None, after: Sizes | None
) -> Mapping[str, Value] | None:
    """Return the facts of a nearest Resize; None for any other node.

    Args:
        node: a node of the model.
        opset: the version of the ONNX operators.
        before: the shape of its image; None if not known.
        after: the same for its result.
    """
    if node.op_type != "Resize" or not is_onnx(node.domain):
        return None
    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    if given.get("mode", b"nearest") != b"nearest":
        return None
    old = opset < _FIRST_WITH_COORDINATES
    coordinates = b"asymmetric" if old else b"half_pixel"
    rounding = b"floor" if old else b"round_prefer_floor"
    return {
        "operator": "Resize",
        "resize_mode": "nearest",
        "coordinates": given.get("coordinate_transformation_mode", coordinates).decode(),
        "nearest_mode": given.get("nearest_mode", rounding).decode(),
        "whole_scale": _whole(before, after),
    }


def nearest_rule(profile: Profile, facts: Mapping[str, Value]) -> Rule | None:
    """Return what ``profile`` says against a nearest Resize of these facts; None for nothing."""
    spoken = (rule for rule in profile.layers if "resize_mode" in rule.when and rule.needed)
    return next((rule for rule in spoken if rule.holds(facts)), None)


def _whole(before: Sizes | None, after: Sizes | None) -> bool | None:
    """Whether all sizes grow or shrink by whole factors; None if that is not known."""
    if before is None or after is None or len(before) != len(after):
        return None
    known = [
        None if old is None or new is None else max(old, new) % max(min(old, new), 1) == 0
        for old, new in zip(before, after, strict=True)
        if old is None or old != new
    ]
    return False if False in known else None if None in known else True
