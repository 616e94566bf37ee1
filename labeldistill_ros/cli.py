# SPDX-License-Identifier: Apache-2.0
"""The `labeldistill` command.

A command is a typed function whose docstring is its help; `tyro` turns it into options. Each is
imported only when it is called, so `labeldistill --help` does not wait for torch.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from labeldistill_core.console import call_command
from labeldistill_core.exit_codes import REFUSED, exit_code
from labeldistill_core.processes import refuse_odd_launcher
from labeldistill_core.spinning import bound_spinning
from labeldistill_ros.early_signals import started
from labeldistill_ros.garbage import resume_collection
from labeldistill_ros.program import begin_program, end_program

NAME = "labeldistill"
_ROOM_BYTES = 4 << 30
"""Of addresses, that torch with CUDA takes with its libraries and threads."""
GROUPS = {
    "": "camera-only 3D object detection for ROS 2",
    "train": "train the teacher, the label encoder and the student, in this order",
    "bag": "make, play, record, repair and score bags",
}
"""What the commands have in common whose names begin with the same word."""

COMMANDS = {
    "demo": "replay a small bag through the node and score it",
    "doctor": "check a live vehicle or a bag before the node sees it",
    "train teacher": "train the LiDAR detector",
    "train label-encoder": "train the label encoder",
    "train student": "train the camera student",
    "config": "print a configuration to make one's own of",
    "export-onnx": "write a student as an ONNX graph",
    "export": "write the network of a run: for the node, or the next stage",
    "overfit": "try a new data set: learn a few of its samples",
    "ablation": "compare ways of distilling, several runs each",
    "evaluate": "run a network on a data root and score it",
    "view": "draw the boxes of a data root in its images",
    "statistics": "describe the boxes of a data root",
    "bench": "measure the detector by stage on this device",
    "robustness": "score a model while cameras fail",
    "label": "annotate a data root with a teacher's boxes",
    "synth": "write synthetic driving scenes in nuScenes form",
    "convert-checkpoint": "read a network of the published code",
    "evaluate-results": "score a nuScenes result file",
    "bag from-nuscenes": "convert a nuScenes scene",
    "bag to-nuscenes": "convert bags of your own vehicle to a data root",
    "bag wait": "wait until the detector is active",
    "bag replay": "publish a bag over ROS",
    "bag record": "record the detector's topics",
    "bag recover": "save what is whole of a bag that was cut off",
    "bag detect": "detect offline over a bag, without ROS",
    "bag score": "official metrics of bags and result files",
}
"""Name to one line of help."""


def find_command(name: str) -> Callable[..., object]:
    """Import the function of a command.

    Args:
        name: one of `COMMANDS`.
    """
    # Written out instead of a table of module names: the imports are checked by mypy and found by
    # an editor, and only the one that is called is paid for.
    match name:
        case "demo":
            from labeldistill_ros.commands.demo import demo

            return demo
        case "doctor":
            from labeldistill_ros.commands.doctor import doctor

            return doctor
        case "config":
            from labeldistill_ros.commands.configuration import config

            return config
        case "train teacher":
            from labeldistill_ros.commands.training import train_teacher

            return train_teacher
        case "train label-encoder":
            from labeldistill_ros.commands.training import train_label_encoder

            return train_label_encoder
        case "train student":
            from labeldistill_ros.commands.training import train_student

            return train_student
        case "export-onnx":
            from labeldistill_ros.commands.models import export_onnx

            return export_onnx
        case "export":
            from labeldistill_ros.commands.models import export

            return export
        case "overfit":
            from labeldistill_ros.commands.training import overfit

            return overfit
        case "ablation":
            from labeldistill_ros.commands.training import ablation

            return ablation
        case "evaluate":
            from labeldistill_ros.commands.evaluation import evaluate

            return evaluate
        case "view":
            from labeldistill_ros.commands.evaluation import view

            return view
        case "statistics":
            from labeldistill_ros.commands.evaluation import statistics

            return statistics
        case "bench":
            from labeldistill_ros.commands.measuring import bench

            return bench
        case "robustness":
            from labeldistill_ros.commands.measuring import robustness

            return robustness
        case "synth":
            from labeldistill_ros.commands.data import synth

            return synth
        case "convert-checkpoint":
            from labeldistill_ros.commands.models import convert_checkpoint

            return convert_checkpoint
        case "evaluate-results":
            from labeldistill_ros.commands.evaluation import evaluate_results

            return evaluate_results
        case "bag from-nuscenes":
            from labeldistill_ros.commands.bags import from_nuscenes

            return from_nuscenes
        case "label":
            from labeldistill_ros.commands.labels import label

            return label
        case "bag to-nuscenes":
            from labeldistill_ros.commands.datasets import to_nuscenes

            return to_nuscenes
        case "bag wait":
            from labeldistill_ros.commands.ros_bags import wait

            return wait
        case "bag replay":
            from labeldistill_ros.commands.ros_bags import replay

            return replay
        case "bag record":
            from labeldistill_ros.commands.ros_bags import record

            return record
        case "bag recover":
            from labeldistill_ros.commands.bags import recover

            return recover
        case "bag detect":
            from labeldistill_ros.commands.bags import detect

            return detect
        case "bag score":
            from labeldistill_ros.commands.bags import score

            return score
        case _:
            raise KeyError(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code, see `exit_codes`.

    Raises:
        SystemExit: the options are wrong, or help was asked for.
    """
    # Everything runs within `exit_code`, also the reading of the command's name, so that each way
    # to fail has its exit code.
    args = list(sys.argv[1:] if argv is None else argv)
    # Before any command imports torch.
    bound_spinning()
    return exit_code(lambda: _run(args), NAME)


