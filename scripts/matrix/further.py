"""Layers beyond the forms and the Resizes: each is one that some target misreads or refuses.

They are run only with the targets that a rule says something special of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .forms import FORMS, Form, nearest_conv, transposed
from .record import RECORDS
from .resizes import RESIZES, resize

FURTHER_RECORDS = RECORDS / "further"
"""The runs of these layers, one file a target."""

_IMAGE, _LARGER, _DYNAMIC = (1, 8, 6, 7), (1, 8, 8, 12), (1, 8, "h", "w")
_LINE, _VOLUME = (1, 8, 9), (1, 4, 3, 4, 5)
_K4: Mapping[str, Any] = {"kernel": (4, 4), "strides": [2, 2]}
_K3: Mapping[str, Any] = {"kernel": (3, 3), "strides": [2, 2]}
_D3: Mapping[str, Any] = {"kernel": (3, 3, 3), "channels": 4}

_TRANSPOSED: Mapping[str, tuple[tuple[int | str, ...], Mapping[str, Any]]] = {
    "output_shape_even": (_IMAGE, {**_K4, "output_shape": [12, 14]}),
    "output_shape_even_groups": (_IMAGE, {**_K4, "output_shape": [12, 14], "group": 4}),
    "output_shape_odd_upper": (
        _IMAGE,
        {**_K3, "output_shape": [12, 14], "auto_pad": "SAME_UPPER"},
    ),
    "output_shape_dynamic": (_DYNAMIC, {**_K4, "output_shape": [41, 41]}),
    "output_shape_dilated": (
        _IMAGE,
        {"kernel": (2, 2), "strides": [2, 2], "dilations": [2, 2], "output_shape": [11, 13]},
    ),
    "same_upper_dynamic": (_DYNAMIC, {**_K3, "auto_pad": "SAME_UPPER"}),
    "same_upper_k2s2": (
        _IMAGE,
        {"kernel": (2, 2), "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "same_upper_k1s2": (
        _IMAGE,
        {"kernel": (1, 3), "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "same_upper_dilated": (
        _IMAGE,
        {**_K4, "dilations": [2, 2], "group": 4, "auto_pad": "SAME_UPPER"},
    ),
    "d1_k1s1": (_LINE, {"kernel": (1,), "strides": [1]}),
    "d3_k3s1": (_VOLUME, {**_D3, "strides": [1] * 3}),
    "d3_s122_groups": (
        _VOLUME,
        {"kernel": (1, 2, 2), "strides": [1, 2, 2], "channels": 4, "group": 2},
    ),
    "d3_same_upper": (_VOLUME, {**_D3, "strides": [2] * 3, "auto_pad": "SAME_UPPER"}),
    "d3_output_shape": (_VOLUME, {**_D3, "strides": [2] * 3, "output_shape": [6, 8, 10]}),
    "d3_asym_pads": (_VOLUME, {**_D3, "strides": [2] * 3, "pads": [0, 0, 0, 1, 1, 1]}),
    "d3_no_kernel_shape": (
        _VOLUME,
        {**_D3, "strides": [2] * 3, "bias": False, "states_kernel": False},
    ),
}
"""Name -> shape of ``x``, and kernel, channels and attributes of the ConvTranspose."""

_RESIZES: Mapping[str, tuple[tuple[int | str, ...], Mapping[str, Any]]] = {
    "lin_hp_axes": (_IMAGE, {"axes": [2, 3]}),
    "lin_hp_axes_negative": (_IMAGE, {"axes": [-2, -1]}),
    "lin_hp_axes_one": (_IMAGE, {"axes": [2], "sizes": (12,)}),
    "lin_hp_last": ((1, 6, 7, 4), {"scales": (1, 2, 2, 1)}),
    "lin_tf_height": (_IMAGE, {"scales": (1, 1, 2, 1)}),
    "lin_asym_width": (_IMAGE, {"scales": (1, 1, 1, 2)}),
    "lin_ac_dynamic": (_DYNAMIC, {"factor": 1.57}),
    "lin_aa_dynamic_down": (_DYNAMIC, {"factor": 0.5, "antialias": 1}),
    "cub_hp_a2": (_IMAGE, {"cubic_coeff_a": -2.0}),
    "cub_hp_dynamic_down": (_DYNAMIC, {"factor": 0.5}),
    "near_hps_floor": (_IMAGE, {"nearest_mode": "floor"}),
    "near_hp_down": (_LARGER, {"factor": 0.25}),
    "near_hp_dynamic_down": (_DYNAMIC, {"factor": 0.5}),
    "near_asym_round_prefer_floor_f3": (
        _IMAGE,
        {"factor": 3.0, "nearest_mode": "round_prefer_floor"},
    ),
    "near_asym_round_prefer_floor_f1.5": (
        _IMAGE,
        {"factor": 1.5, "nearest_mode": "round_prefer_floor"},
    ),
    "near_tf_round_prefer_floor": (_IMAGE, {"nearest_mode": "round_prefer_floor"}),
    "near_asym_3d": (_VOLUME, {"nearest_mode": "floor"}),
    "near_asym_round_prefer_ceil": (_IMAGE, {"nearest_mode": "round_prefer_ceil"}),
    "near_hp_round_prefer_ceil_f1.5": (
        _IMAGE,
        {"factor": 1.5, "nearest_mode": "round_prefer_ceil"},
    ),
    "near_asym_axes": (_IMAGE, {"nearest_mode": "floor", "axes": [2, 3]}),
    "near_asym_axes_negative": (_IMAGE, {"nearest_mode": "floor", "axes": [-2, -1]}),
    "near_asym_axes_one": (_IMAGE, {"nearest_mode": "floor", "axes": [3], "sizes": (14,)}),
}
"""Name -> shape of ``x``, and what the name does not say of the Resize."""

_OPSETS = {"lin_tf_height": 11, "near_hps_floor": 19, "near_tf_round_prefer_floor": 11}
"""The versions of Resize that have these coordinates."""

FURTHER: Mapping[str, Form] = {
    **{
        name: Form(name, partial(transposed, **layer), shape)
        for name, (shape, layer) in _TRANSPOSED.items()
    },
    "d3_nearest_conv": Form("d3_nearest_conv", nearest_conv, _VOLUME),
    **{
        name: Form(name, partial(resize, **layer), shape, opset=_OPSETS.get(name, 18))
        for name, (shape, layer) in _RESIZES.items()
    },
}
"""These layers by name."""

EVERY: Mapping[str, Form] = {**FORMS, **RESIZES, **FURTHER}
"""All layers that records name."""
