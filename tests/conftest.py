"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Times vary on a shared machine, so no deadline; the printed blob replays a failure found in CI.
settings.register_profile("ci", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
