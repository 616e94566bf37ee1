# SPDX-License-Identifier: Apache-2.0
"""One training run: data loaders, logs, checkpoints, and taking up where it was cut off."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.files import write_whole
from labeldistill_core.training.export import IDENTITY, read_run
from labeldistill_core.training.sampling import EpochOrder, class_balanced
from labeldistill_core.training.stage import Stage

_LOG = logging.getLogger(__name__)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Samples(Protocol):
    """A data set whose key is an index, or an index and the seed of the augmentation."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        """One sample."""

    def classes(self, index: int) -> frozenset[str]:
        """Names of the classes that stand in a sample."""


@dataclass(frozen=True)
class Machine:
    """Where a run takes place: its speed, its precision and, by its processes, its batch."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    """Number format that the network computes in."""
    devices: int = 1
    """GPUs of a node, or processes on a CPU."""
    nodes: int = 1
    """Machines that train together."""
    workers: int | None = None
    """Processes that load data, for each device; when not given, one on a CPU, and for a GPU as
    many as it has cores, but at most eight."""
    recall_gib: float = 4.0
    """Memory for the frozen teacher's outputs, in each process; about 2 MiB a sample for the demo's
    teacher. Samples beyond it go through the teacher in each epoch."""

    @property
    def processes(self) -> int:
        """Those that train together, each on batches of its own."""
        return self.devices * self.nodes

    @property
    def loaders(self) -> int:
        """Processes that load data, for each device."""
        if self.workers is not None:
            return self.workers
        if not torch.cuda.is_available():
            return 1
        return min(8, max(1, len(os.sched_getaffinity(0)) // self.devices))


def fit(
    stage: Stage,
    data: Samples,
    collate: Callable[[Sequence[Any]], Any],
    out: Path,
    identity: Mapping[str, Any],
    machine: Machine,
    validation: Samples | None = None,
    validate_every: int = 1,
    save_every: int = 100,
) -> bool:
    """Train a stage; a run that was cut off goes on from `OUT/checkpoints/last.ckpt`.

    Args:
        stage: what is trained; holds the averaged weights afterwards.
        data: samples to train on.
        collate: samples to a batch.
        out: folder for checkpoints and logs.
        identity: what makes this run what it is, as JSON; a run is taken up only with the same.
        machine: devices and workers.
        validation: samples to score with the official metrics; the best checkpoint is kept.
        validate_every: epochs between scorings.
        save_every: steps between checkpoints.

    Returns:
        Whether the run came to its end in this process; False when it was interrupted, and in all
        processes but the first.

    Raises:
        ConfigError: there are fewer samples than one batch, or to score than processes.
        CheckpointError: the folder holds a run with another configuration.
    """
    recipe = stage.recipe
    processes = machine.processes
    indices: Sequence[int] = range(len(data))
    if recipe.class_balanced:
        indices = class_balanced([data.classes(i) for i in indices], recipe.seed)
    if len(indices) < recipe.batch_size * processes:
        drawn = "class-balanced draws" if recipe.class_balanced else "samples"
        raise ConfigError(
            f"{len(indices)} {drawn} are fewer than one batch of {recipe.batch_size} x {processes}"
            + (": no sample has a box of a known class" if len(data) and not indices else "")
        )
    if validation is not None and len(validation) < processes:
        raise ConfigError(f"{len(validation)} samples to score for {processes} processes: too few")
    # As it will be read back, so that a tuple and its list do not look like a change.
    whole = json.loads(json.dumps({**identity, "recipe": asdict(recipe)}))
    whole["precision"], whole["processes"] = machine.precision, processes
    last = out / "checkpoints" / "last.ckpt"
    step = _checked_step(last, whole) if last.exists() else 0
    loading: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "collate_fn": collate,
        "num_workers": machine.loaders,
        # Starting a loading process imports torch, which takes seconds in each epoch.
        "persistent_workers": machine.loaders > 0,
    }
    callbacks: list[Callback] = [
        MovingAverage(decay=recipe.ema_decay),
        LearningRateMonitor("step"),
        Pace(recipe.batch_size),
        Identity(whole),
        Keep(last, save_every),
    ]
    if validation is not None:
        callbacks.append(ModelCheckpoint(last.parent, "best", monitor="val/mAP", mode="max"))
    trainer = Trainer(
        default_root_dir=out,
        max_epochs=recipe.epochs,
        precision=machine.precision,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="auto" if processes == 1 else "ddp_find_unused_parameters_true",
        # The order of samples is ours, or a run that is taken up would see others than one that was
        # not cut off.
        use_distributed_sampler=False,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.gradient_clip,
        check_val_every_n_epoch=validate_every,
        # It would draw from the random stream and make a run depend on being started anew.
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=[TensorBoardLogger(out, "", "log"), JsonLines(out / "log" / "scalars.jsonl")],
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
    )
    order = EpochOrder(
        indices, recipe.batch_size, recipe.seed, trainer.global_rank, trainer.world_size
    )
    order.start_at(step, recipe.accumulate)
    loaders: list[Any] = [DataLoader(data, sampler=order, drop_last=True, **loading)]  # type: ignore[arg-type]
    if validation is not None:
        # Each process scores its share; the boxes are gathered, since mAP is no mean over
        # processes.
        mine = range(trainer.global_rank, len(validation), trainer.world_size)
        loaders.append(DataLoader(validation, sampler=mine, **loading))  # type: ignore[arg-type]
    try:
        trainer.fit(
            stage,
            loaders[0],
            loaders[1:] or None,
            ckpt_path=last if step else None,
            weights_only=True,
        )
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise CheckpointError(
            f"cannot write to {out}: {error.strerror}. Make room and repeat the call: it goes on "
            f"from {last.name}"
        ) from error
    return trainer.is_global_zero and trainer.state.status == "finished"


def _checked_step(last: Path, identity: dict[str, Any]) -> int:
    """Step at which a run stopped."""
    checkpoint = read_run(last)
    before, step = checkpoint[IDENTITY], checkpoint["global_step"]
    differences = list(_differences(before, identity))
    if differences:
        raise CheckpointError(
            f"{last.parents[1]} holds a run with another configuration: {'; '.join(differences)}. "
            "Give another folder, or repeat the call as it was to go on with that run"
        )
    _LOG.info("going on from %s, step %d", last, step)
    return int(step)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*before, *now})
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if before == now else [f"{name} was {before}, is {now}"]


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and norms' statistics, on the network's device.

    It never reaches back over more than about a tenth of the steps so far. An average that still
    holds first steps is worse than it looks: its statistics do not belong to its weights.
    """

    def __init__(self, decay: float) -> None:
        """`decay` once there are steps enough for it."""
        super().__init__(multi_avg_fn=self._mix)
        self._decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average; lightning's own stays where the network is built."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def _mix(self, average: Any, current: Any, updates: Any) -> None:
        """Let all tensors of one type move towards the current ones."""
        steps = self._latest_update_step
        # Short runs would end before an average of a thousand steps has forgotten its random start.
        decay = min(self._decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(average, current, updates)


class Identity(Callback):
    """Writes into each checkpoint what made the run."""

    def __init__(self, identity: dict[str, Any]) -> None:
        """Keep what made the run, as JSON values."""
        self._identity = identity

    def on_save_checkpoint(self, _: Trainer, __: LightningModule, checkpoint: Any) -> None:
        """Add the identity to what lightning saves."""
        checkpoint[IDENTITY] = self._identity


class Keep(Callback):
    """Saves the run every so many steps and at the end of each epoch, in one file."""

    def __init__(self, file: Path, every: int) -> None:
        """Where, and how many steps apart."""
        self._file, self._every, self._saved = file, every, 0

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """A run that is taken up has just been saved; gradients of half a step never are."""
        self._saved = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save after a full number of steps."""
        # lightning loses count of epochs that are taken up between their last batch and their end
        if trainer.global_step % self._every == 0 and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Save what the steps since have changed."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved:
            trainer.save_checkpoint(self._file)
            self._saved = trainer.global_step


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place first, so that it appears whole or not at all.

    Lightning writes to the system's folder for temporary files and moves from there, which across
    file systems is a copy onto the last good checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint beside the old one, then put it in its place."""
        # Into memory first: what reaches the disk is complete, or the old file stays.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())


class Pace(Callback):
    """Logs a process's samples a second, and the share of time that it waited for data."""

    def __init__(self, batch_size: int, every: int = 10) -> None:
        """Samples a batch, and steps of the optimizer between two entries."""
        self._batch_size, self._every, self._logged = batch_size, every, 0
        self._ended = self._started = 0.0
        self._batches, self._waited, self._total = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """A run may be taken up at any step."""
        self._logged = trainer.global_step

    def on_train_epoch_start(self, *_: Any) -> None:
        """Leave out what lies between epochs."""
        self._ended = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Note how long the process waited for this batch."""
        self._started = time.perf_counter()
        self._waited += self._started - self._ended if self._ended else 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Count the batch, and log the pace every so many steps."""
        now, steps = time.perf_counter(), trainer.global_step - self._logged
        self._total += now - (self._ended or self._started)
        self._ended = now
        self._batches += 1
        if steps and trainer.global_step % self._every == 0:
            module.log("pace/wait_share", self._waited / self._total)
            module.log("pace/step_s", self._total / steps, prog_bar=True)
            module.log("pace/samples_s", self._batches * self._batch_size / self._total)
            self._batches, self._waited, self._total = 0, 0.0, 0.0
            self._logged = trainer.global_step


class JsonLines(Logger):
    """One JSON object a line: the step and its scalars."""

    def __init__(self, path: Path) -> None:
        """Append to the file at `path`, which is made with its first line."""
        super().__init__()
        self._path = path

    @property
    def name(self) -> str:
        """Name of this kind of log, which lightning asks for."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Empty: there is one log in a folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: the checkpoints hold the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line with the step and its scalars."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
