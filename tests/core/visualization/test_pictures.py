# SPDX-License-Identifier: Apache-2.0
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import (
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraPose,
    FrameSet,
)
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.network.student import Student
from labeldistill_core.visualization.colours import TRUTH_COLOUR, class_colour
from labeldistill_core.visualization.drawing import dash, draw_tag
from labeldistill_core.visualization.page import PageFrame, PageTable, write_page, write_report
from labeldistill_core.visualization.pictures import (
    birds_eye_view,
    box_lines,
    camera_mosaic,
    clip_to_image,
    draw_boxes,
)
from labeldistill_core.visualization.view import ViewOptions, lidar_points, view
from labeldistill_ros.cli import main

CAR = CLASSES.index("car")


def boxes_at(
    *rows: Sequence[float], frame: str = FIXED_FRAME, scores: list[float] | None = None
) -> Boxes3D:
    n = len(rows)
    return Boxes3D(
        frame,
        torch.tensor(rows, dtype=torch.float64).reshape(-1, 9),
        torch.full((n,), CAR),
        torch.tensor(scores or [0.9] * n, dtype=torch.float64),
    )


def count(image: Image.Image, colour: Sequence[int], tolerance: float = 40) -> int:
    return int((np.abs(np.asarray(image, dtype=int) - colour).max(axis=-1) < tolerance).sum())


@pytest.fixture
def front(calibration: Callable[..., CameraCalibration]) -> CameraPose:
    """A level camera 1.5 m over the road, in a vehicle far from the map's origin that looks +y."""
    pose = Transform.from_quaternion(
        FIXED_FRAME, EGO_FRAME, (math.sqrt(0.5), 0, 0, math.sqrt(0.5)), (1000.0, 2000.0, 0.0)
    )
    return CameraPose(calibration(1), pose)


def test_corners_fall_where_the_pinhole_says(front: CameraPose) -> None:
    # 20 m ahead of the camera, which stands 1.7 m ahead of the ego frame
    car = boxes_at([1000, 2000 + 1.7 + 20, 1.5, 4, 2, 1.5, math.pi / 2, 0, 0])
    ((starts, ends),) = box_lines(car, front)
    k = front.calibration.intrinsics_px
    points = np.concatenate([starts, ends])
    focal, (u, v) = k[0, 0], k[:2, 2]
    np.testing.assert_allclose(points[:, 0].min(), u - focal * 1.0 / 18, atol=1e-6)
    np.testing.assert_allclose(points[:, 0].max(), u + focal * 1.0 / 18, atol=1e-6)
    np.testing.assert_allclose(points[:, 1].min(), v - focal * 0.75 / 18, atol=1e-6)
    np.testing.assert_allclose(points[:, 1].max(), v + focal * 0.75 / 18, atol=1e-6)
    # the last line is the heading: from under the centre, away from the camera
    np.testing.assert_allclose(starts[-1], [u, v + focal * 0.75 / 20], atol=1e-6)
    np.testing.assert_allclose(ends[-1], [u, v + focal * 0.75 / 22], atol=1e-6)


def test_a_tilted_vehicle_sees_upright_boxes_tilted(front: CameraPose) -> None:
    roll = math.radians(10)
    tilt = Transform.from_quaternion(
        EGO_FRAME, EGO_FRAME, (math.cos(roll / 2), math.sin(roll / 2), 0, 0), (0, 0, 0)
    )
    tilted = replace(front, fixed_from_ego=front.fixed_from_ego @ tilt)
    post = boxes_at([1000, 2020, 1.5, 0.001, 0.001, 2, 0, 0, 0])
    ((starts, ends),) = box_lines(post, tilted)
    way = ends[8:12] - starts[8:12]  # front to rear face: next to nothing
    assert np.abs(way).max() < 0.02
    vertical = ends[1] - starts[1]
    assert abs(math.degrees(math.atan2(vertical[0], vertical[1]))) == pytest.approx(10, abs=0.1)


