"""The Resizes that every target is tried with, each a model of one layer.

A name has the mode, then the coordinates, then what is special: ``cub_hp_f1.55`` is a cubic Resize
with ``half_pixel`` by a factor of 1.55.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from .forms import Form, Layer

_MODES = {"lin": "linear", "cub": "cubic", "near": "nearest"}
_COORDINATES = {
    "hp": "half_pixel",
    "php": "pytorch_half_pixel",
    "ac": "align_corners",
    "asym": "asymmetric",
    "hps": "half_pixel_symmetric",
    "tf": "tf_half_pixel_for_nn",
}
_LAST_OF_TF = 11
"""The last version of Resize that has ``tf_half_pixel_for_nn``."""
_IMAGE, _LINE, _VOLUME = (1, 4, 10, 14), (1, 4, 20), (1, 4, 5, 6, 7)


def resize(
    form: Form,
    _: np.random.Generator,
    *,
    factor: float = 2.0,
    sizes: tuple[int, ...] = (),
    scales: tuple[float, ...] = (),
    **attributes: Any,
) -> Layer:
    """A Resize of the spatial axes by ``factor``, or to ``sizes``; or of all axes by ``scales``.

    With the attribute ``axes``, of these axes.
    """
    others = form.shape[:2] if "axes" not in attributes else ()
    resized = len(attributes.get("axes", form.shape[2:]))
    mode, coordinates, *_rest = form.name.split("_")
    attributes["mode"] = _MODES[mode]
    if coordinates in _COORDINATES:
        attributes["coordinate_transformation_mode"] = _COORDINATES[coordinates]
    constants = {"roi": np.zeros(0, np.float32)} if form.opset <= _LAST_OF_TF else {}
    inputs = ["x", *(constants or ("",))]
    if sizes:
        constants["sizes"] = np.array([*others, *sizes])
        inputs += ["", "sizes"]
    else:
        given = scales or [*[1.0] * len(others), *[factor] * resized]
        constants["scales"] = np.array(given, np.float32)
        inputs.append("scales")
    return Layer([helper.make_node("Resize", inputs, ["y"], "up", **attributes)], constants)


_DYNAMIC = (1, 4, "h", "w")

_TABLE: Mapping[str, tuple[tuple[int | str, ...], Mapping[str, Any]]] = {
    "lin_hp": (_IMAGE, {}),
    "lin_php": (_IMAGE, {}),
    "lin_ac": (_IMAGE, {}),
    "lin_asym": (_IMAGE, {}),
    "lin_hps": (_IMAGE, {"factor": 1.55}),
    "lin_tf": (_IMAGE, {}),
    "lin_hp_f1.5": (_IMAGE, {"factor": 1.5}),
    "lin_hp_f1.55": (_IMAGE, {"factor": 1.55}),
    "lin_ac_f1.55": (_IMAGE, {"factor": 1.55}),
    "lin_asym_f1.55": (_IMAGE, {"factor": 1.55}),
    "lin_hp_sizes": (_IMAGE, {"sizes": (17, 25)}),
    "lin_ac_sizes": (_IMAGE, {"sizes": (17, 25)}),
    "lin_hp_down": (_IMAGE, {"factor": 0.5}),
    "lin_hp_down.6": (_IMAGE, {"factor": 0.6}),
    "lin_ac_down": (_IMAGE, {"factor": 0.5}),
    "lin_aa_down": (_IMAGE, {"factor": 0.5, "antialias": 1}),
    "lin_aa_up": (_IMAGE, {"antialias": 1}),
    "lin_php_len1": (_IMAGE, {"sizes": (1, 28)}),
    "lin_1d": (_LINE, {}),
    "lin_ac_1d": (_LINE, {}),
    "lin_3d": (_VOLUME, {}),
    "lin_ac_3d": (_VOLUME, {}),
    "lin_dyn": (_DYNAMIC, {}),
    "cub_hp": (_IMAGE, {}),
    "cub_php": (_IMAGE, {}),
    "cub_ac": (_IMAGE, {}),
    "cub_asym": (_IMAGE, {}),
    "cub_a.5": (_IMAGE, {"cubic_coeff_a": -0.5}),
    "cub_exc": (_IMAGE, {"exclude_outside": 1}),
    "cub_hp_f1.55": (_IMAGE, {"factor": 1.55}),
    "cub_ac_sizes": (_IMAGE, {"sizes": (17, 25)}),
    "cub_hp_down": (_IMAGE, {"factor": 0.5}),
    "cub_aa_down": (_IMAGE, {"factor": 0.5, "antialias": 1}),
    "cub_1d": (_LINE, {}),
    "cub_dyn": (_DYNAMIC, {}),
    "near_hp_round_prefer_floor": (_IMAGE, {"nearest_mode": "round_prefer_floor"}),
    "near_hp_round_prefer_ceil": (_IMAGE, {"nearest_mode": "round_prefer_ceil"}),
    "near_hp_floor": (_IMAGE, {"nearest_mode": "floor"}),
    "near_hp_ceil": (_IMAGE, {"nearest_mode": "ceil"}),
    "near_asym_round_prefer_floor": (_IMAGE, {"nearest_mode": "round_prefer_floor"}),
    "near_asym_floor": (_IMAGE, {"nearest_mode": "floor"}),
    "near_asym_ceil": (_IMAGE, {"nearest_mode": "ceil"}),
    "near_ac_round_prefer_floor": (
        _IMAGE,
        {"factor": 1.75, "nearest_mode": "round_prefer_floor"},
    ),
    "near_ac_round_prefer_ceil": (_IMAGE, {"factor": 1.75, "nearest_mode": "round_prefer_ceil"}),
    "near_hp_f1.55": (_IMAGE, {"factor": 1.55}),
    "near_tf": (_IMAGE, {"nearest_mode": "floor"}),
}
"""Name -> shape of ``x``, and what the name does not say of the Resize."""

RESIZES: Mapping[str, Form] = {
    name: Form(
        name,
        partial(resize, **layer),
        shape,
        opset=_LAST_OF_TF if "tf" in name.split("_") else 18,
    )
    for name, (shape, layer) in _TABLE.items()
}
"""The Resizes by name."""
