# SPDX-License-Identifier: Apache-2.0
"""Boxes in the camera images and from above.

Predictions are solid in the colour of their class, ground truth is dashed green; a line on the
bottom face leads from the centre to the front. Boxes come in the fixed frame, and each camera
sees them from where the vehicle was at its own time of exposure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CAMERAS, CameraCalibration, CameraPose, FrameSet
from labeldistill_core.classes import CLASSES
from labeldistill_core.frames import Array, Transform
from labeldistill_core.visualization.colours import INK, TRUTH_COLOUR, Colour, class_colour
from labeldistill_core.visualization.drawing import (
    SUPERSAMPLING,
    Rectangle,
    dash,
    draw_legend,
    draw_lines,
    draw_tag,
    font,
)

NEAR_M = 0.1
"""What is nearer to a camera than this is cut off."""
_EDGES = np.array(
    [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]]
)
_BOTTOM, _FRONT_BOTTOM = [2, 3, 6, 7], [2, 3]
_MIN_TAG_PX = 14
_RING_COLOUR = (58, 66, 78)
_BACKGROUND = (18, 22, 28)
_RING_STEP_M = 10
TOP_RANGE_M = 55.0
"""To each side of the view from above: nuScenes' largest range of a class, and some."""


def clip_to_image(
    calibration: CameraCalibration, starts: Array, ends: Array
) -> tuple[Array, Array, Array]:
    """The parts of M line segments that a camera sees.

    A segment that passes behind the camera or out of the image is cut where it leaves, so that
    boxes beside the vehicle keep their visible edges.

    Args:
        calibration: of the camera.
        starts: (M, 3) in the optical frame, metres.
        ends: (M, 3) in the optical frame, metres.

    Returns:
        Starts (V, 2) and ends (V, 2) in pixels, and which of the M segments are visible, (M,) bool.
    """
    k, (w, h) = calibration.intrinsics_px, (calibration.width_px, calibration.height_px)
    # each row is >= 0 on the inner side of a plane of the view frustum
    planes = np.stack([k[2], k[0], w * k[2] - k[0], k[1], h * k[2] - k[1]])
    offsets = np.array([-NEAR_M, 0.0, 0.0, 0.0, 0.0])
    begin, end = starts @ planes.T + offsets, ends @ planes.T + offsets  # (M, 5)
    slope = end - begin
    at = -begin / np.where(slope == 0, np.inf, slope)
    # Liang and Barsky: a segment enters through the planes that it rises at, and leaves through the
    # others.
    enter = np.where(slope > 0, at, 0.0).max(axis=1, initial=0.0)
    leave = np.where(slope < 0, at, 1.0).min(axis=1, initial=1.0)
    parallel_outside = ((slope == 0) & (begin < 0)).any(axis=1)
    visible = (enter < leave) & ~parallel_outside
    first, way = starts[visible], (ends - starts)[visible]
    inside = [first + t[visible, None] * way for t in (enter, leave)]
    return (*(calibration.project(p)[:, :2] for p in inside), visible)


def box_lines(boxes: Boxes3D, camera: CameraPose) -> list[tuple[Array, Array]]:
    """Visible lines of each box in one camera.

    Args:
        boxes: N boxes in the fixed frame of the camera's pose.
        camera: calibration and pose at the time of exposure.

    Returns:
        N pairs of starts (V, 2) and ends (V, 2), pixels; V is 0 for a box that is not seen.

    Raises:
        ValueError: the boxes are in another frame.
    """
    fixed_from_camera = camera.fixed_from_ego @ camera.calibration.ego_from_camera
    if boxes.frame != fixed_from_camera.target:
        raise ValueError(
            f"boxes are in {boxes.frame!r}, the camera's pose is in {fixed_from_camera.target!r}"
        )
    # corners and not boxes are moved: in the camera of a tilted vehicle a box is not upright
    corners = fixed_from_camera.inverse.apply(_corners(boxes))  # (N, 8, 3)
    bottom, front = corners[:, _BOTTOM].mean(axis=1), corners[:, _FRONT_BOTTOM].mean(axis=1)
    starts = np.concatenate([corners[:, _EDGES[:, 0]], bottom[:, None]], axis=1)
    ends = np.concatenate([corners[:, _EDGES[:, 1]], front[:, None]], axis=1)
    seen = [clip_to_image(camera.calibration, a, b) for a, b in zip(starts, ends, strict=True)]
    return [(a, b) for a, b, _ in seen]


