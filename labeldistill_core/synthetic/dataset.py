# SPDX-License-Identifier: Apache-2.0
"""Scenes in parallel, and the thirteen tables that make them a nuScenes data root."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
import tyro
from tqdm import tqdm
from tyro.constructors import PrimitiveConstructorSpec

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.classes import NUSCENES
from labeldistill_core.data.tables.version_folder import refuse_labelled, write_version
from labeldistill_core.data.tables.writing import (
    Rows,
    read_part,
    read_rows,
    sensor_row,
    token,
    visibility_rows,
    write_part,
)
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.files import sole_user
from labeldistill_core.names import plain_text
from labeldistill_core.processes import worker_count, worker_pool
from labeldistill_core.synthetic.driven import SceneSettings, Sweeps
from labeldistill_core.synthetic.recording import record_scene
from labeldistill_core.synthetic.rig import LARGEST_PX, LIDAR, load_rig

_LOG = logging.getLogger(__name__)

_MINI, _FULL = "v1.0-mini", "v1.0-trainval"
_PARTS, _SETTINGS = ".scenes", "settings.json"

_ATTRIBUTES = (
    "vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider",
    "cycle.without_rider", "pedestrian.sitting_lying_down", "pedestrian.standing",
    "pedestrian.moving",
)  # fmt: skip
_CATEGORIES: dict[str, str] = {}
for _category, _class in sorted(NUSCENES.class_of.items()):
    _CATEGORIES.setdefault(_class, _category)
_CATEGORIES["bus"] = "vehicle.bus.rigid"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    sides = [int(side) for side in (width, height) if side.isascii() and side.isdigit()]
    if len(sides) < 2 or not all(32 <= side <= LARGEST_PX for side in sides):
        raise ConfigError(
            f"image size {text!r}: write width x height in pixels, like 400x225, of 32 to "
            f"{LARGEST_PX}"
        )
    return sides[0], sides[1]


_SIZE = PrimitiveConstructorSpec(
    nargs=1,
    metavar="WIDTHxHEIGHT",
    instance_from_str=lambda words: _size(words[0]),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda size: ["{}x{}".format(*size)],
)
"""How a size is written on the command line."""


@dataclass(frozen=True)
class WorldOptions:
    """What is written of a synthetic world."""

    scenes: int = 10
    """Number of scenes; up to 10 become v1.0-mini, more v1.0-trainval (at most 850)."""
    key_frames: int = 40
    """Key frames of each scene, two a second."""
    seed: int = 0
    """Another one gives another world; the same one gives the same bytes."""
    image_size_px: Annotated[tuple[int, int], tyro.conf.arg(name="image-size"), _SIZE] = (400, 225)
    """Width x height of the images in pixels."""
    rig: Path | None = None
    """YAML file of the vehicle's cameras and LiDAR, whose image sizes then count; nuScenes' rig
    without it. `config/rigs` has an example."""
    sweeps: Sweeps = "none"
    """Sensors whose frames between key frames are written too: none, the LiDAR (20 Hz), or all
    (cameras 12 Hz)."""
    workers: int = 0
    """Processes that write scenes; one a core when 0."""

    def __post_init__(self) -> None:
        """Refuse what makes no scene."""
        if self.key_frames < 1:
            raise ConfigError(f"key_frames is {self.key_frames}: a scene needs at least one")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: use 0 or more")


def write_dataset(out: Path, options: WorldOptions) -> str:
    """Write driving scenes of a synthetic world as a nuScenes data root.

    A call that was cut off goes on where it stopped when it is repeated.

    Args:
        out: folder for the data root.
        options: what is written.

    Returns:
        The version: the name of the folder with the tables.

    Raises:
        ConfigError: a number is out of range, or another process writes to the folder.
        DataError: the folder holds a data root of other settings, or one that is damaged.
    """
    version, settings = scene_settings(options)
    refusal = f"another process writes to {out}: wait for its end, or use another folder"
    _refuse_others(out)
    with sole_user(out / _PARTS / "lock", refusal):
        _claim(out, settings[0])
        refuse_labelled(out / version)
        todo = [s for s in settings if not _part(out, s).exists()]
        if len(todo) < len(settings):
            _LOG.info("%d of %d scenes are there already", len(settings) - len(todo), len(settings))
        workers = worker_count(options.workers)
        for _ in tqdm(_each(todo, out, workers), total=len(todo), unit="scene", disable=None):
            pass
        parts = (read_rows(_part(out, s)) for s in settings)
        rig = settings[0].rig
        cameras = [camera.name for camera in rig.cameras] if rig else CAMERAS
        write_version(out / version, chain(parts, [_shared_rows(cameras)]))
    return version


def scene_settings(options: WorldOptions) -> tuple[str, list[SceneSettings]]:
    """Version and settings of each scene.

    Raises:
        ConfigError: a number is out of range, or the rig is none.
    """
    version, names = scene_names(options.scenes)
    rig = load_rig(options.rig) if options.rig else None
    template = SceneSettings(
        "", 0, options.seed, options.key_frames, options.image_size_px, options.sweeps, rig
    )
    return version, [replace(template, name=name, index=_number(name)) for name in names]


def scene_names(count: int) -> tuple[str, list[str]]:
    """Version and names for a number of scenes: about a sixth for validation.

    Raises:
        ConfigError: more scenes than nuScenes has names.
    """
    from nuscenes.utils.splits import mini_train, mini_val, train, val

    version, first, second = (_MINI, mini_train, mini_val) if count <= 10 else (_FULL, train, val)
    if not 1 <= count <= len(first) + len(second):
        raise ConfigError(f"scenes is {count}: 1 to {len(train) + len(val)} can be named")
    validation = max(round(count * len(second) / (len(first) + len(second))), int(count > 1))
    return version, [*first[: count - validation], *second[:validation]]


def _number(name: str) -> int:
    """The same for a scene in data sets of any size; the mini scenes come first."""
    from nuscenes.utils.splits import mini_train, mini_val, train, val

    order = list(dict.fromkeys([*mini_train, *mini_val, *train, *val]))
    return int(order.index(name))


def _refuse_others(out: Path) -> None:
    """Refuse a folder that something else made."""
    if out.exists() and not (out / _PARTS).is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and no synthetic data root: use another folder")


def _claim(out: Path, template: SceneSettings) -> None:
    """Refuse to mix scenes of different settings in one folder."""
    # Through JSON and back, so that tuples compare equal to the lists in the file.
    wanted = json.loads(told_settings(template))
    file = out / _PARTS / _SETTINGS
    scenes = [part for part in (out / _PARTS).glob("*.json") if part.name != _SETTINGS]
    others = [path for path in out.iterdir() if path.name != _PARTS]
    # A call that has not begun a scene leaves its settings alone, which then bind nobody.
    if file.exists() and (scenes or others):
        try:
            found = read_part(file)
        except DataError as error:
            raise DataError(
                f"{file} is damaged, so that nobody knows of which settings the scenes are: use "
                "another folder"
            ) from error
        if found != wanted:
            raise DataError(
                f"{out} holds scenes of other settings ({plain_text(str(found), 500)}): use "
                "another folder"
            )
    elif scenes or others:
        raise DataError(f"{out} is not empty and no synthetic data root: use another folder")
    write_part(file, wanted)


def told_settings(settings: SceneSettings) -> str:
    """Settings that all scenes of a data set share, as JSON."""
    about = {k: v for k, v in asdict(settings).items() if k not in ("name", "index")}
    if settings.rig is None:
        del about["rig"]
    return msgspec.json.encode(about).decode()


def _part(out: Path, settings: SceneSettings) -> Path:
    return out / _PARTS / f"{settings.name}.json"


def _make_scene(settings: SceneSettings, out: Path) -> None:
    """A scene counts as written once its rows are there, which come last."""
    write_part(_part(out, settings), record_scene(settings, out))


def _each(todo: list[SceneSettings], out: Path, workers: int) -> Iterator[None]:
    if workers <= 1:
        for settings in todo:
            _make_scene(settings, out)
            yield
        return
    # Spawned, since a fork would copy the threads' locks of whoever calls.
    with worker_pool(workers, "spawn") as pool:
        futures = [pool.submit(_make_scene, settings, out) for settings in todo]
        for future in as_completed(futures):
            yield future.result()


def _shared_rows(cameras: Sequence[str]) -> Rows:
    return {
        "sensor": [
            sensor_row(name, "lidar" if name == LIDAR else "camera") for name in (*cameras, LIDAR)
        ],
        "category": [
            {"token": token("category", name), "name": category, "description": "", "index": i}
            for i, (name, category) in enumerate(_CATEGORIES.items())
        ],
        "attribute": [
            {"token": token("attribute", name), "name": name, "description": ""}
            for name in _ATTRIBUTES
        ],
        "visibility": visibility_rows(),
    }
