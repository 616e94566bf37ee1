# SPDX-License-Identifier: Apache-2.0
"""Tables with one thing wrong: told by table, record and field, or of one scene only."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labeldistill_core.classes import ClassList, ObjectClass
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.metrics import evaluate
from tests.support.nuscenes_fixture import SCENES, VERSION

Rows = list[dict[str, Any]]


def change(root: Path, table: str, edit: Callable[[Rows], object]) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def first(**fields: Any) -> Callable[[Rows], object]:
    return lambda rows: rows[0].update(fields)


def every(**fields: Any) -> Callable[[Rows], object]:
    return lambda rows: [row.update(fields) for row in rows]


def of_one_mounting(matrix: list[list[float]]) -> Callable[[Rows], object]:
    def edit(rows: Rows) -> None:
        next(row for row in rows if row["camera_intrinsic"])["camera_intrinsic"] = matrix

    return edit


def without(column: str) -> Callable[[Rows], object]:
    return lambda rows: [row.pop(column) for row in rows]


def drop(rows: Rows, column: str, value: str) -> None:
    rows[:] = [row for row in rows if row[column] != value]


def ring(rows: Rows) -> None:
    rows[2]["next"] = rows[0]["token"]


def into_the_other_scene(rows: Rows) -> None:
    rows[2]["next"] = rows[3]["token"]


def swapped(rows: Rows) -> None:
    rows[1]["timestamp"], rows[2]["timestamp"] = rows[2]["timestamp"], rows[1]["timestamp"]


OF_ONE_SCENE = {
    "a ring": ("sample", ring, "record 'sample-0-2': its `next` leads back to 'sample-0-0'"),
    "a sample that follows itself": (
        "sample",
        first(next="sample-0-0"),
        "record 'sample-0-0': its `next` leads back",
    ),
    "a chain that leaves its scene": ("sample", into_the_other_scene, "its `scene_token` is not"),
    "a chain that is cut": ("sample", lambda rows: rows.pop(1), "its `next` is not in .*sample.js"),
    "no first sample": ("scene", first(first_sample_token="x"), "`first_sample_token` is not in"),
    "times that do not rise": ("sample", swapped, "its `timestamp` is not later"),
    "a pose that is not finite": (
        "ego_pose",
        first(translation=[math.nan, 0, 0]),
        "ego_pose.json, record 'data-.*': its `translation` is not finite",
    ),
    "an infinite pose": ("ego_pose", first(translation=[0, math.inf, 0]), "is not finite"),
    "no rotation": ("ego_pose", first(rotation=[0, 0, 0, 0]), "`rotation` is no unit quaternion"),
    "a long quaternion": ("ego_pose", first(rotation=[1.01, 0, 0, 0]), "is no unit quaternion"),
    "no pose": ("ego_pose", lambda rows: rows.pop(0), "its `ego_pose_token` is not in ego_pose"),
    "an unknown mounting": (
        "sample_data",
        first(calibrated_sensor_token="x"),
        "sample_data.json, record 'data-.*': its `calibrated_sensor_token` is not in",
    ),
    "a file elsewhere": (
        "sample_data",
        first(filename="/etc/passwd"),
        "its `filename` '/etc/passwd' is no path below the data root: it is absolute",
    ),
    "a file above": ("sample_data", first(filename="../../x.jpg"), "it leaves its folder"),
    "a file with a control character": ("sample_data", first(filename="a\nb"), "cannot be printed"),
    "another clock": ("sample_data", first(timestamp=5), "s away from that of its sample"),
    "a record that is lost": ("sample_data", first(next="x"), "its `next` is not in sample_data"),
    "a sample without records": (
        "sample_data",
        lambda rows: drop(rows, "sample_token", "sample-0-1"),
        "sample_data.json has no record of sample 'sample-0-1'",
    ),
    "an unknown instance": ("sample_annotation", first(instance_token="x"), "`instance_token` is"),
    "an unknown attribute": (
        "sample_annotation",
        first(attribute_tokens=["x"]),
        "its `attribute_tokens` is not in attribute.json",
    ),
    "an unknown visibility": ("sample_annotation", first(visibility_token="9"), "visibility_token"),
    "a lost box": ("sample_annotation", first(next="x"), "its `next` is not in sample_annotation"),
    "a box that is nowhere": (
        "sample_annotation",
        first(translation=[0, 0, math.nan]),
        "sample_annotation.json, record 'annotation-car-0-0': its `translation` is not finite",
    ),
    "a box that has no end": ("sample_annotation", first(size=[1, 1, math.inf]), "`size` is not"),
}


@pytest.mark.parametrize("name", OF_ONE_SCENE)
def test_one_bad_scene_does_not_end_the_others(
    dataroot: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    table, edit, told = OF_ONE_SCENE[name]
    change(dataroot, table, edit)
    tables = NuScenesTables(dataroot, VERSION)
    assert "1 of 2 scenes cannot be used" in caplog.text
    with pytest.raises(DataError, match=told):
        tables.samples(SCENES[0])
    with pytest.raises(DataError, match=told):
        tables.sensor_data(SCENES[0])
    for read in (tables.ground_truth, tables.sensors, tables.lidar, tables.stamp_ns):
        with pytest.raises(DataError, match=told):
            read("sample-0-0")
    assert len(tables.samples(SCENES[1])) == 3
    assert len(tables.ground_truth("sample-1-0").tokens) > 5
    assert tables.about(SCENES[0])["location"] == "nowhere"


def in_seconds(rows: Rows) -> None:
    for row in rows:
        row["timestamp"] /= 1e6


def in_milliseconds(rows: Rows) -> None:
    for row in rows:
        row["timestamp"] //= 1000


REFUSED: dict[str, tuple[str, Callable[[Rows], object], str]] = {
    **{
        f"{table} without {column}": (table, without(column), f"field `{column}`: it is missing")
        for table, column in [
            ("scene", "name"),
            ("scene", "first_sample_token"),
            ("sample", "next"),
            ("sample", "timestamp"),
            ("sample_data", "filename"),
            ("sample_data", "is_key_frame"),
            ("ego_pose", "rotation"),
            ("calibrated_sensor", "translation"),
            ("sensor", "modality"),
            ("sample_annotation", "num_lidar_pts"),
            ("sample_annotation", "size"),
            ("instance", "category_token"),
            ("category", "name"),
        ]
    },
    "a box of two sides": ("sample_annotation", first(size=[1, 2]), "field `size`: .*length 3"),
    "no matrix": ("calibrated_sensor", every(camera_intrinsic=[]), "three rows of three numbers"),
    "a transposed matrix": (
        "calibrated_sensor",
        of_one_mounting([[260.0, 0, 0], [0, 260.0, 0], [80, 45, 1]]),
        "`camera_intrinsic` must be rows of .fx, s, cx., .0, fy, cy., .0, 0, 1.",
    ),
    "a matrix of 3x4": (
        "calibrated_sensor",
        every(camera_intrinsic=[[1.0, 0, 0, 0]] * 3),
        "`camera_intrinsic` must be three rows of three numbers",
    ),
    "no focal length": (
        "calibrated_sensor",
        every(camera_intrinsic=[[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]),
        "positive focal lengths",
    ),
    "times in seconds": ("sample", in_seconds, "apart; they must be microseconds"),
    "times in milliseconds": ("sample", in_milliseconds, "apart; they must be microseconds"),
    "times in nanoseconds": (
        "sample",
        lambda rows: [row.update(timestamp=row["timestamp"] * 1000) for row in rows],
        "field `timestamp`: .*microseconds",
    ),
    "times before 1970": ("sample_data", every(timestamp=-5), "field `timestamp`: "),
    "a scene above": ("scene", first(name="../victim"), "the name '../victim' is no plain name"),
    "a scene elsewhere": ("scene", first(name="/tmp/x"), "is no plain name: it has a slash"),
    "a scene with NUL": ("scene", first(name="a\0b"), "is no plain name"),
    "a scene that is a number": ("scene", first(name=7), "field `name`: Expected `str`"),
    "a sensor above": ("sensor", first(channel="../CAM"), "the channel '../CAM' is no plain name"),
    "a sample twice": ("sample", lambda rows: rows.append(rows[0]), "more than one record 'sample"),
    "a scene twice": ("scene", lambda rows: rows.append(rows[0]), "more than one record 'scene-0'"),
    "a record twice": ("sample_data", lambda rows: rows.append(rows[0]), "more than one record"),
    "a box twice": ("sample_annotation", lambda rows: rows.append(rows[0]), "more than one record"),
    "two poses of one token": (
        "ego_pose",
        lambda rows: rows.append({**rows[5], "translation": [0, 0, 0]}),
        "more than one record 'data-.*', and they differ",
    ),
    "boxes that are lost": (
        "sample_annotation",
        lambda rows: drop(rows, "instance_token", "instance-car-0"),
        "instance-car-0': its `first_annotation_token` is not in sample_annotation.json",
    ),
    "an unknown category": ("instance", first(category_token="x"), "`category_token` is not in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_are_refused(dataroot: Path, name: str) -> None:
    table, edit, told = REFUSED[name]
    change(dataroot, table, edit)
    with pytest.raises(DataError, match=told) as error:
        NuScenesTables(dataroot, VERSION)
    assert f"{table}.json" in str(error.value)


def test_a_pose_of_several_sensors_may_stand_there_twice(dataroot: Path) -> None:
    change(dataroot, "ego_pose", lambda rows: rows.extend(rows[:20]))
    assert len(NuScenesTables(dataroot, VERSION).sensor_data(SCENES[0])) == 33


def test_columns_and_tables_that_may_be_absent(
    dataroot: Path, shared_dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = NuScenesTables(shared_dataroot, VERSION).ground_truth("sample-0-1")
    for column in ("num_radar_pts", "visibility_token", "attribute_tokens", "prev", "next"):
        change(dataroot, "sample_annotation", without(column))
    for column in ("prev", "next"):
        change(dataroot, "sample_data", without(column))
    for table in ("log", "attribute", "visibility"):
        (dataroot / VERSION / f"{table}.json").unlink()
    tables = NuScenesTables(dataroot, VERSION)
    assert "log.json is missing" in caplog.text
    assert tables.about(SCENES[0])["location"] == ""
    truth = tables.ground_truth("sample-0-1")
    assert truth.tokens == whole.tokens
    assert set(truth.attributes) == set(truth.visibility) == {""}
    assert truth.num_lidar_pts == whole.num_lidar_pts
    assert truth.boxes.velocities.isnan().all()
    assert tables.lidar_sweeps("sample-0-1", 3, 3) == []


def test_times_may_be_written_as_floats(dataroot: Path, shared_dataroot: Path) -> None:
    for table in ("sample", "sample_data"):
        change(
            dataroot, table, lambda rows: [r.update(timestamp=float(r["timestamp"])) for r in rows]
        )
    tables, wanted = NuScenesTables(dataroot, VERSION), NuScenesTables(shared_dataroot, VERSION)
    for mine, whole in zip(
        tables.sensor_data(SCENES[0]), wanted.sensor_data(SCENES[0]), strict=True
    ):
        assert mine.stamp_ns == whole.stamp_ns
        assert mine.path.relative_to(dataroot) == whole.path.relative_to(shared_dataroot)


def test_boxes_without_a_size_are_left_out_and_counted(
    dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(dataroot, "sample_annotation", first(size=[0, 4.5, 1.6]))
    tables = NuScenesTables(dataroot, VERSION)
    assert "1 boxes have no width, length or height, such as 'annotation-car-0-0'" in caplog.text
    assert "annotation-car-0-0" not in tables.ground_truth("sample-0-0").tokens


def test_boxes_without_a_size_cost_no_score_whatever_their_category(dataroot: Path) -> None:
    """nuScenes scores no animals, and a configuration of one's own may."""
    change(dataroot, "sample_annotation", first(size=[0, 4.5, 1.6]))
    change(dataroot, "category", lambda rows: [r.update(name="animal") for r in rows])
    animals = ClassList((ObjectClass("animal", ("animal",), 50.0),))
    tables = NuScenesTables(dataroot, VERSION, animals)
    assert "annotation-car-0-0" not in tables.ground_truth("sample-0-0").tokens
    evaluate([tables.ground_truth(token) for token in tables.samples(SCENES[0])], {})