def test_lines_that_pass_behind_the_camera_are_cut_not_dropped(
    calibration: Callable[..., CameraCalibration],
) -> None:
    camera = calibration(1)
    # along the optical axis, 1 m to the right, from 5 m behind to 10 m ahead
    starts, ends, visible = clip_to_image(
        camera, np.array([[1.0, 0.0, -5.0]]), np.array([[1.0, 0.0, 10.0]])
    )
    assert visible.tolist() == [True]
    u, v = camera.intrinsics_px[:2, 2]
    np.testing.assert_allclose(ends[0], [u + camera.intrinsics_px[0, 0] / 10, v])
    np.testing.assert_allclose(starts[0], [camera.width_px, v])


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ((0, 0, -5), (0, 0, -1)),  # behind
        ((0, 0, 0.01), (0.0, 0, 0.09)),  # too near
        ((50, 0, 10), (60, 0, 10)),  # to the right, parallel to the image
        ((-50, -50, 10), (-50, 50, 10)),  # to the left
    ],
)
def test_lines_that_the_camera_does_not_see_are_dropped(
    calibration: Callable[..., CameraCalibration],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
) -> None:
    starts, ends, visible = clip_to_image(
        calibration(1), np.array([start], float), np.array([end], float)
    )
    assert not visible.any()
    assert starts.shape == ends.shape == (0, 2)


def test_a_box_around_the_camera_is_drawn_in_part(front: CameraPose) -> None:
    beside = boxes_at([1000 + 1.5, 2001.7, 1.0, 10, 1, 2, math.pi / 2, 0, 0])
    ((starts, ends),) = box_lines(beside, front)
    assert 0 < len(starts) < 13
    size = (front.calibration.width_px, front.calibration.height_px)
    for points in (starts, ends):
        assert (points >= -1e-6).all()
        assert (points <= np.array(size) + 1e-6).all()


def test_boxes_of_another_frame_are_refused(
    front: CameraPose, frame_set: Callable[..., FrameSet]
) -> None:
    ego_boxes = boxes_at([10, 0, 0, 4, 2, 1.5, 0, 0, 0], frame=EGO_FRAME)
    with pytest.raises(ValueError, match="'ego'.*'map'"):
        box_lines(ego_boxes, front)
    with pytest.raises(ValueError, match="'ego'"):
        camera_mosaic(frame_set(0.0), ego_boxes)
    with pytest.raises(ValueError, match="'ego'"):
        birds_eye_view(ego_boxes, None, front.fixed_from_ego)


def test_a_set_without_images_is_told() -> None:
    with pytest.raises(ValueError, match="the set has no image"):
        camera_mosaic(FrameSet(0, ()), Boxes3D.empty(FIXED_FRAME))


def test_predictions_and_truth_differ(front: CameraPose) -> None:
    car = boxes_at([1000, 2012, 1.5, 4, 2, 1.5, 1.2, 0, 0])
    solid, dashed = (Image.new("RGB", (640, 360)) for _ in range(2))
    draw_boxes(solid, front, car)
    draw_boxes(dashed, front, car, truth=True)
    assert count(solid, class_colour("car")) > 200
    assert count(solid, TRUTH_COLOUR) == 0
    assert count(dashed, TRUTH_COLOUR) > 50
    assert count(dashed, class_colour("car")) == 0


def test_dashes_cover_their_share_and_stay_on_the_line() -> None:
    starts, ends = dash(
        np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([[0.0, 10.0], [5.0, 5.0]]), 3, 1
    )
    np.testing.assert_allclose(starts, [[0, 0], [0, 4], [0, 8]])
    np.testing.assert_allclose(ends, [[0, 3], [0, 7], [0, 10]])


def test_mosaic_places_the_cameras_and_says_what_is_missing(
    frame_set: Callable[..., FrameSet],
) -> None:
    frames = frame_set(0.0, missing=("CAM_BACK",))
    mosaic = camera_mosaic(frames, Boxes3D.empty(FIXED_FRAME), tile_width_px=160)
    assert mosaic.size == (480, 180)
    pixels = np.asarray(mosaic)
    front = frames.by_name["CAM_FRONT"].image
    shown = pixels[40:90, 200:320].astype(int)  # beside the label
    assert np.abs(shown - front[40:90, 40:160]).mean() < 30
    assert (pixels[150:, 170:310].std(axis=(0, 1)) == 0).all()  # the dark tile


