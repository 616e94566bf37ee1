# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.evaluation`: scoring a whole split, here and by the devkit."""

from __future__ import annotations

import json as json_module
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluation.measure import (
    SPLIT,
    largest_difference,
    use_bag_score,
    use_devkit,
    use_ours,
    write_random_results,
)
from benchmarks.tables.generate import VERSION, write_tables
from benchmarks.tables.measure import alone
from labeldistill_core.console import run_command
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.files import write_json
from labeldistill_core.provenance import commit, machine

# Sums of float64 in another order differ in their last digits.
_EXACT = 1e-9


def evaluation(
    scenes: int = 151,
    boxes: int = 500,
    folder: Path | None = None,
    json: Path | None = None,
) -> None:
    """Score one result file with `evaluate-results`, `bag score` and the devkit's `DetectionEval`.

    With 151 scenes of 40 samples, a little more than nuScenes' validation split, the result file
    takes 1 GB and the devkit about 10 GiB of memory and as many minutes.

    Args:
        scenes: of the tables, 40 samples each.
        boxes: of each sample in the result file; 500 are allowed.
        folder: where tables and result file go, and stay; a temporary folder when None.
        json: file to write the figures to.
    """
    with tempfile.TemporaryDirectory() as temporary:
        # A folder that is given keeps what takes minutes to write, under names that tell the size.
        root = (folder or Path(temporary)) / f"nuscenes-{scenes}"
        results = root.with_name(f"results-{scenes}-{boxes}.json")
        if not root.exists():
            write_tables(root, scenes)
        splits = root / VERSION / "splits.json"
        if not splits.exists():
            names = list(NuScenesTables(root, VERSION).scene_names)
            write_json(splits, {SPLIT: names})
        if not results.exists():
            alone(write_random_results, root, results, boxes)
        # Each in a process of its own, since a process never gives its peak of memory back.
        ours = alone(use_ours, root, results)
        bag_score = alone(use_bag_score, root, results)
        devkit = alone(use_devkit, root, results)
    ours_scores, devkit_scores = ours.pop("scores"), devkit.pop("scores")
    gaps = [largest_difference(s, devkit_scores) for s in (ours_scores, bag_score.pop("scores"))]
    figures = {
        "commit": commit(),
        "machine": machine(),
        "samples": scenes * 40,
        "boxes": boxes,
        "ours": ours,
        "bag_score": bag_score,
        "devkit": devkit,
        "share_of_devkits_time": ours["seconds"] / devkit["seconds"],
        "largest_difference": max(gaps),
        "scores": {name: ours_scores[name] for name in ("mAP", "NDS")},
    }
    if json:
        write_json(json, figures)
    print(json_module.dumps(figures, indent=1))
    if not figures["largest_difference"] < _EXACT:
        sys.exit(f"the scores differ by {figures['largest_difference']:g}")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command("python -m benchmarks.evaluation", evaluation, args)


if __name__ == "__main__":
    sys.exit(main())
