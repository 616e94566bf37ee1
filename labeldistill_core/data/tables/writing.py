# SPDX-License-Identifier: Apache-2.0
"""Tables in nuScenes form: the rows of one scene.

Scenes are written one by one, by several processes or in several calls. Their rows wait as parts,
files of JSON, until the folder of a version is made of them, see `version_folder`.

Source: nuScenes, "Database schema".
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from labeldistill_core.errors import DataError
from labeldistill_core.files import write_whole
from labeldistill_core.frames import Array, Transform

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""Rows by the name of their table."""

OF_A_SCENE = (
    "scene", "log", "map", "sample", "sample_data", "ego_pose", "calibrated_sensor", "instance",
    "sample_annotation",
)  # fmt: skip
"""Tables whose rows belong to one scene each."""
OF_ALL = ("sensor", "category", "attribute", "visibility")
"""Tables that scenes share: a row that several of them have is written once."""


def token(*parts: object) -> str:
    """Identifier of 32 hexadecimal digits, the same for the same parts."""
    # Not for security: tokens of nuScenes are 32 hexadecimal digits, which is what MD5 gives.
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


class SceneRows:
    """Grows by what is recorded, and links it in the order of time in the end."""

    def __init__(self, name: str, *seed: object) -> None:
        """Without rows.

        Args:
            name: of the scene.
            seed: tells its tokens from those of another scene of this name.
        """
        self.name, self._seed = name, seed
        self.tables: Rows = {table: [] for table in (*OF_A_SCENE, *OF_ALL)}

    def token(self, *parts: object) -> str:
        """Identifier of something in this scene."""
        return token(*self._seed, self.name, *parts)

    def describe(self, samples: Sequence[str], map_file: str, **about: str) -> None:
        """Add the scene with its log and its map.

        Args:
            samples: their tokens, in the order of time.
            map_file: path of a mask below the data root.
            about: description, vehicle, date_captured, location; empty where it is not told.
        """
        log = self.token("log")
        told = {k: about.get(k, "") for k in ("vehicle", "date_captured", "location")}
        self.tables["log"].append({"token": log, "logfile": self.name, **told})
        self.tables["scene"].append(
            {
                "token": self.token("scene"),
                "name": self.name,
                "description": about.get("description", ""),
                "log_token": log,
                "nbr_samples": len(samples),
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
            }
        )
        self.tables["map"].append(
            {
                "token": self.token("map"),
                "category": "semantic_prior",
                "filename": map_file,
                "log_tokens": [log],
            }
        )

    def mount(self, sensor: str, ego_from_sensor: Transform, intrinsics_px: Array | None) -> None:
        """Add the calibration of a sensor, a camera's with its matrix."""
        self.tables["calibrated_sensor"].append(
            {
                "token": self.token("calibration", sensor),
                "sensor_token": token("sensor", sensor),
                "translation": ego_from_sensor.translation.tolist(),
                "rotation": ego_from_sensor.quaternion.tolist(),
                "camera_intrinsic": [] if intrinsics_px is None else intrinsics_px.tolist(),
            }
        )

    def add_samples(self, stamps_us: Iterable[int]) -> list[str]:
        """Add the samples, and return their tokens."""
        stamps = list(stamps_us)
        tokens = [self.token("sample", k) for k in range(len(stamps))]
        for stamp_us, own in zip(stamps, tokens, strict=True):
            scene = self.token("scene")
            row = {
                "token": own,
                "timestamp": stamp_us,
                "scene_token": scene,
                "prev": "",
                "next": "",
            }
            self.tables["sample"].append(row)
        chain(self.tables["sample"])
        return tokens

    def add_file(
        self,
        sensor: str,
        sample: str,
        stamp_us: int,
        fixed_from_ego: Transform,
        filename: str,
        *,
        is_key: bool,
        size_px: tuple[int, int] = (0, 0),
    ) -> None:
        """Add a sensor's file and where the vehicle was.

        Args:
            sensor: its channel.
            sample: token of the sample that it belongs to.
            stamp_us: of its exposure.
            fixed_from_ego: pose of the vehicle at that time.
            filename: below the data root.
            is_key: whether it is the sample's own.
            size_px: width and height of an image.
        """
        # One ego pose for each sensor frame, under the same token, as nuScenes has it.
        identity = self.token("sample_data", sensor, stamp_us)
        self.tables["ego_pose"].append(
            {
                "token": identity,
                "timestamp": stamp_us,
                "rotation": fixed_from_ego.quaternion.tolist(),
                "translation": fixed_from_ego.translation.tolist(),
            }
        )
        self.tables["sample_data"].append(
            {
                "token": identity,
                "sample_token": sample,
                "ego_pose_token": identity,
                "calibrated_sensor_token": self.token("calibration", sensor),
                "timestamp": stamp_us,
                "fileformat": filename.rpartition("/")[2].split(".")[1],
                "is_key_frame": is_key,
                "height": size_px[1],
                "width": size_px[0],
                "filename": filename,
                "prev": "",
                "next": "",
            }
        )

    def link_data(self) -> None:
        """Chain the files of each sensor in the order of time."""
        for rows in _grouped(self.tables["sample_data"], "calibrated_sensor_token").values():
            chain(rows)

    def link_annotations(self, categories: Mapping[str, str]) -> None:
        """Chain the boxes of each instance, which stand in the order of time, and add it.

        Args:
            categories: token of its category by that of the instance, in the order of the table;
                instances without a box are left out.
        """
        by_instance = _grouped(self.tables["sample_annotation"], "instance_token")
        for identity, category in categories.items():
            if not (rows := by_instance.get(identity)):
                continue
            chain(rows)
            self.tables["instance"].append(
                {
                    "token": identity,
                    "category_token": category,
                    "nbr_annotations": len(rows),
                    "first_annotation_token": rows[0]["token"],
                    "last_annotation_token": rows[-1]["token"],
                }
            )


