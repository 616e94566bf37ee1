# SPDX-License-Identifier: Apache-2.0
"""Which part of distillation helps how much: arms of one budget, several seeds each."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from labeldistill_core.checkpoints import read_checkpoint
from labeldistill_core.data.fingerprint import boxes_sha256, sensors_sha256, sweeps_sha256
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.distillation.distiller import require_same_cells
from labeldistill_core.distillation.label_encoder import load_label_encoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.experiments.ablation_report import (
    FinishedRun,
    Scores,
    finished_runs,
    write_report,
)
from labeldistill_core.experiments.ablation_run import AblationRun, refuse_other_length
from labeldistill_core.experiments.arms import ARMS, MAIN
from labeldistill_core.experiments.processes import in_processes
from labeldistill_core.files import refuse_unwritable, stays
from labeldistill_core.lidar.teacher import load_teacher
from labeldistill_core.presets import Preset
from labeldistill_core.provenance import commit, machine
from labeldistill_core.training.label_encoder import Aim
from labeldistill_core.training.options import (
    LabelEncoderOptions,
    TeacherOptions,
    TrainingOptions,
)
from labeldistill_core.training.recipe import LARGEST_SEED
from labeldistill_core.training.train import train_label_encoder, train_teacher

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AblationOptions(TrainingOptions):
    """What is compared, and what the training of its students can be told."""

    preset: str = "ablation"
    """Name of the configuration of all networks."""
    arms: tuple[str, ...] = MAIN
    """Ways of training to compare: none, lidar, lidar+label, lidar+label+partition, autoencoder,
    ratio-1:3:2, ratio-3:1:2. They take the place of the configuration's `distillation`."""
    seeds: int = 3
    """Runs of each arm, each with another seed, from `--seed` on."""
    jobs: int = 1
    """Runs at a time, which share the cores and the GPUs; each writes what it has to say to
    `output.txt` in its folder."""
    teacher: Path | None = None
    """Checkpoint of a LiDAR teacher; trained first when not given and needed."""
    label_encoder: Path | None = None
    """Checkpoint of a label encoder; trained second when not given and needed."""
    init: Path | None = None
    """Student checkpoint, of the same configuration, that all runs start from."""
    json: Path | None = None
    """File for the figures, beside `ablation.json` in the folder of the runs."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        super().__post_init__()
        if unknown := [name for name in self.arms if name not in ARMS]:
            raise ConfigError(f"no arm {', '.join(unknown)}: there are {', '.join(ARMS)}")
        if not self.arms or self.seeds < 1 or self.jobs < 1:
            raise ConfigError("--arms, --seeds and --jobs: there must be one of each at least")
        if self.machine.processes > 1:
            raise ConfigError(
                "each run of an ablation takes one device: use several with --jobs instead of "
                "--devices or --nodes"
            )


def ablation(dataroot: Path, out: Path, options: AblationOptions) -> str:
    """Train students with and without each teacher, and compare them on the validation scenes.

    Every run has the same data, network, steps and augmentation; only what the seed draws and what
    the arm says differ. A call that was cut off goes on where it stopped.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for all runs, `table.md` and `ablation.png`.
        options: what is compared.

    Returns:
        The table, as Markdown.

    Raises:
        CheckpointError: the folder holds a run of other settings.
    """
    arms, jobs = tuple(dict.fromkeys(options.arms)), options.jobs
    files = (out / "ablation.json", *([options.json] if options.json else []))
    # before a training takes hours
    _refuse_own_output(out, options.json)
    refuse_unwritable(*files)
    before = {run.settings: run for file in files for run in finished_runs(file)}
    # The budget on the command line is that of the students; teachers are trained to their end, on
    # all scenes, once for all arms.
    plain = replace(
        options, epochs=None, learning_rate=None, batch_size=None, accumulate=None,
        class_balanced=None, scenes=0, seed=None,
    )  # fmt: skip
    # Jobs share the cores.
    loaders = options.machine.loaders
    loaders = max(1, loaders // jobs) if loaders else 0
    options = replace(options, machine=replace(options.machine, workers=loaders))
    preset = options.resolved()
    first = preset.recipes.student.seed
    if first + options.seeds - 1 > LARGEST_SEED:
        raise ConfigError(
            f"--seeds {options.seeds} from --seed {first} on go beyond the last, {LARGEST_SEED}"
        )
    tables = NuScenesTables(dataroot, options.version, preset.student.head.class_list)
    trained, scored = options.scene_names(tables)[0], options.scored_scenes(tables)
    about = _about(tables, trained, scored, options) | {"jobs": str(jobs)}
    taught = [ARMS[name] for name in arms if ARMS[name].distillation]
    if taught:
        _refuse_other_cells(preset, options.teacher, options.label_encoder)
    teacher = options.teacher
    if taught and teacher is None:
        # A training that has come to its end returns at once, or refuses other settings.
        teacher = out / "teacher" / "teacher.safetensors"
        refuse_other_length(teacher.parent, plain.resolved().recipes.teacher)
        train_teacher(dataroot, teacher.parent, TeacherOptions.like(plain))
    encoders: dict[bool, Path | None] = {False: options.label_encoder, True: None}
    for autoencoder in sorted({arm.autoencoder for arm in taught if arm.needs_labels}):
        if encoders[autoencoder] is None:
            assert teacher is not None
            encoders[autoencoder] = _encoder(dataroot, out, teacher, plain, autoencoder)
    # seed by seed, so that an early stop leaves a fair comparison
    order = [(first + i, name) for i in range(options.seeds) for name in arms]
    learnt, seen = (
        [token for name in names for token in tables.samples(name)] for names in (trained, scored)
    )
    # As the training leaves them out where the root is partial.
    learnt = [token for token in learnt if tables.has_images(token, preset.student.cameras)]
    samples = [*learnt, *seen]
    said = boxes_sha256(tables, samples), sensors_sha256(tables, samples)
    data = hashlib.sha256(" ".join([*samples, *said]).encode()).hexdigest()
    sweeps = _sweeps(tables, learnt, teacher) if taught else None
    runs = [
        AblationRun(
            dataroot,
            out / name.replace(":", "-") / f"seed{seed}",
            ARMS[name],
            ARMS[name].given(teacher, encoders, options.init),
            tuple(trained),
            tuple(scored),
            data,
            sweeps if ARMS[name].distillation else None,
            replace(options, seed=seed),
        )
        for seed, name in order
    ]
    sums = [run.check_sum for run in runs]
    found: dict[int, Scores] = {}
    for index, run in enumerate(runs):
        # Before one of other settings is trained; and also from the figures, since the folder of a
        # run may be lost.
        kept = run.kept() or (before[sums[index]].scores if sums[index] in before else None)
        if kept:
            found[index] = kept
        else:
            refuse_other_length(run.folder, preset.recipes.student)

    def tell(index: int) -> None:
        seed, name = order[index]
        _LOG.info(
            "arm %s, seed %d: mAP %.3f, NDS %.3f; %d of %d runs",
            name, seed, found[index].mean_ap, found[index].nds, len(found), len(runs),
        )  # fmt: skip

    def write() -> None:
        results = {
            arm: [found[i] for i in sorted(found) if order[i][1] == arm]
            for arm in arms
            if any(order[i][1] == arm for i in found)
        }
        own = {
            sums[i]: FinishedRun(order[i][1], order[i][0], sums[i], found[i]) for i in sorted(found)
        }
        file = options.json
        if file and not stays(file) and len(found) < len(runs):
            file = None  # what went into a pipe could not be replaced
        write_report(out, file, results, about, list(own.values()))

    def report(index: int, scores: Scores) -> None:
        """Write what is known as soon as a run ends, whichever it is."""
        found[index] = scores
        tell(index)
        write()

    for index in sorted(found):
        tell(index)
    if found:
        write()
    missing = [index for index in range(len(runs)) if index not in found]
    _score_all([runs[i] for i in missing], jobs, lambda i, scores: report(missing[i], scores))
    return (out / "table.md").read_text(encoding="utf-8")


def _sweeps(tables: NuScenesTables, samples: Sequence[str], teacher: Path | None) -> str | None:
    """Hash of the scans that a teacher sees between samples."""
    assert teacher is not None
    seen = load_teacher(teacher).config.sweeps
    scanned = [token for token in samples if tables.has_scan(token)]
    return sweeps_sha256(tables, scanned, seen.past, seen.future)


def _encoder(
    dataroot: Path, out: Path, teacher: Path, options: TrainingOptions, autoencoder: bool
) -> Path:
    """A label encoder of this teacher; a training that has come to its end returns at once."""
    aim: Aim = "autoencoder" if autoencoder else "inverse-head"
    file = out / ("autoencoder_stage" if autoencoder else "label_encoder")
    file /= "label_encoder.safetensors"
    refuse_other_length(file.parent, options.resolved().recipes.label_encoder)
    stage = LabelEncoderOptions.like(options, teacher=teacher, aim=aim)
    train_label_encoder(dataroot, file.parent, stage)
    return file


def _refuse_own_output(out: Path, file: Path | None) -> None:
    """See that the figures would not take the place of what the runs write.

    Raises:
        ConfigError: the file is in their folder and called otherwise than the figures there.
    """
    if not file:
        return
    real, folder, own = (
        Path(os.path.realpath(path)) for path in (file, out, out / "ablation.json")
    )
    if folder in real.parents and real != own:
        raise ConfigError(
            f"--json {file} is in the folder of the runs, which has its figures in "
            "ablation.json: leave --json out, or name a file elsewhere"
        )


def _refuse_other_cells(preset: Preset, teacher: Path | None, label_encoder: Path | None) -> None:
    """See that the given teachers suit the student, before any arm is trained for hours.

    Raises:
        CheckpointError: a file is no such network.
        ConfigError: it has other cells or classes.
    """
    student = preset.student
    if teacher:
        require_same_cells(f"teacher {teacher}", student, load_teacher(teacher).config)
    if label_encoder:
        encoder = load_label_encoder(label_encoder).config
        require_same_cells(f"label encoder {label_encoder}", student, encoder)


def _score_all(
    runs: Sequence[AblationRun], jobs: int, report: Callable[[int, Scores], None]
) -> None:
    """Train and score what was not yet; `report` gets the index and the scores of each."""
    if jobs == 1:
        for index, run in enumerate(runs):
            report(index, run.scores())
    else:
        # in files, since the progress of several runs would mix
        outputs = [run.folder / "output.txt" for run in runs]
        with closing(in_processes(AblationRun.scores, runs, outputs, jobs, report)) as results:
            for _ in results:
                pass


def _about(
    tables: NuScenesTables,
    trained: Sequence[str],
    scored: Sequence[str],
    options: AblationOptions,
) -> dict[str, str | None]:
    """What all runs have in common."""
    recipe = options.resolved().recipes.student
    samples, frames = (sum(len(tables.samples(n)) for n in names) for names in (trained, scored))
    return {
        "preset": options.preset_name,
        "budget": f"{recipe.epochs} epochs of {samples} samples of {len(trained)} scenes, "
        f"batch {recipe.batch_size}, learning rate {recipe.scaled_rate(processes=1):.2e}",
        "scored": f"{frames} key frames of {len(scored)} scenes",
        "init": read_checkpoint(options.init, "student").note if options.init else None,
        "commit": commit(),
        "machine": machine(),
    }
