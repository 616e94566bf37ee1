# SPDX-License-Identifier: Apache-2.0
"""Clouds of points as files of scans: x, y, z, intensity, ring, five float32 a point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.names import shown

_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""numpy's names by the constants of sensor_msgs/PointField."""
_INTENSITY = ("intensity", "intensities", "i", "reflectivity")
_RING = ("ring", "channel", "ring_id", "line")
_WHOLE_ROW = "<f4"

Points = NDArray[np.float32]


def scan_points(message: Any) -> Points:
    """(P, 5) x, y, z in metres in the sensor's frame, intensity and ring; zeros where not told.

    Points without a place, as drivers write those without an echo, are left out.

    Args:
        message: `sensor_msgs/PointCloud2` of any family.

    Raises:
        DataError: it has no x, y, z, too few bytes, or a field of no known type.
    """
    fields = {f.name: f for f in message.fields}
    if not {"x", "y", "z"} <= fields.keys():
        raise DataError("its points have no x, y, z")
    count, step = int(message.width) * int(message.height), int(message.point_step)
    data = np.frombuffer(message.data, np.uint8)
    width, row_step = int(message.width), int(message.row_step)
    if message.height > 1 and row_step > width * step:  # rows may be padded
        if data.size < int(message.height) * row_step:
            raise DataError(
                f"{message.height} rows of {row_step} bytes need more than its {data.size} bytes"
            )
        rows = data[: int(message.height) * row_step].reshape(int(message.height), row_step)
        data = np.ascontiguousarray(rows[:, : width * step]).reshape(-1)
    if step <= 0 or data.size < count * step:
        raise DataError(f"{count} points of {step} bytes need more than its {data.size} bytes")
    if not count:  # nor is a step checked that no point has
        return np.zeros((0, 5), np.float32)
    names = ["x", "y", "z", _first(fields, _INTENSITY), _first(fields, _RING)]
    order = ">" if message.is_bigendian else "<"
    # nuScenes' scans are float32 throughout, so what is rounded here is rounded there, too.
    points = np.zeros((count, 5), np.float32)
    with np.errstate(over="ignore"):  # a float64 that is none of float32 becomes infinite
        for column, name in enumerate(names):
            if name:
                points[:, column] = _column(data, fields[name], count, step, order)
    whole = np.isfinite(points[:, :3]).all(axis=1)
    # A teacher learns of all five: one NaN would reach every weight.
    points[~np.isfinite(points)] = 0.0
    return points if whole.all() else points[whole]


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if name in fields), "")


def _column(data: NDArray[np.uint8], about: Any, count: int, step: int, order: str) -> NDArray[Any]:
    kind = _KINDS.get(int(about.datatype))
    if kind is None or about.offset + np.dtype(kind).itemsize > step:
        raise DataError(f"its field {shown(about.name)} has no known type or leaves its point")
    layout = np.dtype(
        {"names": ["v"], "formats": [order + kind], "offsets": [about.offset], "itemsize": step}
    )
    return np.asarray(np.frombuffer(data, layout, count)["v"])


def radar_file(message: Any) -> bytes:
    """The points of a radar as a binary PCD file, as nuScenes' devkit reads it.

    Args:
        message: `sensor_msgs/PointCloud2` with the fields of nuScenes' radars.

    Raises:
        DataError: it has too few bytes, or a field of no known type.
    """
    fields, step = list(message.fields), int(message.point_step)
    count = int(message.width) * int(message.height)
    data = np.frombuffer(message.data, np.uint8)
    if step <= 0 or data.size < count * step:
        raise DataError(f"{count} points of {step} bytes need more than its {data.size} bytes")
    kinds = [_KINDS.get(int(f.datatype), "") for f in fields]
    if "" in kinds:
        raise DataError(f"its field {fields[kinds.index('')].name!r} has no known type")
    # One point at least: the devkit cannot read a file of none.
    rows = np.zeros(max(count, 1), [(f.name, f"<{k}") for f, k in zip(fields, kinds, strict=True)])
    order = ">" if message.is_bigendian else "<"
    for about in fields:
        if count:
            rows[about.name] = _column(data, about, count, step, order)
        elif rows[about.name].dtype.kind == "f":
            rows[about.name] = np.nan  # how nuScenes says that there was no echo
    ones = " ".join("1" for _ in fields)
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {' '.join(f.name for f in fields)}\n"
        f"SIZE {' '.join(kind[1] for kind in kinds)}\n"
        f"TYPE {' '.join(kind[0].upper() for kind in kinds)}\n"
        f"COUNT {ones}\nWIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(rows)}\nDATA binary\n"
    )
    # The devkit takes a file for cut off that ends with its last point.
    return head.encode() + rows.tobytes() + b"\n"


def moved(points: Points, target_from_source: Transform) -> Points:
    """The points in another frame."""
    out = points.copy()
    out[:, :3] = target_from_source.apply(points[:, :3])
    return out