def test_mosaic_leaves_out_low_scores(frame_set: Callable[..., FrameSet]) -> None:
    frames = frame_set(0.0, seed=1)
    dark = tuple(replace(v, image=np.zeros_like(v.image)) for v in frames.views)
    frames = replace(frames, views=dark)
    ahead = frames.by_name["CAM_FRONT"].fixed_from_ego.apply([15.0, 0.0, 1.0])
    car = boxes_at([*ahead, 4, 2, 1.5, 0, 0, 0], scores=[0.4])
    assert count(camera_mosaic(frames, car), class_colour("car")) > 100
    assert count(camera_mosaic(frames, car, min_score=0.5), class_colour("car")) == 0


def test_top_view_has_the_heading_up_and_left_on_the_left(front: CameraPose) -> None:
    ahead_left = front.fixed_from_ego.apply([20.0, 10.0, 0.0])
    car = boxes_at([*ahead_left, 4, 2, 1.5, math.pi / 2, 0, 0])
    image = birds_eye_view(car, None, front.fixed_from_ego, 50.0, size_px=500)
    assert image.size == (500, 500)
    pixels = np.abs(np.asarray(image, int) - class_colour("car")).max(axis=-1) < 60
    pixels[440:] = False  # the legend
    rows, columns = pixels.nonzero()
    # 5 px a metre: 20 m up, 10 m to the left
    assert (rows.min() + rows.max()) / 2 == pytest.approx(250 - 5 * 20, abs=2)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(250 - 5 * 10, abs=2)
    assert rows.max() - rows.min() == pytest.approx(5 * 4, abs=3)
    assert columns.max() - columns.min() == pytest.approx(5 * 2, abs=3)


@pytest.mark.parametrize("velocity", [(0.0, 10.0), (float("nan"), float("nan"))])
def test_top_view_shows_known_velocities(front: CameraPose, velocity: tuple[float, float]) -> None:
    car = boxes_at([1000, 2010, 0, 4, 2, 1.5, math.pi / 2, *velocity])
    still = boxes_at([1000, 2010, 0, 4, 2, 1.5, math.pi / 2, 0, 0])
    moving, resting = (
        count(birds_eye_view(b, None, front.fixed_from_ego), class_colour("car"))
        for b in (car, still)
    )
    assert (moving > resting) == math.isfinite(velocity[0])


def test_top_view_shows_points_and_ignores_those_outside(front: CameraPose) -> None:
    points = np.array([[15.0, 0.0, 0.0], [500.0, 0.0, 0.0], [-500.0, -500.0, 0.0]])
    empty = Boxes3D.empty(FIXED_FRAME)
    plain, dotted = (
        np.asarray(birds_eye_view(empty, None, front.fixed_from_ego, 60.0, p, size_px=240), int)
        for p in (None, points)
    )
    changed = np.abs(dotted - plain).max(axis=-1) > 10
    assert [tuple(p) for p in np.argwhere(changed)] == [(90, 120)]


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (4, (2, 2)), (5, (3, 2)), (9, (3, 3))])
def test_a_report_has_a_picture_for_each_camera(
    count: int,
    grid: tuple[int, int],
    frame_set: Callable[..., FrameSet],
    tmp_path: Path,
) -> None:
    one = frame_set(0.0).views[0]
    views = [
        replace(one, calibration=replace(one.calibration, name=f"cam_{i}")) for i in range(count)
    ]
    nothing = Boxes3D.empty(FIXED_FRAME)
    frame = PageFrame.drawn(
        "caption", FrameSet(0, tuple(views)), nothing, nothing, one.fixed_from_ego
    )
    assert frame.grid == grid
    file = tmp_path / "report.html"
    write_report(file, "title", [], [frame])
    assert file.read_text(encoding="utf-8").count('alt="Camera, ') == grid[0] * grid[1]
    write_page(tmp_path, "title", [], [frame])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    # Each camera by itself, cut out of the one picture.
    assert text.count("background: url(frame_0000_cameras.jpg)") == grid[0] * grid[1]


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.titles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and name in ("src", "href")]


