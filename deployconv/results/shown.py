"""How a result shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Displayed:
    """A result that a notebook shows as HTML, if something can draw it.

    ``draw`` is set by ``api``. It returns None where the libraries that it needs are missing.
    """

    draw: ClassVar[Callable[[Displayed], str | None] | None] = None

    def _repr_html_(self) -> str | None:
        return None if Displayed.draw is None else Displayed.draw(self)
