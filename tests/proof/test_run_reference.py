"""The reference evaluator, which certifies what onnxruntime does not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deployconv.proof.certificate import run_reference
from tests.build import conv_transpose, feeds_for, integers


@pytest.mark.parametrize(("group", "per_group"), [(1, 3), (2, 3), (3, 2), (6, 1)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_every_group_has_its_own_channels_and_biases(
    group: int, per_group: int, has_bias: bool
) -> None:
    weight = integers(6, per_group, 4, 3)
    bias = integers(per_group * group, seed=1) if has_bias else None
    model = conv_transpose(weight, (4, 5), bias, strides=[2, 3], group=group)
    feeds = feeds_for(model)

    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(feeds["x"]),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        stride=(2, 3),
        groups=group,
    )

    np.testing.assert_array_equal(run_reference(model, feeds)["y"], expected)
