# SPDX-License-Identifier: Apache-2.0
"""What an ablation found: scores of runs as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import (
    one_at_a_time,
    open_descriptor,
    read_bounded,
    whole_file,
    write_json,
    write_whole,
)
from labeldistill_core.names import plain_text

_LARGEST = 1 << 26
"""Bytes of a file of figures; a run takes 4 KiB."""


@dataclass(frozen=True)
class Scores:
    """What one student scored."""

    mean_ap: float
    """Mean average precision, 0 to 1."""
    nds: float
    """nuScenes detection score, 0 to 1."""
    errors: Mapping[str, float]
    """Mean of each error over the classes, by the devkit's name."""
    recall: Mapping[str, float] = field(default_factory=dict)
    """Share of true boxes found, by group of distance and of LiDAR returns."""
    mean_ap_by_distance: Mapping[str, float] = field(default_factory=dict)
    """mAP by band of distance. LiDAR returns are known of true boxes alone, so of them there is
    only the recall."""

    def to_json(self) -> dict[str, Any]:
        """As nested dictionaries; JSON knows no NaN, so what is unknown is null."""
        return {name: _mapped(value, _null_of_nan) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Any) -> Scores:
        """The reverse of `to_json`.

        Raises:
            ValueError: the content is something else.
        """
        scores = msgspec.convert(_mapped(content, _nan_of_null), cls)
        shares = (*scores.recall.values(), *scores.mean_ap_by_distance.values())
        for share in (scores.mean_ap, scores.nds, *shares):
            # Unknown is NaN; sums of shares are off by a last digit.
            if share < 0 or share > 1 + 1e-9:
                raise ValueError(f"it has a score of {share}")
        for name, error in scores.errors.items():
            if error < 0 or math.isinf(error):
                raise ValueError(f"it has a {plain_text(name)} of {error}")
        return scores


@dataclass(frozen=True)
class FinishedRun:
    """One student's scores, and what they belong to."""

    arm: str
    """Name of the way in which it was trained."""
    seed: int
    """Seed of the training."""
    settings: str
    """Check sum of everything that the scores depend on."""
    scores: Scores
    """What it scored."""

    def to_json(self) -> dict[str, Any]:
        """As nested dictionaries."""
        return {**vars(self), "scores": self.scores.to_json()}


def read_figures(file: Path) -> dict[str, Any]:
    """An object of JSON that a file holds.

    Raises:
        ValueError: it holds something else.
        LabelDistillError: it is no file, or far too large.
    """
    try:
        content = json.loads(read_bounded(file, _LARGEST))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}")  # noqa: TRY004 - as json does
    return content


def finished_runs(file: Path | None) -> list[FinishedRun]:
    """The runs that a file of figures holds; none where it is absent, or of before it held them.

    Raises:
        ConfigError: it is no file of figures.
    """
    # What is no file, such as a terminal or a pipe, is written to alone.
    if file is None or not file.is_file() or open_descriptor(file) is not None:
        return []
    try:
        figures = read_figures(file)
        if not isinstance(figures.get("arms"), dict):
            raise ValueError("it has no arms")
        runs = figures.get("runs", [])
        made = [{**run, "scores": Scores.from_json(run["scores"])} for run in runs]
        return [msgspec.convert(run, FinishedRun) for run in made]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file} holds no figures of an ablation ({error}): name another file; or, where it "
            "was one, remove it, and the runs are read from their folders"
        ) from error


def _mapped(values: Any, function: Callable[[Any], Any]) -> Any:
    """A function of every number in nested dictionaries."""
    if isinstance(values, Mapping):
        return {key: _mapped(value, function) for key, value in values.items()}
    return function(values)


def _null_of_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_of_null(value: float | None) -> float:
    return math.nan if value is None else value


