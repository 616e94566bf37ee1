# SPDX-License-Identifier: Apache-2.0
"""Whether what makes the detector fast changes what it finds.

Every fast way sees the same key frames as the network that computes all frames at once, eagerly,
in float32; their scores, features and boxes are compared.

Shapes: N cameras, D depth bins, H W feature rows and columns, C context channels, M boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm
from tyro.conf import Positional

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME, FrameSet
from labeldistill_core.checkpoints import load_student
from labeldistill_core.console import Flat
from labeldistill_core.data.batch import camera_batch, mean_ego_pose
from labeldistill_core.data.images import decode_reduction
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.result_boxes import result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.exit_codes import MISSED
from labeldistill_core.files import write_json
from labeldistill_core.frames import Transform
from labeldistill_core.network.decode import decode
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.student import Student
from labeldistill_core.options import TablesOptions
from labeldistill_core.profiling.ways import Way
from labeldistill_core.provenance import commit, given_command, machine
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.runtime.device_images import decode_on
from labeldistill_core.runtime.history import History

LIMIT = 0.001
"""Largest difference of mAP and NDS that counts as none: 0.1 points."""
EXACT = 0.001
"""Largest difference of a depth distribution of ways that compute the same in float32."""
_NEAR_M, _NEAR_SCORE = 0.1, 0.01
"""Boxes of one class are the same within this distance of their centres and of their scores."""


@dataclass(frozen=True)
class AccuracyOptions(TablesOptions):
    """Over which key frames the ways are compared, and where."""

    split: Literal["train", "val", "all"] = "val"
    """Scenes to run the networks over."""
    scenes: int = 0
    """Number of scenes to take, the first of the split; all of them when 0."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda:0 and so on, or auto."""
    compile: bool = False
    """Compare `torch.compile` as well, which takes a minute to start."""

    def __post_init__(self) -> None:
        """Refuse a number of scenes below zero."""
        if self.scenes < 0:
            raise ConfigError("--scenes must be 0 or more")


def bench_accuracy(
    checkpoint: Positional[Path],
    dataroot: Positional[Path],
    options: Flat[AccuracyOptions],
    json: Path | None = None,
) -> int:
    """Compare the scores of all fast ways of a device with the plain network; 1 if one differs.

    Args:
        checkpoint: student, `*.safetensors`.
        dataroot: nuScenes data root, real or synthetic.
        options: over which key frames, and where.
        json: file to write the figures to.
    """
    command = given_command("python -m benchmarks.detector")
    figures = {"command": command, **measure_accuracy(checkpoint, dataroot, options)}
    if json:
        write_json(json, figures)
    print(accuracy_table(figures))
    return 0 if figures["equal"] else MISSED


def measure_accuracy(checkpoint: Path, dataroot: Path, options: AccuracyOptions) -> dict[str, Any]:
    """Scores of the plain network and of all fast ways, and whether they are `equal`.

    Args:
        checkpoint: student, `*.safetensors`.
        dataroot: nuScenes data root, real or synthetic.
        options: over which key frames, and where.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or not a student's.
        ConfigError: there is no such device.
        DataError: the tables are missing or damaged.
    """
    student = load_student(checkpoint).student
    tables = NuScenesTables(dataroot, options.version, student.config.head.class_list)
    names = split_scenes(tables, options.split)[: options.scenes or None]
    place = resolve_device(options.device)
    compared = AccuracyComparison(PlainNetwork(student, place), tables)
    for way in ways_to_compare(place, options.compile):
        detector = way.detector(student, str(place))
        # Only float32 on a CPU computes the same to the last digits: lower precision rounds, a GPU
        # sums in another order, and resizing on the device is another filter.
        exact = detector.precision == "float32" and place.type == "cpu" and not way.device_resize
        compared.add(way.name(detector), detector, exact, way.device_decode)
    if place.type == "cpu" and find_spec("onnx") and find_spec("onnxruntime"):
        compared.add("ONNX", Detector.load(checkpoint, backend="onnx"), exact=True)
    return {
        "commit": commit(),
        "machine": machine(),
        "device": str(place),
        "scenes": len(names),
        **compared.run(names),
    }


def ways_to_compare(device: torch.device, compile: bool) -> list[Way]:
    """Each thing that makes the detector fast on a device, and what the node does there."""
    plain, fixed = Way("float32"), Way("float32", fixed_shapes=True)
    resized = replace(plain, device_resize=True)
    ways = [plain, fixed, resized, replace(resized, device_decode=True)]
    if device.type == "cuda":
        half = Way("float16", fixed_shapes=True, device_resize=True)
        ways += [Way("bfloat16"), Way("float16"), half, replace(half, device_decode=True)]
        return ways + [replace(half, compile=True)] * compile
    fast = Way("auto")
    return [*ways, fast, *[replace(fast, compile=True)] * compile]


def accuracy_table(figures: Mapping[str, Any]) -> str:
    """Scores and differences of all ways, as Markdown."""
    lines = [
        "| way | mAP | NDS | depth, largest difference | context, relative | same boxes |",
        "|---|---|---|---|---|---|",
        f"| plain, all frames at once | {figures['mAP']:.4f} | {figures['NDS']:.4f} | | | |",
    ]
    for name, row in figures["ways"].items():
        lines.append(
            f"| {name} | {row['mAP']:.4f} | {row['NDS']:.4f} | {row['depth_largest']:.1e} | "
            f"{row['context_relative']:.1e} | {row['same_boxes']:.1%} |"
        )
    return "\n".join(lines)


