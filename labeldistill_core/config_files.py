# SPDX-License-Identifier: Apache-2.0
"""A configuration of one's own, as a YAML or JSON file.

The file holds a whole preset. Classes and cameras stand in it once, in lists of their own; what
follows from them is left out of the networks' parts and filled in when the file is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeldistill_core.checkpoints import kind_of, read_checkpoint
from labeldistill_core.classes import NUSCENES, ClassList, ObjectClass
from labeldistill_core.config_json import from_mapping, refuse_unknown_keys, to_mapping
from labeldistill_core.config_text import commented
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.files import TEXT_BYTES, read_bounded
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.names import plain_text
from labeldistill_core.presets import Preset, find_preset
from labeldistill_core.runtime.onnx_engine import OnnxEngine
from labeldistill_core.yaml_text import parsed_yaml

FOLLOWS = {
    "student.cameras": "cameras",
    "student.head.tasks": "classes",
    "student.head.classes": "classes",
    "student.decode.nms_radius_m2": "classes",
    "teacher.head.tasks": "classes",
    "teacher.head.classes": "classes",
    "teacher.decode.nms_radius_m2": "classes",
    "label_encoder.tasks": "classes",
    "label_encoder.classes": "classes",
    "label_encoder.channels": "teacher.second_channels",
}
"""Fields of a preset that a file leaves out, and what they follow from."""


@dataclass(frozen=True)
class ClassEntry(ObjectClass):
    """A class in a configuration file."""

    task: int
    """Number of the group of the head that the class belongs to, from 0; classes of like shape and
    size share one."""
    nms_radius_m2: float
    """Squared distance of centres in square metres within which a better box of the same task drops
    a weaker one; the same for all classes of a task."""


@dataclass(frozen=True)
class Lists:
    """What a file says once for all networks."""

    cameras: tuple[str, ...]
    """Names of the cameras, in the order of the network's input."""
    classes: tuple[ClassEntry, ...]
    """Classes of objects, in the order of their labels in the ground truth."""

    @classmethod
    def of(cls, preset: Preset) -> Lists:
        """Those of a preset."""
        head, radii = preset.student.head, preset.student.decode.nms_radius_m2
        task_of = {name: number for number, task in enumerate(head.tasks) for name in task}
        return cls(
            preset.student.cameras,
            tuple(
                ClassEntry(
                    one.name,
                    one.categories,
                    one.range_m,
                    task_of[one.name],
                    radii[task_of[one.name]],
                )
                for one in head.classes
            ),
        )

    def __post_init__(self) -> None:
        """Check names, that tasks are numbered, and that each has one radius."""
        ClassList(self.classes)
        for name in self.cameras:
            # ROS names topics by them, in small letters.
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ConfigError(
                    f"cameras: the name {name!r} must be of letters, digits and _, a letter first"
                )
        if len({name.lower() for name in self.cameras}) < len(self.cameras):
            raise ConfigError(
                f"cameras: {', '.join(self.cameras)} must differ by more than large and small "
                "letters"
            )
        numbers = {one.task for one in self.classes}
        if numbers != set(range(len(numbers))):
            raise ConfigError(
                f"classes: the tasks are {sorted(numbers)}: number them from 0 without gaps"
            )
        for task in sorted(numbers):
            radii = {one.name: one.nms_radius_m2 for one in self.classes if one.task == task}
            if len(set(radii.values())) > 1:
                told = ", ".join(f"{name} {radius:g}" for name, radius in radii.items())
                raise ConfigError(
                    f"classes: nms_radius_m2 differs within task {task} ({told}): give all of a "
                    "task the same"
                )

    def filled_in(self) -> dict[str, Any]:
        """Values of the fields in `FOLLOWS` that follow from these lists, by path."""
        count = len({one.task for one in self.classes})
        tasks: list[list[str]] = [[] for _ in range(count)]
        radii = [0.0] * count
        for one in self.classes:
            tasks[one.task].append(one.name)
            radii[one.task] = one.nms_radius_m2
        plain = [to_mapping(ObjectClass(c.name, c.categories, c.range_m)) for c in self.classes]
        values: dict[str, Any] = {
            "cameras": self.cameras, "tasks": tasks, "classes": plain, "nms_radius_m2": radii,
        }  # fmt: skip
        return {path: values[_last(path)] for path in FOLLOWS if _last(path) in values}


def with_lists(preset: Preset, lists: Lists) -> Preset:
    """A preset whose networks have these cameras and classes.

    Raises:
        ConfigError: a network cannot have them.
    """
    mapping = to_mapping(preset)
    for path, value in lists.filled_in().items():
        _, parent = _parent(mapping, path)
        parent[_last(path)] = value
    return from_mapping(Preset, mapping)


