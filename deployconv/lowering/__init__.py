"""From a site and a form to nodes and weights. Knows nothing of how sites are found."""

from deployconv.lowering.lower import lower
from deployconv.lowering.plan import Plan, plan_site

__all__ = ["Plan", "lower", "plan_site"]
