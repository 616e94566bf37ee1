# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeldistill_core.frames import Transform, matrix_from_quaternion, quaternion_from_matrix

Floats = np.ndarray[Any, np.dtype[np.float64]]

number = st.floats(-1, 1)
quaternion = (
    st.tuples(number, number, number, number)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)
shift = st.tuples(*[st.floats(-1e4, 1e4)] * 3).map(np.array)
quick = settings(max_examples=40, deadline=None)


def about_z(degrees: float) -> list[float]:
    half = np.radians(degrees) / 2
    return [np.cos(half), 0.0, 0.0, np.sin(half)]


@quick
@given(quaternion)
def test_quaternion_round_trip(q: Floats) -> None:
    back = quaternion_from_matrix(matrix_from_quaternion(q))
    assert back[0] >= 0
    assert abs(back @ q) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_are_well_conditioned(axis: int) -> None:
    q = np.zeros(4)
    q[1 + axis] = 1.0
    assert abs(quaternion_from_matrix(matrix_from_quaternion(q)) @ q) == pytest.approx(1.0)


def test_quarter_turn_is_counter_clockwise() -> None:
    turned = Transform.from_quaternion("b", "a", about_z(90), [10, 20, 30]).apply([[1, 0, 0]])
    np.testing.assert_allclose(turned, [[10, 21, 30]], atol=1e-12)


@quick
@given(quaternion, shift, quaternion, shift, shift)
def test_composition_is_applying_one_after_the_other(
    q1: Floats, t1: Floats, q2: Floats, t2: Floats, point: Floats
) -> None:
    b_from_a = Transform.from_quaternion("b", "a", q1, t1)
    c_from_b = Transform.from_quaternion("c", "b", q2, t2)
    c_from_a = c_from_b @ b_from_a
    assert (c_from_a.target, c_from_a.source) == ("c", "a")
    np.testing.assert_allclose(
        c_from_a.apply(point), c_from_b.apply(b_from_a.apply(point)), atol=1e-8
    )
    np.testing.assert_allclose(c_from_a.matrix, c_from_b.matrix @ b_from_a.matrix, atol=1e-8)


@quick
@given(quaternion, shift)
def test_inverse_undoes(q: Floats, t: Floats) -> None:
    b_from_a = Transform.from_quaternion("b", "a", q, t)
    again = b_from_a.inverse @ b_from_a
    assert (again.target, again.source) == ("a", "a")
    np.testing.assert_allclose(again.matrix, np.eye(4), atol=1e-8)


def test_composition_names_the_frames_that_do_not_meet() -> None:
    b_from_a = Transform.identity("b", "a")
    with pytest.raises(ValueError, match="b_from_a with d_from_c"):
        b_from_a @ Transform.identity("d", "c")


@quick
@given(quaternion, shift, quaternion, shift)
def test_interpolation_ends_at_its_ends(q1: Floats, t1: Floats, q2: Floats, t2: Floats) -> None:
    one = Transform.from_quaternion("map", "ego", q1, t1)
    two = Transform.from_quaternion("map", "ego", q2, t2)
    for fraction, end in ((0.0, one), (1.0, two)):
        np.testing.assert_allclose(one.interpolate(two, fraction).matrix, end.matrix, atol=1e-7)


def test_interpolation_takes_the_shorter_arc() -> None:
    # 170 and -170 degrees are 20 degrees apart, through 180
    one = Transform.from_quaternion("map", "ego", about_z(170), [0, 0, 0])
    two = Transform.from_quaternion("map", "ego", about_z(-170), [4, 0, 0])
    quarter = one.interpolate(two, 0.25)
    np.testing.assert_allclose(
        quarter.matrix, Transform.from_quaternion("map", "ego", about_z(175), [1, 0, 0]).matrix
    )


def test_what_is_written_into_the_arrays_later_moves_nothing() -> None:
    place, turn = np.zeros(3), np.eye(3)
    pose = Transform("map", "ego", turn, place)
    place[0], turn[0, 0] = 10.0, -1.0
    np.testing.assert_array_equal(pose.matrix, np.eye(4))


def test_rotations_of_three_digits_compose() -> None:
    """As calibrations are printed; products must not be off by more than what was accepted."""
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, 300)
    accepted = 0
    for angle in angles:
        c, s = round(float(np.cos(angle)), 3), round(float(np.sin(angle)), 3)
        rounded = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        try:
            pose = Transform("map", "ego", rounded, np.ones(3))
        except ValueError:
            continue
        accepted += 1
        np.testing.assert_allclose(pose.rotation, rounded, atol=1e-3)
        far = pose
        for _ in range(8):
            far = far @ Transform("ego", "ego", pose.rotation, pose.translation)
        np.testing.assert_allclose((far.inverse @ far).matrix, np.eye(4), atol=1e-9)
    assert accepted > 200


def test_mean_does_not_depend_on_signs() -> None:
    poses = [
        Transform.from_quaternion("map", "ego", sign * np.array(about_z(angle)), [angle, 0, 0])
        for sign, angle in ((1, 170.0), (-1, 180.0), (1, 190.0))
    ]
    expected = Transform.from_quaternion("map", "ego", about_z(180), [180, 0, 0])
    np.testing.assert_allclose(Transform.mean(poses).matrix, expected.matrix, atol=1e-9)


def test_mean_and_interpolation_refuse_different_frames() -> None:
    one, two = Transform.identity("map", "ego"), Transform.identity("map", "camera")
    with pytest.raises(ValueError, match="map_from_ego and map_from_camera"):
        one.interpolate(two, 0.5)
    with pytest.raises(ValueError, match="map_from_ego and map_from_camera"):
        Transform.mean([one, two])


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        (np.eye(3) * 1.1, np.zeros(3), "b_from_a.*orthonormal"),
        (np.diag([1.0, -1.0, 1.0]), np.zeros(3), "b_from_a.*mirrors"),
        (np.eye(3), np.array([0, np.nan, 0]), "b_from_a.*finite"),
        (np.eye(4), np.zeros(3), r"b_from_a.*\(3, 3\)"),
    ],
)
def test_refuses_what_is_not_rigid(rotation: Floats, translation: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transform("b", "a", rotation, translation)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [2, 0, 0, 0], [np.nan, 0, 0, 1], [1, 0, 0]])
def test_refuses_quaternions_of_other_length(q: Floats) -> None:
    with pytest.raises(ValueError, match="not a unit quaternion"):
        matrix_from_quaternion(q)
