"""Where a model's time goes, site by site: the layers of the runtime grouped by what they compute.

A runtime fuses nodes into layers of its own and says which; a layer belongs to the sites whose
nodes are among them. In a rewritten model a site of the original is what bears its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import find_sites
from deployconv.results import LayerTime, Profile, SiteTime
from deployconv.runtimes.base import Feeds, GpuSession, ModelSource

PROFILED_RUNS = 20


@dataclass(frozen=True)
class SiteNames:
    """Which site a node belongs to, by the name that TensorRT's importer gives it.

    Attributes:
        owners: node -> id of its site.
        nodes: all nodes of the model.
        labels: name of a site's last node -> id, which the nodes in its place are named after.
    """

    owners: Mapping[str, str]
    nodes: frozenset[str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, source: ModelSource) -> SiteNames:
        """Those of a model. Raises ModelError where it cannot be read."""
        loaded = load(source if isinstance(source, Path) else onnx.load_model_from_string(source))
        seen = view(loaded)
        owners: dict[str, str] = {}
        labels: dict[str, str] = {}
        for site in find_sites(seen):
            owners |= {imported_name(node): site.id for node in site.nodes}
            labels[site.scope.label(site.nodes[-1])] = site.id
        nodes = (imported_name(node) for scope in seen.scopes for node in scope.nodes)
        return cls(owners, frozenset(nodes), labels)

    def after(self, original: SiteNames) -> SiteNames:
        """With the ids of ``original`` for what was made of its sites."""
        owners = dict(self.owners)
        for node in self.nodes - original.nodes:
            # The longest, as a site may bear a name that begins with that of another.
            heads = [label for label in original.labels if node.startswith(f"{label}/")]
            if heads:
                owners[node] = original.labels[max(heads, key=len)]
        for node in self.nodes & original.nodes:
            if node in original.owners:
                owners[node] = original.owners[node]
        return replace(self, owners=owners)


def imported_name(node: gs.Node) -> str:
    """What TensorRT's importer calls ``node``; in a subgraph the path of that follows."""
    return str(node.name) or f"node_of_{node.outputs[0].name if node.outputs else ''}"


def take_profile(
    session: GpuSession, feeds: Feeds, names: SiteNames, runs: int = PROFILED_RUNS
) -> Profile:
    """Run a model with the runtime's profiler, and group what that says."""
    return Profile(runs, group_by_site(session.profile(feeds, runs), names))


def group_by_site(layers: Iterable[LayerTime], names: SiteNames) -> tuple[SiteTime, ...]:
    """Layers by the sites that they compute, in the order of their first layers; the rest last."""
    groups: dict[tuple[str, ...], list[LayerTime]] = {}
    for layer in layers:
        known = [node for node in layer.nodes if _bare(node) in names.nodes]
        sites = tuple(
            dict.fromkeys(
                names.owners[_bare(node)] for node in known if _bare(node) in names.owners
            )
        )
        groups.setdefault(sites, []).append(replace(layer, nodes=tuple(known)))
    ordered = sorted(groups.items(), key=lambda group: not group[0])
    return tuple(SiteTime(sites, _total(found), tuple(found)) for sites, found in ordered)


def _bare(node: str) -> str:
    return node.split(" | ")[0]


def _total(layers: Sequence[LayerTime]) -> float:
    return sum(layer.ms for layer in layers)
