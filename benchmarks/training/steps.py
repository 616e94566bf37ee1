# SPDX-License-Identifier: Apache-2.0
"""What a training step costs, by stage and by part.

Weights are random and all stages see the same samples. A step is the forward, the losses, the
backward and AdamW, as `labeldistill train` does them, without its logging.
"""

from __future__ import annotations

import json as json_module
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.detector.published import materialized_pool
from benchmarks.timing import peak_mib
from benchmarks.training.sparse import measure_sparse
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset, LidarSample, StudentDataset, StudentSample
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.sparse import Backend, has_spconv
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network import student as student_network
from labeldistill_core.presets import Preset, find_preset
from labeldistill_core.profiling.latency import replaced
from labeldistill_core.profiling.timing import StageClock, time_ms
from labeldistill_core.provenance import commit, machine
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage

_SEED = 1
"""Seed of the augmentation, so that all stages see the same samples."""


def bench_training(
    dataroot: tyro.conf.Positional[Path],
    preset: str = "demo",
    version: str = "v1.0-trainval",
    device: str = "cpu",
    batch_size: int = 0,
    repeats: int = 5,
    json: Path | None = None,
) -> None:
    """Measure a training step of each stage, the fused pooling in it, and sparse convolution.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        preset: name of the configuration.
        version: of the tables.
        device: cpu, cuda:0 and so on.
        batch_size: samples a step; the recipe's when 0.
        repeats: of each step, after one to warm up.
        json: file to write the figures to.
    """
    tables = NuScenesTables(dataroot, version)
    named = find_preset(preset)
    size = batch_size or named.recipes.student.batch_size
    bench = _Bench(tables, named, size, device, repeats)
    figures: dict[str, Any] = {
        "preset": preset,
        "batch_size": bench.size,
        "device": device,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "commit": commit(),
        "load": os.getloadavg()[0],
        "stages": {},
    }
    for name, make in bench.stages().items():
        figures["stages"][name] = row = bench.step(*make)
        parts = "  ".join(f"{part} {share:.0%}" for part, share in row["share"].items())
        print(f"{name:<32} {row['samples_s']:7.2f} samples/s  {row['peak_mib']:6.0f} MiB  {parts}")
    stages = figures["stages"]
    fused, plain = (stages[f"student, {name}"] for name in ("no teachers", "materialized lift"))
    figures["materialized_over_fused"] = plain["step_ms"] / fused["step_ms"]
    print(f"materialized lift over fused pooling: {figures['materialized_over_fused']:.2f}")
    figures["sparse"] = {}
    for backend in ("torch", "spconv") if device != "cpu" and has_spconv() else ("torch",):
        found = measure_sparse(bench.teacher(backend), bench.clouds(), repeats)
        figures["sparse"][backend] = found
        print(
            f"{backend}: voxelize {found['voxelize_ms']:.1f} ms, sparse {found['sparse_ms']:.1f} "
            f"ms, dense {found['dense_ms']:.1f} ms for {found['samples']} samples"
        )
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_module.dumps(figures, indent=1) + "\n")


