# SPDX-License-Identifier: Apache-2.0
"""Annotations from a detector's boxes: by a threshold for each class, as objects over time."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.checkpoints import file_sha256, kind_of
from labeldistill_core.classes import NUSCENES
from labeldistill_core.config_files import classes_of_checkpoint
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import named_scenes
from labeldistill_core.data.tables.annotation_rows import annotation_row
from labeldistill_core.data.tables.writing import Row, Rows, chain, token
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.evaluate import EvaluationOptions, run_checkpoint
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.evaluation.result_file import read_results
from labeldistill_core.files import refuse_special
from labeldistill_core.frames import Transform
from labeldistill_core.labelling.relabelled import annotated_samples, refuse_taken, write_relabelled
from labeldistill_core.labelling.tracking import DetectedFrame, track
from labeldistill_core.names import plain_name, shown
from labeldistill_core.options import DeviceOptions, TablesOptions
from labeldistill_core.provenance import commit

_LOG = logging.getLogger(__name__)

_FARTHEST_M, _LARGEST_M, _FASTEST_M_S = 1e8, 1e3, 1e3
"""Of boxes; coordinates of UTM stay below 1e7."""
_MOST_BOXES = 2000
"""Labels of a sample; nuScenes allows 500 boxes, of which most are weak."""


@dataclass(frozen=True)
class LabelOptions(DeviceOptions, TablesOptions):
    """Whose boxes become labels, and which of them."""

    teacher: Path | None = None
    """Checkpoint whose boxes become labels: a LiDAR teacher, or a student."""
    results: Path | None = None
    """Result file in nuScenes' form (.json or .json.gz) whose boxes do, instead of a checkpoint."""
    score: float = 0.3
    """Lowest score of a label."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Lowest scores of single classes, as pairs of a class name and a score; above 1 leaves a class
    out."""
    min_frames: int = 2
    """Objects that are found in fewer key frames are left out: most are no objects, and nobody
    knows their velocity."""
    scenes: tuple[str, ...] = ()
    """Scenes to label, names or a file with a name a line; without any, those that have no
    annotation yet."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """Categories of classes, as pairs, where neither the checkpoint nor nuScenes tells them."""
    into: str = ""
    """Folder of the labelled tables in the data root, which shares all files with the others;
    <version>-labelled when empty. Where it is the version itself, the tables from before are kept
    as <version>-before-labels."""

    def __post_init__(self) -> None:
        """Refuse what makes no labels."""
        if (self.teacher is None) == (self.results is None):
            raise ConfigError("give --teacher or --results, one of the two")
        for score in (self.score, *self.scores.values()):
            if not score >= 0:
                raise ConfigError(f"a lowest score is {score:g}: use 0 or more")
        for name, category in self.categories.items():
            if not category.isprintable() or not category:
                raise ConfigError(f"--categories: {shown(name)} is called {shown(category)}")
        if self.min_frames < 1:
            raise ConfigError(f"--min-frames is {self.min_frames}: use 1 or more")
        if self.into:
            plain_name(self.into, "--into")


@dataclass(frozen=True)
class Labelling:
    """What was labelled."""

    folder: Path
    """The new tables."""
    scenes: int
    """Number of scenes that got labels."""
    boxes: Mapping[str, int]
    """Number of boxes by class."""
    instances: int
    """Number of objects."""
    weak: int
    """Number of boxes that were left out for their score."""
    brief: int
    """Number of boxes that were left out as their objects are in too few key frames."""


def label(dataroot: Path, options: LabelOptions, *, force: bool = False) -> Labelling:
    """Write tables whose annotations are a detector's boxes.

    Every annotation has two more fields than nuScenes': `source`, the file and digest of what found
    it, and `score`.

    Args:
        dataroot: in nuScenes form.
        options: whose boxes, and which.
        force: replace tables that were labelled before.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ConfigError: a score or a category is given for a class that there is not, a class has no
            category, or the checkpoint finds no boxes.
        DataError: the tables or the result file cannot be used, no scene is left to label, the
            result file lacks one, or the labelled tables are there already.
    """
    file = options.teacher or options.results
    assert file is not None
    refuse_special(file)  # which is read twice
    classes = classes_of_checkpoint(options.teacher) if options.teacher else NUSCENES
    # A class may gather several categories, an annotation has one: the first stands for all.
    categories = {one.name: one.categories[0] for one in classes.members if one.categories}
    categories |= options.categories
    if options.teacher:
        _refuse_other_classes(options.teacher, classes.names, options.categories, categories)
    if unknown := options.scores.keys() - categories.keys():
        raise ConfigError(
            f"--scores names {', '.join(map(shown, sorted(unknown)))}; the classes are "
            f"{', '.join(categories)}"
        )
    tables = NuScenesTables(dataroot, options.version, classes)
    into = options.into or f"{tables.version}-labelled"
    # Before the teacher runs over all scenes, which may take hours.
    refuse_taken(tables, into, force=force)
    scenes = _scenes(tables, options)
    found = _boxes(tables, scenes, options, tuple(categories))
    if options.results:
        # Such scenes would be told to be empty.
        lacking = [s for s in scenes if not any(own in found for own in tables.samples(s))]
        if lacking == scenes or (options.scenes and lacking):
            raise DataError(
                f"{options.results} has no sample of the scenes {', '.join(lacking[:5])}: is it of "
                "another data root, or of other scenes (--scenes)?"
            )
        scenes = [scene for scene in scenes if scene not in lacking]
    # With a digest, since every teacher's file is called teacher.safetensors.
    source = f"{file.name}@{file_sha256(file)[:12]}"
    attributes = _attribute_tokens(tables)
    rows: Rows = {"instance": [], "sample_annotation": [], "category": []}
    counts: Counter[str] = Counter()
    left_out = _LeftOut()
    class_of: dict[str, str] = {}
    for scene in scenes:
        if (length := len(tables.samples(scene))) < options.min_frames:
            _LOG.warning(
                "%s has %d key frames, so no object of it is in the %d that --min-frames asks for",
                scene,
                length,
                options.min_frames,
            )
        for row, name in _label_scene(tables, scene, found, options, source, attributes, left_out):
            rows["sample_annotation"].append(row)
            class_of[row["instance_token"]] = name
            counts[name] += 1
    _add_instances(rows, {own: categories[name] for own, name in class_of.items()})
    about = {
        "source": source,
        "score": options.score,
        "scores": dict(options.scores),
        "min_frames": options.min_frames,
        "scenes": scenes,
        "boxes": dict(counts),
        "instances": len(rows["instance"]),
        "from": tables.version,
        "commit": commit(),
    }
    folder = write_relabelled(tables, into, scenes, rows, about, force=force)
    boxes, instances = dict(counts.most_common()), len(rows["instance"])
    return Labelling(folder, len(scenes), boxes, instances, left_out.weak, left_out.brief)


def _scenes(tables: NuScenesTables, options: LabelOptions) -> list[str]:
    if options.scenes:
        return named_scenes(tables, options.scenes)
    # What people annotated is replaced only where its scene is named, whatever its classes.
    annotated = annotated_samples(tables)
    bare = [scene for scene in tables.scene_names if annotated.isdisjoint(tables.samples(scene))]
    if not bare:
        raise DataError(
            f"every scene of {tables.dataroot / tables.version} has annotations: name those that "
            "are to be labelled anew (--scenes)"
        )
    return bare


def _refuse_other_classes(
    teacher: Path, names: Sequence[str], given: Collection[str], categories: Collection[str]
) -> None:
    if kind_of(teacher) == "label encoder":
        raise ConfigError(
            f"{teacher} is a label encoder, which finds no boxes: give a LiDAR teacher or a student"
        )
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(
            f"--categories names {', '.join(map(shown, unknown))}; the classes of {teacher} are "
            f"{', '.join(names)}"
        )
    if without := [name for name in names if name not in categories]:
        raise ConfigError(
            f"{', '.join(without)} of {teacher} have no category: give one for each by "
            "--categories NAME CATEGORY ..."
        )


def _boxes(
    tables: NuScenesTables, scenes: list[str], options: LabelOptions, class_names: tuple[str, ...]
) -> ResultColumns:
    if options.results:
        return read_results(options.results, class_names)
    assert options.teacher is not None
    run = EvaluationOptions(
        device=options.device, version=tables.version, scenes=tuple(scenes), split="all"
    )
    return run_checkpoint(options.teacher, tables.dataroot, run)


@dataclass
class _LeftOut:
    """How many boxes do not become labels; see `Labelling`."""

    weak: int = 0
    brief: int = 0


def _label_scene(
    tables: NuScenesTables,
    scene: str,
    found: ResultColumns,
    options: LabelOptions,
    source: str,
    attributes: Mapping[str, str],
    left_out: _LeftOut,
) -> list[tuple[Row, str]]:
    """Rows of a scene's annotations, not linked, with the name of their class."""
    tokens = [token for token in tables.samples(scene) if token in found]
    everything = [found.columns(own) for own in tokens]
    parts = [_sure(boxes, options) for boxes in everything]
    left_out.weak += sum(
        len(b.scores) - len(p.scores) for b, p in zip(everything, parts, strict=True)
    )
    for own, part in zip(tokens, parts, strict=True):
        _refuse_odd(own, part)
    frames = [
        DetectedFrame(
            tables.stamp_ns(own),
            part.centers_m[:, :2],
            part.velocities_m_s,
            part.yaws,
            part.labels,
            # the length: sizes are width, length, height, as nuScenes orders them
            part.sizes_m[:, 1],
            part.scores,
        )
        for own, part in zip(tokens, parts, strict=True)
    ]
    numbers = track(frames)
    # Before any row is written, as only the whole drive tells how often an object was found.
    seen = Counter(number for frame in numbers for number in frame.tolist())
    out = []
    for own, part, of_frame in zip(tokens, parts, numbers, strict=True):
        scan = _scan(tables, own)
        for i, number in enumerate(of_frame.tolist()):
            if seen[number] < options.min_frames:
                left_out.brief += 1
                continue
            width, length, height = part.sizes_m[i].tolist()
            pose = Transform.from_quaternion(
                FIXED_FRAME, "box", part.values[i, 6:10], part.centers_m[i]
            )
            # Tokens follow from what is labelled and by whom: the same call gives the same tables,
            # and labels of two teachers never share a token.
            instance = token("label", source, scene, number)
            row = annotation_row(
                token("label", source, own, number),
                own,
                instance,
                pose,
                (length, width, height),
                scan,
            )
            attribute = attributes.get(part.attribute_names[part.attributes[i]])
            row["attribute_tokens"] = [attribute] if attribute else []
            # Fields of our own, which the devkit passes on.
            row["source"], row["score"] = source, round(float(part.scores[i]), 4)
            out.append((row, part.class_names[part.labels[i]]))
    return out


