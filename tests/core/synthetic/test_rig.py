# SPDX-License-Identifier: Apache-2.0
"""Rigs of other vehicles, and lenses that bend."""

from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.errors import ConfigError
from labeldistill_core.synthetic.lens import lens_rays
from labeldistill_core.synthetic.rig import Lens, RigCamera, load_rig, nuscenes_rig

GOOD = """
cameras:
  - {name: A, size: [160, 96], field_of_view: 90, position: [1.8, 0.0, 1.4]}
  - {name: B, size: [64, 64], intrinsics: {fx: 50, fy: 50, cx: 31, cy: 30},
     position: [0, 0, 1], yaw: 90}
lidar: {position: [0.8, 0.0, 1.9]}
"""


def read(folder: Path, text: str) -> None:
    file = folder / "rig.yaml"
    file.write_text(text)
    load_rig(file)


def test_the_example_is_a_rig(repository: Path) -> None:
    rig = load_rig(repository / "config/rigs/five_cameras.yaml")
    assert len(rig.cameras) == 5
    assert {camera.size for camera in rig.cameras} == {(1920, 1080)}
    # each model once
    for camera in {c.distortion.model: c for c in rig.cameras if c.distortion}.values():
        assert lens_rays(camera).shape == (1920 * 1080, 3)


def test_angles_turn_as_the_vehicle_sees_it(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text(GOOD)
    rig = load_rig(tmp_path / "rig.yaml")
    ahead, left = (c.ego_from_camera for c in rig.cameras)
    np.testing.assert_allclose(ahead.apply([0, 0, 10.0]), [11.8, 0, 1.4], atol=1e-12)
    np.testing.assert_allclose(ahead.apply([1.0, 0, 0]), [1.8, -1, 1.4], atol=1e-12)
    np.testing.assert_allclose(left.apply([0, 0, 10.0]), [0, 10, 1], atol=1e-12)
    down = RigCamera(name="C", size=(64, 64), field_of_view=60, position=(0, 0, 1), pitch=30)
    np.testing.assert_allclose(down.ego_from_camera.apply([0, 0, 2.0]), [3**0.5, 0, 0], atol=1e-9)
    # half a field of view of 90 degrees has the tangent 1
    assert rig.cameras[0].intrinsics_px[0, 0] == pytest.approx(80)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("size: [160, 96]", "size: [160]", "cameras[0].size"),
        ("size: [160, 96]", "size: [160, 9]", "cameras[0].size"),
        ("name: A", "name: A, phase: 0.06", "cameras[0].phase"),
        ("name: A", "name: A, rate: 3, phase: -0.21", "cameras[0].phase"),
        ("yaw: 90", "yaw: 90, rotation: [1, 0, 0, 0]", "cameras[1].rotation"),
        ("name: A", "nam: A", "cameras[0]"),
        ("name: A", "name: ../A", "cameras[0].name"),
        ("name: B", "name: a", "cameras[1].name"),
        ("name: B", "name: \u00e9", "cameras[1].name"),
        ("name: B", "name: 1b", "cameras[1].name"),
        ("fx: 50", "fx: .nan", "cameras[1].intrinsics"),
        ("fy: 50", "fy: .nan", "cameras[1].intrinsics"),
        ("fx: 50", "fx: .inf", "cameras[1].intrinsics"),
        ("cx: 31", "cx: .nan", "cameras[1].intrinsics"),
        (
            "yaw: 90",
            "distortion: {model: plumb_bob, coefficients: [.nan, 0, 0, 0]}",
            "cameras[1].distortion",
        ),
        ("field_of_view: 90", "field_of_view: 190", "cameras[0].field_of_view"),
        ("field_of_view: 90, ", "", "cameras[0].field_of_view"),
        ("yaw: 90", "yaw: left", "cameras[1].yaw"),
        ("yaw: 90", "rate: 0", "cameras[1].rate"),
        ("yaw: 90", "rate: 1.9", "cameras[1].rate"),
        ("yaw: 90", "phase: 0.3", "cameras[1].phase"),
        ("fx: 50", "fx: -50", "cameras[1].intrinsics"),
        ("yaw: 90", "rotation: [1, 1, 0, 0]", "cameras[1].rotation"),
        (
            "yaw: 90",
            "distortion: {model: equidistant, coefficients: [0.1]}",
            "cameras[1].distortion.coefficients",
        ),
        (
            "yaw: 90",
            "distortion: {model: plumb_bob, coefficients: [1.0e+200, 0, 0, 0]}",
            "cameras[1].distortion.coefficients",
        ),
        ("[0.8, 0.0, 1.9]", "[1.0e+300, 0.0, 1.9]", "lidar.position"),
        ("yaw: 90", "distortion: {model: odd, coefficients: []}", "cameras[1].distortion.model"),
        ("lidar: {position: [0.8, 0.0, 1.9]}", "", "lidar"),
        ("[0.8, 0.0, 1.9]", "[0.8, 0.0]", "lidar.position"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, GOOD.replace(old, new))
    assert key in str(refused.value).replace("$.", "")


@pytest.mark.parametrize("text", ["", "cameras: []\nlidar: {position: [0, 0, 1]}", "a: [", "3"])
def test_what_is_no_rig_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"rig\.yaml"):
        read(tmp_path, text)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rig(tmp_path / "absent.yaml")


def camera_with(model: str, *coefficients: float) -> RigCamera:
    lens = Lens(model, coefficients)  # type: ignore[arg-type]
    return RigCamera(
        name="C", size=(64, 48), field_of_view=100, position=(0, 0, 1), distortion=lens
    )


def test_a_lens_without_coefficients_is_a_pinhole() -> None:
    camera = camera_with("plumb_bob", 0, 0, 0, 0, 0)
    focal = camera.intrinsics_px[0, 0]
    rays = lens_rays(camera).reshape(48, 64, 3)
    np.testing.assert_allclose(rays[24, 40], [8 / focal, 0, 1], atol=1e-6)


def test_a_fisheye_sees_the_angle() -> None:
    camera = camera_with("equidistant", 0, 0, 0, 0)
    focal = camera.intrinsics_px[0, 0]
    assert focal == pytest.approx(32 / np.radians(50))
    rays = lens_rays(camera).reshape(48, 64, 3)
    np.testing.assert_allclose(rays[24, 48], [np.tan(16 / focal), 0, 1], atol=1e-6)


def test_a_lens_that_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"camera C: its distortion folds"):
        lens_rays(camera_with("plumb_bob", -0.9, 0, 0, 0, 0))


def test_the_rig_of_nuscenes_has_six_cameras() -> None:
    rig = nuscenes_rig(400, 225)
    assert len(rig.calibrations) == 6
    assert not any(camera.distortion for camera in rig.cameras)
