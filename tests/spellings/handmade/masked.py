"""Zero insertion as an upsampled image times, or chosen by, a constant mask."""

from __future__ import annotations

import numpy as np

from tests.spellings import oracle
from tests.spellings.handmade.graph import NEAREST, conv, floats, ints
from tests.spellings.handmade.spread import C, H, N, W, graph, mask

GRAPHS = (
    graph(
        "where_mask",
        11,
        f"r = Resize<{NEAREST}>(x, roi, s) z = Where(mask, r, zero)",
        constants={
            "roi": floats(),
            "s": floats(1, 1, 2, 2),
            "mask": mask(2 * H, 2 * W, np.bool_),
            "zero": np.array(0, np.float32),
        },
    ),
    graph(
        "where_mask_inverted",
        13,
        f"r = Resize<{NEAREST}>(x, , s) z = Where(holes, zero, r)",
        constants={
            "s": floats(1, 1, 2, 2),
            "holes": ~mask(2 * H, 2 * W, np.bool_),
            "zero": np.array(0, np.float32),
        },
    ),
    graph(
        "where_mask_minus_one",
        13,
        f"r = Resize<{NEAREST}>(x, , s) z = Where(mask, r, other)",
        constants={
            "s": floats(1, 1, 2, 2),
            "mask": mask(2 * H, 2 * W, np.bool_),
            "other": np.array(-1, np.float32),
        },
        stride=None,
        expect=None,
        oracle=lambda x: conv(
            np.where(mask(2 * H, 2 * W) > 0, oracle.insert_zeros(x), np.float32(-1))
        ),
    ),
    graph(
        "upsample9_mask",
        9,
        "r = Upsample(x, s) z = Mul(mask, r)",
        constants={"s": floats(1, 1, 2, 2), "mask": mask(2 * H, 2 * W)},
    ),
    graph(
        "mask_row_and_column",
        13,
        f"r = Resize<{NEAREST}>(x, , s) t = Mul(r, rows) z = Mul(t, columns)",
        constants={"s": floats(1, 1, 2, 2), "rows": mask(2 * H, 1), "columns": mask(1, 2 * W)},
    ),
    graph(
        "mask_of_twos",
        13,
        f"r = Resize<{NEAREST}>(x, , s) z = Mul(r, mask)",
        constants={"s": floats(1, 1, 2, 2), "mask": 2 * mask(2 * H, 2 * W)},
        stride=None,
        expect=None,
        oracle=lambda x: conv(2 * oracle.insert_zeros(x)),
    ),
    graph(
        "mask_per_channel_differs",
        13,
        f"r = Resize<{NEAREST}>(x, , s) z = Mul(r, mask)",
        constants={
            "s": floats(1, 1, 2, 2),
            "mask": np.concatenate(
                (mask(2 * H, 2 * W), np.ones((1, 1, 2 * H, 2 * W), np.float32)), axis=1
            ),
        },
        stride=None,
        expect=None,
        oracle=lambda x: conv(
            np.concatenate((oracle.insert_zeros(x)[:, :1], oracle.copies(x, (2, 2))[:, 1:]), axis=1)
        ),
    ),
    graph(
        "mask_odd_positions",
        13,
        f"r = Resize<{NEAREST}>(x, , s) z = Mul(r, mask)",
        constants={"s": floats(1, 1, 2, 2), "mask": np.roll(mask(2 * H, 2 * W), (1, 1), (2, 3))},
        oracle=lambda x: conv(oracle.insert_zeros(x, first=1)),
    ),
    graph(
        "tile_mask",
        13,
        "u = Unsqueeze(x, a) t = Tile(u, reps) r = Reshape(t, size) z = Mul(r, mask)",
        constants={
            "a": ints(3, 5),
            "reps": ints(1, 1, 1, 2, 1, 2),
            "size": ints(N, C, 2 * H, 2 * W),
            "mask": mask(2 * H, 2 * W),
        },
    ),
)
