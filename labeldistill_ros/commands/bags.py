# SPDX-License-Identifier: Apache-2.0
"""The commands `labeldistill bag ...` that need no ROS; the others are in `ros_bags`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm
from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.errors import BagError, ConfigError
from labeldistill_core.evaluation.verdict import write_junit
from labeldistill_core.exit_codes import MISSED, REFUSED
from labeldistill_core.files import refuse_unwritable, write_json
from labeldistill_core.installed_files import demo_model
from labeldistill_core.options import ClassesOptions, DetectorOptions
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags import recover as recovering
from labeldistill_ros.bags.convert import Conversion, ConversionOptions, convert_scene
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.html_report import write_run_report
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.run_comparison import ScoreOptions, score_runs
from labeldistill_ros.bags.scenes import convert_scenes
from labeldistill_ros.bags.score import comparison
from labeldistill_ros.bags.truth import SAMPLE_TOPIC
from labeldistill_ros.bags.writer import BagOutput


def from_nuscenes(
    dataroot: Positional[Path],
    out: Positional[Path],
    options: Flat[ConversionOptions],
    root: Flat[ClassesOptions],
    scene: str | None = None,
    scenes: tuple[str, ...] = (),
    now: bool = False,
    workers: int = 0,
) -> int:
    """Convert nuScenes scenes to rosbags: sensors, calibration, poses and ground truth.

    Args:
        dataroot: folder with the tables, `samples/` and `sweeps/`.
        out: folder of the bag with --scene; otherwise a folder that gets a bag for each scene.
        options: what goes into the bags.
        root: which of its tables are read, and which classes.
        scene: name of a single scene, such as scene-0103.
        scenes: names; all scenes when neither is given. Bags that are complete are kept.
        now: the bag begins at this moment rather than at its true time.
        workers: scenes at a time; one a core when 0.
    """
    if scene and scenes:
        raise ConfigError("give --scene or --scenes, not both")
    # `--now` is an option of the command line alone: a library function does not read the clock.
    options = replace(options, start_ns=time.time_ns() if now else None)
    tables = root.tables(dataroot)
    if scene:
        done = convert_scene(tables, scene, out, options, about=tables.about(scene))
        _tell(out, done)
        tell_written(out, then=("labeldistill", "doctor", out))
        return 0
    # One scene's fault does not keep the others from being converted; all are told at the end.
    failed = 0
    chosen = scenes or tables.scene_names
    for result in convert_scenes(tables, chosen, out, options, workers=workers):
        failed += bool(result.error)
        if result.error:
            print(f"error: {result.error}", file=sys.stderr)
        elif result.done:
            _tell(result.bag, result.done)
        else:
            print(f"{result.bag}: was complete already")
    if failed:
        print(f"error: {failed} of {len(chosen)} scenes failed", file=sys.stderr)
    # Not `MISSED`, which is for thresholds alone: a scene that was refused is bad input.
    return REFUSED if failed else 0


def _tell(bag: Path, done: Conversion) -> None:
    """Print what went into a bag, in a line."""
    print(
        f"{bag}: {done.samples} samples, {done.images} images, {done.clouds} clouds, "
        f"{done.duration_s:.1f} s, {sum(done.counts.values())} messages on "
        f"{len(done.counts)} topics"
        + (f", {done.images_lost} images lost" if done.images_lost else "")
    )


def detect(
    bag: Positional[Path],
    out: Positional[Path],
    network: Flat[DetectorOptions],
    output: Flat[BagOutput],
    options: Flat[DetectOptions],
) -> None:
    """Run the detector over a bag without ROS, at full speed, and write a bag with its boxes.

    Args:
        bag: with images, calibrations and transforms.
        out: folder of the bag to write; `bag score OUT` scores it.
        network: which model detects, and how it is computed.
        output: how the bag is written.
        options: what the node's parameters of these names say.
    """
    detector = Detector.load(
        network.model or demo_model(), device=network.device, precision=network.precision
    )
    # A switch of the whole process, so the command sets it and no function of the library does.
    keep_freed_memory(detector.device)
    with tqdm(unit="set", disable=None) as bar:
        done = detect_bag(
            bag,
            out,
            detector,
            options,
            output=output,
            progress=lambda _: bar.update() and None,
        )
    print(
        f"{out}: {done.processed} of {done.sets} sets, {done.boxes} boxes, {done.wall_s:.1f} s "
        f"for {done.bag_s:.1f} s of driving"
    )
    # Told, since nothing else shows that these boxes come from single frames.
    if done.without_pose:
        print(f"{done.without_pose} sets without history: the vehicle's pose was not known")
    for problem, count in done.problems.items():
        print(f"{count} sets without boxes: {problem}")
    if done.images_left_out:
        print(
            f"{done.images_left_out} images went into no set: too few cameras of their instant, "
            "or late; `labeldistill doctor` tells more"
        )
    if not done.processed:
        raise BagError(f"{bag}: no set of images could be used; what was found is told above")
    with BagReader(bag) as reader:
        # A recording of a vehicle knows no samples, so a data root made of it has the truth.
        scored = (bag, out) if SAMPLE_TOPIC in reader.topics else (out, "--dataroot", "DATAROOT")
    tell_written(out, then=("labeldistill", "bag", "score", *scored))


def recover(source: Positional[Path], out: Positional[Path], output: Flat[BagOutput]) -> None:
    """Make a bag of what is whole in one that was cut off; what is there stays as it is.

    Args:
        source: folder of the bag, or its .mcap or .db3 file; metadata.yaml is not needed.
        out: folder of the bag to write.
        output: how it is written.
    """
    # Into a new bag, since writing to one that is damaged could cost what is still whole.
    counts = recovering.recover(source, out, output)
    for topic, count in sorted(counts.items()):
        print(f"{count:7d}  {topic}")
    tell_written(out)


def score(
    source: Positional[Path],
    runs: Positional[tuple[Path, ...]],
    options: Flat[ScoreOptions],
    out: Path | None = None,
    json: Path | None = None,
    junit: Path | None = None,
    report: Path | None = None,
    report_frames: int = 40,
) -> int:
    """Score detections with the official nuScenes metrics: recordings or result files.

    Without --dataroot the first path is the bag with samples, ground truth and poses, and the
    runs are measured against it; when none is given, that bag holds the detections too. With
    --dataroot all paths are runs. A run is a bag with the detector's topics or a result file
    (`.json`, `.json.gz`). Several runs are compared. The exit code is 1 when a run misses a
    threshold.

    Args:
        source: bag with the truth, or with --dataroot the first run.
        runs: bags or result files.
        options: what they are measured against, and what they must reach.
        out: nuScenes result file to write, of a single run, before it is scored.
        json: file to write all figures to.
        junit: file to write the verdict to, as JUnit XML.
        report: HTML file to write: tables, curves, best and worst samples, the scene. Its pictures
            show the first run.
        report_frames: at most so many key frames are pictured; 0 for all.
    """
    refuse_unwritable(out, json, junit, report)
    found = score_runs(source, runs, options, out)
    scores = found.scores
    # what was computed is told and written before what may still fail
    # One run is told at length, several in a line each.
    print(scores[0].table() if len(scores) == 1 else comparison(scores))
    for one in found.checks:
        print(one.sentence())
    if junit:
        write_junit(junit, found.checks, found.records)
    if json:
        figures = [score.as_json() for score in scores]
        write_json(json, figures[0] if len(scores) == 1 else {"runs": figures})
    if report:
        write_run_report(
            report,
            found.reference,
            scores,
            found.pictures,
            checks=found.checks,
            frames=report_frames,
        )
    tell_written(out, junit, json, report)
    return 0 if found.passed else MISSED
