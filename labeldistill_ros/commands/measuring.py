# SPDX-License-Identifier: Apache-2.0
"""`labeldistill bench` and `robustness`: what users ask of their own machine and model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from labeldistill_core.checkpoints import file_sha256
from labeldistill_core.config_files import classes_of
from labeldistill_core.console import Flat, tell_written
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import refuse_unwritable, write_json
from labeldistill_core.installed_files import demo_model
from labeldistill_core.profiling import bench as profiling
from labeldistill_core.provenance import given_command
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_ros.robustness import degradation
from labeldistill_ros.robustness.page import refuse_page, write_page, write_plot


def bench(options: Flat[profiling.BenchOptions], json: Path | None = None) -> None:
    """Measure the detector from JPEG bytes to boxes, by stage, on this device.

    On a GPU the last precision is also measured in a CUDA graph, with images prepared on the CPU,
    resized on the GPU, and decoded there, too.

    Args:
        options: which networks are measured, and how.
        json: file to write the figures to.
    """
    refuse_unwritable(json)
    figures: dict[str, Any] = {
        # Figures without the command, machine and commit that gave them cannot be repeated.
        "command": given_command("labeldistill"),
        **profiling.surroundings(options.place),
        "presets": {},
    }
    print(figures["machine"])
    keep_freed_memory(options.place)
    for name, found in profiling.bench(options):
        figures["presets"][name] = found
        print(f"\n{name}\n{profiling.table(found)}", flush=True)
        # After each network, so that what was measured is kept when a later one runs out of memory.
        if json:
            write_json(json, figures)
    tell_written(json)


def _about_robustness(dataroot: Path, options: degradation.RobustnessOptions) -> dict[str, Any]:
    """What the figures depend on besides the conditions."""
    model = options.model or demo_model()
    tables = NuScenesTables(dataroot, options.version, classes_of(model))
    return {
        "command": given_command("labeldistill"),
        **profiling.surroundings(resolve_device(options.device)),
        "model": {"name": model.name, "sha256": file_sha256(model)},
        "scenes": len(options.chosen(tables)),
    }


def robustness(
    dataroot: Positional[Path],
    options: Flat[degradation.RobustnessOptions],
    json: Path | None = None,
    page: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Score a model on a data root while cameras, stamps or calibrations fail.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        options: which model is scored, and on what.
        json: file to write the figures to.
        page: Markdown page whose table is replaced, or a new one.
        plot: SVG file to draw the figures into.
    """
    given = [path.resolve() for path in (json, page, plot) if path]
    if len(set(given)) < len(given):
        raise ConfigError("--json, --page and --plot are different files: name each anew")
    refuse_unwritable(json, plot)
    if page:
        refuse_page(page)
    rows: list[degradation.Degradation] = []
    keep_freed_memory(resolve_device(options.device))
    figures = _about_robustness(dataroot, options) if json else {}
    for row in degradation.robustness(dataroot, options):
        # Printed and written as they come, since each of twenty conditions runs over every key
        # frame.
        rows.append(row)
        print(f"{row.fault:36} mAP {row.mean_ap:.4f}  NDS {row.nds:.4f}", flush=True)
        if json:
            write_json(json, {**figures, "rows": [asdict(row) for row in rows]})
    if page:
        write_page(page, rows)
    if plot:
        write_plot(plot, rows)
    tell_written(json, page, plot)
