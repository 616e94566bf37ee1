# SPDX-License-Identifier: Apache-2.0
"""What a detector published, read from a bag and given to key frames.

A sample takes the message whose stamp is nearest to its own stamp or one of its cameras'; the
node stamps a set with its anchor camera's exposure, so the difference is normally zero.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.errors import BagError, ConfigError, DataError
from labeldistill_core.evaluation.result_boxes import result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns, check_values
from labeldistill_core.names import shown
from labeldistill_ros.bags.poses import read_transforms
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import BagSample
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.messages.status import SetStatus, read_set_status
from labeldistill_ros.messages.tables import boxes_from_table

_LOG = logging.getLogger(__name__)

DETECTIONS_TOPIC = "/detector/detections"
TABLE_TOPIC = "/detector/detections_table"
STATUS_TOPIC = "/detector/status"
TOLERANCE_S = 0.05


@dataclass(frozen=True)
class Coverage:
    """Which samples got boxes, and how near in time these were."""

    samples: int
    """Number of samples that could get boxes."""
    matched: int
    """Number of samples that have a message of the detector, or boxes in a result file."""
    missed: tuple[str, ...]
    """Tokens of the other samples."""
    sets: int
    """Number of messages of the detector, at samples or between them."""
    largest_gap_ms: float
    """Largest difference between the stamps of a sample and of its message."""

    @property
    def share(self) -> float:
        """Share of the samples that got boxes, 0 to 1."""
        return self.matched / self.samples


@dataclass(frozen=True)
class Recording:
    """What a bag tells of a detector."""

    results: ResultColumns
    """Boxes by sample token; none for a sample without a message."""
    coverage: Coverage
    """Which samples got boxes, and how near in time these were."""
    velocities: bool
    """Whether velocities were recorded; without, they count as zero."""
    latencies_ms: dict[str, tuple[float, ...]]
    """Latencies of the processed sets by stage, from the status; empty without a status."""
    outcomes: dict[str, int]
    """Number of sets that the node has seen, by what became of them; empty without a status."""


def read_recording(
    bag: Path,
    samples: Sequence[BagSample],
    transforms: TransformBuffer | None,
    *,
    topic: str = DETECTIONS_TOPIC,
    tolerance_s: float = TOLERANCE_S,
    fixed_frame: str = FIXED_FRAME,
) -> Recording:
    """Read the detector's topics.

    Args:
        bag: has them; `<topic>_table` has the velocities, and the boxes then come from it too
            when both have the same stamp and length. What became of sets tells `status` beside the
            topic, else that of `/detector`.
        samples: key frames.
        transforms: to move boxes to the fixed frame; those of the bag itself when None.
        topic: of the detections.
        tolerance_s: largest difference of stamps.
        fixed_frame: what that of the truth is called in the bag.

    Raises:
        BagError: the bag is unreadable, lacks a topic or all transforms, has no message or none
            that is near a sample, or its stamps go back.
        ConfigError: the tolerance is negative, infinite or NaN.
        DataError: a box that would be scored cannot be.
    """
    if not 0 <= tolerance_s < math.inf:
        raise ConfigError(f"--tolerance {tolerance_s:g}: give seconds, none less than 0")
    with BagReader(bag) as reader:
        reader.require(topic)
        # Boxes are wanted in the classes of the truth, which all samples share.
        class_names = samples[0].truth.classes.names
        published = _published(reader, topic, class_names)
        # `Detection3DArray` has no velocity, so they come from the table beside it, if that was
        # recorded.
        velocities = f"{topic}_table" in reader.topics
        beside = f"{topic.rpartition('/')[0]}/status"
        statuses = _statuses(reader, beside if beside in reader.topics else STATUS_TOPIC)
        transforms = transforms or read_transforms(reader)
    if not published:
        raise BagError(f"{bag}: there is no message on {topic}: was the detector active?")
    pairs = match([sample.stamps_ns for sample in samples], list(published), tolerance_s)
    # Another scene, or images that were stamped anew: a score of zero would hide that.
    if not any(pairs):
        raise BagError(_nothing_near(bag, topic, samples, list(published), tolerance_s))
    results: dict[str, BoxArrays] = {}
    nothing = result_columns(Boxes3D.empty(FIXED_FRAME), class_names)
    missed, gaps = [], [0.0]
    lost: list[BagError] = []
    for sample, pair in zip(samples, pairs, strict=True):
        token = sample.truth.sample_token
        results[token] = nothing
        if pair is None:
            missed.append(token)
            continue
        stamp_ns, gap_ns = pair
        try:
            boxes = _in_map(published[stamp_ns], transforms, stamp_ns, bag, fixed_frame)
        except BagError as error:
            lost.append(error)
            missed.append(token)
            continue
        results[token] = columns = result_columns(boxes, class_names)
        check_values(f"{bag}: {topic} at {stamp_ns} ns: ", token, columns)
        gaps.append(gap_ns / 1e6)
    if lost and len(missed) == len(samples):
        raise lost[0]
    if lost:  # a recording that began in mid-drive has boxes before the first pose
        _LOG.warning("%d key frames count as empty: %s", len(lost), lost[0])
    matched = len(samples) - len(missed)
    coverage = Coverage(len(samples), matched, tuple(missed), len(published), max(gaps))
    return Recording(
        ResultColumns(results), coverage, velocities, _latencies(statuses), _outcomes(statuses)
    )


def _nothing_near(
    bag: Path, topic: str, samples: Sequence[BagSample], stamps: Sequence[int], tolerance_s: float
) -> str:
    own = [stamp for sample in samples for stamp in sample.stamps_ns]
    gap_s = min(abs(a - b) for a in own for b in (min(stamps), max(stamps))) / 1e9
    return (
        f"{bag}: none of the {len(stamps)} messages of {topic} is within {tolerance_s * 1e3:g} ms "
        f"of one of the {len(samples)} key frames (first and last are {gap_s:.3f} s away at "
        "least): is this another scene, or were the images stamped anew?"
    )


def match(
    samples_ns: Sequence[Sequence[int]], stamps_ns: Sequence[int], tolerance_s: float
) -> list[tuple[int, int] | None]:
    """Find the nearest stamp for each sample, and its distance; each stamp is given once.

    Args:
        samples_ns: all stamps of each sample.
        stamps_ns: of the messages.
        tolerance_s: largest distance.

    Returns:
        Stamp and distance in nanoseconds, or None where no stamp is near.
    """
    stamps = np.sort(np.asarray(stamps_ns, dtype=np.int64))
    candidates = []
    for index, own in enumerate(samples_ns):
        reach = round(tolerance_s * 1e9)
        first = np.searchsorted(stamps, min(own) - reach)
        last = np.searchsorted(stamps, max(own) + reach, side="right")
        # Only stamps within reach are looked at: a recording of hours has tens of thousands.
        for stamp in stamps[first:last].tolist():
            gap = min(abs(stamp - mine) for mine in own)
            if gap <= reach:
                candidates.append((gap, index, stamp))
    found: list[tuple[int, int] | None] = [None] * len(samples_ns)
    taken: set[int] = set()
    # The nearest pairs first, so that a sample never takes the message of its neighbour.
    for gap, index, stamp in sorted(candidates):
        if found[index] is None and stamp not in taken:
            found[index] = (stamp, gap)
            taken.add(stamp)
    return found


def _published(reader: BagReader, topic: str, class_names: Sequence[str]) -> dict[int, Boxes3D]:
    """The boxes of each message, by its stamp in nanoseconds."""
    table_topic = f"{topic}_table"
    tables: dict[int, Boxes3D] = {}
    try:
        if table_topic in reader.topics:
            for _, message in reader.messages([table_topic]):
                tables[stamp_of(message)] = boxes_from_table(message)
        out: dict[int, Boxes3D] = {}
        newest_ns = -1
        for _, message in reader.messages([topic]):
            stamp_ns = stamp_of(message)
            if stamp_ns <= newest_ns:
                raise BagError(
                    f"{reader.path}: the stamps of {topic} are not sorted: {stamp_ns} ns comes "
                    f"after {newest_ns} ns; record one round of the bag and one detector"
                )
            boxes, table = boxes_from_detections(message, class_names), tables.get(stamp_ns)
            if table is not None and len(table) == len(boxes):
                boxes = _with_velocities(boxes, table)
            out[stamp_ns], newest_ns = boxes, stamp_ns
    except DataError as error:
        raise BagError(f"{reader.path}: {topic}: {error}") from error
    return out


def _with_velocities(boxes: Boxes3D, table: Boxes3D) -> Boxes3D:
    # the message is float64, the table float32: centres on a large map keep their decimals
    values = torch.cat([boxes.values[:, :7], table.values[:, 7:9].double()], dim=1)
    return Boxes3D(boxes.frame, values, boxes.labels, boxes.scores)


def _in_map(
    boxes: Boxes3D, transforms: TransformBuffer, stamp_ns: int, bag: Path, fixed_frame: str
) -> Boxes3D:
    if boxes.frame == fixed_frame:
        return replace(boxes, frame=FIXED_FRAME)
    try:
        fixed = boxes.transformed(transforms.lookup(fixed_frame, boxes.frame, stamp_ns))
        return replace(fixed, frame=FIXED_FRAME)
    except TransformError as error:
        raise BagError(
            f"{bag}: boxes at {stamp_ns} ns are in {shown(boxes.frame)} and cannot be moved to "
            f"{shown(fixed_frame)}: {error}"
        ) from error


def _statuses(reader: BagReader, topic: str) -> list[SetStatus]:
    if topic not in reader.topics:
        return []
    try:
        return [found for _, m in reader.messages([topic]) for found in read_set_status(m)]
    except DataError as error:
        raise BagError(f"{reader.path}: {topic}: {error}") from error


def _latencies(statuses: Sequence[SetStatus]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for status in statuses:
        if status.report.outcome == "processed":
            for stage, time_ms in status.report.timings_ms.items():
                found.setdefault(stage, []).append(time_ms)
    return {stage: tuple(times) for stage, times in found.items()}


def _outcomes(statuses: Sequence[SetStatus]) -> dict[str, int]:
    """Counters of the node; they only grow, so the largest is the last."""
    counts: dict[str, int] = {}
    for status in statuses:
        for name, count in status.totals.items():
            # A largest value and not a sum: each status tells the totals since the node's
            # activation.
            counts[name] = max(counts.get(name, 0), count)
    return counts