def draw_boxes(
    image: Image.Image,
    camera: CameraPose,
    boxes: Boxes3D,
    *,
    truth: bool = False,
    class_names: Sequence[str] = CLASSES,
    text_px: int = 10,
) -> None:
    """Draw the boxes that a camera sees into its image, far ones first.

    Args:
        image: RGB, of the camera's size or scaled with its aspect ratio; changed in place.
        camera: calibration, of the image as taken, and pose.
        boxes: in the fixed frame of the camera's pose.
        truth: dashed and green, without score.
        class_names: names of the labels.
        text_px: size of the letters, in pixels of an image that is reduced by `SUPERSAMPLING`.

    Raises:
        ValueError: the boxes are in another frame.
    """
    scale = image.width / camera.calibration.width_px
    draw = ImageDraw.Draw(image)
    where = (camera.fixed_from_ego @ camera.calibration.ego_from_camera).translation
    lines = box_lines(boxes, camera)
    distances = np.linalg.norm(boxes.centers.cpu().numpy() - where, axis=1)
    tags = []
    # The painter's order: what is near hides what is far.
    for index in np.argsort(-distances):
        starts, ends = (scale * points for points in lines[index])
        if not len(starts):
            continue
        if truth:
            starts, ends = dash(starts, ends, 5.0 * SUPERSAMPLING, 4.0 * SUPERSAMPLING)
            draw_lines(draw, starts, ends, TRUTH_COLOUR, SUPERSAMPLING)
            continue
        name, score = class_names[int(boxes.labels[index])], float(boxes.scores[index])
        draw_lines(draw, starts, ends, class_colour(name), 2 * SUPERSAMPLING)
        low = np.minimum(starts, ends).min(axis=0)
        high = np.maximum(starts, ends).max(axis=0)
        if (high - low).max() >= _MIN_TAG_PX * SUPERSAMPLING:
            text = f"{name.replace('_', ' ')} {score:.2f}"
            tags.append((score, text, (float(low[0]), float(low[1])), class_colour(name)))
    taken: list[Rectangle] = []
    # Best scores first, as later tags give way.
    for _, text, at, colour in sorted(tags, reverse=True):
        draw_tag(image, at, text, colour, text_px * SUPERSAMPLING, taken)


def camera_mosaic(
    frames: FrameSet,
    predicted: Boxes3D,
    truth: Boxes3D | None = None,
    *,
    tile_width_px: int = 640,
    min_score: float = 0.0,
    class_names: Sequence[str] = CLASSES,
    text_px: int = 10,
) -> Image.Image:
    """The images of a set with boxes: front cameras above, rear cameras below.

    Cameras of other names than nuScenes' stand in the order of the set.

    Args:
        frames: images and poses; a camera of `CAMERAS` that is missing leaves a dark tile.
        predicted: in the fixed frame.
        truth: in the fixed frame.
        tile_width_px: width of one image; the height follows the first image's aspect ratio, and
            images of another one are shrunk to fit.
        min_score: predictions below are not drawn.
        class_names: names of the predictions' labels.
        text_px: size of the letters at the boxes; cameras' names are a fifth larger.

    Raises:
        ValueError: boxes are in another frame than the poses, or the set has no image.
    """
    if not frames.views:
        raise ValueError("the set has no image: there is nothing to draw")
    calibration = frames.views[0].calibration
    height = round(tile_width_px * calibration.height_px / calibration.width_px)
    tile = (tile_width_px, height)
    names = _shown(frames)
    columns, rows = mosaic_grid(frames)
    mosaic = Image.new("RGB", (columns * tile[0], rows * tile[1]), _BACKGROUND)
    chosen = predicted[predicted.scores >= min_score]
    for index, name in enumerate(names):
        corner = (index % columns * tile[0], index // columns * tile[1])
        view = frames.by_name.get(name)
        if view is not None:
            camera = view.calibration
            shrunk = min(tile[0] / camera.width_px, tile[1] / camera.height_px)
            size = round(shrunk * camera.width_px), round(shrunk * camera.height_px)
            image = Image.fromarray(view.pixels).resize(
                (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1])
            )
            if truth is not None:
                draw_boxes(image, view.pose, truth, truth=True)
            draw_boxes(image, view.pose, chosen, class_names=class_names, text_px=text_px)
            middle = corner[0] + (tile[0] - size[0]) // 2, corner[1] + (tile[1] - size[1]) // 2
            mosaic.paste(image.reduce(SUPERSAMPLING), middle)
        label = name.removeprefix("CAM_").replace("_", " ").lower()
        label += "" if view is not None else ": no image"
        name_px = round(1.2 * text_px)
        draw_tag(mosaic, (corner[0] + 6, corner[1] + 2 * name_px), label, INK, name_px)
    return mosaic


def mosaic_grid(frames: FrameSet) -> tuple[int, int]:
    """Columns and rows in which `camera_mosaic` puts the cameras of a set."""
    count = len(_shown(frames))
    rows = 1 if count <= 3 else max(2, math.ceil(count / 4))
    return math.ceil(count / rows), rows


