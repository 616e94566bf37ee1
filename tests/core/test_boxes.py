# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.frames import Transform


def box(
    x: float = 0.0,
    y: float = 0.0,
    z: float = 0.0,
    size: tuple[float, float, float] = (4.0, 2.0, 1.5),
    yaw: float = 0.0,
    velocity: tuple[float, float] = (0.0, 0.0),
    frame: str = "ego",
) -> Boxes3D:
    return Boxes3D(
        frame,
        torch.tensor([[x, y, z, *size, yaw, *velocity]]),
        torch.tensor([3]),
        torch.tensor([0.7]),
    )


def map_from_ego(
    yaw_deg: float, translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Transform:
    half = math.radians(yaw_deg) / 2
    return Transform.from_quaternion(
        "map", "ego", [math.cos(half), 0, 0, math.sin(half)], np.array(translation)
    )


def test_transform_turns_heading_and_velocity() -> None:
    moved = box(1.0, 0.0, 0.5, yaw=0.1, velocity=(3.0, 0.0)).transformed(
        map_from_ego(90, (100, 200, 1))
    )
    assert moved.frame == "map"
    expected = [100, 201, 1.5, 4.0, 2.0, 1.5, math.pi / 2 + 0.1, 0.0, 3.0]
    torch.testing.assert_close(moved.values[0], torch.tensor(expected).double(), atol=1e-6, rtol=0)
    assert moved.labels.tolist() == [3]
    assert moved.scores.tolist() == pytest.approx([0.7])


@settings(max_examples=30, deadline=None)
@given(st.floats(-180, 180), st.floats(-3.1, 3.1), st.floats(-1e3, 1e3))
def test_transform_round_trip(turn: float, yaw: float, x: float) -> None:
    there = map_from_ego(turn, (x, -x, 2.0))
    start = box(x, 3.0, -1.0, yaw=yaw, velocity=(1.0, -2.0))
    back = start.transformed(there).transformed(there.inverse)
    assert back.frame == "ego"
    difference = back.values - start.values.double()
    difference[:, 6] = torch.sin(difference[:, 6])  # yaw is equal up to whole turns
    assert difference.abs().max() < 1e-6


def test_corners_move_with_the_box() -> None:
    start, there = box(5.0, 1.0, 0.3, yaw=0.4), map_from_ego(37, (10, 20, 3))
    ours = start.transformed(there).corners()
    np.testing.assert_allclose(ours[0].numpy(), there.apply(start.corners()[0].numpy()), atol=1e-5)


def test_corners_are_in_order() -> None:
    corners = box(10.0, 0.0, 0.0, yaw=math.pi / 2).corners()[0]
    # the heading is +y, left of it is -x
    expected = torch.tensor([[9.0, 2.0, 0.75], [11, 2, 0.75], [11, 2, -0.75], [9, 2, -0.75]])
    torch.testing.assert_close(corners[:4], expected)
    torch.testing.assert_close(corners[4:], expected - torch.tensor([0.0, 4.0, 0.0]))


def test_unknown_velocity_stays_unknown() -> None:
    moved = box(velocity=(math.nan, math.nan)).transformed(map_from_ego(30))
    assert moved.velocities.isnan().all()
    assert not moved.values[:, :7].isnan().any()


def test_refuses_a_transform_from_another_frame() -> None:
    with pytest.raises(ValueError, match=r"boxes are in 'map', .* 'ego'"):
        box(frame="map").transformed(map_from_ego(0))


def test_refuses_columns_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(N, 9\)"):
        Boxes3D("ego", torch.zeros(2, 7), torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="2 boxes need 2 labels"):
        Boxes3D("ego", torch.zeros(2, 9), torch.zeros(1), torch.zeros(2))


def test_no_boxes() -> None:
    none = Boxes3D.empty("ego").transformed(map_from_ego(10))
    assert len(none) == 0
    assert none.corners().shape == (0, 8, 3)


def test_selection_keeps_rows_together() -> None:
    boxes = Boxes3D("ego", torch.arange(27.0).view(3, 9), torch.arange(3), torch.rand(3))
    some = boxes[torch.tensor([2, 0])]
    assert some.labels.tolist() == [2, 0]
    assert some.values[:, 0].tolist() == [18.0, 0.0]
