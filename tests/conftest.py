"""Settings that all tests share."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# Times vary on a shared machine, so no deadline; the printed blob replays a failure found in CI.
settings.register_profile("ci", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A suite of thousands of small models makes many objects that live long (PyTorch's alone are some
# hundred thousand). Looking for garbage among them at Python's own pace takes a tenth of the time.
gc.set_threshold(50_000, 20, 100)
