# SPDX-License-Identifier: Apache-2.0
"""The first thing to try on a new data set: can the student learn a handful of its samples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader
from tqdm import tqdm

from labeldistill_core.checkpoints import save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.presets import preset_config
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.training.recipe import recipe_of
from labeldistill_core.training.student import StudentStage

_EVERY = 50
"""Steps between two lines of the report."""
_BATCH = 4
"""Samples a step, at most."""


def overfit(
    dataroot: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    version: str = "v1.0-mini",
    scenes: tuple[str, ...] = (),
    samples: int = 4,
    preset: str = "demo",
    steps: int = 600,
    target: float = 0.8,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> int:
    """Train a student on a few samples until it finds their boxes, without augmentation.

    What can go wrong with a new data set shows here within minutes: wrong calibrations, frames or
    times keep the score low, whatever the network. Samples without images are passed over, and
    depth labels are made where there is a LiDAR scan.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `student.safetensors` and `metrics.json`.
        version: of the tables.
        scenes: names of the scenes to take samples from; all when none is given.
        samples: to take from each scene, from its beginning.
        preset: name of the configuration.
        steps: of the optimizer, at most.
        target: mAP over the classes that are there, at which training stops.
        learning_rate: highest rate.
        seed: of the initial weights.

    Returns:
        0 when the target was reached, else 1.
    """
    config = preset_config(preset)
    tables = NuScenesTables(dataroot, version)
    names = scenes or tables.scene_names
    data = StudentDataset(tables, names, config, partial=True)
    there = set(data.tokens)
    chosen = {name: [t for t in tables.samples(name)[:samples] if t in there] for name in names}
    indices = [data.tokens.index(token) for tokens in chosen.values() for token in tokens]
    if not indices:
        raise ConfigError(f"none of the first {samples} samples of {', '.join(names)} has images")
    seed_everything(seed, verbose=False)
    recipe = replace(recipe_of("student", preset), seed=seed)
    stage = StudentStage(config, recipe).train()
    for module in stage.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loader = DataLoader(
        torch.utils.data.Subset(data, indices),
        min(len(indices), _BATCH),
        shuffle=True,
        collate_fn=StudentSample.collate,
    )
    batches = list(loader)
    optimizer = torch.optim.AdamW(stage.network.parameters(), learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    file = out / "student.safetensors"
    reached = False
    progress = tqdm(range(steps), unit="step", disable=None)
    for step in progress:
        sample = batches[step % len(batches)]
        total = torch.stack(list(stage.losses(sample).values())).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(stage.network.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{float(total.detach()):.2f}")
        if (step + 1) % _EVERY and step + 1 < steps:
            continue
        save_student(
            file, stage.network, f"overfitted to {len(indices)} samples of {dataroot.name}"
        )
        metrics = _scored(file, tables, chosen)
        present = present_map(metrics)
        progress.write(
            f"step {step + 1}: loss {float(total.detach()):.3f}, mAP {present:.3f} of classes there"
        )
        if reached := present >= target:
            break
    metrics.write(out / "metrics.json")
    print(metrics.table())
    print(f"mAP over the classes that are there: {present:.4f} ({file})")
    return 0 if reached else 1


def present_map(metrics: Metrics) -> float:
    """MAP over the classes that have any ground truth."""
    there = [metrics.class_ap[name] for name, count in metrics.truth_boxes.items() if count]
    return sum(there) / len(there) if there else math.nan


def _scored(file: Path, tables: NuScenesTables, samples: Mapping[str, Sequence[str]]) -> Metrics:
    """Metrics of the detector that the node runs, over the samples as a vehicle sees them."""
    found = student_results(Detector.load(file, device="auto"), tables, samples)
    return evaluate([tables.ground_truth(token) for token in found], found)
