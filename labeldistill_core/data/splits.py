# SPDX-License-Identifier: Apache-2.0
"""Which scenes of a data root are trained on and which are scored."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.files import TEXT_BYTES, read_bounded
from labeldistill_core.names import shown

SPLITS_FILE = "splits.json"
"""Beside the tables: the names of a data set's own splits and of their scenes, as the devkit reads
them."""
_MOST_TOLD = 20
_OFFICIAL = {"v1.0-mini": ("mini_train", "mini_val"), "v1.0-trainval": ("train", "val")}


def split_scenes(tables: NuScenesTables, split: str) -> list[str]:
    """Names of a split's scenes in a data root.

    A split of the data root's own file comes first. nuScenes' official splits, as far as their
    scenes are there, belong to `v1.0-mini` and `v1.0-trainval`.

    Args:
        tables: of the data root.
        split: "train" or "val", for the mini version too, "all", or a name in `splits.json`.

    Raises:
        DataError: there is no such split, none of its scenes is there, or the file is no such
            file or names scenes that the tables do not have.
    """
    if split == "all":
        return list(tables.scene_names)
    file = tables.dataroot / tables.version / SPLITS_FILE
    own = _own_splits(file)
    if split in own:
        return _known(tables, own[split], f"{file}, {split!r}")
    if tables.version not in _OFFICIAL or split not in ("train", "val"):
        known = [*own, *(("train", "val") if tables.version in _OFFICIAL else ()), "all"]
        raise DataError(
            f"version {tables.version!r} has no split {shown(split)}, only {_listed(known)}: name "
            f'scenes on the command line, or write {file} as {{"NAME": ["scene", ...], ...}}'
        )
    # The names of 850 scenes are the devkit's to tell; it is imported by whoever needs them.
    from nuscenes.utils.splits import create_splits_scenes

    official = create_splits_scenes()[_OFFICIAL[tables.version][split == "val"]]
    there = set(tables.scene_names)
    scenes = [name for name in official if name in there]
    if not scenes:
        raise DataError(
            f"none of the {len(official)} scenes of split {split!r} is in {tables.dataroot}; "
            f"it has {', '.join(tables.scene_names[:10])}: name scenes on the command line"
        )
    return scenes


def named_scenes(tables: NuScenesTables, given: Sequence[str]) -> list[str]:
    """Scenes that are named one by one.

    Args:
        tables: of the data root.
        given: names of scenes, and files with a name a line.

    Returns:
        The names in their order, each once.

    Raises:
        DataError: a file cannot be read, or there is no such scene.
    """
    names: list[str] = []
    for text in given:
        if text in tables.scene_names or not Path(text).is_file():
            names.append(text)
            continue
        try:
            # An editor of Windows may begin a file with a mark of its encoding.
            lines = read_bounded(Path(text), TEXT_BYTES).decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{text} is no list of scenes: {error}") from error
        names += [line.strip() for line in lines if line.strip()]
    return _known(tables, names, ", ".join(text or repr(text) for text in given))


def _known(tables: NuScenesTables, names: Sequence[str], where: str) -> list[str]:
    there = set(tables.scene_names)
    if absent := [name for name in names if name not in there]:
        more = f" and {len(absent) - 5} more" if absent[5:] else ""
        raise DataError(
            f"{where}: {tables.dataroot / tables.version} has no scene "
            f"{', '.join(map(shown, absent[:5]))}{more}; there are: "
            f"{', '.join(tables.scene_names[:10])}"
        )
    if not names:
        raise DataError(f"{where}: no scene is named: name some, here or on the command line")
    return list(dict.fromkeys(names))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_TOLD} more" if names[_MOST_TOLD:] else ""
    return ", ".join(n if n.isprintable() else shown(n) for n in names[:_MOST_TOLD]) + more


def _own_splits(file: Path) -> Mapping[str, tuple[str, ...]]:
    if not os.path.lexists(file):
        return {}
    if not file.is_file():
        raise DataError(f"{file} is no file: remove it, or write the splits into it")
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, tuple[str, ...]])
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(
            f'{file} is no file of splits: {error}; it has to be {{"train": ["scene", ...], ...}}'
        ) from error
