# SPDX-License-Identifier: Apache-2.0
"""The first thing to try on a new data set: can the student learn a handful of its samples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
import tyro
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader
from tqdm import tqdm
from typing_extensions import Self

from labeldistill_core.checkpoints import save_student
from labeldistill_core.config_files import chosen_preset
from labeldistill_core.console import last_value
from labeldistill_core.data.boxes_check import refuse_without_boxes
from labeldistill_core.data.horizon_check import warn_of_lost_horizons
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset, StudentSample
from labeldistill_core.data.splits import named_scenes
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.options import StudentFields, TablesOptions, take_single_fields
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.training.student import StudentStage, require_two_images

_EVERY = 50
"""Steps between two lines of the report."""
_BATCH = 4
"""Samples a step, at most."""


@dataclass(frozen=True)
class OverfitOptions(TablesOptions):
    """What is learned, and how well it has to be known."""

    scenes: tuple[str, ...] = ()
    """Scenes to take samples from, names or a file with a name a line; all when none is given."""
    samples: int = 4
    """Samples to take from each scene, from its beginning."""
    preset: str = "demo"
    """Name of the network's configuration."""
    config: Path | None = None
    """Configuration of one's own in the place of a preset, as `labeldistill config` prints it:
    YAML or JSON. Single fields of its student, or of the preset's, are options as well, such as
    --student.grid.cell-m; `labeldistill config --help` lists them."""
    fields: tyro.conf.Suppress[StudentFields | None] = None
    """The network in the place of the preset's; the preset's when None."""
    steps: int = 600
    """Steps of the optimizer, at most."""
    target: float = 0.8
    """Training stops at this mAP over the classes that are there."""
    learning_rate: float = 2e-3
    """Highest learning rate of the schedule."""
    seed: int = 0
    """Another one gives other initial weights."""

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can be learned."""
        if self.samples < 0:
            raise ConfigError("--samples must be 0 or more")
        if self.steps < 1 or not self.learning_rate > 0:
            raise ConfigError("--steps and --learning-rate must be above 0")

    @classmethod
    def prepared(cls, args: Sequence[str]) -> tuple[Self, list[str]]:
        """Defaults of the command line, with the single fields that are given, and the rest."""
        file = last_value(args, "--config")
        preset = chosen_preset(
            last_value(args, "--preset") or cls.preset, Path(file) if file else None
        )
        own, rest = take_single_fields(args, StudentFields(preset.student))
        return cls(fields=own), rest


@dataclass(frozen=True)
class Overfitted:
    """A student that was trained on a few samples."""

    file: Path
    """Path of the checkpoint of the student."""
    metrics: Metrics
    """Its official metrics on the samples that it was trained on."""
    present_map: float
    """MAP over the classes that are there."""
    reached: bool
    """Whether the target was reached."""


def overfit(dataroot: Path, out: Path, options: OverfitOptions) -> Overfitted:
    """Train a student on a few samples until it finds their boxes, without augmentation.

    Samples without images are passed over, and depth labels are made where there is a LiDAR scan.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `student.safetensors` and `metrics.json`.
        options: what is learned.

    Raises:
        ConfigError: none of the samples has images, or none a box.
    """
    preset = chosen_preset(options.preset, options.config)
    config = options.fields.student if options.fields else preset.student
    tables = NuScenesTables(dataroot, options.version, config.head.class_list)
    names = named_scenes(tables, options.scenes) if options.scenes else tables.scene_names
    # Partial, since this is tried before all of a data set was fetched.
    data = StudentDataset(tables, names, config, partial=True)
    there = set(data.tokens)
    chosen = {
        name: [t for t in tables.samples(name)[: options.samples] if t in there] for name in names
    }
    indices = [data.tokens.index(token) for tokens in chosen.values() for token in tokens]
    if not indices:
        raise ConfigError(
            f"none of the first {options.samples} samples of {', '.join(names)} has images"
        )
    refuse_without_boxes(tables, [data.tokens[index] for index in indices])
    warn_of_lost_horizons(tables, data.tokens, config.cameras, config.image)
    recipe = replace(preset.recipes.student, seed=options.seed)
    seed_everything(options.seed, verbose=False)
    stage = StudentStage(config, recipe).train()
    for module in stage.network.modules():
        if isinstance(module, torch.nn.Dropout):
            # Nothing may stand between the network and learning by heart.
            module.p = 0.0
    cameras = len(config.cameras)
    require_two_images(len(indices), cameras)
    # None of them of one image alone, of which norms could tell nothing.
    batch = next(b for b in count(_BATCH) if len(indices) % b * cameras != 1)
    loader = DataLoader(
        torch.utils.data.Subset(data, indices),
        min(len(indices), batch),
        shuffle=True,
        collate_fn=StudentSample.collate,
    )
    # Loaded once: the same few batches come in each pass.
    batches, rate = list(loader), options.learning_rate
    optimizer = torch.optim.AdamW(stage.network.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=options.steps)
    file = out / "student.safetensors"
    reached = False
    progress = tqdm(range(options.steps), unit="step", disable=None)
    for step in progress:
        sample = batches[step % len(batches)]
        total = torch.stack(list(stage.losses(sample).values())).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(stage.network.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(loss=f"{float(total.detach()):.2f}")
        if (step + 1) % _EVERY and step + 1 < options.steps:
            continue
        save_student(
            file, stage.network, f"overfitted to {len(indices)} samples of {dataroot.name}"
        )
        # Through the file and the detector: what is saved is what has to find the boxes.
        metrics = _scored(file, tables, chosen)
        present = present_map(metrics)
        progress.write(
            f"step {step + 1}: loss {float(total.detach()):.3f}, mAP {present:.3f} of classes there"
        )
        if reached := present >= options.target:
            break
    metrics.write(out / "metrics.json")
    return Overfitted(file, metrics, present, reached)


def present_map(metrics: Metrics) -> float:
    """MAP over the classes that have any ground truth."""
    there = [metrics.class_ap[name] for name, count in metrics.truth_boxes.items() if count]
    return sum(there) / len(there) if there else math.nan


def _scored(file: Path, tables: NuScenesTables, samples: Mapping[str, Sequence[str]]) -> Metrics:
    """Metrics of the detector that the node runs, over the samples as a vehicle sees them."""
    found = student_results(Detector.load(file, device="auto"), tables, samples)
    return evaluate([tables.ground_truth(token) for token in found], found)
