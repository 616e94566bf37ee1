# SPDX-License-Identifier: Apache-2.0
"""One training run: data loaders, logs, checkpoints, and taking up where it was cut off."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from labeldistill_core.data.fingerprint import boxes_sha256
from labeldistill_core.errors import CheckpointError, ConfigError, LabelDistillError
from labeldistill_core.files import clear_partial, sole_user
from labeldistill_core.processes import RANKS, end_with_parent
from labeldistill_core.training.averaging import MovingAverage
from labeldistill_core.training.checkpointing import Identity, Keep, KeepBest, WholeCheckpoints
from labeldistill_core.training.export import IDENTITY, KINDS, network_file, read_run
from labeldistill_core.training.identity import differences
from labeldistill_core.training.interrupts import Stop
from labeldistill_core.training.loaders import SharedCollate, begin_loading, loading_error
from labeldistill_core.training.logs import JsonLines, LogFirst, Pace, progress
from labeldistill_core.training.recipe import Recipe
from labeldistill_core.training.sampling import EpochOrder, class_balanced
from labeldistill_core.training.stage import Stage
from labeldistill_core.training.trackers import Tracker, make_logger

_LOG = logging.getLogger(__name__)
_MOST_GIB = 1 << 20
"""Of a disk; more are a slip."""
_EXPORT_S = 600.0
"""An export takes seconds, on the slowest of disks less than these."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Samples(Protocol):
    """A data set whose key is an index, or an index and the seed of the augmentation."""

    @property
    def tokens(self) -> Sequence[str]:
        """Of the samples, by index."""

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
    logger: Tracker = "tensorboard"
    """Where curves, configuration and pictures go beside scalars.jsonl: TensorBoard, Weights and
    Biases, MLflow, Comet, or nowhere. Each but the first is to be installed by its name."""
    teacher_cache: Path | None = None
    """Folder for the frozen teacher's outputs, which all epochs and runs with the same teacher
    share; when not given, one in the user's cache."""
    teacher_cache_gib: float = 16.0
    """Disk for the frozen teachers' outputs, of all teachers together; about 2 MiB a sample for the
    demo's teacher. Samples beyond it go through the teacher in each epoch, and so do all of them
    with 0."""

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing can run."""
        if self.devices < 1 or self.nodes < 1:
            raise ConfigError("--devices and --nodes must be 1 or more")
        if self.precision == "16-mixed" and not torch.cuda.is_available():
            raise ConfigError("--precision 16-mixed needs a GPU: a CPU has bf16-mixed")
        if self.workers is not None and self.workers < 0:
            raise ConfigError("--workers must be 0 or more")
        if not 0 <= self.teacher_cache_gib <= _MOST_GIB:
            raise ConfigError(f"--teacher-cache-gib must be a number from 0 to {_MOST_GIB}")

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

    A run that came to its end goes on when it is given more epochs.

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
        Whether the run came to its end in this process; False in all processes but the first.

    Raises:
        ConfigError: there are fewer samples than one batch, or to score than processes; Slurm
            started another number of tasks; or another process trains in the folder.
        CheckpointError: the folder holds a run with another configuration.
        NotFiniteError: the losses or weights are not.
        StoppedError: a signal ended the run; what was whole is saved.
        LabelDistillError: a loading process was killed.
    """
    _check_tasks(machine)
    if "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        # Processes of torchrun have a parent that ends them; lightning's would train on by
        # themselves.
        end_with_parent()  # started by lightning in the first process
    recipe, processes = stage.recipe, machine.processes
    indices = _drawn(data, recipe, processes)
    if validation is not None and len(validation) < processes:
        raise ConfigError(f"{len(validation)} samples to score for {processes} processes: too few")
    # As it will be read back, so that a tuple and its list do not look like a change.
    whole = json.loads(json.dumps({**identity, "recipe": asdict(recipe)}))
    whole["precision"], whole["processes"] = machine.precision, processes
    last, best = (out / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    # Steps of the optimizer in an epoch, rounded up: lightning steps at an epoch's end whatever was
    # accumulated.
    each = -(-(len(indices) // (recipe.batch_size * processes)) // recipe.accumulate)
    loading: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "collate_fn": SharedCollate(collate),
        "num_workers": machine.loaders,
        "worker_init_fn": begin_loading,
        # Starting a loading process imports torch, which takes seconds in each epoch.
        "persistent_workers": machine.loaders > 0,
    }
    with _locked(out), _told(out, last, machine):
        if best.exists() and not last.exists():
            raise CheckpointError(
                f"{best} is of a run whose last checkpoint is gone: copy it to {last.name} to go "
                "on from there, or move it away to train anew"
            )
        step = _checked_step(last, whole, each) if last.exists() else 0
        keep = Keep(last, save_every, step)
        stop = Stop(keep)
        callbacks = [Identity(whole), keep, stop]
        if validation is not None:
            callbacks.append(KeepBest(keep, best, "val/mAP", _said_of(validation, stage)))
        trainer = _trainer(out, recipe, machine, validate_every, callbacks)
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
        for logger in trainer.loggers:
            logger.log_hyperparams(whole)
        with stop:
            trainer.fit(
                stage,
                loaders[0],
                loaders[1:] or None,
                ckpt_path=last if step else None,
                weights_only=True,
            )
        if step and trainer.global_step == step:
            # Nothing was left to train, and so the average, with which a run ends, is not set.
            stage.load_state_dict(read_run(last)["state_dict"])
    return trainer.is_global_zero and trainer.state.status == "finished"


def _said_of(validation: Samples, stage: Stage) -> str:
    """Hash of what is scored, in whatever order."""
    assert stage.tables is not None
    tokens = sorted(validation.tokens)
    said = *tokens, boxes_sha256(stage.tables, tokens)
    return hashlib.sha256(" ".join(said).encode()).hexdigest()


def _drawn(data: Samples, recipe: Recipe, processes: int) -> Sequence[int]:
    """Samples of an epoch, by index.

    Raises:
        ConfigError: they are fewer than one batch.
    """
    indices: Sequence[int] = range(len(data))
    if recipe.class_balanced:
        # Drawn once for the run: each epoch has the same samples in another order.
        indices = class_balanced([data.classes(i) for i in indices], recipe.seed)
    if len(indices) < recipe.batch_size * processes:
        drawn = "class-balanced draws" if recipe.class_balanced else "samples"
        raise ConfigError(
            f"{len(indices)} {drawn} are fewer than one batch of {recipe.batch_size} x {processes}"
        )
    return indices


def _trainer(
    out: Path, recipe: Recipe, machine: Machine, validate_every: int, callbacks: Sequence[Callback]
) -> Trainer:
    _quiet_lightning()
    return Trainer(
        default_root_dir=out,
        max_epochs=recipe.epochs,
        precision=machine.precision,
        devices=machine.devices,
        num_nodes=machine.nodes,
        # Every loss reaches its parameters in every batch, also in one without boxes, so that the
        # processes need not look for gradients that do not come.
        strategy="auto" if machine.processes == 1 else "ddp",
        # The order of samples is ours, or a run that is taken up would see others than one that was
        # not cut off.
        use_distributed_sampler=False,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.gradient_clip,
        check_val_every_n_epoch=validate_every,
        # Lightning's own checkpoint would be a second one, named after the step.
        enable_checkpointing=False,
        enable_model_summary=False,
        # It would draw from the random stream and make a run depend on being started anew.
        num_sanity_val_steps=0,
        logger=[make_logger(machine.logger, out), JsonLines(out / "log" / "scalars.jsonl")],
        # The average first: what saves and scores after a step is to find that step in it.
        callbacks=[
            MovingAverage(decay=recipe.ema_decay),
            LogFirst(),
            Pace(recipe.batch_size),
            progress(),
            *callbacks,
        ],
        plugins=[WholeCheckpoints()],
    )


@contextmanager
def _told(out: Path, last: Path, machine: Machine) -> Iterator[None]:
    """Say what ended a run, where the error itself does not, and the mend."""
    try:
        yield
    except (LabelDistillError, RuntimeError) as error:
        if told := loading_error(error, machine.loaders):
            raise told from error
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise CheckpointError(
            f"cannot write to {out}: {error.strerror}. Make room and repeat the call: it "
            + (f"goes on from {last.name}" if last.exists() else "begins anew")
        ) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other trainings out of a folder; the first process of a run speaks for all."""
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
        yield
        return
    refusal = f"another process trains in {out}: give another folder, or wait for its end"
    with sole_user(out / ".lock", refusal) as alone:
        if alone:
            # of a run that was killed while it saved
            clear_partial(*(out / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")))
            # `labeldistill export` may write there, too.
            clear_partial(*(out / network_file(kind) for kind in KINDS), older_s=_EXPORT_S)
        yield


def _check_tasks(machine: Machine) -> None:
    """Compare what Slurm started with what the run expects.

    Raises:
        ConfigError: the numbers differ, and tasks would train beside each other in one folder.
    """
    # `srun` starts one process a task, and lightning then starts none: too few or too many train
    # alone.
    tasks = os.environ.get("SLURM_NTASKS", "")
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if tasks.isdecimal() and not by_hand and int(tasks) != machine.processes:
        raise ConfigError(
            f"Slurm started {tasks} tasks, and --devices {machine.devices} on --nodes "
            f"{machine.nodes} are {machine.processes} processes: let both be the same"
        )


def _quiet_lightning() -> None:
    """Leave out its advice, which is meant for those who wrote the program."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # Such as to use more workers, where the number was chosen.
    warnings.filterwarnings("ignore", module="lightning")


def _checked_step(last: Path, identity: dict[str, Any], epoch_steps: int) -> int:
    """Step at which a run stopped; one that came to its end may be given more epochs."""
    checkpoint = read_run(last, taken_up=True)
    before, step = checkpoint[IDENTITY], checkpoint["global_step"]
    recipe = before.get("recipe", {})
    # Only behind its end, since the schedule of a run depends on its length.
    if recipe.get("epochs", 0) * epoch_steps <= step:
        longer = max(recipe.get("epochs", 0), identity["recipe"]["epochs"])
        before = {**before, "recipe": {**recipe, "epochs": longer}}
    if different := differences(before, identity):
        raise CheckpointError(
            f"{last.parents[1]} holds a run with another configuration: {'; '.join(different)}. "
            "Give another folder, or repeat the call as it was to go on with that run"
        )
    _LOG.info("going on from %s, step %d", last, step)
    return int(step)
