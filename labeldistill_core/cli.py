# SPDX-License-Identifier: Apache-2.0
"""The `labeldistill` command.

A command is a typed function whose docstring is its help; `tyro` turns it into options. Each is
imported only when it is called, so `labeldistill --help` does not wait for torch.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labeldistill_core.console import missing_module, run_command


@dataclass(frozen=True)
class Command:
    """One command."""

    help: str
    """One line for the list of commands."""
    load: Callable[[], Callable[..., Any]]
    """Imports and returns the function that does the work; an int it returns is the exit code."""


@dataclass(frozen=True)
class Group:
    """Commands under a common name."""

    help: str
    """One line for the list of commands."""
    members: dict[str, Command | Group]
    """Name to command."""


def _convert_checkpoint() -> Callable[..., Any]:
    from labeldistill_core.official.commands import convert_checkpoint

    return convert_checkpoint


def _evaluate_results() -> Callable[..., Any]:
    from labeldistill_core.evaluation.commands import evaluate_results

    return evaluate_results


def _evaluate() -> Callable[..., Any]:
    from labeldistill_core.evaluation.commands import evaluate_checkpoint

    return evaluate_checkpoint


def _train_teacher() -> Callable[..., Any]:
    from labeldistill_core.training.commands import train_teacher

    return train_teacher


def _train_label_encoder() -> Callable[..., Any]:
    from labeldistill_core.training.commands import train_label_encoder

    return train_label_encoder


def _train_student() -> Callable[..., Any]:
    from labeldistill_core.training.commands import train_student

    return train_student


def _overfit() -> Callable[..., Any]:
    from labeldistill_core.training.overfit import overfit

    return overfit


def _ablation() -> Callable[..., Any]:
    from labeldistill_core.experiments.ablation import ablation

    return ablation


def _export_onnx() -> Callable[..., Any]:
    from labeldistill_core.runtime.onnx_export import export_onnx

    return export_onnx


def _export() -> Callable[..., Any]:
    from labeldistill_core.training.export import export

    return export


def _bag_from_nuscenes() -> Callable[..., Any]:
    from labeldistill_ros.bags.commands import from_nuscenes

    return from_nuscenes


def _bag_replay() -> Callable[..., Any]:
    from labeldistill_ros.bags.ros_commands import replay

    return replay


def _bag_record() -> Callable[..., Any]:
    from labeldistill_ros.bags.ros_commands import record

    return record


def _bag_recover() -> Callable[..., Any]:
    from labeldistill_ros.bags.commands import recover

    return recover


def _bag_detect() -> Callable[..., Any]:
    from labeldistill_ros.bags.commands import detect

    return detect


def _bag_score() -> Callable[..., Any]:
    from labeldistill_ros.bags.commands import score

    return score


def _view() -> Callable[..., Any]:
    from labeldistill_core.visualization.view import view

    return view


def _statistics() -> Callable[..., Any]:
    from labeldistill_core.evaluation.statistics import statistics

    return statistics


def _bench() -> Callable[..., Any]:
    from labeldistill_core.profiling.bench import bench

    return bench


def _robustness() -> Callable[..., Any]:
    from labeldistill_ros.robustness.command import robustness

    return robustness


def _demo() -> Callable[..., Any]:
    from labeldistill_ros.demo import demo

    return demo


def _synth() -> Callable[..., Any]:
    from labeldistill_core.synthetic.dataset import synth

    return synth


BAG = Group(
    "Rosbags: make, play, record and score them.",
    {
        "from-nuscenes": Command("convert a nuScenes scene", _bag_from_nuscenes),
        "replay": Command("publish a bag over ROS", _bag_replay),
        "record": Command("record the detector's topics", _bag_record),
        "recover": Command("save what is whole of a bag that was cut off", _bag_recover),
        "detect": Command("detect offline over a bag, without ROS", _bag_detect),
        "score": Command("official metrics of bags and result files", _bag_score),
    },
)

COMMANDS = Group(
    "Camera-only 3D object detection for ROS 2.",
    {
        "demo": Command("replay a small bag through the node and score it", _demo),
        "train": Group(
            "Train the networks, in this order.",
            {
                "teacher": Command("train the LiDAR detector", _train_teacher),
                "label-encoder": Command("train the label encoder", _train_label_encoder),
                "student": Command("train the camera student", _train_student),
            },
        ),
        "export-onnx": Command("write a student as an ONNX graph", _export_onnx),
        "export": Command("write the student of a run for the node", _export),
        "overfit": Command("try a new data set: learn a few of its samples", _overfit),
        "ablation": Command("compare ways of distilling, several runs each", _ablation),
        "evaluate": Command("run a network on a data root and score it", _evaluate),
        "view": Command("draw the boxes of a data root in its images", _view),
        "statistics": Command("describe the boxes of a data root", _statistics),
        "bench": Command("measure the detector by stage", _bench),
        "robustness": Command("score with failing cameras", _robustness),
        "synth": Command("write synthetic driving scenes in nuScenes form", _synth),
        "convert-checkpoint": Command("read a student of the published code", _convert_checkpoint),
        "evaluate-results": Command("score a nuScenes result file", _evaluate_results),
        "bag": BAG,
    },
)


def _usage(name: str, group: Group) -> str:
    width = max(map(len, group.members))
    rows = [f"  {member:<{width}}  {entry.help}" for member, entry in group.members.items()]
    return "\n".join(
        [f"usage: {name} COMMAND [OPTIONS]", "", group.help, "", "commands:", *rows, ""]
        + [f"`{name} COMMAND --help` explains a command."]
    )


_READER_LEFT = 128 + 13
"""As the shell says of a program that SIGPIPE ended."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code.

    0 is success, 1 a check that did not pass, 2 a wrong call or input that cannot be used.
    """
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # nothing where the output is closed
    except BrokenPipeError:
        if not _reader_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    return code


def _reader_left() -> bool:
    """Whether who reads the output has seen enough, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(args: list[str]) -> int:
    name = "labeldistill"
    member: Command | Group = COMMANDS
    while isinstance(member, Group):
        if not args or args[0] in ("-h", "--help"):
            print(_usage(name, member))
            return 0 if args else 2
        if args[0] not in member.members:
            print(f"error: no command {args[0]!r}\n\n{_usage(name, member)}", file=sys.stderr)
            return 2
        name, member, args = f"{name} {args[0]}", member.members[args[0]], args[1:]
    try:
        command = member.load()
    except ModuleNotFoundError as error:
        return missing_module(name, error)
    return run_command(name, command, args)


if __name__ == "__main__":
    sys.exit(main())
