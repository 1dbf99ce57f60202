"""What the options of a call and a target ask for each site of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from deployconv.errors import UsageError
from deployconv.match import ConcatSite, ResampleSite, Site, SkippedSite, UpsampleSite
from deployconv.options import LayerRequest, RewriteOptions
from deployconv.rewrites.conv import has_integer_form


def _matches(site: Site, glob: str) -> bool:
    """Whether the id of ``site`` or the name of its node matches."""
    return any(fnmatchcase(name, glob) for name in (site.id, site.scope.label(site.layer)))


def is_selected(site: Site, options: RewriteOptions) -> bool:
    """Whether the options ``only`` and ``skip`` leave ``site`` to be rewritten."""
    wanted = not options.only or any(_matches(site, glob) for glob in options.only)
    return wanted and not any(_matches(site, glob) for glob in options.skip)


def check_globs(globs: Sequence[str], sites: Sequence[Site]) -> None:
    """Raise UsageError for a pattern that matches none of ``sites``."""
    for glob in globs:
        if not any(_matches(site, glob) for site in sites):
            known = ", ".join(site.id for site in sites) or "none"
            raise UsageError(f"no site matches '{glob}': the model's sites are {known}")


def is_listed(site: Site, request: LayerRequest, options: RewriteOptions) -> bool:
    """Whether reports list a layer: a Resize that shrinks is no upsampling layer.

    It is listed if it may be rewritten, or if a target refuses or misreads it.
    """
    if not isinstance(site, (ResampleSite, SkippedSite)) or site.enlarges:
        return True
    considered = isinstance(site, ResampleSite) and is_considered(site, request, options)
    return request.cannot_stay or considered


def is_considered(site: Site, request: LayerRequest, options: RewriteOptions) -> bool:
    """Whether this call rewrites a layer only for speed; a Resize also if it is asked for."""
    if not isinstance(site, ResampleSite):
        return options.policy != "all"
    if site.is_nearest:
        return _asks_for_nearest(request, options)
    return options.policy != "all" or options.resample or request.resample


def _asks_for_nearest(request: LayerRequest, options: RewriteOptions) -> bool:
    """Whether a nearest Resize by itself is rewritten: a target asks, or the call names it."""
    return request.resample or (options.resample and bool(options.only))


def as_asked(site: Site, request: LayerRequest, options: RewriteOptions) -> Site:
    """Return ``site``; in place of a nearest Resize that nobody asks to rewrite, one that stays."""
    resized = isinstance(site, (ResampleSite, SkippedSite)) and site.pattern == "nearest_resize"
    if not resized or site.unless_faster is None:
        return site
    if request.cannot_stay or _asks_for_nearest(request, options):
        return site
    return SkippedSite(
        id=site.id,
        pattern=site.pattern,
        scope=site.scope,
        nodes=site.nodes,
        reason=site.unless_faster,
        dtype=site.dtype,
    )


def request_for(site: Site, options: RewriteOptions) -> LayerRequest:
    """What is asked for a site: options of the call come before what a target asks for."""
    if options.request_for is None:
        return LayerRequest(options.form, options.shuffle)
    asked = options.request_for(site)
    form = asked.form if options.form == "auto" else options.form
    shuffle = asked.shuffle if options.shuffle == "auto" else options.shuffle
    return replace(asked, form=form, shuffle=shuffle)


def with_restrictions(site: Site, request: LayerRequest) -> Site:
    """``site`` with what may be written in its place."""
    if isinstance(site, ConcatSite):
        site = replace(site, conv=replace(site.conv, restrictions=request.restrictions))
    return replace(site, restrictions=request.restrictions)


def with_options(site: Site, options: RewriteOptions) -> Site:
    """Apply the options for integer weights and biases to a site."""
    if not isinstance(site, UpsampleSite):
        return site
    bias, integers = site.bias, site.weight.quantized is not None
    as_floats = options.dequantize_weights and integers and not has_integer_form(site)
    if as_floats:
        site = replace(site, weight=replace(site.weight, quantized=None), dequantized=True)
    # The scale of an integer bias belongs to that of the weight.
    if bias is not None and (options.float_bias or as_floats):
        bias = replace(bias, quantized=None)
    return replace(site, requantize=options.allow_requantize, bias=bias)