def test_page_links_only_to_what_lies_beside_it(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    picture.save(folder / "frame_0007_top.png")  # of an earlier call
    frames = (PageFrame(f"<frame {i}> & more", picture, picture) for i in range(3))
    table = PageTable("Latency <ms>", ("stage", "p50"), [("lift & pool", "2.5")])
    path = write_page(folder, "A <title>", [("mAP", "0.123")], frames, [table])
    text = path.read_text(encoding="utf-8")
    links = Links(text).found
    assert len(links) == 12  # two pictures a frame, each shown and linked
    assert {link for link in links if not (folder / link).is_file()} == set()
    assert {p.name for p in folder.iterdir()} == {*links, "index.html"}
    for shown in ("&lt;frame 2&gt; &amp; more", "A &lt;title&gt;", "0.123", "lift &amp; pool"):
        assert shown in text
    assert "http" not in text


def test_view_draws_the_key_frames_of_a_scene(
    shared_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--version", "v1.0-test", "--scene", "scene-0002"]
    assert main(["view", str(shared_dataroot), str(tmp_path / "page"), *options]) == 0
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == 3
    assert "scene-0002" in text
    assert "scene-0002, after 0.0 s, sample" in text
    assert "scene-0002, after 0.5 s, sample" in text
    assert "scene-0001" not in text
    assert "index.html" in capsys.readouterr().out


def test_view_with_a_student_tells_what_it_found(
    shared_dataroot: Path, tmp_path: Path, student: Student
) -> None:
    from labeldistill_core.checkpoints import save_student

    save_student(tmp_path / "tiny.safetensors", student)
    view(
        shared_dataroot,
        tmp_path / "page",
        ViewOptions(
            version="v1.0-test",
            checkpoint=tmp_path / "tiny.safetensors",
            limit=2,
            min_score=0.0,
            device="cpu",
        ),
    )
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == 2
    assert "found with a score of at least 0" in text
    assert "tiny.safetensors" in text


def test_view_without_images_says_so(dataroot: Path, tmp_path: Path) -> None:
    for path in (dataroot / "samples" / "CAM_FRONT").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="none of the 3 key frames has all its images"):
        view(dataroot, tmp_path / "page", ViewOptions(version="v1.0-test", scene="scene-0001"))
    assert not (tmp_path / "page").exists()


def test_lidar_points_come_in_the_ego_frame(dataroot: Path) -> None:
    tables = NuScenesTables(dataroot, "v1.0-test")
    token = tables.samples("scene-0001")[0]
    record = tables.lidar(token)
    record.path.parent.mkdir(parents=True, exist_ok=True)
    np.array([[1, 2, 3, 0, 0]], dtype=np.float32).tofile(record.path)
    points = lidar_points(tables, token)
    assert points is not None
    np.testing.assert_allclose(points, record.ego_from_sensor.apply([[1.0, 2.0, 3.0]]))
    record.path.write_bytes(b"too short")
    with pytest.raises(DataError, match="is no LiDAR scan"):
        lidar_points(tables, token)
    record.path.unlink()
    assert lidar_points(tables, token) is None


def test_a_tag_wider_than_the_picture_begins_in_it() -> None:
    colour = (250, 0, 0)

    def columns(width: int) -> list[int]:
        picture = Image.new("RGB", (width, 40))
        draw_tag(picture, (width - 10, 30), "construction vehicle 0.87", colour, 24)
        found: list[int] = np.flatnonzero((np.asarray(picture) == colour).all(-1).any(0)).tolist()
        return found

    assert columns(90)[-1] == 89
    assert 84 <= len(columns(90)) <= 90, "in smaller letters"
    assert columns(20) == list(range(20))


def test_a_page_that_fails_leaves_no_links_to_what_is_gone(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20))
    write_page(tmp_path, "x", [], [PageFrame("", picture, picture)] * 2)

    def broken() -> Iterator[PageFrame]:
        yield PageFrame("", picture, picture)
        raise DataError("no image")

    with pytest.raises(DataError):
        write_page(tmp_path, "x", [], broken())
    assert not (tmp_path / "index.html").exists()
