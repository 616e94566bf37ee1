# SPDX-License-Identifier: Apache-2.0
"""`labeldistill bench` and `robustness`: what users ask of their own machine and model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from labeldistill_core.console import Flat
from labeldistill_core.files import write_json
from labeldistill_core.profiling import bench as profiling


def bench(options: Flat[profiling.BenchOptions], json: Path | None = None) -> None:
    """Measure the detector from JPEG bytes to boxes, by stage, on this device.

    On a GPU the last precision is also measured in a CUDA graph, with images prepared on the CPU,
    resized on the GPU, and decoded there, too.

    Args:
        options: which networks are measured, and how.
        json: file to write the figures to.
    """
    figures: dict[str, Any] = {
        "command": " ".join(["labeldistill", *sys.argv[1:]]),
        **profiling.surroundings(options.place),
        "presets": {},
    }
    print(figures["machine"])
    for name, found in profiling.bench(options):
        figures["presets"][name] = found
        print(f"\n{name}\n{profiling.table(found)}", flush=True)
        if json:
            write_json(json, figures)