def _run(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"{NAME} {_version()}")
        return 0
    group = ""
    # `bag` and `train` are words in front of commands; the loop takes them off until a command is
    # named.
    while args and f"{group} {args[0]}".strip() in GROUPS:
        group, args = f"{group} {args[0]}".strip(), args[1:]
    members = _members(group)
    if not args or args[0] in ("-h", "--help"):
        print(_usage(group, members))
        # Asked for help is a success; no command at all is a wrong call, although the same text
        # answers it.
        return 0 if args else REFUSED
    if args[0] not in members:
        print(f"error: {_unknown(group, args[0], members)}", file=sys.stderr)
        print(f"\n{_usage(group, members)}", file=sys.stderr)
        return REFUSED
    name = f"{group} {args[0]}".strip()
    called = f"{NAME} {name}"
    return exit_code(lambda: _call(name, called, args[1:]), called)


def _call(name: str, called: str, args: list[str]) -> Any:
    if name in ("overfit", "ablation") or name.startswith("train "):
        refuse_odd_launcher()
    _tell_small_limit()
    function = find_command(name)
    resume_collection()
    # from here on the command itself says what Ctrl-C means
    started()
    return call_command(called, function, args)


def _tell_small_limit() -> None:
    """Say beforehand what libraries do not that end the process, or wait, without memory."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < _ROOM_BYTES:
        print(
            f"warning: this process may use {limit / 2**30:.1f} GiB of addresses (`ulimit -v`), "
            f"and the libraries of a command take up to {_ROOM_BYTES >> 30}: raise the limit if it "
            "is aborted or hangs",
            file=sys.stderr,
        )


def _members(group: str) -> dict[str, str]:
    """The commands and groups within a group, each with its line of help."""
    members: dict[str, str] = {}
    for name, text in COMMANDS.items():
        within, _, member = name.rpartition(" ")
        if within == group:
            members[member] = text
        elif not group:
            members[within] = GROUPS[within]
    return members


def _unknown(group: str, word: str, members: Iterable[str]) -> str:
    """What is wrong with the name of a command, and what may have been meant."""
    # The last words of all commands as well, since `labeldistill replay` leaves out `bag`.
    whole = {name.rpartition(" ")[2]: name for name in COMMANDS}
    near = get_close_matches(word, [*members, *whole], n=1)
    meant = f"{group} {near[0]}".strip() if near and near[0] in members else ""
    meant = meant or (whole[near[0]] if near else "")
    hint = f"; did you mean `{NAME} {meant}`?" if meant else ""
    return f"no command {f'{group} {word}'.strip()!r}{hint}"


def _usage(group: str, members: dict[str, str]) -> str:
    name = f"{NAME} {group}".strip()
    width = max(map(len, members))
    rows = [f"  {member:<{width}}  {text}" for member, text in members.items()]
    head = [f"usage: {name} COMMAND [OPTIONS]", "", _sentence(GROUPS[group]), "", "commands:"]
    return "\n".join([*head, *rows, "", f"`{name} COMMAND --help` explains a command."])


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _version() -> str:
    try:
        return version("labeldistill_ros")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    begin_program()
    end_program(main())
