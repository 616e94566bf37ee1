# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.bags`: conversion against copying the files, replay against the clock."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from benchmarks.bags.measure import BagsOptions, measure_bags
from labeldistill_core.console import Flat, run_command
from labeldistill_core.files import write_json
from labeldistill_core.provenance import commit, machine
from labeldistill_ros.isolated_domain import own_domain


def bags(
    dataroot: Positional[Path],
    options: Flat[BagsOptions],
    json: Path | None = None,
) -> None:
    """Measure conversion against copying the files, its memory, and replay against the clock.

    Args:
        dataroot: nuScenes data root, real or synthetic; its scenes are converted.
        options: what is measured, and how often.
        json: file to write the figures to.
    """
    with own_domain():
        found = measure_bags(dataroot, options)
    figures = {"commit": commit(), "machine": machine(), **found}
    if json:
        write_json(json, figures)
    print(json_module.dumps(figures, indent=1))


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command("python -m benchmarks.bags", bags, args)


if __name__ == "__main__":
    sys.exit(main())
