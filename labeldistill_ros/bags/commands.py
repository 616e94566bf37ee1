# SPDX-License-Identifier: Apache-2.0
"""The commands `labeldistill bag ...` that need no ROS; the others are in `ros_commands`."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_ros.bags.writer import Storage


def from_nuscenes(
    dataroot: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    scene: str | None = None,
    scenes: tuple[str, ...] = (),
    version: str = "v1.0-trainval",
    sweeps: bool = True,
    clouds: bool = True,
    can: bool = True,
    truth: bool = True,
    storage: Storage = "mcap",
    zstd: bool = False,
    now: bool = False,
    drop: float = 0.0,
    jitter: float = 0.0,
    kill_camera: tuple[str, ...] = (),
    miscalibrate: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    force: bool = False,
) -> int:
    """Convert nuScenes scenes to rosbags: sensors, calibration, poses and ground truth.

    Args:
        dataroot: folder with the tables, `samples/` and `sweeps/`.
        out: folder of the bag with --scene; otherwise a folder that gets a bag for each scene.
        scene: name of a single scene, such as scene-0103.
        scenes: names; all scenes when neither is given. Bags that are complete are kept.
        version: name of the folder with the tables.
        sweeps: also what was taken between the samples.
        clouds: LiDAR and radar; --no-clouds leaves the cameras alone.
        can: IMU and odometry of the CAN bus expansion, where it is there.
        truth: samples and ground truth, which scoring needs.
        storage: file format; Humble reads mcap only with its plugin.
        zstd: compress chunks that get smaller by it (LiDAR does, JPEG does not); mcap only.
        now: the bag begins at this moment rather than at its true time.
        drop: share of the images that are lost, 0 to 1.
        jitter: standard deviation in milliseconds of an error in the images' stamps.
        kill_camera: cameras that fall silent: NAME, or NAME@SECONDS after the first image.
        miscalibrate: degrees by which each camera's mounting is turned.
        seed: another one draws other faults.
        workers: scenes at a time; one a core when 0.
        force: replace bags that are there.

    Returns:
        0, or 1 when a scene failed.
    """
    from labeldistill_core.data.nuscenes import NuScenesTables
    from labeldistill_core.errors import ConfigError
    from labeldistill_ros.bags.convert import Conversion, ConversionOptions, convert_scene
    from labeldistill_ros.bags.faults import Faults
    from labeldistill_ros.bags.scenes import convert_scenes

    def told(bag: Path, done: Conversion) -> str:
        return (
            f"{bag}: {done.samples} samples, {done.images} images, {done.clouds} clouds, "
            f"{done.duration_s:.1f} s, {sum(done.counts.values())} messages on "
            f"{len(done.counts)} topics" + (f", {done.images_lost} images lost" * faults.any)
        )

    if scene and scenes:
        raise ConfigError("give --scene or --scenes, not both")
    faults = Faults(drop, jitter, kill_camera, miscalibrate, seed)
    start_ns = time.time_ns() if now else None
    options = ConversionOptions(sweeps, clouds, can, truth, storage, zstd, start_ns, faults)
    tables = NuScenesTables(dataroot, version)
    if scene:
        about = tables.about(scene)
        print(told(out, convert_scene(tables, scene, out, options, about=about, force=force)))
        return 0
    failed = 0
    chosen = scenes or tables.scene_names
    for result in convert_scenes(tables, chosen, out, options, workers=workers, force=force):
        failed += bool(result.error)
        if result.error:
            print(f"error: {result.error}", file=sys.stderr)
        elif result.done:
            print(told(result.bag, result.done))
        else:
            print(f"{result.bag}: was complete already")
    if failed:
        print(f"error: {failed} of {len(chosen)} scenes failed", file=sys.stderr)
    return 1 if failed else 0


def detect(
    bag: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    model: Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
    score_threshold: float = 0.1,
    max_boxes: int = 500,
    output_frame: str = "base_link",
    missing_camera_policy: Literal["skip", "mask"] = "skip",
    min_cameras: int = 4,
    max_age: float = 0.25,
    storage: Storage = "mcap",
    force: bool = False,
) -> int:
    """Run the detector over a bag without ROS, at full speed, and write a bag with its boxes.

    Args:
        bag: with images, calibrations and transforms.
        out: folder of the bag to write; `bag score OUT` scores it.
        model: student checkpoint; the demo's when not given.
        device: cpu, cuda:0 and so on, or auto.
        precision: of the convolutions.
        score_threshold: boxes of a lower score are left out.
        max_boxes: at most so many a set, the best.
        output_frame: frame of the boxes.
        missing_camera_policy: sets that lack images are left out (skip), or used without (mask).
        min_cameras: fewest images of a set under mask.
        max_age: seconds of silence after which a camera counts as dead.
        storage: file format of the new bag.
        force: replace a bag that is there.

    Returns:
        0, or 1 when no set of images was found.
    """
    from tqdm import tqdm

    from labeldistill_core.installed_files import demo_model
    from labeldistill_core.runtime.allocator import keep_freed_memory
    from labeldistill_core.runtime.detector import Detector
    from labeldistill_ros.bags.detect import DetectOptions, detect_bag

    options = DetectOptions(
        score_threshold, max_boxes, output_frame, missing_camera_policy, min_cameras, max_age
    )
    detector = Detector.load(model or demo_model(), device=device, precision=precision)
    if detector.device.type == "cpu":
        keep_freed_memory()
    with tqdm(unit="set", disable=None) as bar:
        done = detect_bag(
            bag,
            out,
            detector,
            options,
            storage=storage,
            force=force,
            progress=lambda _: bar.update() and None,
        )
    print(
        f"{out}: {done.processed} of {done.sets} sets, {done.boxes} boxes, {done.wall_s:.1f} s "
        f"for {done.bag_s:.1f} s of driving"
    )
    for problem, count in done.problems.items():
        print(f"{count} sets without boxes: {problem}")
    return 0 if done.processed else 1


def recover(
    source: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    storage: Storage = "mcap",
    force: bool = False,
) -> None:
    """Make a bag of what is whole in one that was cut off; what is there stays as it is.

    Args:
        source: folder of the bag, or its .mcap or .db3 file; metadata.yaml is not needed.
        out: folder of the bag to write.
        storage: file format of the new bag.
        force: replace a bag that is there.
    """
    from labeldistill_ros.bags.recover import recover

    for topic, count in sorted(recover(source, out, storage=storage, force=force).items()):
        print(f"{count:7d}  {topic}")


def score(
    source: Annotated[Path, tyro.conf.Positional],
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    dataroot: Path | None = None,
    version: str = "v1.0-trainval",
    split: str = "val",
    scenes: tuple[str, ...] = (),
    topic: str = "/detector/detections",
    tolerance: float = 0.05,
    out: Path | None = None,
    json: Path | None = None,
    junit: Path | None = None,
    report: Path | None = None,
    report_frames: int = 40,
    min_nds: float | None = None,
    min_map: float | None = None,
    min_coverage: float | None = None,
    max_latency: float | None = None,
) -> int:
    """Score detections with the official nuScenes metrics: recordings or result files.

    Without --dataroot the first path is the bag with samples, ground truth and poses, and the
    runs are measured against it; when none is given, that bag holds the detections too. With
    --dataroot all paths are runs. A run is a bag with the detector's topics or a result file
    (`.json`, `.json.gz`). Several runs are compared.

    Args:
        source: bag with the truth, or with --dataroot the first run.
        runs: bags or result files.
        dataroot: nuScenes data root to take the truth from; only its tables are read.
        version: of the tables.
        split: train, val, mini_train, mini_val or all: key frames of the data root.
        scenes: names of scenes instead of a split.
        topic: of the detections.
        tolerance: seconds between a sample and the detections that are taken for it.
        out: nuScenes result file to write, of a single run.
        json: file to write all figures to.
        junit: file to write the verdict to, as JUnit XML.
        report: HTML file to write: tables, curves, best and worst samples, the scene. Its pictures
            show the first run.
        report_frames: at most so many key frames are pictured; 0 for all.
        min_nds: exit with 1 when a run has a lower NDS (0 to 1).
        min_map: exit with 1 when a run has a lower mAP (0 to 1).
        min_coverage: exit with 1 when a smaller share of the key frames has boxes (0 to 1).
        max_latency: milliseconds; exit with 1 when the 95th percentile of a run is higher.

    Returns:
        0, or 1 when a threshold is missed.
    """
    from labeldistill_core.data.nuscenes import NuScenesTables
    from labeldistill_core.errors import ConfigError
    from labeldistill_core.evaluation.results import write_results
    from labeldistill_core.evaluation.verdict import Thresholds, check, write_junit
    from labeldistill_ros.bags import score as scoring

    thresholds = Thresholds(min_nds, min_map, min_coverage, max_latency)
    if dataroot:
        tables = NuScenesTables(dataroot, version)
        chosen = scoring.reference_scenes(tables, split, scenes)
        reference, compared = scoring.Reference.of_dataroot(tables, chosen), (source, *runs)
    elif scoring.is_result_file(source):
        raise ConfigError(
            f"{source} is a result file: say with --dataroot, --version and --split what it is "
            "measured against, or put a bag with the ground truth before it"
        )
    else:
        reference, compared = scoring.Reference.of_bag(source), runs or (source,)
    if out and len(compared) > 1:
        raise ConfigError(f"--out takes the boxes of one run, and {len(compared)} are given")
    scores = [
        scoring.score_run(reference, run, topic="/" + topic.strip("/"), tolerance_s=tolerance)
        for run in compared
    ]
    checks = [
        one
        for score in scores
        for one in check(
            score.name,
            thresholds,
            nds=score.metrics.nds,
            mean_ap=score.metrics.mean_ap,
            coverage=score.coverage.share,
            latency_p95_ms=score.latency_p95_ms,
        )
    ]
    if out:
        write_results(out, scores[0].results)
    if json:
        content: object = scores[0].as_json()
        if len(scores) > 1:
            content = {"runs": [score.as_json() for score in scores]}
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(content, indent=1) + "\n")
    if report:
        from labeldistill_ros.bags import report as reporting

        pictures = (
            reporting.pictures_of_dataroot(tables, reference)
            if dataroot
            else reporting.pictures_of_bag(source)
        )
        reporting.write_run_report(report, reference, scores, pictures, frames=report_frames)
        print(report)
    if junit:
        write_junit(junit, checks)
    print(scores[0].table() if len(scores) == 1 else scoring.comparison(scores))
    for one in checks:
        print(one.sentence())
    return 0 if all(one.passed for one in checks) else 1
