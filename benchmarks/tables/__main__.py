# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.tables`: tables of nuScenes' real size, against the devkit."""

from __future__ import annotations

import json as json_module
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables.generate import VERSION, write_tables
from benchmarks.tables.measure import (
    alone,
    growth_of_ours,
    open_ours,
    read_ours,
    use_devkit,
)
from labeldistill_core.console import run_command
from labeldistill_core.files import write_json
from labeldistill_core.provenance import commit, machine


def tables(
    scenes: int = 850,
    samples: int = 14_000,
    devkit_samples: int = 4_000,
    folder: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure opening and reading tables of nuScenes' size, and the devkit beside it.

    The tables take 2.4 GB, the devkit 8 GiB of memory and its loading processes 2 GiB each.

    Args:
        scenes: of the tables; nuScenes has 850.
        samples: that two forked loading processes read while they are watched.
        devkit_samples: the same for the devkit, which grows too fast for more.
        folder: where the tables go, and stay; a temporary folder that is removed when None.
        json: file to write the figures to.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = (folder or Path(temporary)) / f"nuscenes-{scenes}"
        if not root.exists():
            write_tables(root, scenes)
        size = sum(path.stat().st_size for path in (root / VERSION).glob("*.json"))
        ours = {"first": alone(open_ours, root), "later": alone(open_ours, root)}
        ours["sample"] = alone(read_ours, root)
        ours["loading"] = alone(growth_of_ours, root, samples)
        devkit = alone(use_devkit, root, devkit_samples)
    figures = {
        "commit": commit(),
        "machine": machine(),
        "tables": {"scenes": scenes, "json_gb": round(size / 1e9, 2)},
        "ours": ours,
        "devkit": devkit,
        "first_opening_of_devkits": ours["first"]["open_s"] / devkit["open_s"],
    }
    if json:
        write_json(json, figures)
    print(json_module.dumps(figures, indent=1))


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command("python -m benchmarks.tables", tables, args)


if __name__ == "__main__":
    sys.exit(main())
