"""The options of a call as its report has them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Signature
from pathlib import Path
from typing import Any

import numpy as np


def given_options(options: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """Return the options that are not the defaults of a function, as JSON has them."""
    defaults = {name: one.default for name, one in signature.parameters.items()}
    return {
        name: _plain(value)
        for name, value in options.items()
        if value not in (None, (), {}) and not _equal(value, defaults.get(name))
    }


def _equal(value: Any, default: Any) -> bool:
    plain, other = _plain(value), _plain(default)
    return bool(plain == other or plain == [other])


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)}"
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
