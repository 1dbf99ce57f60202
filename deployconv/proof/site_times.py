"""How much of the time of a model each upsampling layer takes.

A profile lists the layers of a runtime with their times. The runtime fuses nodes into layers of its
own and names the nodes of each; a layer belongs to the sites (upsampling layers) whose nodes are
among them. In a rewritten model the names of the nodes that replace a site begin with the name of
the site's last node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.results import LayerTime, Profile, SiteTime
from deployconv.runtimes.base import Feeds, GpuSession, ModelSource, Session

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

_RUNS = 20


def profiles_of(
    sessions: Sequence[Session], sources: Sequence[ModelSource], feeds: Feeds
) -> tuple[Profile, ...]:
    """The time of each layer of each session that tells it, grouped by site.

    Nodes of the second model that replace a site count as that site.
    """
    names = [SiteNames.of(source) for source in sources]
    named = (names[0], *(one.with_ids_of(names[0]) for one in names[1:]))
    return tuple(
        Profile(_RUNS, group_by_site(session.profile(feeds, _RUNS), of))
        for session, of in zip(sessions, named, strict=True)
        if isinstance(session, GpuSession)
    )


@dataclass(frozen=True)
class SiteNames:
    """Which site each node of a model belongs to; nodes have the names that TensorRT gives them.

    Attributes:
        owners: name of a node -> id of its site.
        nodes: names of all nodes of the model.
        labels: name of a site's last node -> id of the site. The names of the nodes that replace
            the site begin with that name.
    """

    owners: Mapping[str, str]
    nodes: frozenset[str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, source: ModelSource) -> SiteNames:
        """Find the sites of a model. Raises ModelError if it cannot be read."""
        import onnx

        from deployconv.graph.load import load
        from deployconv.graph.view import view
        from deployconv.match import find_sites

        loaded = load(source if isinstance(source, Path) else onnx.load_model_from_string(source))
        seen = view(loaded)
        owners: dict[str, str] = {}
        labels: dict[str, str] = {}
        for site in find_sites(seen):
            owners |= {imported_name(node): site.id for node in site.nodes}
            labels[site.scope.label(site.nodes[-1])] = site.id
        nodes = (imported_name(node) for scope in seen.scopes for node in scope.nodes)
        return cls(owners, frozenset(nodes), labels)

    def with_ids_of(self, original: SiteNames) -> SiteNames:
        """Give nodes that stayed, or that replace a site, the ids of the original's sites."""
        owners = dict(self.owners)
        for node in self.nodes - original.nodes:
            # The longest, as the name of a site may begin with that of another.
            heads = [label for label in original.labels if node.startswith(f"{label}/")]
            if heads:
                owners[node] = original.labels[max(heads, key=len)]
        for node in self.nodes & original.nodes:
            if node in original.owners:
                owners[node] = original.owners[node]
        return replace(self, owners=owners)


def imported_name(node: gs.Node) -> str:
    """The name that TensorRT's importer gives a node; in a subgraph its path is appended."""
    return str(node.name) or f"node_of_{node.outputs[0].name if node.outputs else ''}"


def group_by_site(layers: Iterable[LayerTime], names: SiteNames) -> tuple[SiteTime, ...]:
    """Group layers by the sites that they compute, in order of first layers; those of none last."""
    groups: dict[tuple[str, ...], list[LayerTime]] = {}
    for layer in layers:
        known = tuple(node for node in layer.nodes if _bare(node) in names.nodes)
        owners = (names.owners.get(_bare(node)) for node in known)
        sites = tuple(dict.fromkeys(owner for owner in owners if owner is not None))
        groups.setdefault(sites, []).append(replace(layer, nodes=known))
    ordered = sorted(groups.items(), key=lambda group: not group[0])
    return tuple(
        SiteTime(sites, sum(layer.ms for layer in found), tuple(found)) for sites, found in ordered
    )


def _bare(node: str) -> str:
    """The name of a node without the path of its subgraph."""
    return node.split(" | ")[0]
