# SPDX-License-Identifier: Apache-2.0
"""Tables as large as those of v1.0-trainval, without any image: 2.4 GB of JSON."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from PIL import Image

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.classes import NUSCENES

VERSION = "v1.0-trainval"
RADARS = (
    "RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT",
)  # fmt: skip
_SENSORS = {name: ("camera", 12, "jpg") for name in CAMERAS}
_SENSORS |= {"LIDAR_TOP": ("lidar", 20, "pcd.bin")}
_SENSORS |= {name: ("radar", 13, "pcd") for name in RADARS}
"""Modality, files a second and ending by channel: 157 files a second."""
_START_US = 1_531_883_530_000_000
_SAMPLE_US = 500_000
_LEVELS = ("v0-40", "v40-60", "v60-80", "v80-100")
_ATTRIBUTES = ("vehicle.moving", "vehicle.parked", "pedestrian.moving", "cycle.with_rider")


class _Tables:
    """Open files, each a list of records, written as the published tables are."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder, self._files = folder, files
        self._open: dict[str, IO[str]] = {}

    def add(self, table: str, **fields: str) -> None:
        """A record, whose values are JSON already."""
        file = self._open.get(table)
        if file is None:
            file = self._files.enter_context((self._folder / f"{table}.json").open("w"))
            self._open[table] = file
        file.write("[\n{" if file.tell() == 0 else ",\n{")
        file.write(",".join(f'\n"{name}": {value}' for name, value in fields.items()) + "\n}")

    def close(self) -> None:
        """End the lists."""
        for file in self._open.values():
            file.write("\n]")


def write_tables(root: Path, scenes: int = 850, samples: int = 40, boxes: int = 34) -> None:
    """Write a data root of tables.

    Args:
        root: folder to write into.
        scenes: how many.
        samples: of a scene, half a second apart.
        boxes: of a sample.
    """
    rng = random.Random(0)
    # Whole or not at all, as a later call takes what is there.
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    folder = partial / VERSION
    folder.mkdir(parents=True)
    (partial / "maps").mkdir()
    Image.new("L", (10, 10)).save(partial / "maps/map.png")
    with ExitStack() as files:
        tables = _Tables(folder, files)
        categories = _small_tables(tables, rng)
        for scene in range(scenes):
            _scene(tables, rng, scene, samples, boxes, categories)
        tables.close()
    partial.rename(root)


def _token(rng: random.Random) -> str:
    return f'"{rng.getrandbits(128):032x}"'