def test_records_of_no_sample_are_left_out_and_counted(
    dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(dataroot, "scene", lambda rows: rows.pop(0))
    tables = NuScenesTables(dataroot, VERSION)
    assert "no scene leads to 3 of 6 samples, such as 'sample-0-0'" in caplog.text
    assert tables.scene_names == SCENES[1:]
    caplog.clear()
    change(dataroot, "sample", lambda rows: [rows.pop(0) for _ in range(3)])
    tables = NuScenesTables(dataroot, VERSION)
    assert "33 of 66 records belong to no sample in sample.json" in caplog.text
    assert "boxes belong to no sample in sample.json" in caplog.text
    assert len(tables.sensor_data(SCENES[1])) == 33
    assert len(tables.ground_truth("sample-1-1").tokens) > 5


def test_categories_of_lidarseg(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = "noise flat.driveable_surface flat.other flat.sidewalk flat.terrain static.manmade"
    more = [*names.split(), "static.other", "static.vegetation", "vehicle.ego"]
    change(
        dataroot,
        "category",
        lambda rows: rows.extend({"token": n, "name": n, "index": i} for i, n in enumerate(more)),
    )
    with caplog.at_level(logging.WARNING):
        NuScenesTables(dataroot, VERSION)
    assert not caplog.records


def test_the_size_comes_from_the_image_where_the_table_has_none(dataroot: Path) -> None:
    change(dataroot, "sample_data", every(width=0, height=0))
    change(dataroot, "sample_data", without("height"))
    tables = NuScenesTables(dataroot, VERSION)
    record = tables.cameras("sample-0-0")["CAM_FRONT"]
    assert (record.width_px, record.height_px) == (160, 90)
    assert record.view().image.shape == (90, 160, 3)
    assert tables.lidar("sample-0-0").width_px == 0
    record.path.unlink()
    record = tables.cameras("sample-0-0")["CAM_FRONT"]
    with pytest.raises(DataError, match="sample_data 'data-CAM_FRONT-.*' has no width and height"):
        _ = record.calibration
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(record.path, "BMP")
    assert tables.cameras("sample-0-0")["CAM_FRONT"].width_px == 0


def test_a_data_set_of_cameras_alone(dataroot: Path) -> None:
    """Ranges are then measured from the vehicle at the key frame nearest to the sample."""

    def cameras(rows: Rows) -> None:
        rows[:] = [row for row in rows if "LIDAR" not in row["filename"]]

    change(dataroot, "sample_data", cameras)
    shutil.rmtree(dataroot / "samples" / "LIDAR_TOP")
    tables = NuScenesTables(dataroot, VERSION)
    truth = tables.ground_truth("sample-0-1")
    nearest = min(
        tables.cameras("sample-0-1").values(), key=lambda r: abs(r.stamp_ns - truth.stamp_ns)
    )
    np.testing.assert_array_equal(truth.fixed_from_ego.matrix, nearest.fixed_from_ego.matrix)
    with pytest.raises(DataError, match="sample sample-0-1 has no LIDAR_TOP"):
        tables.lidar("sample-0-1")


def test_a_lidar_of_another_name(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The only one is read; of several, the one that is called as nuScenes' is."""

    def rename(rows: Rows) -> None:
        for row in rows:
            if row["channel"] == "LIDAR_TOP":
                row["channel"] = "roof"

    stamp_ns = NuScenesTables(dataroot, VERSION).lidar("sample-0-1").stamp_ns
    change(dataroot, "sensor", rename)
    tables = NuScenesTables(dataroot, VERSION)
    assert tables.has_scan("sample-0-1")
    assert tables.lidar("sample-0-1").channel == "roof"
    assert tables.lidar("sample-0-1").stamp_ns == stamp_ns
    assert tables.lidar("sample-0-1").scan().shape[1] == 5
    assert not caplog.text

    other = {"token": "x", "channel": "bumper", "modality": "lidar"}
    change(dataroot, "sensor", lambda rows: rows.append(other))
    tables = NuScenesTables(dataroot, VERSION)
    assert "the LiDARs bumper, roof, of which no scan is read: call the one" in caplog.text
    assert not tables.has_scan("sample-0-1")
    with pytest.raises(DataError, match="has no LIDAR_TOP"):
        tables.lidar("sample-0-1")
