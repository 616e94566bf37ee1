# SPDX-License-Identifier: Apache-2.0
"""Scenes and their chains of samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.columns import SceneRow
from labeldistill_core.data.tables.faults import TableFaults
from labeldistill_core.data.tables.keys import Keys, hashes
from labeldistill_core.data.tables.reading import read_table
from labeldistill_core.data.tables.schema import Log, Sample, Scene
from labeldistill_core.errors import DataError
from labeldistill_core.names import plain_name, shown

_SHORTEST_STEP_US, _LONGEST_STEP_US = 1_000, 100_000_000
"""Between samples, in the median: seconds and milliseconds are below, nanoseconds above."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Samples in the order of scenes and of time; S of them, then those of no scene."""

    scenes: list[SceneRow]
    """With no faults but that of a name that is there twice."""
    tokens: list[str]
    """(S)."""
    stamp_us: NDArray[np.int64]
    """(S,)."""
    scene: NDArray[np.int64]
    """(S,) row of the scene; -1 where there is none."""
    keys: Keys
    """Of the tokens."""


def read_chains(folder: Path, faults: TableFaults) -> Chains:
    """Read scenes, logs and samples.

    Args:
        folder: with the tables.
        faults: what is wrong with scenes goes there.

    Raises:
        DataError: a table is no table, a token is there twice, or a scene's name is no plain name.
    """
    scenes = read_table(folder / "scene.json", Scene)
    samples = read_table(folder / "sample.json", Sample)
    logs = {log.token: log for log in read_table(folder / "log.json", Log, optional=True)}
    by_token = {sample.token: sample for sample in samples}
    scene_rows = {scene.token: row for row, scene in enumerate(scenes)}
    for path, known, table in (
        ("sample", by_token, [s.token for s in samples]),
        ("scene", scene_rows, [s.token for s in scenes]),
    ):
        if len(known) < len(table):
            twice = Counter(table).most_common(1)[0][0]
            raise DataError(f"{folder / path}.json has more than one record {shown(twice)}")
    for scene in scenes:
        # The name becomes that of a bag and of files of a page.
        plain_name(scene.name, f"{folder / 'scene.json'}, record {shown(scene.token)}: the name")
    names = Counter(scene.name for scene in scenes)
    # A dictionary keeps the order in which chains are followed, so that a scene's samples are
    # neighbours in every column.
    order: dict[str, Sample] = {}
    rows = []
    for row, scene in enumerate(scenes):
        found = _follow(folder, scene, by_token, row, faults)
        twice = (
            f"{folder / 'scene.json'} has more than one scene {scene.name}: what is made of "
            "one would replace that of the other; give them names of their own"
        )
        fault = twice if names[scene.name] > 1 else ""
        about = _about(scene, logs.get(scene.log_token or ""))
        rows.append(SceneRow(scene.name, len(order), len(found), fault, about))
        order |= {sample.token: sample for sample in found}
    if alone := [s for s in samples if s.token not in order]:
        faults.notes.append(
            f"{folder / 'sample.json'}: no scene leads to {len(alone)} of {len(samples)} samples, "
            f"such as {shown(alone[0].token)}; they are left out"
        )
    order |= {sample.token: sample for sample in alone}
    tokens = list(order)
    return Chains(
        rows,
        tokens,
        np.array([int(sample.timestamp) for sample in order.values()], np.int64),
        np.array([scene_rows.get(s.scene_token, -1) for s in order.values()], np.int64),
        Keys(hashes(tokens, len(tokens))),
    )


def _follow(
    folder: Path, scene: Scene, samples: dict[str, Sample], row: int, faults: TableFaults
) -> list[Sample]:
    """Samples of a scene up to where its chain ends or is at fault."""
    path = folder / "sample.json"
    found: dict[str, Sample] = {}
    where, field = f"{folder / 'scene.json'}, record {shown(scene.token)}", "first_sample_token"
    token = scene.first_sample_token
    while token:
        if token not in samples:
            faults.add(row, f"{where}: its `{field}` is not in {path}; the table is not complete")
            break
        if token in found:
            back = f"its `{field}` leads back to {shown(token)}"
            faults.add(row, f"{where}: {back}, so the scene would never end")
            break
        sample, where, field = samples[token], f"{path}, record {shown(token)}", "next"
        if sample.scene_token != scene.token:
            faults.add(row, f"{where}: its `scene_token` is not that of scene {scene.name}")
            break
        found[token] = sample
        token = sample.next or ""
    _check_times(path, list(found.values()), row, faults)
    return list(found.values())


def _check_times(path: Path, samples: list[Sample], row: int, faults: TableFaults) -> None:
    stamps_us = np.array([sample.timestamp for sample in samples], np.float64)
    steps_us = np.diff(stamps_us)
    if not len(steps_us):
        return
    # The median tells the unit; single steps may be long, where a recording was cut.
    median_us = float(np.median(steps_us))
    if not _SHORTEST_STEP_US <= abs(median_us) <= _LONGEST_STEP_US:
        faults.add(
            row,
            f"{path}, record {shown(samples[0].token)}: its `timestamp` and those after it are "
            f"{median_us:g} apart; they must be microseconds",
        )
    if (steps_us <= 0).any():
        first = int(np.argmax(steps_us <= 0))
        faults.add(
            row,
            f"{path}, record {shown(samples[first + 1].token)}: its `timestamp` is not later than "
            "that of the sample before it",
        )


def _about(scene: Scene, log: Log | None) -> dict[str, str]:
    about = {"description": scene.description or ""}
    for key in ("location", "date_captured", "vehicle"):
        about[key] = (getattr(log, key) if log else None) or ""
    return about