def _chain(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each token with the one before and the one after it."""
    yield from zip(tokens, ['""', *tokens], [*tokens[1:], '""'], strict=False)


def _small_tables(tables: _Tables, rng: random.Random) -> list[str]:
    for name, (modality, _, _) in _SENSORS.items():
        tables.add("sensor", token=f'"{name}"', channel=f'"{name}"', modality=f'"{modality}"')
    for row, level in enumerate(_LEVELS):
        tables.add("visibility", token=f'"{row + 1}"', level=f'"{level}"', description='""')
    for name in _ATTRIBUTES:
        tables.add("attribute", token=f'"{name}"', name=f'"{name}"', description='""')
    tables.add(
        "log", token='"log"', logfile='""', vehicle='"n015"', date_captured='"2018-07-18"',
        location='"singapore-onenorth"',
    )  # fmt: skip
    tables.add(
        "map", token='"map"', category='"semantic_prior"', filename='"maps/map.png"',
        log_tokens='["log"]',
    )  # fmt: skip
    categories = []
    for name in sorted(NUSCENES.class_of):
        categories.append(_token(rng))
        tables.add("category", token=categories[-1], name=f'"{name}"', description='""')
    return categories


def _scene(
    tables: _Tables, rng: random.Random, scene: int, samples: int, boxes: int, categories: list[str]
) -> None:
    # Scenes are 100 s apart, so that no sample of one is near one of another.
    start_us = _START_US + scene * 100_000_000
    tokens, scene_token = [_token(rng) for _ in range(samples)], _token(rng)
    tables.add(
        "scene", token=scene_token, log_token='"log"', name=f'"scene-{scene:04d}"',
        nbr_samples=str(samples), first_sample_token=tokens[0], last_sample_token=tokens[-1],
        description='"Straight on"',
    )  # fmt: skip
    for row, (token, prev, next_) in enumerate(_chain(tokens)):
        tables.add(
            "sample", token=token, timestamp=str(start_us + row * _SAMPLE_US), prev=prev,
            next=next_, scene_token=scene_token,
        )  # fmt: skip
    for channel in _SENSORS:
        _sensor(tables, rng, channel, start_us, scene_token, tokens)
    _boxes(tables, rng, tokens, boxes, categories)


def _sensor(
    tables: _Tables, rng: random.Random, channel: str, start_us: int, log: str, samples: list[str]
) -> None:
    modality, rate, suffix = _SENSORS[channel]
    camera, mounting = modality == "camera", _token(rng)
    matrix = f"[[1266.{rng.randrange(10**9)}, 0.0, 816.2], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]"
    tables.add(
        "calibrated_sensor", token=mounting, sensor_token=f'"{channel}"',
        translation=f"[{rng.random()}, {rng.random()}, 1.5]", rotation=_rotation(rng),
        camera_intrinsic=matrix if camera else "[]",
    )  # fmt: skip
    count = len(samples) * rate // 2
    # Samples are half a second apart; the file next in time is the sample's key frame.
    keys = {round(row * rate / 2) for row in range(len(samples))}
    folder = f"{channel}/n015-2018-07-18-11-07-57+0800-{log[1:9]}__{channel}"
    tokens = [_token(rng) for _ in range(count)]
    for row, (token, prev, next_) in enumerate(_chain(tokens)):
        stamp_us = start_us + row * 1_000_000 // rate + rng.randrange(1000)
        is_key, sample = row in keys, samples[min(row * 2 // rate, len(samples) - 1)]
        tables.add(
            "ego_pose", token=token, timestamp=str(stamp_us), rotation=_rotation(rng),
            translation=f"[{600 + rng.random()}, {1600 + rng.random()}, 0.0]",
        )  # fmt: skip
        tables.add(
            "sample_data", token=token, sample_token=sample,
            ego_pose_token=token, calibrated_sensor_token=mounting, timestamp=str(stamp_us),
            fileformat=f'"{suffix[:3]}"', is_key_frame="true" if is_key else "false",
            height="900" if camera else "0", width="1600" if camera else "0",
            filename=f'"{"samples" if is_key else "sweeps"}/{folder}__{stamp_us}.{suffix}"',
            prev=prev, next=next_,
        )  # fmt: skip


def _boxes(
    tables: _Tables, rng: random.Random, samples: list[str], boxes: int, categories: list[str]
) -> None:
    for _ in range(boxes):
        instance, tokens = _token(rng), [_token(rng) for _ in samples]
        # a few classes are frequent, as in nuScenes
        category = categories[min(int(rng.expovariate(0.3)), len(categories) - 1)]
        tables.add(
            "instance", token=instance, category_token=category, nbr_annotations=str(len(tokens)),
            first_annotation_token=tokens[0], last_annotation_token=tokens[-1],
        )  # fmt: skip
        x, y = 600 + 80 * rng.random(), 1600 + 80 * rng.random()
        size = f"[{1 + rng.random():.3f}, {4 + rng.random():.3f}, {1 + rng.random():.3f}]"
        rotation = _rotation(rng)
        for sample, (token, prev, next_) in zip(samples, _chain(tokens), strict=True):
            x, y = x + rng.random(), y + rng.random()
            tables.add(
                "sample_annotation", token=token, sample_token=sample, instance_token=instance,
                visibility_token=f'"{rng.randrange(1, 5)}"',
                attribute_tokens=f'["{rng.choice(_ATTRIBUTES)}"]',
                translation=f"[{x:.3f}, {y:.3f}, 1.2]", size=size, rotation=rotation, prev=prev,
                next=next_, num_lidar_pts=str(rng.randrange(40)),
                num_radar_pts=str(rng.randrange(3)),
            )  # fmt: skip


def _rotation(rng: random.Random) -> str:
    half = math.pi * rng.random()
    return f"[{math.cos(half)}, 0.0, 0.0, {math.sin(half)}]"
