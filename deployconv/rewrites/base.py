"""What a rewrite is: an object that can do everything that is ever asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deployconv.results import FormName, Macs, Requantization, ShuffleName

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from onnx import ModelProto

    from deployconv.graph.scope import Scope
    from deployconv.match import ConcatSite, ResampleSite, ShuffleSite, UpsampleSite
    from deployconv.match.operators import Operators
    from deployconv.rewrites.emit import Emitter

Array = NDArray[Any]
Site = TypeVar("Site", "UpsampleSite", "ConcatSite", "ShuffleSite", "ResampleSite")


@dataclass(frozen=True)
class Summary:
    """Form, shuffle, kernel and cost of a rewrite, for reports; None for what it does not have.

    Attributes:
        form: how the layer is written.
        shuffle: how its phases are moved into space.
        conv_kernel: taps of the low-resolution Conv per axis.
        macs: multiplications before and after.
        requantized: how far new scales moved an integer weight.
    """

    form: FormName | None = None
    shuffle: ShuffleName | None = None
    conv_kernel: tuple[int, ...] | None = None
    macs: Macs | None = None
    requantized: Requantization | None = None


@dataclass(frozen=True, eq=False)
class Oracle:
    """A tiny model of the original operator that shows the weights that it computes with.

    Its output on ``image`` must be ``expected`` within ``atol``. ``layer`` is the label of the
    operator in the original.
    """

    model: ModelProto
    image: Array
    expected: Array
    atol: float
    layer: str


@dataclass(frozen=True)
class Trial:
    """Two models, the old nodes and the new ones, and what to run both on.

    ``parity_only`` has the labels of nodes that compute nothing in either model: they have no
    exact stand-in on integers, so only the parity check of the whole model covers them.
    ``may_be_empty`` is True if the batch, the first axis of every input, may be 0 in the model.
    ``oracles`` show the weights that the old operator computes with, where it has none stored.
    """

    old: ModelProto
    new: ModelProto
    feeds: Mapping[str, Array]
    output: str
    parity_only: tuple[str, ...] = ()
    may_be_empty: bool = False
    oracles: tuple[Oracle, ...] = ()


class Rewrite(Protocol):
    """Some nodes of a model, and the new nodes that replace them."""

    @property
    def scope(self) -> Scope:
        """The graph that the nodes stand in."""

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """What it replaces, in graph order; the last node makes the output."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it makes."""

    @property
    def summary(self) -> Summary:
        """What reports show of it."""

    @property
    def operators(self) -> Operators | None:
        """Its operators, for the rules of a target; None if they are not described."""

    def emit(self, emitter: Emitter) -> None:
        """Write the new nodes and weights.

        Raises ModelError if a weight or bias is NaN or infinite or has not its declared shape.
        """

    def trial(self, rng: np.random.Generator) -> Trial:
        """Its certificate: old and new nodes as tiny models on integers."""

    def at_sizes(self, sizes: Sequence[int]) -> Rewrite:
        """The same rewrite for an input of other spatial sizes; what is dynamic stays so."""


@dataclass(frozen=True, eq=False)
class OfOneLayer(Generic[Site]):
    """What all rewrites of a single layer have in common."""

    site: Site

    @property
    def scope(self) -> Scope:
        return self.site.scope

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return self.site.nodes

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.site.output,)

    @property
    def operators(self) -> Operators | None:
        return None
