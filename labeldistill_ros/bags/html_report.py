# SPDX-License-Identifier: Apache-2.0
"""One HTML file about one run or several: figures, charts, best and worst samples, the scene."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

import torch

from labeldistill_core.cameras import FrameSet
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.evaluation.breakdown import SampleMatches, sample_matches
from labeldistill_core.evaluation.counted_boxes import evaluation_boxes
from labeldistill_core.evaluation.result_boxes import boxes_of_results
from labeldistill_core.evaluation.verdict import Check
from labeldistill_core.visualization import charts
from labeldistill_core.visualization.page import (
    PageCard,
    PageChart,
    PageFrame,
    PageTable,
    metric_summary,
    metric_tables,
    write_report,
)
from labeldistill_ros.bags.key_frames import read_frame_sets
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import Reference, Score
from labeldistill_ros.bags.truth import BagSample

_LOG = logging.getLogger(__name__)

Pictures = Callable[[Set[str]], Iterator[tuple[BagSample, FrameSet]]]
"""Key frames with these tokens and their images, in order."""


def write_run_report(
    path: Path,
    reference: Reference,
    scores: Sequence[Score],
    pictures: Pictures,
    *,
    checks: Sequence[Check] = (),
    frames: int = 40,
    min_score: float = 0.3,
    extremes: int = 2,
) -> None:
    """Write the HTML report of one or several runs.

    Args:
        path: file to write.
        reference: what the runs were measured against.
        scores: of the runs; pictures show the first one's boxes.
        pictures: `pictures_of_bag` or `pictures_of_dataroot`; where images are missing, the
            report does without.
        checks: thresholds that were looked at.
        frames: so many key frames, spread evenly, make the animation; 0 for all.
        min_score: boxes of a lower score are not drawn, and do not count as wrong.
        extremes: so many best and worst samples are shown by themselves.
    """
    first = scores[0]
    truths = [sample.truth for sample in reference.samples]
    matches = sample_matches(evaluation_boxes(truths, first.results), min_score)
    tokens = [truth.sample_token for truth in truths]
    ranked = sorted(tokens, key=lambda token: matches[token].f1)
    # No sample is both among the best and among the worst.
    count = min(extremes, len(ranked) // 2)
    # By F1 at the score from which boxes are drawn, so that what is called worst looks worst.
    highlights = dict.fromkeys(ranked[:count], "Worst")
    highlights |= dict.fromkeys(ranked[len(ranked) - count :], "Best")
    begins_ns = scene_begins(reference.samples)
    pages = (
        replace(
            page_frame(sample, images, first, min_score, begins_ns[sample.scene], matches),
            highlight=highlights.get(sample.truth.sample_token, ""),
        )
        for sample, images in _there(pictures(_spread(tokens, frames) | highlights.keys()))
    )
    title = f"Run {first.name}" if len(scores) == 1 else f"{len(scores)} runs compared"
    several = len(scores) > 1
    cards = [PageCard(score.name, summary(score)) for score in scores] if several else []
    compared = [_runs(scores)] if several else []
    compared += [_thresholds(checks)] if checks else []
    write_report(
        path,
        title,
        summary(first),
        pages,
        tables(first),
        run_charts(scores),
        cards=cards,
        compared=compared,
    )


def _there(
    pictures: Iterator[tuple[BagSample, FrameSet]],
) -> Iterator[tuple[BagSample, FrameSet]]:
    """Pictures up to the first that is not there: the figures are worth a report without them."""
    while True:
        try:
            yield next(pictures)
        except StopIteration:
            return
        except (BagError, DataError) as error:
            _LOG.warning("the report has no pictures, or not all: %s", error)
            return


def pictures_of_bag(bag: Path) -> Pictures:
    """Key frames of a bag, with the images that it carries."""

    def pictures(tokens: Set[str]) -> Iterator[tuple[BagSample, FrameSet]]:
        with BagReader(bag) as reader:
            for sample, images in read_frame_sets(reader):
                if sample.truth.sample_token in tokens:
                    yield sample, images

    return pictures


def pictures_of_dataroot(tables: NuScenesTables, reference: Reference) -> Pictures:
    """Key frames of a reference, with the images of their data root."""

    def pictures(tokens: Set[str]) -> Iterator[tuple[BagSample, FrameSet]]:
        for sample in reference.samples:
            if sample.truth.sample_token in tokens:
                yield sample, tables.frame_set(sample.truth.sample_token)

    return pictures


def scene_begins(samples: Iterable[BagSample]) -> dict[str, int]:
    """The stamp of each scene's first sample, nanoseconds, by the scene's name."""
    begins_ns: dict[str, int] = {}
    for sample in samples:
        stamp_ns = sample.truth.stamp_ns
        begins_ns[sample.scene] = min(stamp_ns, begins_ns.get(sample.scene, stamp_ns))
    return begins_ns


def page_frame(
    sample: BagSample,
    images: FrameSet,
    score: Score,
    min_score: float,
    begin_ns: int,
    matches: dict[str, SampleMatches] | None = None,
) -> PageFrame:
    """A key frame as pictures: true and found boxes in the cameras and from above.

    Args:
        sample: the key frame.
        images: its images and their poses.
        score: of the run whose boxes are drawn.
        min_score: boxes of a lower score are not drawn.
        begin_ns: stamp at which its scene begins, see `scene_begins`.
        matches: what was found and missed by sample token, for the caption.
    """
    truth = sample.truth
    # Those that the metrics count.
    boxes = truth.boxes[torch.from_numpy(truth.touched)]
    class_names = truth.classes.names
    found = boxes_of_results(score.results[truth.sample_token], class_names)
    # The metrics want weak boxes too, and a picture with all of them shows nothing.
    found = found[found.scores >= min_score]
    caption = f"{sample.scene}, after {(truth.stamp_ns - begin_ns) / 1e9:.1f} s: "
    if matches:
        match = matches[truth.sample_token]
        caption += f"{match.found} found, {match.missed} missed, {match.false} wrong "
        caption += f"at scores of {min_score:g} and more"
    else:
        caption += f"{len(boxes)} true boxes, {len(found)} found with a score of at least "
        caption += f"{min_score:g}"
    return PageFrame.drawn(
        caption,
        images,
        found,
        boxes,
        truth.fixed_from_ego,
        class_names=class_names,
        range_m=max(truth.classes.ranges_m),
    )


def summary(score: Score) -> list[tuple[str, str]]:
    """The figures of a run that head the page, as pairs of a name and a text."""
    rows = metric_summary(score.metrics)
    rows.append(("coverage", f"{score.coverage.share:.0%}"))
    total = score.latency_ms.get("total")
    if total:
        rows += [("latency p50", f"{total[0]:.0f} ms"), ("latency p95", f"{total[1]:.0f} ms")]
    rows += [
        (f"sets {name}", str(score.outcomes[name]))
        for name in ("seen", "processed", "dropped")
        if name in score.outcomes
    ]
    return rows


def tables(first: Score) -> list[PageTable]:
    """The figures of a run."""
    out = metric_tables(first.metrics)
    for criterion, groups in first.breakdown.criteria.items():
        header: tuple[str, ...] = ("", "truth", "recall", "error, m")
        rows: list[tuple[str, ...]] = [
            (g.name, str(g.truth_boxes), _number(g.recall), _number(g.center_error_m))
            for g in groups
        ]
        # Groups by visibility or LiDAR returns have no mAP, as false boxes belong to none of them.
        if any(math.isfinite(g.mean_ap) for g in groups):
            header += ("mAP",)
            rows = [(*row, _number(g.mean_ap)) for row, g in zip(rows, groups, strict=True)]
        out.append(PageTable(f"By {criterion}", header, rows))
    stages = [
        (name.replace("_", " "), f"{p50:.1f}", f"{p95:.1f}")
        for name, (p50, p95) in first.latency_ms.items()
    ]
    if stages:
        out.append(PageTable("Latency, milliseconds", ("stage", "p50", "p95"), stages))
    return out


def run_charts(scores: Sequence[Score]) -> list[PageChart]:
    """What there is to draw of these runs."""
    out = []
    if len(scores) > 1:
        compared = charts.runs_compared({score.name: score.metrics for score in scores})
        out.append(PageChart("Runs", compared))
    out += [
        PageChart("Precision over recall within 2 m", charts.precision_recall(scores[0].metrics)),
        PageChart(
            "Recall by distance",
            charts.recall_by_distance({score.name: score.breakdown for score in scores}),
        ),
    ]
    timed = {s.name: s.latencies_ms["total"] for s in scores if s.latencies_ms.get("total")}
    if timed:
        out.append(PageChart("Latency", charts.latencies(timed)))
    return out


def _thresholds(checks: Sequence[Check]) -> PageTable:
    header = ("run", "figure", "value", "wanted", "verdict")
    rows = [
        (
            check.run,
            check.name,
            _number(check.value, 0 if check.value > 10 else 3),
            f"{'at least' if check.at_least else 'at most'} {check.limit:g}",
            "passed" if check.passed else "FAILED",
        )
        for check in checks
    ]
    return PageTable("Thresholds", header, rows, [check.passed for check in checks])


def _runs(scores: Sequence[Score]) -> PageTable:
    errors = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
    header = ("run", "NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "coverage", "p95, ms")
    rows = [
        (
            score.name,
            _number(score.metrics.nds),
            _number(score.metrics.mean_ap),
            *(_number(score.metrics.tp_errors[error]) for error in errors),
            f"{score.coverage.share:.0%}",
            _number(score.latency_p95_ms, 0),
        )
        for score in scores
    ]
    return PageTable("Runs", header, rows)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _spread(tokens: Sequence[str], limit: int) -> set[str]:
    if not limit or len(tokens) <= limit:
        return set(tokens)
    # The first and the last key frame are always among them.
    return {tokens[round(i * (len(tokens) - 1) / max(1, limit - 1))] for i in range(limit)}