def write_report(
    out: Path,
    file: Path | None,
    results: Mapping[str, Sequence[Scores]],
    about: Mapping[str, str | None],
    runs: Sequence[FinishedRun] = (),
) -> None:
    """Write the figures as JSON, as a table in Markdown, and as a picture.

    Args:
        out: folder for `ablation.json`, `table.md` and `ablation.png`.
        file: another file for the JSON.
        results: the scores of each arm's runs, by its name.
        about: what all runs have in common.
        runs: every run by itself, for `finished_runs`; others that the files hold stay there.

    Raises:
        ConfigError: a file is none of figures.
    """
    arms = {
        name: {
            "mAP": _spread([s.mean_ap for s in scores]),
            "NDS": _spread([s.nds for s in scores]),
            **{
                key: _spread([s.errors.get(key, math.nan) for s in scores])
                for key in scores[0].errors
            },
            **{
                part: {
                    group: _spread([getattr(s, part).get(group, math.nan) for s in scores])
                    for group in getattr(scores[0], part)
                }
                for part in ("mean_ap_by_distance", "recall")
            },
            "seeds": [{"mAP": s.mean_ap, "NDS": s.nds} for s in scores],
        }
        for name, scores in results.items()
    }
    own = {run.settings: run for run in runs}
    # Written after each run, so that a call which is cut off leaves what it has found.
    for target in (out / "ablation.json", *([file] if file else [])):
        with one_at_a_time(Path(os.path.realpath(target)).parent):
            # Read again, since another call may have written to it meanwhile.
            kept = {run.settings: run for run in finished_runs(target)} | own
            listed = [run.to_json() for run in kept.values()]
            write_json(target, {"arms": arms, **about, "runs": listed})
    write_whole(out / "table.md", _table(arms).encode())
    _plot(out / "ablation.png", arms)


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation; None where there is nothing to tell."""
    known = np.array([value for value in values if not math.isnan(value)])
    return {
        "mean": float(known.mean()) if len(known) else None,
        # Of the population that the seeds are drawn from, so divided by one less than their number.
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
    }


def _shown(spread: Mapping[str, float | None] | None) -> str:
    if spread is None:  # of a group that other arms have
        return "-"
    mean, std = ("-" if spread[key] is None else f"{spread[key]:.3f}" for key in ("mean", "std"))
    return f"{mean} ± {std}"


def _table(arms: Mapping[str, Any]) -> str:
    first = next(iter(arms.values()))
    errors = [key for key in first if key.endswith("_err")]
    lines = [
        f"| arm | mAP | NDS | {' | '.join(errors)} |",
        f"|---|{'---|' * (2 + len(errors))}",
        *(
            f"| {name} | "
            + " | ".join(_shown(arm.get(key)) for key in ("mAP", "NDS", *errors))
            + " |"
            for name, arm in arms.items()
        ),
    ]
    for title, key in (("mAP by distance", "mean_ap_by_distance"), ("recall", "recall")):
        lines += [
            "",
            f"| {title} | {' | '.join(arms)} |",
            f"|---|{'---|' * len(arms)}",
            *(
                f"| {group} | "
                + " | ".join(_shown(arm[key].get(group)) for arm in arms.values())
                + " |"
                for group in first[key]
            ),
        ]
    return "\n".join(lines) + "\n"


def _plot(file: Path, arms: Mapping[str, Any]) -> None:
    # Here, since a second of importing is too much for a run that only trains.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(arms):
        for axes, key in ((left, "mAP"), (right, "NDS")):
            values = [seed[key] for seed in arms[name]["seeds"]]
            axes.hlines(np.mean(values), index - 0.3, index + 0.3, color="#1f4e79")
            axes.plot([index] * len(values), values, "o", color="#1f4e79", alpha=0.6)
            axes.set_title(f"{key}: each seed, and the mean")
            axes.grid(axis="y", alpha=0.3)
            axes.set_xticks(range(len(arms)), list(arms), rotation=20, ha="right")
    with whole_file(file) as part:
        figure.savefig(part, format="png", dpi=120)