class _Bench:
    """Samples and networks of one preset."""

    def __init__(
        self,
        tables: NuScenesTables,
        preset: Preset,
        size: int,
        device: str,
        repeats: int,
    ) -> None:
        self.preset, self.recipe, self.size = preset, preset.recipes.student, size
        self.device, self.repeats = torch.device(device), repeats
        self.config = preset.student
        scenes = split_scenes(tables, "all")
        points = Points(preset.teacher.sweeps)
        self._students = StudentDataset(
            tables, scenes, self.config, self.recipe.augmentation, points
        )
        self._lidar = LidarDataset(
            tables, scenes, self.config.cameras, self.recipe.augmentation, points
        )

    def teacher(self, backend: Backend = "auto") -> Teacher:
        """A teacher with random weights, on the device and in evaluation mode."""
        torch.manual_seed(0)
        return Teacher(self.preset.teacher, backend).to(self.device).eval()

    def clouds(self) -> list[Tensor]:
        """Points of the samples of one batch, (P, 5) each, on the device."""
        return [self._lidar[i].points[0].to(self.device) for i in range(self.size)]

    def stages(self) -> dict[str, tuple[Stage, bool, torch.dtype | None]]:
        """Each way of training: the stage, whether with a materialized lift, autocast's type."""
        encoder = LabelEncoder(self.preset.label_encoder)
        distiller = Distiller(DistillationConfig(), self.config, self.teacher(), encoder)
        half = torch.bfloat16
        student = StudentStage(self.config, self.recipe)
        distilled = StudentStage(self.config, self.recipe, distiller)
        labels = LabelEncoderStage(self.preset.label_encoder, self.recipe, self.teacher().cpu())
        return {
            "teacher": (TeacherStage(self.preset.teacher, self.recipe), False, half),
            "label encoder": (labels, False, half),
            "student, no teachers": (student, False, half),
            "student, materialized lift": (student, True, half),
            "student, distilled": (distilled, False, half),
            "student, distilled, float32": (distilled, False, None),
        }

    def step(self, stage: Stage, materialized: bool, dtype: torch.dtype | None) -> dict[str, Any]:
        """Time, memory and share of the parts of one step."""
        start = time.perf_counter()
        sample = self._sample(stage)
        load_ms = (time.perf_counter() - start) * 1e3
        sample = sample.to(self.device)
        stage = stage.to(self.device).train()
        optimizer = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad])
        loss = torch.zeros(())

        def forward() -> None:
            nonlocal loss
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                loss = torch.stack(list(stage.losses(sample).values())).sum()

        def backward() -> None:
            loss.backward()

        def update() -> None:
            optimizer.step()
            optimizer.zero_grad()

        parts: dict[str, Callable[[], None]] = {
            "forward": forward, "backward": backward, "optimizer": update,
        }  # fmt: skip
        # The naive lift in the place of the pooling and nothing else changed, so that the ratio is
        # that of pooling alone.
        lift = replaced(student_network, "pool", materialized_pool) if materialized else None
        with lift or nullcontext():
            rounds = [
                {name: time_ms(part, self.device) for name, part in parts.items()}
                for _ in range(self.repeats + 1)
            ][1:]
            peak = peak_mib(lambda: [part() for part in parts.values()], self.device)
            within = self._within(stage, forward)
        found = {name: median(r[name] for r in rounds) for name in parts}
        step_ms = sum(found.values())
        return {
            "step_ms": step_ms,
            "samples_s": self.size / step_ms * 1e3,
            "share": {name: value / step_ms for name, value in found.items()},
            "forward_share": {name: value / sum(within.values()) for name, value in within.items()},
            "load_ms": load_ms,
            # A process that loads is one of several beside the step, so the share is their number.
            "loading_processes_needed": load_ms / step_ms,
            "peak_mib": peak,
        }

    def _within(self, stage: Stage, forward: Callable[[], None]) -> dict[str, float]:
        """Milliseconds of the networks in a forward, and of all else: lift, targets, losses."""
        modules = dict(stage.network.named_children())
        distiller = getattr(stage, "distiller", None)
        if distiller is not None:
            modules |= distiller.teachers(self.device)
        clock = StageClock(self.device)
        hooks = []
        for name, module in modules.items():
            hooks.append(module.register_forward_pre_hook(lambda *_, n=name: clock.start(n)))
            hooks.append(module.register_forward_hook(lambda *_, n=name: clock.stop(n)))
        try:
            whole_ms = time_ms(forward, self.device)
        finally:
            for hook in hooks:
                hook.remove()
        spent = clock.take()
        return {**spent, "else": whole_ms - sum(spent.values())}

    def _sample(self, stage: Stage) -> Any:
        keys = [(index, _SEED) for index in range(self.size)]
        if isinstance(stage, StudentStage):
            return StudentSample.collate([self._students[key] for key in keys])
        return LidarSample.collate([self._lidar[key] for key in keys])
