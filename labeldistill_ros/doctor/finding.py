# SPDX-License-Identifier: Apache-2.0
"""What a check came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from labeldistill_core.names import plain_text
from labeldistill_ros.sets.together import together

Level = Literal["ok", "warning", "fault"]
_WIDEST = 14
"""Letters of the longest name of a check."""
_LONGEST = 2000
"""Letters of a finding that are shown."""


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis."""

    check: str
    """What was looked at, in a word or two, such as `calibration`."""
    level: Level
    """`fault` where boxes do not come or are wrong, `warning` where they are worse than need be."""
    text: str
    """What was found, with the mend where there is something to mend."""

    def line(self) -> str:
        """The finding in a line."""
        level = self.level if self.level == "ok" else self.level.upper()
        # Topics, frames and fields of a bag may hold anything, and this goes to a terminal.
        return f"{level:<8}{self.check:<{_WIDEST + 2}}{plain_text(self.text, _LONGEST)}"


def by_camera(
    check: str, problems: Mapping[str, str], fine: str, level: Level = "fault"
) -> list[Finding]:
    """A finding for all cameras that are wrong in the same way, or that nothing is wrong.

    Args:
        check: what was looked at.
        problems: sentences by camera, beginning with its name and a colon.
        fine: what to say where there is none.
        level: of the problems.
    """
    # Nothing to say where an earlier line has said it already: its caller gives no text then.
    if not problems:
        return [Finding(check, "ok", fine)] if fine else []
    return [Finding(check, level, text) for text in together(problems)]


def verdict(findings: Sequence[Finding]) -> str:
    """The last line: how many faults and warnings there are."""
    faults = sum(finding.level == "fault" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if not faults and not warnings:
        return "nothing is wrong"
    parts = [(faults, "fault"), (warnings, "warning")]
    return ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in parts if count)
