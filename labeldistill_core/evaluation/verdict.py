# SPDX-License-Identifier: Apache-2.0
"""Thresholds for continuous integration, and the verdict as JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import tyro

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import write_whole


@dataclass(frozen=True)
class Thresholds:
    """What a run must reach; a threshold that is None is not looked at."""

    min_nds: float | None = None
    """Lowest nuScenes detection score (NDS) that passes, 0 to 1."""
    min_map: float | None = None
    """Lowest mean average precision (mAP) that passes, 0 to 1."""
    min_coverage: float | None = None
    """Lowest share of key frames with boxes of the detector that passes, 0 to 1."""
    max_latency_ms: Annotated[float | None, tyro.conf.arg(name="max-latency")] = None
    """Largest 95th percentile that passes, in milliseconds from a set's last image to its boxes."""

    def __post_init__(self) -> None:
        """Refuse what no run can be measured against."""
        for name in ("min_nds", "min_map", "min_coverage"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} is {value:g}; it is a share between 0 and 1")
        if self.max_latency_ms is not None and not 0 < self.max_latency_ms < math.inf:
            raise ConfigError(f"--max-latency is {self.max_latency_ms:g}; give milliseconds")


_DIGITS = 17
"""Decimals that tell any two scores apart."""


@dataclass(frozen=True)
class Check:
    """One threshold and one run."""

    run: str
    """Name of the run that was looked at."""
    name: str
    """What was looked at, such as `NDS`."""
    value: float
    """What the run has; NaN when nothing is known."""
    limit: float
    """The value that the run must reach or must not exceed."""
    at_least: bool
    """Whether `limit` is the least or the most."""

    @property
    def digits(self) -> int:
        """Decimals that mean something: scores lie between 0 and 1, milliseconds far above."""
        return 1 if self.value > 10 else 4

    @property
    def passed(self) -> bool:
        """Whether the value keeps the limit; a value that is NaN does not."""
        # NaN compares as false either way: what is unknown has not passed.
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def sentence(self) -> str:
        """The check in a sentence, with value and limit."""
        relation = "at least" if self.at_least else "at most"
        value, digits = "unknown", self.digits
        if not math.isnan(self.value):
            value = f"{self.value:.{digits}f}"
            # Never a value that would have passed beside the word FAILED.
            while replace(self, value=float(value)).passed != self.passed and digits < _DIGITS:
                digits += 1
                value = f"{self.value:.{digits}f}"
        state = "passed" if self.passed else "FAILED"
        return f"{state}: {self.run}: {self.name} is {value}, wanted {relation} {self.limit:.15g}"


def check(
    run: str,
    thresholds: Thresholds,
    *,
    nds: float,
    mean_ap: float,
    coverage: float,
    latency_p95_ms: float,
) -> list[Check]:
    """Hold one run against the thresholds that are set."""
    looked_at = (
        ("NDS", nds, thresholds.min_nds, True),
        ("mAP", mean_ap, thresholds.min_map, True),
        ("coverage", coverage, thresholds.min_coverage, True),
        ("latency p95 ms", latency_p95_ms, thresholds.max_latency_ms, False),
    )
    return [
        Check(run, name, value, limit, at_least)
        for name, value, limit, at_least in looked_at
        if limit is not None
    ]


@dataclass(frozen=True)
class RunRecord:
    """What a CI server keeps of a run beside the verdict."""

    seconds: float
    """How long it took, in seconds of the wall clock."""
    values: Mapping[str, float]
    """Figures by name; those that are NaN are left out."""


def write_junit(
    path: Path, checks: Sequence[Check], records: Mapping[str, RunRecord] | None = None
) -> None:
    """A JUnit report: a test suite for each run, a test case for each threshold.

    Args:
        path: of the file.
        checks: thresholds that were looked at.
        records: times and figures by run; a run without a threshold is a test case that passed.
    """
    records = records or {}
    # The form of results that CI servers read.
    root = ElementTree.Element("testsuites", name="labeldistill")
    for run in dict.fromkeys([*records, *(check.run for check in checks)]):
        own = [check for check in checks if check.run == run]
        failed, count = sum(not check.passed for check in own), len(own) or 1
        record = records.get(run, RunRecord(0.0, {}))
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=run,
            tests=str(count),
            failures=str(failed),
            errors="0",
            time=f"{record.seconds:.3f}",
        )
        known = {name: value for name, value in record.values.items() if not math.isnan(value)}
        if known:
            properties = ElementTree.SubElement(suite, "properties")
            for name, value in known.items():
                ElementTree.SubElement(properties, "property", name=name, value=f"{value:.6g}")
        # Servers add up the cases' times, so each has its share of the run's.
        each_s = f"{record.seconds / count:.3f}"
        if not own:
            ElementTree.SubElement(suite, "testcase", classname=run, name="scored", time=each_s)
        for check_ in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=run, name=check_.name, time=each_s
            )
            if not check_.passed:
                ElementTree.SubElement(case, "failure", message=check_.sentence())
            ElementTree.SubElement(case, "system-out").text = check_.sentence()
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
