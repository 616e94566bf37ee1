# SPDX-License-Identifier: Apache-2.0
"""Bags of drives to one data root in nuScenes form, scene by scene, in parallel.

The rows of a scene that is written wait in a hidden folder of the data root. The tables are made
of them in the end, so that a call that was killed leaves no tables, and goes on where it stopped
when it is repeated. Later calls add their drives to those of earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from labeldistill_core.data.tables.version_folder import (
    refuse_labelled,
    remove_tables,
    write_version,
)
from labeldistill_core.data.tables.writing import (
    are_rows,
    blank_map,
    damaged_part,
    read_part,
    write_part,
)
from labeldistill_core.errors import BagError, ConfigError, DataError, LabelDistillError
from labeldistill_core.files import sole_user
from labeldistill_core.names import fault_of_name, shown
from labeldistill_core.processes import worker_count, worker_pool
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.plan import Drive, ScenePlan, plan_drive
from labeldistill_ros.bags.dataset.scene import SceneWriter, WrittenScene
from labeldistill_ros.bags.dataset.survey import join, survey_bag
from labeldistill_ros.bags.dataset.topics import Contents, choose_topics
from labeldistill_ros.bags.reader import BagReader

_PARTS = ".scenes"
_PENDING = "pending"
"""There while scenes are written that the tables do not tell of yet."""
_SPLITS = ("train", "val")
_APART_NS = 1_000_000_000
"""Bags that follow one another within this are of one drive."""

_work: Sequence[tuple[Drive, ScenePlan]]
"""Scenes of a worker process, which inherits them rather than being sent them."""


@dataclass(frozen=True)
class DatasetScene:
    """What became of one scene."""

    name: str
    """Of the scene."""
    done: WrittenScene | None
    """What was written; None where it was there already, or failed."""
    error: str = ""
    """Why it could not be written; empty where it could."""


def plan_drives(
    bags: Sequence[Path],
    options: DatasetOptions,
    progress: Callable[[Path, float], object] = lambda bag, share: None,
) -> list[Drive]:
    """Find out what bags hold; those that overlap or follow one another are one drive.

    Args:
        bags: folders or files.
        options: what is taken.
        progress: called with a bag and the share of it that was gone through.

    Raises:
        BagError: a bag is damaged, has no sensors, or overlaps with one of another drive.
        ConfigError: a name is given for validation that no scene has.
    """
    if not bags:
        raise ConfigError("name one bag or more")
    groups = _groups(bags)
    # Before the bags are read through, which takes minutes.
    names = _names(groups)
    drives = []
    for name, group in zip(names, groups, strict=True):
        contents = Contents()
        for bag in group:
            with BagReader(bag) as reader:
                contents.add(reader)
        try:
            chosen = choose_topics(contents, options)
        except BagError as error:
            raise BagError(f"{group[0]}: {error}") from error
        surveys = {
            bag: survey_bag(bag, chosen, options.base_frame, partial(progress, bag))
            for bag in group
        }
        drives.append(plan_drive(name, tuple(group), chosen, join(surveys), options))
    known = {name for d in drives for name in (d.name, *(scene.name for scene in d.scenes))}
    if unknown := [name for name in options.val if name not in known]:
        raise ConfigError(
            f"--val names {', '.join(map(shown, unknown))}; the scenes are "
            f"{', '.join(sorted(known)[:20])}"
        )
    return drives


def write_drives(
    drives: Sequence[Drive],
    root: Path,
    options: DatasetOptions,
    *,
    workers: int = 0,
    force: bool = False,
) -> Iterator[DatasetScene]:
    """Write the scenes of drives, and then the tables of the data root.

    Args:
        drives: without problems.
        root: folder of the data root, made if absent.
        options: as the drives were planned with.
        workers: processes; one a core when 0.
        force: write scenes anew that are there.

    Yields:
        Results in the order in which they end. A scene that fails does not end the others, but
        then there are no new tables.

    Raises:
        BagError: a drive has problems.
        ConfigError: another process writes to the folder.
        DataError: the folder holds something else, or scenes of these names from other bags.
    """
    for drive in drives:
        if drive.problems:
            raise BagError(f"{drive.bags[0]}: {'; '.join(drive.problems)}")
        for bag in drive.bags:
            if bag.resolve() in root.resolve().parents:
                raise DataError(f"{root} is within the bag {bag}: use a folder elsewhere")
    _claim(root)
    refusal = f"another process writes to {root}: wait for its end, or use another folder"
    with sole_user(root / _PARTS / "lock", refusal):
        yield from _write_all(drives, root, options, workers, force)


def _write_all(
    drives: Sequence[Drive], root: Path, options: DatasetOptions, workers: int, force: bool
) -> Iterator[DatasetScene]:
    map_file = blank_map(root)
    work = [(drive, scene) for drive in drives for scene in drive.scenes]
    names = [scene.name for _, scene in work]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two scenes are called {shown(sorted(twice)[0])}: rename a bag")
    done = [not force and _is_done(root, *item, options) for item in work]
    todo = [number for number, is_done in enumerate(done) if not is_done]
    whole = [scene for (_, scene), is_done in zip(work, done, strict=True) if is_done]
    moved = [
        scene for scene in whole if _read_part(_part(root, scene.name))["split"] != scene.split
    ]
    tables, pending = root / options.version, root / _PARTS / _PENDING
    if todo or moved or pending.exists() or not (tables / "scene.json").is_file():
        refuse_labelled(tables)
        # Before the first file changes, so that a call that is killed leaves the mark, and the next
        # one writes the tables even where all scenes are whole by then.
        pending.touch()
    if any(_part(root, work[n][1].name).exists() for n in todo):
        remove_tables(tables)  # they tell of files that are written anew
    for scene in moved:
        part = _read_part(_part(root, scene.name))
        write_part(_part(root, scene.name), {**part, "split": scene.split})
    yield from (DatasetScene(scene.name, None) for scene in whole)
    failed = False
    for result in _each(work, todo, root, map_file, options, workers):
        failed |= bool(result.error)
        yield result
    if not failed and pending.exists():
        _write_tables(root, options)
        pending.unlink()


def _groups(bags: Sequence[Path]) -> list[list[Path]]:
    """Bags by drive, in the order of time."""
    spans = []
    for bag in dict.fromkeys(bags):
        with BagReader(bag) as reader:
            if not reader.end_ns:
                raise BagError(f"{bag} has no messages")
            spans.append((reader.begin_ns, reader.end_ns, bag))
    groups: list[list[Path]] = []
    until_ns = 0
    # In the order of time, each bag need only be compared with the end of those before it.
    for begin_ns, end_ns, bag in sorted(spans):
        if not groups or begin_ns > until_ns + _APART_NS:
            groups.append([])
            until_ns = 0
        groups[-1].append(bag)
        until_ns = max(until_ns, end_ns)
    return groups


def _names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Names of drives: those of their first bags, with the folder above where two are alike."""
    firsts = [group[0].resolve() for group in groups]
    names = [bag.stem if bag.is_file() else bag.name for bag in firsts]
    if len(set(names)) < len(names):
        names = [f"{bag.parent.name}_{name}" for bag, name in zip(firsts, names, strict=True)]
    for name in names:
        if fault := fault_of_name(name):
            raise BagError(f"{shown(name)} cannot be the name of a scene, {fault}: rename the bag")
    return names