def _sure(boxes: BoxArrays, options: LabelOptions) -> BoxArrays:
    """Those above the threshold of their class, with unit quaternions."""
    lowest = np.array([options.scores.get(n, options.score) for n in boxes.class_names])
    sure = boxes[np.flatnonzero(boxes.scores >= lowest[boxes.labels])]
    # The devkit takes quaternions of any length; the largest part first, or squares overflow.
    values = sure.values.copy()
    values[:, 6:10] /= np.abs(values[:, 6:10]).max(axis=1, keepdims=True)
    values[:, 6:10] /= np.linalg.norm(values[:, 6:10], axis=1, keepdims=True)
    return replace(sure, values=values)


def _refuse_odd(sample: str, boxes: BoxArrays) -> None:
    """Refuse boxes that are nothing on a road; an unknown velocity is none of them."""
    if len(boxes.scores) > _MOST_BOXES:
        raise DataError(
            f"sample {shown(sample)} has {len(boxes.scores)} boxes above the lowest score, and "
            f"no scene has more than {_MOST_BOXES} objects: use a higher --score"
        )
    speeds = np.nan_to_num(np.abs(boxes.velocities_m_s), nan=0.0)
    for what, values, most in (
        ("metres away", np.abs(boxes.centers_m), _FARTHEST_M),
        ("metres in size", boxes.sizes_m, _LARGEST_M),
        ("metres a second fast", speeds, _FASTEST_M_S),
    ):
        if (odd := values.max(axis=1, initial=0.0) > most).any():
            raise DataError(
                f"sample {shown(sample)} has a box that is {values[odd].max():.3g} {what}: correct "
                "the results, or leave it out by a higher --score"
            )


