# SPDX-License-Identifier: Apache-2.0
"""The failure table: each event is done to the running node, and what it does is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.node.failure_acts import Act, full, set_faults
from labeldistill_ros.testing.simulated_drive import SimulatedDrive
from labeldistill_ros.testing.vehicle import VehicleFaults

DETECT_S, RECOVER_S = 8.0, 12.0
_START_S = 30.0
QUICK = {"diagnostics.period": 0.1, "tf_timeout": 0.05}
SKIP = {**QUICK, "history.reset_gap": 1.0}
"""Parameters of a node that tells of its health ten times a second."""


@dataclass(frozen=True)
class Row:
    """What came of one event."""

    event: str
    """What happened to the vehicle or the node."""
    action: str
    """What was done to the running node."""
    observed: str
    """What the node did, or what it did instead."""
    detected_s: float | None
    """Until it did so; None when it did not."""
    recovered_s: float | None
    """From the end of the trouble to a full set; None when that is not to be had, or failed."""
    passed: bool
    """Whether it did what it should."""


@dataclass(frozen=True)
class Event:
    """One line of the table."""

    event: str
    """What happens to the vehicle or the node."""
    action: str
    """What is done to the node."""
    expected: str
    """What the node has to do, in words."""
    begin: Act
    """Function that makes the event happen."""
    detected: Act
    """Whether the node did what it has to."""
    end: Act | None = None
    """Undoes it; None where the trouble lasts."""
    recovered: Act = full
    """Whether all is well again."""
    holds: Mapping[str, Act] = field(default_factory=dict)
    """What else is so by the time that the node does what it has to, in words."""


def fault(
    event: str,
    action: str,
    expected: str,
    detected: Act,
    recovered: Act = full,
    holds: Mapping[str, Act] | None = None,
    **faults: Any,
) -> Event:
    """An event that breaks something of the vehicle, until it is mended; see `VehicleFaults`."""
    # What a sound vehicle has, so that an event need not say how it is undone.
    mended = {name: getattr(VehicleFaults(), name) for name in faults}
    begin, end = set_faults(**faults), set_faults(**mended)
    return Event(event, action, expected, begin, detected, end, recovered, holds or {})


@dataclass(frozen=True)
class Scenario:
    """Events that one node goes through, one after the other."""

    name: str
    """Name of the group, for the table's reader."""
    events: tuple[Event, ...]
    """Events of the group, in the order in which they happen."""
    parameters: dict[str, Any] = field(default_factory=lambda: dict(SKIP))
    """Parameters of the node, by name."""
    faults: Callable[[], VehicleFaults] = VehicleFaults
    """Of the vehicle from the start on."""
    vehicle: dict[str, Any] = field(default_factory=dict)
    """Options of the simulated vehicle other than its faults."""
    starts_well: bool = True
    """Whether full sets come before the first event."""


def run_scene(scene: Scenario, model: Path | None) -> list[Row]:
    """Start a node, do one event after the other to it."""
    with SimulatedDrive(model, scene.parameters, scene.faults(), **scene.vehicle) as run:
        if scene.starts_well and run.vehicle.wait(lambda: full(run), _START_S) is None:
            return [
                Row(e.event, e.action, "no boxes at the start", None, None, False)
                for e in scene.events
            ]
        rows = [_row(run, event) for event in scene.events]
        if run.mixed:
            rows.append(Row(f"{scene.name}: mixed sets", "", str(run.mixed), None, None, False))
    return rows


def _row(run: SimulatedDrive, event: Event) -> Row:
    vehicle = run.vehicle
    vehicle.listen()
    event.begin(run)
    detected_s = vehicle.wait(lambda: event.detected(run), DETECT_S)
    observed = event.expected if detected_s is not None else f"not so: {vehicle.sets[-2:]}"
    # Judged once the node has done what it has to, since before that anything may still come.
    wrong = [what for what, act in event.holds.items() if not act(run)]
    if wrong:
        observed += f"; but not: {', '.join(wrong)}; {vehicle.sets[-4:]}"
    recovered_s = None
    if event.end:
        event.end(run)
        vehicle.listen()
        recovered_s = vehicle.wait(lambda: event.recovered(run), RECOVER_S)
    recovers = event.end is None or recovered_s is not None
    passed = detected_s is not None and not wrong and recovers
    if event.end and recovered_s is None:
        observed += f"; no recovery: {vehicle.sets[-2:]}"
    return Row(event.event, event.action, observed, _ms(detected_s), _ms(recovered_s), passed)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The form of `benchmarks/results/failures.json`."""
    return {"rows": [asdict(row) for row in rows]}
