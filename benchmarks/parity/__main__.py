# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.parity DIR`: every stage against a recording of the published code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.parity import (
    distillation_stages,
    preprocessing_stages,
    published_stages,
    student_stages,
    teacher_stages,
    training_stages,
)
from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import StageResult, float64
from labeldistill_core.console import run_command
from labeldistill_core.errors import DataError
from labeldistill_core.files import write_json

STAGES = (
    preprocessing_stages.compare,
    student_stages.compare,
    training_stages.compare,
    distillation_stages.compare,
    teacher_stages.compare,
    published_stages.compare,
)
"""All comparisons, in the order in which data pass through the network."""


def parity(folder: Annotated[Path, tyro.conf.Positional], json: Path | None = None) -> int:
    """Compare every stage of the network with a recording of the published code.

    Args:
        folder: golden folder with `config.json`, weights and arrays.
        json: file to write the errors to.

    Returns:
        0 when every stage is within its tolerance, else 1.
    """
    results = []
    for result in compare(folder):
        print(result.line(), flush=True)
        results.append(result)
    failed = sum(not result.passed for result in results)
    if json:
        rows = [asdict(result) for result in results]
        write_json(json, {"passed": not failed, "stages": rows})
    print(f"{len(results) - failed} ok, {failed} failed")
    return 1 if failed else 0


def compare(folder: Path) -> Iterator[StageResult]:
    """Compare everything that a golden folder holds.

    Raises:
        DataError: the folder is not of that form.
        CheckpointError: its weights do not fit the network that its configuration describes.
    """
    golden = GoldenFolder(folder)
    try:
        widened = golden.widened()
        for stages in STAGES:
            if stages is preprocessing_stages.compare:  # tables and images, no network
                yield from (comparison.judge() for comparison in stages(golden))
                continue
            with float64():
                exact = [comparison.ours for comparison in stages(widened)]
            for comparison, values in zip(stages(golden), exact, strict=True):
                yield comparison.judge(values)
    except KeyError as error:
        raise DataError(f"{folder} lacks an array: {error}") from error


def main(args: Sequence[str] | None = None) -> int:
    """Run the comparison; returns its exit code."""
    return run_command("python -m benchmarks.parity", parity, args)


if __name__ == "__main__":
    sys.exit(main())