def _scan(tables: NuScenesTables, sample: str) -> np.ndarray[Any, Any] | None:
    """(P, 3) points of a sample in the map; None where there are none."""
    if not tables.has_scan(sample):
        return None
    record = tables.lidar(sample)
    return (record.fixed_from_ego @ record.ego_from_sensor).apply(record.scan()[:, :3])


def _attribute_tokens(tables: NuScenesTables) -> dict[str, str]:
    file = tables.dataroot / tables.version / "attribute.json"
    rows = json.loads(file.read_bytes()) if file.is_file() else []
    return {row["name"]: row["token"] for row in rows}


def _add_instances(rows: Rows, category_of: Mapping[str, str]) -> None:
    """Chain the boxes of each instance, and add it with its category."""
    by_instance: dict[str, list[Row]] = {}
    for row in rows["sample_annotation"]:
        by_instance.setdefault(row["instance_token"], []).append(row)
    known: dict[str, str] = {}
    for identity, boxes in by_instance.items():
        chain(boxes)
        name = category_of[identity]
        if name not in known:
            known[name] = token("category", name)
            rows["category"].append({"token": known[name], "name": name, "description": ""})
        rows["instance"].append(
            {
                "token": identity,
                "category_token": known[name],
                "nbr_annotations": len(boxes),
                "first_annotation_token": boxes[0]["token"],
                "last_annotation_token": boxes[-1]["token"],
            }
        )
