"""Numbers that a model computes from its sizes, as polynomials in the sizes that it leaves open.

Two examples are ``2*H - 1`` and ``N*C*H``. Every open size is at least 1. So ``2*H >= H + 1`` holds
at all sizes, and ``H >= 2`` does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import floor, lcm, prod

Monomial = tuple[str, ...]
"""The names of the sizes that are multiplied, sorted; ``("H", "H")`` is H squared."""


@dataclass(frozen=True)
class Size:
    """A polynomial; ``terms`` are its monomials with their coefficients, sorted, none zero."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    @classmethod
    def of(cls, value: int | float | Fraction) -> Size:
        """A number that does not depend on any size."""
        return _size({(): Fraction(value)})

    @classmethod
    def symbol(cls, name: str) -> Size:
        """The open size of that name."""
        return _size({(name,): Fraction(1)})

    @property
    def constant(self) -> Fraction | None:
        """The number; None if it depends on a size."""
        if not self.terms:
            return Fraction(0)
        ((monomial, coefficient), *others) = self.terms
        return coefficient if not monomial and not others else None

    @property
    def degree(self) -> int:
        """The highest power of any one size."""
        return max(
            (max(Counter(monomial).values(), default=0) for monomial, _ in self.terms), default=0
        )

    @property
    def denominator(self) -> int:
        """The least number that makes every coefficient a whole one."""
        return lcm(*(coefficient.denominator for _, coefficient in self.terms))

    @property
    def least(self) -> Fraction | None:
        """The least value at any sizes, which is that at sizes of 1; None if it may fall below."""
        # Each size is 1 + more: a product of sizes is the sum over all choices of some mores.
        shifted: Counter[Monomial] = Counter()
        for monomial, coefficient in self.terms:
            for count in range(len(monomial) + 1):
                for chosen in combinations(monomial, count):
                    shifted[chosen] += coefficient  # type: ignore[assignment]
        if any(coefficient < 0 for monomial, coefficient in shifted.items() if monomial):
            return None
        return Fraction(shifted[()])

    def at(self, sizes: Mapping[str, int]) -> Fraction:
        """The value for ``sizes``, which name every size in it."""
        factors = (
            coefficient * prod(sizes[name] for name in monomial)
            for monomial, coefficient in self.terms
        )
        return sum(factors, Fraction(0))

    @property
    def symbols(self) -> frozenset[str]:
        """The names of its sizes."""
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def __add__(self, other: Size) -> Size:
        return _size(_sum(dict(self.terms), other.terms))

    def __sub__(self, other: Size) -> Size:
        return self + other * Size.of(-1)

    def __mul__(self, other: Size) -> Size:
        product: dict[Monomial, Fraction] = {}
        for monomial, coefficient in self.terms:
            scaled = ((tuple(sorted(monomial + m)), coefficient * c) for m, c in other.terms)
            _sum(product, scaled)
        return _size(product)

    def is_less(self, other: Size) -> bool | None:
        """Whether it is below ``other``; None if that depends on the sizes."""
        above, below = (other - self).least, (self - other).least
        if above is not None and above > 0:
            return True
        return False if below is not None and below >= 0 else None

    def divided(self, divisor: Size) -> Size | None:
        """The quotient; None if it is no polynomial."""
        if not divisor.terms:
            return None
        if len(divisor.terms) == 1:
            ((monomial, coefficient),) = divisor.terms
            quotient: dict[Monomial, Fraction] = {}
            for own, factor in self.terms:
                rest = Counter(own)
                rest.subtract(monomial)
                if min(rest.values(), default=0) < 0:
                    return None
                quotient[tuple(sorted(rest.elements()))] = factor / coefficient
            return _size(quotient)
        ratio = self.terms[0][1] / divisor.terms[0][1] if self.terms else Fraction(0)
        return Size.of(ratio) if divisor * Size.of(ratio) == self else None

    def floored(self) -> Size | None:
        """The next lower whole number; None if that is no polynomial."""
        terms = dict(self.terms)
        rest = terms.pop((), Fraction(0))
        if any(coefficient.denominator != 1 for coefficient in terms.values()):
            return None
        return _size({**terms, (): Fraction(floor(rest))})


def product(*sizes: Size) -> Size:
    """The product of ``sizes``."""
    result = Size.of(1)
    for size in sizes:
        result = result * size
    return result


def _sum(
    terms: dict[Monomial, Fraction], more: Iterable[tuple[Monomial, Fraction]]
) -> dict[Monomial, Fraction]:
    for monomial, coefficient in more:
        terms[monomial] = terms.get(monomial, Fraction(0)) + coefficient
    return terms


def _size(terms: Mapping[Monomial, Fraction]) -> Size:
    return Size(tuple(sorted((m, c) for m, c in terms.items() if c)))
