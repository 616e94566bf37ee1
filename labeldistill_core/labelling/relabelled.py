# SPDX-License-Identifier: Apache-2.0
"""The tables of a data root with other annotations: a folder of its own, or in the place of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import SPLITS_FILE, split_scenes
from labeldistill_core.data.tables.version_folder import LABELS_FILE, replace_folder
from labeldistill_core.data.tables.writing import Rows
from labeldistill_core.errors import DataError
from labeldistill_core.files import write_json, write_whole

_BACKUP = "{}-before-labels"


def write_relabelled(
    tables: NuScenesTables,
    into: str,
    scenes: Collection[str],
    rows: Rows,
    about: Mapping[str, Any],
    *,
    force: bool = False,
) -> Path:
    """Write the tables of a data root with new annotations of some scenes.

    Args:
        tables: of the data root; its folder stays as it is.
        into: folder of the new tables in the same data root. Where it is that of the tables
            themselves, these are kept as `<version>-before-labels`.
        scenes: whose annotations are replaced.
        rows: of instance, sample_annotation and category; categories that are there already, by
            name, keep their tokens.
        about: goes into `labels.json`.
        force: replace tables that were labelled before.

    Returns:
        The folder.

    Raises:
        DataError: the folder is there, or a table is no table.
        OSError: it cannot be written.
    """
    source, folder = tables.dataroot / tables.version, tables.dataroot / into
    backup = tables.dataroot / _BACKUP.format(tables.version)
    refuse_taken(tables, into, force=force)
    # Of a link, what it leads to is written anew; one that becomes the backup is moved itself.
    place = folder if into == tables.version else folder.resolve()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    partial.mkdir(parents=True)
    try:
        for file in source.glob("*.json"):
            if file.stem not in rows and file.name != LABELS_FILE:
                # Copies and not links: whoever edits one version must not change the other.
                shutil.copyfile(file, partial / file.name)
        samples = {token for scene in scenes for token in tables.samples(scene)}
        _merge(source, partial, samples, rows)
        if not (partial / SPLITS_FILE).exists() and (splits := _official(tables)):
            # The new folder's name is none of nuScenes', by which its splits are known.
            write_json(partial / SPLITS_FILE, splits)
        write_json(partial / LABELS_FILE, about)
        if into == tables.version:
            # Between the two renames there is no such version, but never a half one.
            os.rename(source, backup)
        replace_folder(partial, place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def annotated_samples(tables: NuScenesTables) -> set[str]:
    """Tokens of the samples that have a box of any category."""
    rows = _read(tables.dataroot / tables.version, "sample_annotation")
    return {row["sample_token"] for row in rows}


def refuse_taken(tables: NuScenesTables, into: str, *, force: bool) -> None:
    """Refuse to write over tables that are no machine's.

    Raises:
        DataError: they are there.
    """
    folder = tables.dataroot / into
    backup = tables.dataroot / _BACKUP.format(tables.version)
    if into == tables.version and backup.exists():
        raise DataError(
            f"{backup} holds the tables from before the last labels: move it away, or label into "
            "another folder (--into)"
        )
    if into == tables.version or not folder.exists():
        return
    if not (folder / LABELS_FILE).is_file():
        raise DataError(f"{folder} is there and was not made by labelling: use another --into")
    if not force:
        raise DataError(f"{folder} is there already: use --force to replace it, or another --into")


def _merge(source: Path, partial: Path, samples: set[str], rows: Rows) -> None:
    kept = [r for r in _read(source, "sample_annotation") if r["sample_token"] not in samples]
    known = {r["name"]: r["token"] for r in _read(source, "category")}
    # A category that is there keeps its token, which rows of other scenes name.
    renamed = {r["token"]: known.get(r["name"], r["token"]) for r in rows["category"]}
    # An instance that lost its annotations would name rows that are gone.
    left = {r["instance_token"] for r in kept}
    instances = [r for r in _read(source, "instance") if r["token"] in left]
    for row in rows["instance"]:
        instances.append({**row, "category_token": renamed[row["category_token"]]})
    new = [r for r in rows["category"] if r["name"] not in known]
    for name, content in (
        ("sample_annotation", [*kept, *rows["sample_annotation"]]),
        ("instance", instances),
        ("category", [*_read(source, "category"), *new]),
    ):
        text = "[\n" + ",\n".join(map(json.dumps, content)) + "\n]"
        write_whole(partial / f"{name}.json", text.encode())


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_bytes())
    return content


def _official(tables: NuScenesTables) -> dict[str, list[str]]:
    found = {}
    for split in ("train", "val"):
        try:
            found[split] = split_scenes(tables, split)
        except DataError:  # not this version, or none of its scenes is there
            continue
    return found