def _part(root: Path, name: str) -> Path:
    return root / _PARTS / f"{name}.json"


def _about(drive: Drive, scene: ScenePlan, options: DatasetOptions) -> dict[str, Any]:
    """What tells a scene from another of its name."""
    bags = [[bag.resolve().name, _size(bag)] for bag in drive.bags]
    # The split is no part of a scene's files: it may change without anything being written anew.
    chosen = {k: v for k, v in asdict(options).items() if k not in ("val", "val_share", "config")}
    # What the configuration says of classes, and not where it lies.
    chosen["categories"] = options.own_categories
    content = {"bags": bags, "options": chosen, "first_ns": scene.key_frames[0].stamp_ns}
    # Through JSON and back, so that tuples compare equal to the lists in the file.
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def _size(bag: Path) -> int:
    files = [bag] if bag.is_file() else [f for f in bag.rglob("*") if f.is_file()]
    # A size and no digest: hundreds of gigabytes would have to be read to begin.
    return sum(file.stat().st_size for file in files)


def _claim(root: Path) -> None:
    """Refuse a folder that something else made."""
    if not root.exists() or not any(root.iterdir()) or (root / _PARTS / "from-bags").is_file():
        (root / _PARTS).mkdir(parents=True, exist_ok=True)
        (root / _PARTS / "from-bags").touch()
        return
    raise DataError(f"{root} is not empty and no data root of bags: use another folder")