class PlainNetwork:
    """The plain network: all frames at once, eagerly, in float32."""

    def __init__(self, student: Student, device: torch.device) -> None:
        """Take a trained network, which moves to the device."""
        self.student, self._device = student.eval().to(device), device
        self._history: History[FrameSet] = History(student.config.history_s)

    def reset(self) -> None:
        """Forget past frames, since another scene begins."""
        self._history.clear()

    @torch.inference_mode()
    def detect(self, frames: FrameSet) -> tuple[Detections, FrameFeatures]:
        """Boxes and features of a set that is newer than those before."""
        config = self.student.config
        # Whole images are kept here instead of features, as the plain network computes all frames
        # anew.
        past = self._history.pick(frames.stamp_ns)
        batch = camera_batch([frames, *(then or frames for then in past)], config)
        # torch lets cuDNN round float32 to 10 bits
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            output, features = self.student(batch.to(self._device))
        (boxes,) = decode(output.maps, config.grid, config.decode)
        self._history.push(frames)
        valid = sum(then is not None for then in past)
        return Detections(frames.stamp_ns, boxes, mean_ego_pose(frames), valid), features


@dataclass
class _Fast:
    """A fast way and what it did."""

    detector: Detector
    device_decode: bool
    exact: bool
    results: dict[str, BoxArrays] = field(default_factory=dict)
    depth_largest: float = 0.0
    context_relative: list[float] = field(default_factory=list)
    same_boxes: list[bool] = field(default_factory=list)

    def note(self, found: Detections, expected: Detections, features: FrameFeatures) -> None:
        # The features of the set are looked at where the detector keeps them for the next one.
        kept = self.detector.newest
        assert kept is not None
        depth = (kept.features.depth - features.depth).abs().max()
        context = kept.features.context.float() - features.context
        self.depth_largest = max(self.depth_largest, float(depth))
        self.context_relative.append(float(context.norm() / features.context.norm()))
        self.same_boxes += same_boxes(expected.boxes, found.boxes)


class AccuracyComparison:
    """Fast ways against the plain network, over the same key frames."""

    def __init__(self, reference: PlainNetwork, tables: NuScenesTables) -> None:
        """Compare nothing yet."""
        self._reference, self._tables = reference, tables
        self._ways: dict[str, _Fast] = {}

    def add(self, name: str, detector: Detector, exact: bool, device_decode: bool = False) -> None:
        """Compare a detector, too.

        Args:
            name: of the way.
            detector: computes so.
            exact: its tensors must be the same as well, within `EXACT`.
            device_decode: its images are decoded on its device.
        """
        # On some devices two ways resolve to the same detector; its first entry is enough.
        self._ways.setdefault(name, _Fast(detector, device_decode, exact))

    def run(self, scenes: Sequence[str]) -> dict[str, Any]:
        """Scores of the plain network and of all ways, and whether they are `equal`."""
        identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
        config = self._reference.student.config
        names, reduction = config.class_names, partial(decode_reduction, image=config.image)
        plain: dict[str, BoxArrays] = {}
        for token in self._samples(scenes):
            frames = self._tables.frame_set(token, config.cameras, reduction)
            expected, features = self._reference.detect(frames)
            plain[token] = result_columns(expected.in_frame(identity), names)
            for way in self._ways.values():
                # All ways see a key frame before the next one is read: images of a split do not fit
                # in memory.
                found = way.detector.detect(self._decoded(token, frames, way))
                way.results[token] = result_columns(found.in_frame(identity), names)
                way.note(found, expected, features)
        scored = self._score(plain)
        rows = {name: self._row(way, scored) for name, way in self._ways.items()}
        return {
            "samples": len(plain),
            "mAP": scored.mean_ap,
            "NDS": scored.nds,
            "ways": rows,
            "equal": all(row["equal"] for row in rows.values()),
        }

    def _samples(self, scenes: Sequence[str]) -> Iterator[str]:
        for scene in tqdm(scenes, unit="scene", disable=None):
            self._reference.reset()
            for way in self._ways.values():
                way.detector.reset(f"scene {scene}")
            yield from self._tables.samples(scene)

    def _decoded(self, token: str, frames: FrameSet, way: _Fast) -> FrameSet:
        if not way.device_decode:
            return frames
        records = self._tables.cameras(token)
        jpegs = [records[view.calibration.name].read() for view in frames.views]
        images = decode_on(way.detector.device, jpegs)
        views = (replace(v, image=i) for v, i in zip(frames.views, images, strict=True))
        return replace(frames, views=tuple(views))

    def _row(self, way: _Fast, plain: Metrics) -> dict[str, Any]:
        metrics = self._score(way.results)
        worst = max(abs(metrics.mean_ap - plain.mean_ap), abs(metrics.nds - plain.nds))
        return {
            "mAP": metrics.mean_ap,
            "NDS": metrics.nds,
            "depth_largest": way.depth_largest,
            "context_relative": sum(way.context_relative) / len(way.context_relative),
            "same_boxes": sum(way.same_boxes) / max(1, len(way.same_boxes)),
            "graph": way.detector.engine.graph,
            "equal": worst <= LIMIT and (not way.exact or way.depth_largest <= EXACT),
        }

    def _score(self, results: dict[str, BoxArrays]) -> Metrics:
        truths = [self._tables.ground_truth(token) for token in results]
        return evaluate(truths, ResultColumns(results))


def same_boxes(expected: Boxes3D, found: Boxes3D) -> list[bool]:
    """For each expected box whether a box of its class and score was found at its place."""
    if not len(found):
        return [False] * len(expected)
    near = torch.cdist(expected.centers.double(), found.centers.double()) <= _NEAR_M
    near &= expected.labels[:, None] == found.labels
    near &= (expected.scores[:, None] - found.scores).abs() <= _NEAR_SCORE
    same: list[bool] = near.any(dim=1).tolist()
    return same
