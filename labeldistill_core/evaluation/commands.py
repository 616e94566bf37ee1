# SPDX-License-Identifier: Apache-2.0
"""Commands that score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.results import read_results


def evaluate_results(
    results: Annotated[Path, tyro.conf.Positional],
    dataroot: Annotated[Path, tyro.conf.Positional],
    version: str = "v1.0-trainval",
    scenes: tuple[str, ...] = (),
    json: Path | None = None,
) -> None:
    """Score a nuScenes result file with the official metrics.

    Args:
        results: `.json` or `.json.gz` file.
        dataroot: nuScenes data root; only its tables are read.
        version: of the tables.
        scenes: names of the scenes to score; when none is given, all samples of the result file.
        json: file to write the metrics to.
    """
    tables = NuScenesTables(dataroot, version)
    found = read_results(results)
    tokens = [token for name in scenes for token in tables.samples(name)] or list(found)
    metrics = evaluate([tables.ground_truth(token) for token in tokens], found)
    if json:
        metrics.write(json)
    print(metrics.table())
