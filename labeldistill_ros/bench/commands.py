# SPDX-License-Identifier: Apache-2.0
"""Commands that measure the running node."""

from __future__ import annotations

import json as json_module
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.installed_files import demo_model
from labeldistill_core.provenance import commit, machine
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision
from labeldistill_ros.bench.bags import measure_bags
from labeldistill_ros.bench.degradation import FAULTS, run_fault
from labeldistill_ros.bench.failure_table import SCENES
from labeldistill_ros.bench.failures import as_json, run_scene
from labeldistill_ros.bench.load import LoadOptions, run_load
from labeldistill_ros.bench.processes import run_refusals, run_signals
from labeldistill_ros.bench.robustness import write_page, write_plot
from labeldistill_ros.isolated_domain import own_domain


def bench_node(
    json: Path = Path("benchmarks/results/failures.json"), model: Path | None = None
) -> int:
    """Do every event of the failure table to a running node over DDS; exits with 1 if one fails.

    Args:
        json: file to write the rows to.
        model: student checkpoint; the demo's when not given.
    """
    rows = []
    with own_domain():
        for scene in SCENES:
            rows += run_scene(scene, model)
            print(f"{scene.name}: done")
        rows += run_refusals(model) + run_signals(model)
    json.parent.mkdir(parents=True, exist_ok=True)
    json.write_text(json_module.dumps(as_json(rows), indent=1) + "\n")
    width = max(len(row.event) for row in rows)
    print(f"\n{'':4} {'event':<{width}} {'detect':>8} {'recover':>8}  what it did")
    for row in rows:
        times = [f"{t:.2f} s" if t is not None else "" for t in (row.detected_s, row.recovered_s)]
        mark = "ok" if row.passed else "FAIL"
        print(f"{mark:4} {row.event:<{width}} {times[0]:>8} {times[1]:>8}  {row.observed}")
    failed = sum(not row.passed for row in rows)
    print(f"\n{len(rows)} rows, {failed} failed; written to {json}")
    return int(failed > 0)


def bench_load(
    seconds: float = 600.0,
    rate_hz: float = 12.0,
    image_size: tuple[int, int] = (1600, 900),
    model: Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
    json: Path | None = None,
) -> int:
    """Six cameras of JPEG images through the running node; exits with 1 when it does not hold.

    The cameras and the node share this machine's cores.

    Args:
        seconds: how long, after the detector alone was measured and a minute to warm up.
        rate_hz: of each camera.
        image_size: width and height in pixels.
        model: student checkpoint; the demo's when not given.
        device: cpu, cuda:0 and so on.
        precision: of the convolutions.
        json: file to write the figures to.
    """
    with own_domain():
        found = run_load(LoadOptions(seconds, rate_hz, image_size, model, device, precision))
    text = json_module.dumps(found, indent=1)
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(text + "\n")
    print(text)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB")
    return int(not found["passed"])


def bench_degradation(
    dataroot: Annotated[Path, tyro.conf.Positional],
    model: Path | None = None,
    version: str = "v1.0-trainval",
    split: Literal["train", "val", "all"] = "val",
    scenes: int = 0,
    device: str = "auto",
    precision: Precision = "float32",
    json: Path = Path("benchmarks/results/degradation.json"),
    page: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Score a data root while cameras, stamps or calibration fail.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        model: student checkpoint; the demo's when not given.
        version: of the tables.
        split: scenes to run on.
        scenes: how many of them; 0 for all.
        device: cpu, cuda:0 and so on, or auto.
        precision: of the convolutions.
        json: file to write the figures to.
        page: Markdown page that holds the table.
        plot: SVG file for the picture.
    """
    tables = NuScenesTables(dataroot, version)
    names = split_scenes(tables, split)[: scenes or None]
    detector = Detector.load(model or demo_model(), device=device, precision=precision)
    rows = []
    for fault in FAULTS:
        rows.append(run_fault(fault, tables, names, detector))
        print(f"{fault.name:36} mAP {rows[-1].mean_ap:.4f}  NDS {rows[-1].nds:.4f}", flush=True)
    json.parent.mkdir(parents=True, exist_ok=True)
    figures = {"scenes": len(names), "rows": [asdict(row) for row in rows]}
    json.write_text(json_module.dumps(figures, indent=1) + "\n")
    if page:
        write_page(page, rows)
    if plot:
        write_plot(plot, rows)


def bench_bags(
    dataroot: Annotated[Path, tyro.conf.Positional],
    longer: Path | None = None,
    version: str = "v1.0-mini",
    repeats: int = 3,
    json: Path = Path("benchmarks/results/bags.json"),
) -> None:
    """Measure conversion against copying the files, its memory, and replay against the clock.

    Args:
        dataroot: nuScenes data root, real or synthetic; its scenes are converted.
        longer: another one whose first scene is longer: does memory grow with a scene's length?
        version: of the tables.
        repeats: of conversion and copy, in turns, after one to warm up; the best of each counts.
            Nothing is removed in between: the disk needs room for all rounds.
        json: file to write the figures to.
    """
    with own_domain():
        found = measure_bags(dataroot, version, longer, repeats)
    head = {"commit": commit(), "machine": machine()}
    text = json_module.dumps({**head, **found}, indent=1)
    json.parent.mkdir(parents=True, exist_ok=True)
    json.write_text(text + "\n")
    print(text)
