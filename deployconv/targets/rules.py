"""The rule engine: what targets do with a layer, and what to do about it.

A layer that a target refuses or misreads is rewritten. One that is known to be slower rewritten is
left alone. For all others the profile says what is done. With several targets, what one of them
needs goes before what another one would rather have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce

from deployconv.errors import UsageError
from deployconv.match import ResampleSite, ShuffleSite, Site
from deployconv.match.attributes import has_references
from deployconv.options import Form, LayerRequest, Policy, RewriteOptions
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Reason, TargetAction, TargetSite, TargetVerdict
from deployconv.rewrites.within import broken_by_nodes, listed
from deployconv.targets.catalogue import find_targets
from deployconv.targets.dla import dla_note
from deployconv.targets.facts import facts_of
from deployconv.targets.profile import AUTOMATIC, Profile, Rule, Spelling

_NEEDED: tuple[TargetVerdict, ...] = ("refused", "misread")
"""Verdicts on a layer that cannot stay as it is, the worse one first."""
_RESIZES = ("Resize", "Upsample")
_STAYS: Form = "normalised"
"""The form in which a ConvTranspose stays one."""


@dataclass(frozen=True)
class Judgement:
    """What one target does with one layer.

    Attributes:
        site: for reports.
        rule: the rule that was decisive; None if none speaks of the layer.
        prefer: the forms and shuffles to try, the best first.
        tested: whether layers of its kind were run on the target.
        documented: whether the rules are those of the target's documentation.
    """

    site: TargetSite
    rule: Rule | None
    prefer: tuple[Spelling, ...]
    tested: bool = False
    documented: bool = False

    @property
    def needed(self) -> bool:
        """Whether the target cannot have the layer as it is."""
        return self.rule is not None and self.rule.needed


def judge(profile: Profile, site: Site) -> Judgement:
    """Say what a target does with a layer as it is exported, and what to do about it."""
    facts = facts_of(site)
    held = [rule for rule in profile.layers if rule.holds(facts) and _is_about(rule, site)]
    # A rule knows better than a list of what is taken whether a layer is refused or misread.
    needed = [rule for rule in held if rule.needed] or list(_built_in(profile, site))
    rule = min(needed, key=lambda one: _NEEDED.index(one.verdict), default=next(iter(held), None))
    # A Resize has forms of its own, which only a rule names.
    usual = () if isinstance(site, ResampleSite) else profile.prefer
    prefer = _preferred(needed or held, usual)
    if rule is None:
        said = TargetSite(profile.name, "fits", profile.action)
        kind = "resizes" if site.layer.op in _RESIZES else "layers"
        tested, documented = kind in profile.tested, profile.documented is not None
        return Judgement(said, None, prefer, tested, documented)
    action: TargetAction = rule.action or (profile.action if rule.verdict == "fits" else "rewrite")
    if any(one.action == "keep" for one in needed):
        action = "keep"  # a rewrite does not help against that
    return Judgement(
        TargetSite(
            profile.name, rule.verdict, action, rule.stage, rule.text, rule.source, rule.version
        ),
        rule,
        prefer,
    )


def _is_about(rule: Rule, site: Site) -> bool:
    """Whether a rule speaks of a layer, which may be a nearest Resize by itself.

    A rule about a nearest Resize with the Conv after it does not speak of such a one; and only a
    rule that names ``resize_mode`` says that it is slow.
    """
    alone = site.pattern == "nearest_resize" and site.layer.op in _RESIZES
    return not alone or "resize_mode" in rule.when or (rule.needed and "pattern" not in rule.when)


def _preferred(rules: Sequence[Rule], usual: tuple[Spelling, ...]) -> tuple[Spelling, ...]:
    """What mends everything that ``rules`` find: the spellings that all of them name, or imply."""
    if all(one.prefer is None for one in rules):
        return usual
    lists = [one.prefer or usual for one in rules if one.prefer or one.needed]
    return reduce(_common, lists)


def _built_in(profile: Profile, site: Site) -> Iterator[Rule]:
    """Yield what follows from what a target takes, and from rules that no TOML file holds."""
    source, version = profile.source, profile.version
    nodes = [node for node in site.nodes if node.op != "Constant" and not has_references(node)]
    broken = broken_by_nodes(nodes, profile.takes.restrictions)
    if broken:
        text = f"{listed(broken)}, which {profile.name} does not take"
        yield Rule({}, "refused", text, source=source, version=version)
    if profile.documented is not None:
        # TensorRT converts the type, so it is no reason for a rewrite.
        obstacles = [one for one in dla_note(site, None).exported if one.code != "dtype"]
        if obstacles:
            text = "; ".join(f"{one.code}: {one.text}" for one in obstacles)
            yield Rule({}, "refused", text, "DLA", source=source, version=version)


@dataclass(frozen=True)
class TargetRules:
    """The rules of one or more targets, for the sites of a model.

    Attributes:
        profiles: the targets.
        options: the options of the call, without a target.
        policy: the policy that the call asks for; None leaves it to the targets.

    Calling it returns what is asked for one site.
    """

    profiles: tuple[Profile, ...]
    options: RewriteOptions
    policy: Policy | None = None

    @cached_property
    def restrictions(self) -> Restrictions:
        """What all of the targets take."""
        found = UNRESTRICTED
        for profile in self.profiles:
            found = intersection(found, profile.takes.restrictions)
        return found

    @property
    def policy_to_follow(self) -> Policy:
        """What decides where no rule does: the policy of the call, else that of the targets."""
        if self.policy is not None:
            return self.policy
        return "cost" if any(one.action == "cost" for one in self.profiles) else "all"

    def __call__(self, site: Site) -> LayerRequest:
        """Return what the targets ask for ``site``."""
        judged = [judge(profile, site) for profile in self.profiles]
        needed = any(one.needed and one.site.action != "keep" for one in judged)
        kept = [one for one in judged if one.site.action == "keep"]
        keep = _why_kept(kept) if self.policy is None and not needed else None
        rewritten = self.policy is None and all(one.site.action == "rewrite" for one in judged)
        stays = isinstance(site, ShuffleSite) and all(one.site.verdict == "fits" for one in judged)
        return LayerRequest(
            restrictions=self.restrictions,
            keep=keep,
            preferred=() if stays else self._preferred(judged),
            fewest=self._fewest,
            resample=any(
                one.site.action == "rewrite" and one.site.verdict != "fits" for one in judged
            ),
            required=needed or rewritten,
            targets=tuple(one.site for one in judged),
        )

    @cached_property
    def _fewest(self) -> bool:
        """Whether every target that has a preference chooses by the multiplications."""
        choosy = [one.choose for one in self.profiles if one.prefer != (AUTOMATIC,)]
        return bool(choosy) and all(one == "fewest-multiplications" for one in choosy)

    def _preferred(self, judged: Sequence[Judgement]) -> tuple[Spelling, ...]:
        """The forms and shuffles to try, the best first; none if the call asks for others."""
        if self.options.form != "auto" or self.options.shuffle != "auto":
            return ()
        return agreed([one.prefer for one in judged], self.profiles)


def rules_for(names: Iterable[str], options: RewriteOptions, policy: Policy | None) -> TargetRules:
    """Return the rules of the targets of a call.

    Args:
        names: the targets.
        options: the options of the call; the result has them as the targets need them.
        policy: the policy that the call asks for; None leaves it to the targets.

    Raises:
        UsageError: there is no such target, or its file is wrong.
    """
    rules = TargetRules(find_targets(names), options, policy)
    float_bias = options.float_bias or not all(one.takes.integer_bias for one in rules.profiles)
    fitted = replace(options, policy=rules.policy_to_follow, float_bias=float_bias)
    return replace(rules, options=replace(fitted, request_for=replace(rules, options=fitted)))


def agreed(
    lists: Sequence[tuple[Spelling, ...]], profiles: Sequence[Profile]
) -> tuple[Spelling, ...]:
    """Return the spellings that all targets list, in the order of the first one.

    A target that lists ``auto`` alone has no preference; if none has, nothing is returned. Raises
    UsageError if there is no spelling that all of them list.
    """
    choosy = [one for one in lists if one not in ((), (AUTOMATIC,))]
    if not choosy:
        return ()
    common = reduce(_common, choosy)
    if not common:
        named = " and ".join(profile.name for profile in profiles)
        raise UsageError(
            f"--target {named}: no form and shuffle suits all of them: rewrite for each by itself"
        )
    return common


def _common(some: Iterable[Spelling], others: Sequence[Spelling]) -> tuple[Spelling, ...]:
    """What both lists name, in the order of the first one."""
    pairs = ((one, other) for one in some for other in others)
    met = (_met(one, other) for one, other in pairs)
    return tuple(dict.fromkeys(one for one in met if one is not None))


def _met(one: Spelling, other: Spelling) -> Spelling | None:
    """The spelling that is both, with ``auto`` for any form or shuffle; None if there is none."""
    if _STAYS in (one.form, other.form):
        return one if one.form == other.form else None
    form = other.form if one.form == "auto" else one.form
    shuffle = other.shuffle if one.shuffle == "auto" else one.shuffle
    if other.form not in ("auto", form) or other.shuffle not in ("auto", shuffle):
        return None
    return Spelling(form, shuffle)


def intersection(one: Restrictions, other: Restrictions) -> Restrictions:
    """Return what both allow."""
    operators = [x.operators for x in (one, other) if x.operators is not None]
    modes = [x.depth_to_space for x in (one, other) if x.depth_to_space is not None]
    ranks = [x.max_rank for x in (one, other) if x.max_rank is not None]
    both = modes[0] if len(modes) == 1 else None
    if len(modes) > 1:
        first, second = modes
        both = {
            mode: second[mode]
            if blocks is None
            else first[mode]
            if second[mode] is None
            else tuple(size for size in blocks if size in (second[mode] or ()))
            for mode, blocks in first.items()
            if mode in second
        }
    flags = {
        field.name: getattr(one, field.name) and getattr(other, field.name)
        for field in fields(Restrictions)
        if isinstance(getattr(one, field.name), bool)
    }
    return Restrictions(
        **{**flags, "shuffle_in_twos": one.shuffle_in_twos or other.shuffle_in_twos},
        operators=frozenset.intersection(*operators) if operators else None,
        depth_to_space=both,
        max_rank=min(ranks, default=None),
    )


def _why_kept(judged: Sequence[Judgement]) -> Reason | None:
    """Why a layer stays as it is: the weightiest reason of those targets that say so."""
    for one in judged:
        if one.site.verdict != "fits":
            said = f"{one.site.target}: {one.site.text}"
            return Reason("unsupported-on-target", said)
    for one in judged:
        if one.rule is not None:
            ratio = one.rule.ratio
            shown = "" if ratio is None else f" ({ratio:g} times as fast rewritten)"
            return Reason("slower-on-target", f"{one.site.target}: {one.site.text}{shown}")
    for one in sorted(judged, key=lambda one: one.tested):
        name = one.site.target
        text = f"no rule of {name} speaks of this layer, and no run of one like it is recorded"
        if one.documented:
            text = f"no rule in the documentation of {name} is against it"
        elif one.tested:
            text = f"{name} takes it as it is"
        return Reason("fits-target", text)
    return None