def to_yaml(preset: Preset) -> str:
    """A preset as the text of a file, with the meaning of each field as a comment."""
    mapping = to_mapping(preset)
    for path in FOLLOWS:
        _, parent = _parent(mapping, path)
        del parent[_last(path)]
    lists = Lists.of(preset)
    head = f"# A configuration of labeldistill, from {preset.name}. Fields that are left out have\n"
    head += "# their defaults; cameras and classes hold for all networks.\n"
    return head + commented(lists, to_mapping(lists)) + commented(preset, mapping)


def read_config(file: Path) -> Preset:
    """The preset in a YAML or JSON file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing, of the wrong type or
            contradicts another one; names the key's whole path.
    """
    try:
        text = read_bounded(file, TEXT_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no configuration: it is no text ({error})") from error
    return from_yaml(text, str(file))


def from_yaml(text: str, origin: str) -> Preset:
    """The preset that a text in YAML, or in JSON, which is a part of it, holds.

    Args:
        text: of a whole configuration.
        origin: where it comes from; errors begin with it.

    Raises:
        ConfigError: see `read_config`.
    """
    mapping = _mapping(text, origin)
    for path, source in FOLLOWS.items():
        there, parent = _parent(mapping, path)
        if there and _last(path) in parent:
            raise ConfigError(f"{origin}: {path} follows from `{source}`: leave it out")
    refuse_unknown_keys((Lists, Preset), mapping, origin)
    own: dict[str, Any] = {
        key: mapping.pop(key) for key in ("cameras", "classes") if key in mapping
    }
    values = from_mapping(Lists, own, origin).filled_in()
    teacher = mapping.get("teacher")
    if isinstance(teacher, Mapping):
        channels = teacher.get("second_channels", TeacherConfig.second_channels)
        values["label_encoder.channels"] = channels
    for path, value in values.items():
        there, parent = _parent(mapping, path, make=True)
        if there:
            parent[_last(path)] = value
    preset = from_mapping(Preset, mapping, origin)
    for part in ("teacher", "label_encoder"):
        if not getattr(preset, part).grid.same_cells(preset.student.grid):
            raise ConfigError(
                f"{origin}: {part}.grid has other cells than student.grid: give both the same x_m, "
                "y_m and cell_m"
            )
    return preset


def chosen_preset(name: str, file: Path | None) -> Preset:
    """The preset of a file, or, without one, that of a name.

    Raises:
        ConfigError: there is no such preset, or the file cannot be used.
    """
    return read_config(file) if file else find_preset(name)


def classes_of(file: Path | None) -> ClassList:
    """Classes that a configuration or a checkpoint names; nuScenes' ten without a file.

    Raises:
        ConfigError: the configuration cannot be used.
        CheckpointError: the checkpoint cannot.
    """
    if file is None:
        return NUSCENES
    if file.suffix in (".safetensors", ".onnx") or kind_of(file):
        return classes_of_checkpoint(file)
    return read_config(file).student.head.class_list


def classes_of_checkpoint(file: Path) -> ClassList:
    """Classes that a student, a teacher or a label encoder was trained with.

    Args:
        file: `*.safetensors`, or of a student also `*.onnx`.

    Raises:
        CheckpointError: the file is missing or damaged, or holds another network.
    """
    if file.suffix == ".onnx":
        return OnnxEngine(file).config.head.class_list
    kind = kind_of(file) or "student"
    if kind not in ("student", "teacher", "label encoder"):
        raise CheckpointError(f"{file} holds a {plain_text(str(kind))}, which has no classes")
    try:
        content = json.loads(read_checkpoint(file, kind).config)  # type: ignore[arg-type]
        head = content if kind == "label encoder" else content["head"]
        if "classes" not in head:
            return NUSCENES
        return ClassList(tuple(from_mapping(ObjectClass, one) for one in head["classes"]))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: its configuration is damaged: {error}") from error


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        content = parsed_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{origin} is no configuration: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{origin} is no configuration, which maps keys to values: `labeldistill config demo` "
            "prints one"
        )
    return content


def _parent(mapping: Any, path: str, make: bool = False) -> tuple[bool, Any]:
    """The mapping that holds the last part of a path, and whether it is there and is one."""
    for depth, part in enumerate(path.split(".")[:-1]):
        # A network that is absent is missing; a part of it may have its defaults.
        if make and depth and isinstance(mapping, dict):
            mapping.setdefault(part, {})
        mapping = mapping.get(part) if isinstance(mapping, dict) else None
    return isinstance(mapping, dict), mapping


def _last(path: str) -> str:
    return path.rpartition(".")[2]
