"""The error that new scales add to an integer weight whose taps were added."""

from __future__ import annotations

import numpy as np

from deployconv.match import UpsampleSite
from deployconv.polyphase import phase_weights
from deployconv.results import Requantization
from deployconv.rewrites.lowering.plan import Plan
from deployconv.rewrites.lowering.quantized import requantized


def requantization(site: UpsampleSite, plan: Plan) -> Requantization | None:
    """How far the weights move; None for a plan that moves integers as they are."""
    if not plan.requantized:
        return None
    exact = phase_weights(site.kernel(site.weight.read().astype(np.float64)), plan.axes)
    # One channel a phase, as the new Conv has them; their order does not matter here.
    by_channel = exact.reshape(-1, *exact.shape[1 + site.rank :])
    integers, scale = requantized(by_channel)
    spread = scale.astype(np.float64).reshape(-1, *[1] * (by_channel.ndim - 1))
    error = integers * spread - by_channel
    largest = float(np.abs(by_channel).max(initial=0.0)) or 1.0
    rms = float(np.sqrt(np.mean(error**2)))
    return Requantization(float(np.abs(error).max(initial=0.0)) / largest, rms / largest)
