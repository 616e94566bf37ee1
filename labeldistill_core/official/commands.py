# SPDX-License-Identifier: Apache-2.0
"""Commands that speak with the published code's files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeldistill_core.checkpoints import load_weights, save_student
from labeldistill_core.errors import CheckpointError
from labeldistill_core.network.student import Student
from labeldistill_core.official.parity import run, write_json
from labeldistill_core.official.weights import read_official, rename_student
from labeldistill_core.presets import PRESETS, official

_LOG = logging.getLogger(__name__)

PresetName = Literal[
    "auto", "r50_256x704_4key", "r50_256x704_2key", "r101_512x1408_2key", "convnext_b"
]


def convert_checkpoint(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    preset: PresetName = "auto",
) -> None:
    """Read a student of the published code and write it as a safetensors checkpoint.

    Args:
        source: `.pth`, `.ckpt` or `.safetensors` file with official parameter names.
        target: `.safetensors` file to write.
        preset: network that the weights belong to; auto tries all of them.
    """
    weights = rename_student(read_official(source))
    refusals = []
    for name in PRESETS if preset == "auto" else [preset]:
        student = Student(official(PRESETS[name]()))
        try:
            load_weights(student, weights, str(source))
        except CheckpointError as error:
            refusals.append(f"{name}: {error}")
            continue
        save_student(target, student, note=f"converted from {source.name}")
        _LOG.info("%s: %s with %d tensors", target, name, len(weights))
        return
    raise CheckpointError("\n".join(refusals))


def parity(folder: Annotated[Path, tyro.conf.Positional], json: Path | None = None) -> int:
    """Compare every stage of the network with a recording of the published code.

    Args:
        folder: golden folder with `config.json`, weights and arrays.
        json: file to write the errors to.

    Returns:
        0 when every stage that is built is within its tolerance, else 1.
    """
    results = []
    for result in run(folder):
        print(result.line(), flush=True)
        results.append(result)
    if json:
        write_json(json, results)
    counts = {state: sum(r.passed is state for r in results) for state in (True, False, None)}
    print(f"{counts[True]} ok, {counts[False]} failed, {counts[None]} not built yet")
    return 1 if counts[False] else 0
