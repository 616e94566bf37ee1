# SPDX-License-Identifier: Apache-2.0
"""Many scenes: a bag for each, in parallel, and again where a run was cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from labeldistill_core.classes import ClassList
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, DataError, LabelDistillError
from labeldistill_core.processes import worker_count, worker_pool
from labeldistill_ros.bags.convert import Conversion, ConversionOptions, convert_scene, marks
from labeldistill_ros.bags.reader import read_marks

_tables: NuScenesTables
"""Tables of a worker process, which inherits them rather than reading them anew."""


@dataclass(frozen=True)
class SceneResult:
    """What became of one scene."""

    scene: str
    """Name of the scene in nuScenes, such as `scene-0103`."""
    bag: Path
    """Folder of the bag that the scene is written to."""
    done: Conversion | None
    """What was written; None when the bag was there already, or when it failed."""
    error: str = ""
    """Why the scene could not be converted; empty when it could."""


def convert_scenes(
    tables: NuScenesTables,
    scenes: Sequence[str],
    folder: Path,
    options: ConversionOptions,
    *,
    workers: int = 0,
) -> Iterator[SceneResult]:
    """Write `folder/<scene>` for each scene; a bag that is there and was made alike is kept.

    Args:
        tables: of the data root.
        scenes: names, each once.
        folder: made if absent.
        options: what goes in.
        workers: processes; one a core when 0.

    Yields:
        Results in the order in which they end. A scene that fails does not end the others.

    Raises:
        DataError: no such scene, or a name that stands for two.
        BagError: a bag that is there was made with other options.
    """
    global _tables  # noqa: PLW0603 - inherited by the workers
    # Before any work starts, so that a misspelled scene ends the call and not its last hour.
    about = {scene: tables.about(scene) for scene in scenes}
    if len(set(scenes)) != len(scenes):
        raise DataError("a scene is named twice")
    todo = []
    for scene in scenes:
        if options.force or not _is_done(folder / scene, scene, options, tables.class_list):
            todo.append(scene)
        else:
            yield SceneResult(scene, folder / scene, None)
    # One process is no pool: its errors keep their traceback, and a debugger reaches it.
    workers = worker_count(workers, len(todo))
    if workers <= 1:
        for scene in todo:
            yield _convert(tables, scene, folder / scene, options, about[scene])
        return
    _tables = tables
    # Forked and not spawned: the tables of nuScenes are inherited, instead of read anew by each
    # worker. One thread of torch in each: a pool of threads does not survive the fork.
    with worker_pool(workers, "fork", partial(torch.set_num_threads, 1)) as pool:
        futures = [
            pool.submit(_work, scene, folder / scene, options, about[scene]) for scene in todo
        ]
        # In the order of their end, so that progress shows what is done.
        for future in as_completed(futures):
            yield future.result()


def _work(scene: str, bag: Path, options: ConversionOptions, about: dict[str, str]) -> SceneResult:
    return _convert(_tables, scene, bag, options, about)


def _convert(
    tables: NuScenesTables,
    scene: str,
    bag: Path,
    options: ConversionOptions,
    about: dict[str, str],
) -> SceneResult:
    try:
        done = convert_scene(tables, scene, bag, options, about=about)
    except LabelDistillError as error:
        return SceneResult(scene, bag, None, str(error))
    return SceneResult(scene, bag, done)


def _is_done(bag: Path, scene: str, options: ConversionOptions, classes: ClassList) -> bool:
    if not bag.exists():
        return False
    try:
        # A bag of other options under this name would be taken for the one that was asked for.
        same = read_marks(bag) == marks(scene, options, classes)
    except BagError:
        same = False
    if not same:
        raise BagError(
            f"{bag} is there already and is no bag of {scene} with these options; use --force to "
            "replace it, or choose another folder"
        )
    return True
