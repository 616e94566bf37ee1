# SPDX-License-Identifier: Apache-2.0
"""Opening and reading tables, each in a process of its own, ours and the devkit's.

Anonymous memory is what a process has for itself. Pages of a mapped file are shared with all that
map it, and the system takes them back when it needs them.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from benchmarks.tables.generate import VERSION
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.processes import end_with_parent
from labeldistill_core.training.sampling import class_balanced

T = TypeVar("T")
Figures = dict[str, float]

_TIMED = 500
"""Samples that are timed, from all over the tables."""
_ROUNDS = 5
"""Of which the fastest counts: what else runs on the machine makes the others slower."""
_LOADERS = 2


def alone(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(function, *args).result()


def memory_mib() -> Figures:
    """Of this process: anonymous, of mapped files (each page divided by those who map it), peak."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "anonymous": kib["Pss_Anon"] / 1024,
        "files": kib["Pss_File"] / 1024,
        "total": kib["Pss"] / 1024,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def open_ours(root: Path) -> Figures:
    """Open, then read each sample's cameras and boxes, so that all that is mapped is counted."""
    before, begin = memory_mib(), perf_counter()
    tables = NuScenesTables(root, VERSION)
    seconds = perf_counter() - begin
    after = memory_mib()
    tokens = _tokens(tables)
    _read_ours(tables, tokens)
    whole = memory_mib()
    return {
        "open_s": seconds,
        "peak_mib": after["peak"],
        "own_mib": whole["anonymous"] - before["anonymous"],
        "mapped_mib": whole["files"] - before["files"],
    }


def read_ours(root: Path) -> Figures:
    """Milliseconds of a sample, and seconds of class-balanced draws."""
    tables = NuScenesTables(root, VERSION)
    tokens = _tokens(tables)
    chosen = tokens[:: max(1, len(tokens) // _TIMED)]
    # Pages that are read for the first time come from the disk.
    for token in chosen[:50]:
        tables.cameras(token)
        tables.ground_truth(token)
    # v1.0-trainval has 28,130 samples in its training scenes.
    drawn = tokens[:28_130]
    begin = perf_counter()
    class_balanced([tables.classes(token) for token in drawn], 0)
    draws_s = perf_counter() - begin
    return {
        "cameras_ms": _mean_ms(tables.cameras, chosen),
        "boxes_ms": _mean_ms(tables.ground_truth, chosen),
        "draws_s": draws_s,
    }


def growth_of_ours(root: Path, samples: int) -> Figures:
    """Growth of forked processes that read samples, each all of them."""
    tables = NuScenesTables(root, VERSION)
    tokens = _tokens(tables)
    return _growth(lambda part: _read_ours(tables, part), tokens, samples)


def use_devkit(root: Path, growth_samples: int) -> Figures:
    """The same of the devkit, in one process, since it takes a minute to open."""
    from nuscenes import NuScenes

    before, begin = memory_mib(), perf_counter()
    nusc = NuScenes(VERSION, str(root), verbose=False)
    seconds = perf_counter() - begin
    after = memory_mib()
    tokens = [sample["token"] for sample in nusc.sample]

    def cameras(token: str) -> None:
        for name, data in nusc.get("sample", token)["data"].items():
            if name.startswith("CAM"):
                record = nusc.get("sample_data", data)
                nusc.get("calibrated_sensor", record["calibrated_sensor_token"])
                nusc.get("ego_pose", record["ego_pose_token"])

    def boxes(token: str) -> None:
        sample = nusc.get("sample", token)
        nusc.get_boxes(sample["data"]["LIDAR_TOP"])
        for annotation in sample["anns"]:
            nusc.box_velocity(annotation)

    def records(part: Sequence[str]) -> None:
        for token in part:
            cameras(token)
            for annotation in nusc.get("sample", token)["anns"]:
                record = nusc.get("sample_annotation", annotation)
                nusc.get("instance", record["instance_token"])

    chosen = tokens[:: max(1, len(tokens) // _TIMED)]
    return {
        "open_s": seconds,
        "peak_mib": after["peak"],
        "own_mib": after["anonymous"] - before["anonymous"],
        "cameras_ms": _mean_ms(cameras, chosen),
        "boxes_ms": _mean_ms(boxes, chosen),
        **_growth(records, tokens, growth_samples),
    }


def _tokens(tables: NuScenesTables) -> list[str]:
    return [token for scene in tables.scene_names for token in tables.samples(scene)]


def _read_ours(tables: NuScenesTables, tokens: Sequence[str]) -> None:
    for token in tokens:
        tables.cameras(token)
        tables.ground_truth(token)


def _mean_ms(read: Callable[[str], object], tokens: Sequence[str]) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        begin = perf_counter()
        for token in tokens:
            read(token)
        rounds.append((perf_counter() - begin) / len(tokens) * 1000)
    return min(rounds)


def _growth(read: Callable[[Sequence[str]], None], tokens: list[str], samples: int) -> Figures:
    fork = multiprocessing.get_context("fork")
    results, together = fork.SimpleQueue(), fork.Barrier(_LOADERS)

    def load(part: list[str]) -> None:
        end_with_parent()
        read(part[:100])
        gc.collect()  # it writes to every object of the interpreter, whatever is loaded
        together.wait()  # a process that ends leaves its share of common pages to the others
        before = memory_mib()
        together.wait()
        read(part)
        together.wait()
        after = memory_mib()
        together.wait()
        results.put((after["anonymous"] - before["anonymous"], after["files"] - before["files"]))

    # both read the same samples: how much a process grows does not depend on which they are
    loaders = [fork.Process(target=load, args=(tokens[:samples],)) for _ in range(_LOADERS)]
    for loader in loaders:
        loader.start()
    grown = [results.get() for _ in loaders]
    for loader in loaders:
        loader.join()
    return {
        "growth_samples": samples,
        "growth_own_mib": max(own for own, _ in grown),
        "growth_mapped_mib": max(mapped for _, mapped in grown),
    }
