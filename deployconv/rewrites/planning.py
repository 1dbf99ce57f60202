"""Plan what becomes of every upsampling layer of a model, and make the model that was planned.

model -> view -> sites -> a rewrite per site -> new model
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deployconv.graph.declared import forget_symbols, names_sizes
from deployconv.graph.load import LoadedModel
from deployconv.graph.splice import AttributeEdit, Names, Replacement, Spliced, splice
from deployconv.graph.view import View, view
from deployconv.match import ResampleSite, ShuffleSite, UpsampleSite, find_sites
from deployconv.options import RewriteOptions
from deployconv.results import Reason, SiteReport, Status
from deployconv.rewrites.asked import (
    as_asked,
    check_globs,
    is_listed,
    request_for,
    with_options,
    with_restrictions,
)
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.chain import chain_after
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.conv_in_front import conv_in_front, with_products
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.kept import folded_in_place
from deployconv.rewrites.planned_site import PlannedSite, plan_site, planned_as, report_on
from deployconv.rewrites.ways import MAY_NOT_FIT, RESAMPLE_FORMS
from deployconv.rewrites.within import broken_by, write


@dataclass(frozen=True, eq=False)
class Planning:
    """All sites of a model, planned, in graph order."""

    view: View
    options: RewriteOptions
    sites: tuple[PlannedSite, ...]
    default: tuple[PlannedSite, ...]
    """The same as planned if nothing is known of their speed."""
    warnings: tuple[str, ...] = ()

    @property
    def reports(self) -> tuple[SiteReport, ...]:
        """What is known of each site so far."""
        return tuple(planned.report for planned in self.sites)

    @cached_property
    def excluded(self) -> frozenset[int]:
        """Ids of nodes that no other rewrite may replace.

        They are those of sites that are not selected, and of nearest Resizes that are written anew.
        """
        return frozenset(
            id(item.found.layer)
            for item in self.default
            if not item.selected or (isinstance(item.site, ResampleSite) and item.site.is_nearest)
        )

    @cached_property
    def joinable_layers(self) -> tuple[UpsampleSite, ...]:
        """The selected upsampling layers, which the rewrite of another one may include."""
        selected = (item.site for item in self.default if item.selected)
        return tuple(site for site in selected if isinstance(site, UpsampleSite))

    @cached_property
    def joinable_shuffles(self) -> tuple[ShuffleSite, ...]:
        """The selected pixel shuffles, which the rewrite of a layer before them may include."""
        selected = (item.site for item in self.default if item.selected)
        return tuple(site for site in selected if isinstance(site, ShuffleSite))

    def with_rewrites(self, chosen: Mapping[str, Rewrite]) -> Planning:
        """The same sites, each with the rewrite that was chosen by its id, and no others.

        A site that must be rewritten keeps its default rewrite if none was chosen.
        """
        return _planning(self.view, self.options, self.default, chosen)


def plan_model(model: LoadedModel, options: RewriteOptions) -> Planning:
    """Find every site of ``model`` and plan its portable rewrite.

    Raises UsageError if ``options.only`` or ``skip`` has a pattern that fits no site.
    """
    seen = view(model, options.freeze_initializers)
    asked = [
        (
            with_restrictions(with_options(as_asked(site, request, options), options), request),
            request,
        )
        for site in find_sites(seen)
        if is_listed(site, request := request_for(site, options), options)
    ]
    if not options.may_match_nothing:
        check_globs((*options.only, *options.skip), [site for site, _ in asked])
    default = tuple(plan_site(site, request, options, seen) for site, request in asked)
    planning = Planning(seen, options, default, default)
    chosen = _integer_chains(planning)
    if options.policy == "all":
        chosen |= _products_after_convs(planning)
    return _planning(seen, options, default, chosen, keep_others=True)


def _integer_chains(planning: Planning) -> dict[str, Rewrite]:
    """The integer layers with the QuantizeLinear after them, by id.

    Without its QuantizeLinear a layer would not run on integers.
    """
    chains: dict[str, Rewrite] = {}
    for item in planning.default:
        if item.site.has_integer_weight and isinstance(item.rewrite, PolyphaseConv):
            chain = chain_after(
                item.rewrite,
                planning.view,
                "quantize",
                item.rewrite.shuffle or "auto",
                planning.joinable_shuffles,
                planning.excluded,
            )
            if chain is not None and not broken_by(chain, item.found.restrictions):
                chains[item.id] = chain
    return chains


def _products_after_convs(planning: Planning) -> dict[str, Rewrite]:
    """Resizes as products of matrices, with the 1x1 Convs after them moved before them.

    They are named by the id of the first Resize.
    """
    products = (item.site for item in planning.default if item.report.form == "matrix")
    sites = [one for one in products if isinstance(one, ResampleSite) and not one.is_nearest]
    found: dict[str, Rewrite] = {}
    for site in sites:
        moved = conv_in_front(site, planning.view, planning.excluded)
        whole = None if moved is None else with_products(moved, sites, every=True)
        if whole is not None and not broken_by(whole, site.restrictions):
            found[site.id] = whole
    return found


def apply(planning: Planning) -> Spliced:
    """Make a copy of the model with what is planned; the model itself is not changed."""
    names = Names(planning.view.names)
    edits: list[Replacement | AttributeEdit] = []
    for planned in planning.sites:
        scope, layer = planned.found.scope, planned.found.layer
        if planned.rewrite is not None:
            emitter = Emitter(scope.opset, names.maker(scope.label(layer)))
            nodes = write(planned.rewrite, emitter, planned.found.restrictions)
            # The nodes before the last one go too, unless something else reads them (`splice`).
            edits.append(Replacement(scope, planned.rewrite.nodes[-1:], nodes))
        elif planned.joined is None and planned.found.explicit_attributes is not None:
            place = scope.index(layer)
            edits.append(AttributeEdit(scope, place, planned.found.explicit_attributes))
    spliced = splice(planning.view, edits)
    takes_symbols = all(item.found.restrictions.symbolic_shapes for item in planning.sites)
    if takes_symbols or not names_sizes(spliced.proto):
        return spliced
    forget_symbols(spliced.proto)
    return replace(spliced, changed=True)


def _planning(
    seen: View,
    options: RewriteOptions,
    default: tuple[PlannedSite, ...],
    chosen: Mapping[str, Rewrite],
    keep_others: bool = False,
) -> Planning:
    """Give each site the rewrite that was chosen for it; others are kept, or stay as planned."""
    joined: dict[int, str] = {}
    sites = []
    for item in default:
        layer = id(item.found.layer)
        made = item
        if layer in joined:
            made = PlannedSite(
                item.found,
                item.site,
                report_on(item.site, "rewritten", None),
                joined=joined[layer],
            )
        elif item.id in chosen:
            made = planned_as(item.found, item.site, chosen[item.id])
            joined |= {id(node): item.id for node in chosen[item.id].nodes}
        elif not keep_others and item.rewrite is not None and not item.required:
            made = _kept_as_faster(item, options)
        report = replace(made.report, targets=item.report.targets)
        sites.append(replace(made, report=report, required=item.required, shuffles=item.shuffles))
    warnings = (*_fallbacks(sites, options), *_requantized(sites), *_dequantized(sites))
    return Planning(seen, options, tuple(sites), default, warnings)


def _kept_as_faster(item: PlannedSite, options: RewriteOptions) -> PlannedSite:
    measured = "no other form was measured to be faster"
    predicted = "no other form is predicted to save enough"
    reason = Reason("slower", predicted if options.policy == "cost" else measured)
    folded = folded_in_place(item.site) if isinstance(item.site, UpsampleSite) else None
    status: Status = "kept" if folded is None else "folded"
    kept = replace(report_on(item.found, status, reason), nodes=item.report.nodes)
    return replace(item, report=kept, rewrite=folded)


def _requantized(planned: Iterable[PlannedSite]) -> list[str]:
    """Warnings about weights that are no longer exact, as the call allowed."""
    return [
        f"{item.report.id}: new scales, as --allow-requantize says: its weights move by up to"
        f" {error.max_error:.2%} of the largest ({error.rms_error:.2%} rms)"
        for item in planned
        if (error := item.report.requantized) is not None
    ]


def _dequantized(planned: Iterable[PlannedSite]) -> list[str]:
    """Warnings about integer weights that became floats, as the call allowed."""
    return [
        f"{item.report.id}: its weight is stored as {item.site.dtype} and the layer runs in it, as"
        " --dequantize-weights says"
        for item in planned
        if isinstance(item.site, UpsampleSite) and item.site.dequantized and item.rewrite
    ]


def _fallbacks(planned: Sequence[PlannedSite], options: RewriteOptions) -> Iterator[str]:
    """Warn about each requested form or shuffle that did not fit, or was of no use."""
    if options.shuffle != "auto" and not any(item.report.shuffle for item in planned):
        yield f"shuffle '{options.shuffle}' has no effect: no layer is rewritten with a shuffle"
    for item in planned:
        found = {"form": item.report.form, "shuffle": item.report.shuffle}
        expected = RESAMPLE_FORMS if isinstance(item.site, ResampleSite) else MAY_NOT_FIT
        asked = {
            "shuffle": options.shuffle,
            "form": options.form if options.form in expected else "auto",
        }
        for kind, name in asked.items():
            if name != "auto" and found[kind] not in (None, name):
                yield f"{item.report.id}: {kind} '{name}' does not fit, '{found[kind]}' taken"
