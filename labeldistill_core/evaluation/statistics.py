# SPDX-License-Identifier: Apache-2.0
"""What the annotations of a data root are like, in numbers that compare with those of another.

Bands are half open: a lower edge belongs to its band. Distances are those in the plane, from the
vehicle at the LiDAR scan. A box is outside every camera when neither its centre nor a corner falls
into an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import GroundTruth, SensorRecord
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.frames import Array
from labeldistill_core.options import ClassesOptions

# To the edge of the published grid, 51.2 m, beyond which no network here sees anything.
_DISTANCES_M = (0.0, 10.0, 20.0, 30.0, 40.0, 51.2)
# The first border above 0 is that at which `result_boxes` parts moving from standing.
_SPEEDS_M_S = (0.0, 0.2, 2.0, 5.0, 10.0, np.inf)
_SPEED_NAMES = ("standing", "0.2-2 m/s", "2-5 m/s", "5-10 m/s", "over 10 m/s")
_RETURNS = (0, 1, 6, np.inf)
_RETURN_NAMES = ("0", "1 to 5", "more")
_VISIBILITIES = ("v0-40", "v40-60", "v60-80", "v80-100")
_VEHICLES = ("car", "truck", "construction_vehicle", "bus", "trailer", "motorcycle", "bicycle")

Sections = dict[str, dict[str, float]]
"""Title to row to value; a value is NaN where there is nothing to measure."""


@dataclass(frozen=True)
class StatisticsOptions(ClassesOptions):
    """What a data root is compared with."""

    against: Path | None = None
    """A second data root, described beside the first."""
    against_version: str | None = None
    """Folder of the second data root's tables, when it has another name; of the first one, where
    no second is given."""


def statistics(dataroot: Path, options: StatisticsOptions) -> dict[str, Sections]:
    """Describe the annotations of a data root, and of another one; only the tables are read.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        options: what it is compared with.

    Returns:
        The numbers of each data root by its path, with the version where both are one.

    Raises:
        ConfigError: both are the same tables.
    """
    found = [options.tables(dataroot)]
    if options.against or options.against_version:
        version = options.against_version or options.version
        found.append(replace(options, version=version).tables(options.against or dataroot))
    names = [str(tables.dataroot) for tables in found]
    if len(set(names)) < len(names):
        names = [str(tables.dataroot / tables.version) for tables in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{names[0]} is compared with itself: give another --against-version")
    return {name: measure(tables) for name, tables in zip(names, found, strict=True)}


@dataclass(frozen=True, eq=False)
class _Boxes:
    """All boxes of all key frames, N of them."""

    labels: NDArray[np.int64]
    sizes_m: Array
    speeds_m_s: Array
    distances_m: Array
    returns: NDArray[np.int64]
    outside: NDArray[np.bool_]
    visibility: NDArray[np.str_]

    @classmethod
    def read(cls, truth: GroundTruth, cameras: list[SensorRecord]) -> _Boxes:
        values = truth.boxes.values.numpy()
        return cls(
            truth.boxes.labels.numpy(),
            values[:, 3:6],
            np.hypot(values[:, 7], values[:, 8]),
            np.hypot(*(values[:, :2] - truth.fixed_from_ego.translation[:2]).T),
            np.array(truth.num_lidar_pts, dtype=np.int64),
            _outside(truth.boxes, cameras),
            np.array(truth.visibility, dtype=np.str_),
        )


def _outside(boxes: Boxes3D, cameras: list[SensorRecord]) -> NDArray[np.bool_]:
    # Corners and centre: a box that fills an image may have no corner in it.
    points = np.concatenate([boxes.corners().numpy(), boxes.centers.numpy()[:, None]], axis=1)
    outside = np.ones(len(points), bool)
    for camera in cameras:
        calibration = camera.calibration
        camera_from_map = (camera.fixed_from_ego @ calibration.ego_from_camera).inverse
        u, v, depth = calibration.project(camera_from_map.apply(points.reshape(-1, 3))).T
        # Corners in the plane of the camera or behind it have no pixel.
        seen = (depth > 0.1) & (u >= 0) & (u < calibration.width_px)
        seen &= (v >= 0) & (v < calibration.height_px)
        outside &= ~seen.reshape(points.shape[:2]).any(axis=1)
    return outside


def measure(tables: NuScenesTables) -> Sections:
    """Statistics over all scenes of a data root.

    Raises:
        DataError: the tables have no box of the classes.
    """
    tokens = [token for scene in tables.scene_names for token in tables.samples(scene)]
    parts = [
        _Boxes.read(tables.ground_truth(token), list(tables.cameras(token).values()))
        for token in tokens
    ]
    if not parts:
        raise DataError(f"{tables.dataroot / tables.version} has no key frames")
    names = _Boxes.__dataclass_fields__
    boxes = _Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    if not len(boxes.labels):
        raise DataError(f"{tables.dataroot / tables.version} has no boxes of the classes")
    classes = tables.class_list.names
    label = {name: boxes.labels == i for i, name in enumerate(classes)}
    vehicles = [i for i, name in enumerate(classes) if name in _VEHICLES]
    # Data sets without the table have no level; they would lower every share.
    known = boxes.visibility != ""
    sections: Sections = {
        "all": {
            "key frames": len(tokens),
            "boxes": len(boxes.labels),
            "boxes per key frame": len(boxes.labels) / len(tokens),
            "% outside every camera": _percent(boxes.outside),
        },
        "% of boxes by visibility": {
            name: _percent(boxes.visibility[known] == name) for name in _VISIBILITIES
        },
        "% of boxes by class": {name: _percent(label[name]) for name in classes},
    }
    for axis, side in enumerate(("length", "width", "height")):
        sections[f"mean {side}, m"] = {
            name: _mean(boxes.sizes_m[label[name], axis]) for name in classes
        }
    moving = {"vehicles": np.isin(boxes.labels, vehicles)} if vehicles else {}
    if "pedestrian" in label:
        moving["pedestrians"] = label["pedestrian"]
    # Classes of other names stand by themselves, since nobody knows which of them are alike.
    moving |= {name: chosen for name, chosen in label.items() if name not in CLASSES}
    for group, chosen in moving.items():
        speeds = boxes.speeds_m_s[chosen]
        # A speed is NaN where an object was seen once.
        shares = _bands(speeds[np.isfinite(speeds)], _SPEEDS_M_S)
        sections[f"% of {group} by speed"] = dict(zip(_SPEED_NAMES, shares, strict=True))
    for low, high in zip(_DISTANCES_M, _DISTANCES_M[1:], strict=False):
        near = (boxes.distances_m >= low) & (boxes.distances_m < high)
        returns = boxes.returns[near & (boxes.returns >= 0)]  # -1 is unknown
        title = f"{low:g} to {high:g} m"
        sections[title] = {"boxes per key frame": float(near.sum()) / len(tokens)} | {
            f"% with {name} LiDAR returns": share
            for name, share in zip(_RETURN_NAMES, _bands(returns, _RETURNS), strict=True)
        }
    return sections


def _percent(mask: NDArray[np.bool_]) -> float:
    return _mean(100.0 * mask)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _bands(values: Array | NDArray[np.int64], edges: tuple[float, ...]) -> list[float]:
    """Percentage of values in each band."""
    index = np.digitize(values, edges) - 1
    return [_percent(index == i) for i in range(len(edges) - 1)]


def table(names: list[str], columns: list[Sections]) -> str:
    """Markdown table of several roots' statistics, a column each."""
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for title, rows in columns[0].items():
        lines.append(f"| **{title}** |" + " |" * len(names))
        for row in rows:
            values = " | ".join(_text(column[title][row]) for column in columns)
            lines.append(f"| {row} | {values} |")
    return "\n".join(lines)


def _text(value: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.0f}" if value == round(value) and value > 100 else f"{value:.2f}"
