# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.data.bev_augmentation import BevAugmentation

augmentations = st.builds(
    BevAugmentation, st.floats(-180, 180), st.floats(0.5, 2.0), st.booleans(), st.booleans()
)


def boxes(values: list[list[float]]) -> Boxes3D:
    n = len(values)
    return Boxes3D("ego", torch.tensor(values).double(), torch.zeros(n).long(), torch.ones(n))


@settings(max_examples=40, deadline=None)
@given(augmentations, st.floats(-3.1, 3.1))
def test_boxes_follow_the_matrix(augmentation: BevAugmentation, yaw: float) -> None:
    before = boxes([[5.0, -3.0, 0.5, 4.0, 2.0, 1.5, yaw, 2.0, -1.0]])
    after = augmentation.apply(before)
    linear = augmentation.matrix[:3, :3]
    # a mirrored box has its left and right corners exchanged
    moved = before.corners()[0].numpy() @ linear.T
    found = after.corners()[0].numpy()
    distance = np.linalg.norm(moved[:, None] - found[None], axis=-1)
    assert distance.min(axis=0).max() < 1e-9
    front = moved[:4].mean(axis=0)
    np.testing.assert_allclose(found[:4].mean(axis=0), front, atol=1e-9)
    np.testing.assert_allclose(
        after.velocities[0].numpy(), linear[:2, :2] @ [2.0, -1.0], atol=1e-12
    )


def test_rotation_then_mirror() -> None:
    matrix = BevAugmentation(rotation_deg=90.0, scale=2.0, flip_x=True).matrix
    # +x turns to +y, which mirroring x leaves; +y turns to -x, which becomes +x
    np.testing.assert_allclose(matrix @ [1, 0, 0, 1], [0, 2, 0, 1], atol=1e-12)
    np.testing.assert_allclose(matrix @ [0, 1, 0, 1], [2, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(matrix @ [0, 0, 1, 1], [0, 0, 2, 1], atol=1e-12)


def test_mirrored_headings() -> None:
    start = boxes([[0.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3, 0.0, 0.0]])
    flipped_x = BevAugmentation(flip_x=True).apply(start).yaws.item()
    flipped_y = BevAugmentation(flip_y=True).apply(start).yaws.item()
    assert flipped_x == pytest.approx(math.pi - 0.3)
    assert flipped_y == pytest.approx(-0.3)


def test_nothing_by_default() -> None:
    np.testing.assert_array_equal(BevAugmentation().matrix, np.eye(4))
