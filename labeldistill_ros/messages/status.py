# SPDX-License-Identifier: Apache-2.0
"""The record of a set as `diagnostic_msgs/DiagnosticArray`, and back.

`docs/node.md` lists the keys of `~/status`. The node writes them, and so does the detector that
runs over a bag; scoring reads both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from labeldistill_core.errors import DataError
from labeldistill_core.names import shown
from labeldistill_ros.messages.family import ROS, MessageFamily
from labeldistill_ros.messages.stamps import header, stamp_of
from labeldistill_ros.sets.report import Outcome, SetReport

_LONGEST_KEY = 64
"""Longer names of stages and counters are not those of a detector."""

OK, WARN, ERROR = 0, 1, 2
"""Levels of a `DiagnosticStatus`."""


@dataclass(frozen=True)
class SetStatus:
    """What a message on `~/status` tells."""

    report: SetReport
    """The record of the set that the message belongs to."""
    totals: Mapping[str, int]
    """Sets since the start: `seen`, and each outcome."""


def set_status(
    report: SetReport,
    totals: Mapping[str, int],
    name: str,
    family: MessageFamily = ROS,
    *,
    warnings: Sequence[str] = (),
) -> Any:
    """The message of one set on `~/status`; its stamp is the set's.

    Args:
        report: the record of the set.
        totals: counts of sets since the start, this one included; see `SetTally.totals`.
        name: of the node.
        family: of the message's classes.
        warnings: what else is wrong at this time, such as a camera's clock.
    """
    degraded = bool(report.missing or report.pose)
    # `idle` is no fault: nobody listens. Without a pose or a camera boxes come, but worse ones.
    level = OK if report.outcome in ("processed", "idle") and not (degraded or warnings) else WARN
    if report.outcome == "failed":
        level = ERROR
    values: dict[str, Any] = {
        "outcome": report.outcome,
        "cause": report.cause,
        "cameras": " ".join(report.cameras),
        "missing": " ".join(report.missing),
        "degraded": degraded,
        "pose": report.pose or "known",
        "spread_ms": report.spread_s * 1e3,
        **({"age_ms": report.age_s * 1e3} if math.isfinite(report.age_s) else {}),
        "history_valid": report.history_valid,
        "warnings": "; ".join(warnings),
        "boxes": report.boxes,
        "boxes_unusable": report.unusable,
        **{f"{stage}_ms": value for stage, value in report.timings_ms.items()},
        **{f"sets_{key}": count for key, count in totals.items()},
    }
    text = report.outcome + (f": {report.cause}" if report.cause else "")
    status = diagnostic(f"{name}: set", level, text, values, family)
    return family.make(
        "diagnostic_msgs/msg/DiagnosticArray",
        header=header(report.stamp_ns, "", family),
        status=[status],
    )


def read_set_status(message: Any) -> list[SetStatus]:
    """The records in a message of `~/status`, of any family.

    What an earlier version did not write is taken as a `SetReport` has it by default; a status
    without an outcome is no record of a set and left out.

    Raises:
        DataError: a value that should be a number is none.
    """
    found = []
    for status in message.status:
        values = values_of(status)
        if "outcome" not in values:
            continue
        try:
            found.append(_read(values, stamp_of(message)))
        except ValueError as error:
            raise DataError(f"the status {shown(status.name)} cannot be read: {error}") from error
    return found


def _read(values: dict[str, str], stamp_ns: int) -> SetStatus:
    # Every key in ms is a stage, but for spread and age, which are taken out again below: a stage
    # that is added to the detector needs no change here.
    timings_ms = {
        key.removesuffix("_ms"): float(text)
        for key, text in values.items()
        if key.endswith("_ms") and key.isidentifier() and len(key) < _LONGEST_KEY
    }
    pose = values.get("pose", "known")
    age_ms = timings_ms.pop("age", None)
    report = SetReport(
        stamp_ns,
        cast(Outcome, values["outcome"]),
        tuple(values.get("cameras", "").split()),
        tuple(values.get("missing", "").split()),
        cause=values.get("cause", ""),
        spread_s=timings_ms.pop("spread", 0.0) / 1e3,
        age_s=math.nan if age_ms is None else age_ms / 1e3,
        history_valid=int(values.get("history_valid", 0)),
        pose="" if pose == "known" else pose,
        boxes=int(values.get("boxes", 0)),
        unusable=int(values.get("boxes_unusable", 0)),
        timings_ms=timings_ms,
    )
    totals = {
        key.removeprefix("sets_"): int(text)
        for key, text in values.items()
        if key.startswith("sets_") and key.isidentifier() and len(key) < _LONGEST_KEY
    }
    return SetStatus(report, totals)


def diagnostic(
    name: str,
    level: int,
    message: str,
    values: Mapping[str, Any],
    family: MessageFamily = ROS,
) -> Any:
    """`diagnostic_msgs/DiagnosticStatus`.

    Args:
        name: of the node, a colon, and of what is told.
        level: `OK`, `WARN` or `ERROR`.
        message: what is the matter, in a sentence.
        values: by key; floats are written with three decimals.
        family: of the message's classes.

    Returns:
        The status; the node is its `hardware_id`.
    """
    # `KeyValue` holds strings only, so numbers are written for people and read back by
    # `read_set_status`.
    pairs = [
        family.make(
            "diagnostic_msgs/msg/KeyValue",
            key=key,
            value=f"{value:.3f}" if isinstance(value, float) else str(value),
        )
        for key, value in values.items()
    ]
    return family.make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=level,
        name=name,
        message=message,
        hardware_id=name.split(":")[0],
        values=pairs,
    )


def values_of(status: Any) -> dict[str, str]:
    """Values by key of a `DiagnosticStatus`, of any family."""
    return {pair.key: pair.value for pair in status.values}
