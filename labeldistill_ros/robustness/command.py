# SPDX-License-Identifier: Apache-2.0
"""The command that scores a model while cameras fail."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.files import write_json
from labeldistill_core.installed_files import demo_model
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision
from labeldistill_ros.robustness.degradation import FAULTS, run_fault
from labeldistill_ros.robustness.page import write_page, write_plot


def robustness(
    dataroot: Annotated[Path, tyro.conf.Positional],
    model: Path | None = None,
    version: str = "v1.0-trainval",
    split: Literal["train", "val", "all"] = "val",
    scenes: int = 0,
    device: str = "auto",
    precision: Precision = "float32",
    json: Path | None = None,
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
    if detector.device.type == "cpu":
        keep_freed_memory()
    rows = []
    for fault in FAULTS:
        rows.append(run_fault(fault, tables, names, detector))
        print(f"{fault.name:36} mAP {rows[-1].mean_ap:.4f}  NDS {rows[-1].nds:.4f}", flush=True)
    if json:
        write_json(json, {"scenes": len(names), "rows": [asdict(row) for row in rows]})
    if page:
        write_page(page, rows)
    if plot:
        write_plot(plot, rows)