def sensor_row(channel: str, modality: str) -> Row:
    """A camera, LiDAR or radar by name."""
    return {"token": token("sensor", channel), "channel": channel, "modality": modality}


def visibility_rows() -> list[Row]:
    """NuScenes' four levels of how much of an object the cameras see."""
    return [
        {"token": key, "level": level, "description": f"visibility {level[1:]} %"}
        for key, level in {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}.items()
    ]


def chain(rows: list[Row]) -> None:
    """Link rows by `prev` and `next`, in the order of their time where they have one."""
    rows.sort(key=lambda row: row.get("timestamp", 0))
    for before, after in zip(rows, rows[1:], strict=False):
        before["next"], after["prev"] = after["token"], before["token"]


def blank_map(root: Path) -> str:
    """Write a mask of nothing, which nuScenes' devkit wants of every log; returns its path."""
    name = "maps/blank.png"
    if not (root / name).is_file():
        png = io.BytesIO()
        Image.new("1", (1, 1)).save(png, "PNG")
        write_whole(root / name, png.getvalue())
    return name


def write_part(path: Path, part: Any) -> None:
    """Write the rows of a scene, which is whole when the file is there.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, json.dumps(part).encode())


def read_part(path: Path) -> dict[str, Any]:
    """What `write_part` wrote.

    Raises:
        DataError: the file is damaged.
    """
    try:
        part = json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        raise damaged_part(path) from error
    if not isinstance(part, dict):
        raise damaged_part(path)
    return part


def read_rows(path: Path) -> Rows:
    """The rows of a scene that were written as a part.

    Raises:
        DataError: the file is damaged.
    """
    part = read_part(path)
    if not are_rows(part):
        raise damaged_part(path)
    return part


def are_rows(content: Any) -> bool:
    """Whether something read from a part is rows of known tables, each with its token."""
    return isinstance(content, dict) and all(
        name in (*OF_A_SCENE, *OF_ALL)
        and isinstance(rows, list)
        and all(isinstance(row, dict) and isinstance(row.get("token"), str) for row in rows)
        for name, rows in content.items()
    )


def damaged_part(path: Path) -> DataError:
    """The error that a part is not what was written."""
    return DataError(f"{path} is damaged: remove it, and repeat the command that wrote it")


def _grouped(rows: Iterable[Row], field: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[field], []).append(row)
    return groups
