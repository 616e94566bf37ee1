# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.images`: images on one core, each way beside the one it replaced."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from tyro.conf import Positional

from benchmarks.images.measure import decoding, raw_encodings, resizing, training_sample
from labeldistill_core.console import run_command
from labeldistill_core.files import write_json
from labeldistill_core.profiling.bench import surroundings
from labeldistill_core.provenance import given_command


def bench_images(
    root: Positional[Path], version: str = "v1.0-mini", json: Path | None = None
) -> None:
    """Print milliseconds and ratios; the ways take turns, so that load falls on all of them.

    Args:
        root: nuScenes data root with images of at least five samples, for a training sample.
        version: of its tables.
        json: file to write the figures to.
    """
    # A loading process has one core, and threads would hide what an image costs.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {
        "command": given_command("python -m benchmarks.images"),
        **surroundings(torch.device("cpu")),
        "resizing": resizing(),
        "decoding": decoding(root, version),
        "raw": raw_encodings(),
        "training_sample": training_sample(root, version),
    }
    for group in ("resizing", "decoding", "raw", "training_sample"):
        for name, row in figures[group].items():
            print(f"{name:28}", "  ".join(f"{way} {ms:.2f} ms" for way, ms in row.items()))
    if json:
        write_json(json, figures)


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code."""
    return run_command("python -m benchmarks.images", bench_images, args)


if __name__ == "__main__":
    sys.exit(main())