def _is_done(root: Path, drive: Drive, scene: ScenePlan, options: DatasetOptions) -> bool:
    path = _part(root, scene.name)
    if not path.exists():
        return False
    part = _read_part(path)
    if part["about"] != _about(drive, scene, options):
        raise DataError(
            f"{root} has a scene {scene.name} of other bags or options: use --force to write it "
            "anew, or another folder"
        )
    return True


def _each(
    work: Sequence[tuple[Drive, ScenePlan]],
    todo: Sequence[int],
    root: Path,
    map_file: str,
    options: DatasetOptions,
    workers: int,
) -> Iterator[DatasetScene]:
    global _work  # noqa: PLW0603 - inherited by the workers
    workers = worker_count(workers, len(todo))
    # One process is no pool: its errors keep their traceback, and a debugger reaches it.
    if workers <= 1:
        for number in todo:
            yield _write(*work[number], root, map_file, options)
        return
    _work = work
    with worker_pool(workers, "fork", partial(torch.set_num_threads, 1)) as pool:
        futures = [pool.submit(_numbered, number, root, map_file, options) for number in todo]
        for future in as_completed(futures):
            yield future.result()


def _numbered(number: int, root: Path, map_file: str, options: DatasetOptions) -> DatasetScene:
    return _write(*_work[number], root, map_file, options)


def _write(
    drive: Drive, scene: ScenePlan, root: Path, map_file: str, options: DatasetOptions
) -> DatasetScene:
    part_file, begun = _part(root, scene.name), root / _PARTS / f"{scene.name}.begun"
    # Only a scene that was written, or begun, before can have files that it no longer tells of.
    anew = begun.exists() or part_file.exists()
    begun.touch()
    part_file.unlink(missing_ok=True)
    try:
        tables, done = SceneWriter(drive, scene, root, options).write(map_file)
    except LabelDistillError as error:
        return DatasetScene(scene.name, None, f"{scene.name}: {error}")
    if anew:
        _remove_others(root, scene.name, {row["filename"] for row in tables["sample_data"]})
    part = {
        "about": _about(drive, scene, options),
        "split": scene.split,
        "tables": tables,
        "numbers": asdict(done),
    }
    # A scene counts as written once its rows are there, which come last.
    write_part(part_file, part)
    begun.unlink()
    return DatasetScene(scene.name, done)


def _remove_others(root: Path, scene: str, written: Collection[str]) -> None:
    """Remove files of a scene that were written before, with other options or of other bags."""
    for folder in (*root.glob("samples/*"), *root.glob("sweeps/*")):
        beginning = f"{scene}__{folder.name}__"
        for file in folder.iterdir():
            # The digits, since the name of a scene may begin with that of another one.
            own = file.name.startswith(beginning) and file.name[len(beginning) :][:1].isdigit()
            if own and str(file.relative_to(root)) not in written:
                file.unlink()


def _read_part(path: Path) -> dict[str, Any]:
    """A scene that is written.

    Raises:
        DataError: the file is damaged.
    """
    part = read_part(path)
    if part.get("split") not in _SPLITS or "about" not in part or not are_rows(part.get("tables")):
        raise damaged_part(path)
    return part


def _write_tables(root: Path, options: DatasetOptions) -> None:
    # Sorted, so that the tables do not depend on which process ended first.
    paths = sorted((root / _PARTS).glob("*.json"))
    splits: dict[str, list[str]] = {name: [] for name in _SPLITS}
    for path in paths:
        splits[_read_part(path)["split"]].append(path.stem)
    parts = (_read_part(path)["tables"] for path in paths)
    write_version(root / options.version, parts, splits)
