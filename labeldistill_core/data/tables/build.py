# SPDX-License-Identifier: Apache-2.0
"""The columns of tables, from their JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from labeldistill_core.data.tables.annotations import read_annotations
from labeldistill_core.data.tables.chains import read_chains
from labeldistill_core.data.tables.columns import (
    LIDAR,
    Meta,
    MountingColumns,
    SampleColumns,
    TableColumns,
    lidar_of,
)
from labeldistill_core.data.tables.faults import TableFaults
from labeldistill_core.data.tables.mountings import read_mountings
from labeldistill_core.data.tables.schema import OPTIONAL
from labeldistill_core.data.tables.sensor_data import read_sensor_data
from labeldistill_core.data.tables.texts import TextCollector
from labeldistill_core.errors import DataError


def build_columns(folder: Path) -> TableColumns:
    """Read all tables of a folder.

    A scene of which something is wrong is kept with its fault, so that others can be used.

    Raises:
        DataError: a table is missing or is no table, or something is wrong in every scene.
    """
    faults = TableFaults()
    for table in OPTIONAL:
        if not (path := folder / f"{table}.json").exists():
            faults.notes.append(f"{path} is missing; what it would tell is left empty")
    # First, since everything else is put in the order of the samples.
    chains = read_chains(folder, faults)
    mountings = read_mountings(folder)
    data = read_sensor_data(folder, chains, mountings, faults)
    boxes = read_annotations(folder, chains, faults)
    _tell(folder, faults, len(chains.scenes))
    lidars = sorted({one.channel for one in mountings.sensors if one.modality == "lidar"})
    if lidars and not lidar_of(mountings.sensors):
        faults.notes.append(
            f"{folder / 'sensor.json'} has the LiDARs {', '.join(lidars)}, of which no scan is "
            f"read: call the one that is to be read {LIDAR}"
        )
    tokens = TextCollector()
    tokens.extend(chains.tokens)
    scenes = tuple(
        msgspec.structs.replace(scene, fault=scene.fault or faults.by_scene.get(row, ""))
        for row, scene in enumerate(chains.scenes)
    )
    return TableColumns(
        Meta(
            scenes,
            tuple(mountings.sensors),
            boxes.categories,
            boxes.attributes,
            boxes.visibilities,
            tuple(faults.notes),
        ),
        SampleColumns(
            tokens.texts(),
            chains.stamp_us,
            chains.scene.astype(np.int32),
            data.start,
            boxes.start,
            data.posed_by,
        ),
        data.columns,
        MountingColumns(
            np.maximum(mountings.sensor, 0).astype(np.uint16),
            mountings.pose,
            mountings.intrinsics,
            data.patterns,
        ),
        boxes.columns,
    )


def _tell(folder: Path, faults: TableFaults, scenes: int) -> None:
    bad = faults.by_scene
    if not bad:
        return
    first = bad[min(bad)]
    # With no scene left, the first fault is the reason why the tables cannot be used at all.
    if len(bad) == scenes:
        more = f" (and something in each of {scenes - 1} other scenes)" if scenes > 1 else ""
        raise DataError(first + more)
    faults.notes.append(f"{folder}: {len(bad)} of {scenes} scenes cannot be used: {first}")
