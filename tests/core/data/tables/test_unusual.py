# SPDX-License-Identifier: Apache-2.0
"""Tables that are unusual and sound."""

from pathlib import Path

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.evaluate import ResultFileOptions, evaluate_results
from labeldistill_core.evaluation.result_file import write_results
from tests.core.data.tables.test_faults import Rows, change, every
from tests.support.nuscenes_fixture import VERSION


def test_the_size_may_stand_far_inside_the_image(dataroot: Path) -> None:
    """Thermal cameras write their raw values before it, in segments of 64 KiB at most."""
    change(dataroot, "sample_data", every(width=0, height=0))
    path = NuScenesTables(dataroot, VERSION).cameras("sample-0-0")["CAM_FRONT"].path
    data = path.read_bytes()
    path.write_bytes(data[:2] + (b"\xff\xe3\xff\xff" + bytes(0xFFFD)) * 9 + data[2:])
    view = NuScenesTables(dataroot, VERSION).frame_set("sample-0-0").by_name["CAM_FRONT"]
    assert view.image.shape == (90, 160, 3)


def test_a_sensor_may_have_two_key_frames_in_a_sample(dataroot: Path) -> None:
    cameras: list[str] = []

    def twice(rows: Rows) -> None:
        own = next(r for r in rows if r["is_key_frame"] and r["filename"].endswith(".jpg"))
        cameras.append(own["sample_token"])
        rows.append({**own, "token": "again", "prev": "", "next": ""})

    change(dataroot, "sample_data", twice)
    assert NuScenesTables(dataroot, VERSION).has_images(cameras[0])


def test_headings_come_from_quaternions_of_any_length(
    dataroot: Path, shared_dataroot: Path
) -> None:
    def longer(rows: Rows) -> None:
        for row in rows:
            row["rotation"] = [1.0009 * value for value in row["rotation"]]

    change(dataroot, "sample_annotation", longer)
    found, exact = (
        NuScenesTables(root, VERSION).ground_truth("sample-0-1").boxes.values[:, 6].numpy()
        for root in (dataroot, shared_dataroot)
    )
    np.testing.assert_allclose(found, exact, atol=1e-9)


def test_a_scene_without_samples_is_not_scored_as_all(dataroot: Path, tmp_path: Path) -> None:
    def with_empty(rows: Rows) -> None:
        ends = {"first_sample_token": "", "last_sample_token": "", "nbr_samples": 0}
        rows.append({**rows[0], **ends, "token": "empty", "name": "empty"})

    change(dataroot, "scene", with_empty)
    write_results(tmp_path / "results.json", {"sample-0-0": []})
    options = ResultFileOptions(version=VERSION, scenes=("empty",))
    with pytest.raises(DataError, match="empty"):
        evaluate_results(tmp_path / "results.json", dataroot, options)