def birds_eye_view(
    predicted: Boxes3D,
    truth: Boxes3D | None,
    fixed_from_ego: Transform,
    range_m: float = TOP_RANGE_M,
    lidar_points: Array | None = None,
    *,
    size_px: int = 720,
    min_score: float = 0.0,
    class_names: Sequence[str] = CLASSES,
) -> Image.Image:
    """Boxes from above: the vehicle in the middle, its heading up, its left to the left.

    An arrow shows how far an object moves in one second.

    Args:
        predicted: in the fixed frame.
        truth: in the fixed frame.
        fixed_from_ego: pose of the vehicle for which to draw.
        range_m: from the middle to the border.
        lidar_points: (P, 3) in the ego frame at that pose.
        size_px: width and height.
        min_score: predictions below are not drawn.
        class_names: names of the predictions' labels.

    Raises:
        ValueError: boxes are in another frame than the pose.
    """
    side = size_px * SUPERSAMPLING
    image = Image.new("RGB", (side, side), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    px_per_m = side / (2 * range_m)
    if lidar_points is not None:
        _draw_points(image, _to_picture(lidar_points[:, :2], side, px_per_m))
    for ring_m in range(_RING_STEP_M, math.ceil(range_m * math.sqrt(2)), _RING_STEP_M):
        box = [side / 2 + sign * ring_m * px_per_m for sign in (-1, -1, 1, 1)]
        draw.ellipse(box, outline=_RING_COLOUR, width=SUPERSAMPLING)
    nose = _to_picture(np.array([[3.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]), side, px_per_m)
    draw.polygon([tuple(p) for p in nose.tolist()], fill=(245, 245, 245))
    ego_from_fixed = fixed_from_ego.inverse
    # Turned into the vehicle's frame, in which ahead is up in the picture.
    chosen = predicted[predicted.scores >= min_score].transformed(ego_from_fixed)
    names = [class_names[int(label)] for label in chosen.labels]
    for (starts, ends), name in zip(_ground_lines(chosen), names, strict=True):
        starts, ends = (_to_picture(p, side, px_per_m) for p in (starts, ends))
        draw_lines(draw, starts, ends, class_colour(name), 2 * SUPERSAMPLING)
    if truth is not None:
        for starts, ends in _ground_lines(truth.transformed(ego_from_fixed)):
            starts, ends = (_to_picture(p, side, px_per_m) for p in (starts, ends))
            starts, ends = dash(starts, ends, 4.0 * SUPERSAMPLING, 3.0 * SUPERSAMPLING)
            draw_lines(draw, starts, ends, TRUTH_COLOUR, SUPERSAMPLING)
    out = image.reduce(SUPERSAMPLING)
    draw = ImageDraw.Draw(out)
    for ring_m in range(2 * _RING_STEP_M, int(range_m), 2 * _RING_STEP_M):
        at_px = size_px / 2 - ring_m * px_per_m / SUPERSAMPLING
        draw.text((size_px / 2 + 4, at_px), f"{ring_m} m", fill=(120, 130, 144), font=font(16))
    present = [name for name in class_names if name in names]
    entries: list[tuple[str, Colour]] = [
        (name.replace("_", " "), class_colour(name)) for name in reversed(present)
    ]
    if truth is not None:
        entries.insert(0, ("ground truth", TRUTH_COLOUR))
    draw_legend(out, entries, left_px=10, bottom_px=size_px - 10)
    return out


def _shown(frames: FrameSet) -> tuple[str, ...]:
    """Names of the cameras that have a tile, in their order."""
    names = tuple(view.calibration.name for view in frames.views)
    return CAMERAS if set(names) <= set(CAMERAS) else names


def _corners(boxes: Boxes3D) -> Array:
    """(N, 8, 3) in float64: far from the map's origin float32 is too coarse."""
    exact = replace(boxes, values=boxes.values.double())
    corners: Array = exact.corners().cpu().numpy()
    return corners


def _ground_lines(boxes: Boxes3D) -> Iterator[tuple[Array, Array]]:
    """Outline, heading and velocity of each box: starts and ends, metres."""
    for box, corners in zip(boxes.values.double().cpu().numpy(), _corners(boxes), strict=True):
        outline = corners[[0, 1, 5, 4], :2]
        front, center = outline[:2].mean(axis=0), box[:2]
        starts, ends = [*outline, center], [*np.roll(outline, -1, axis=0), front]
        velocity = box[7:9]
        speed = float(np.linalg.norm(velocity))
        if speed > 0.3:  # false where the velocity is unknown
            tip, way = front + velocity, velocity / speed
            across = np.array([-way[1], way[0]])
            starts += [front, tip, tip]
            ends += [tip, tip - 0.8 * way + 0.5 * across, tip - 0.8 * way - 0.5 * across]
        yield np.array(starts), np.array(ends)


def _to_picture(points: Array, side_px: float, px_per_m: float) -> Array:
    """(P, 2) metres ahead and left to (P, 2) pixels right and down."""
    return side_px / 2 - px_per_m * points[:, ::-1]


def _draw_points(image: Image.Image, pixels: Array) -> None:
    """Each point fills one pixel of the picture that results."""
    column, row = (np.floor(pixels / SUPERSAMPLING).astype(int) * SUPERSAMPLING).T
    inside = (column >= 0) & (row >= 0) & (column < image.width) & (row < image.height)
    canvas = np.array(image)
    for down, right in np.ndindex(SUPERSAMPLING, SUPERSAMPLING):
        canvas[row[inside] + down, column[inside] + right] = (96, 106, 122)
    image.paste(Image.fromarray(canvas))
