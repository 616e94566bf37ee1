# SPDX-License-Identifier: Apache-2.0
"""The sets that came to their end: counted, and the last of them kept to draw conclusions from."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from labeldistill_ros.sets.report import SetReport, SetTally

_LATENCIES = 240
"""Sets over which latencies are taken: 20 s at 12 Hz."""
_KEPT = 1000
"""Sets in which a lasting want of history is looked for: more than its 5 s at any camera's rate."""
_LASTS = 5
"""Sets in a row that want past frames, after which that is no start."""
_LASTS_NS = 5_000_000_000
"""Time of their stamps after which it is none; models look back less far."""


class EndedSets:
    """What became of the sets; not thread-safe."""

    def __init__(self) -> None:
        """No set has ended yet."""
        self._tally = SetTally()
        self._processed: deque[SetReport] = deque(maxlen=_KEPT)
        self.last: SetReport | None = None
        """The newest, whatever became of it."""

    def add(self, report: SetReport) -> None:
        """Take a set that came to its end."""
        self._tally.add(report)
        self.last = report
        if report.outcome == "processed":
            self._processed.append(report)

    @property
    def counts(self) -> Counter[str]:
        """Sets by what became of them; see `SetTally`."""
        return self._tally.counts

    @property
    def totals(self) -> Mapping[str, int]:
        """Sets by what became of them; see `SetTally`."""
        return self._tally.totals

    @property
    def last_processed(self) -> SetReport | None:
        """The newest that gave boxes."""
        return self._processed[-1] if self._processed else None

    @property
    def spread_p95_ms(self) -> float | None:
        """95th percentile of the time between a set's exposures; None before the first."""
        # Over the same sets as the latencies, so that a camera that was mended is forgotten as
        # soon.
        spreads_s = [report.spread_s for report in self._newest()]
        return float(np.percentile(spreads_s, 95)) * 1e3 if spreads_s else None

    def latencies_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile of each stage over the last sets."""
        found: dict[str, list[float]] = {}
        for report in self._newest():
            for stage, value in report.timings_ms.items():
                found.setdefault(stage, []).append(value)
        return {
            stage: (float(np.percentile(values, 50)), float(np.percentile(values, 95)))
            for stage, values in found.items()
        }

    def most_history(self, wanted: int) -> int | None:
        """The most past frames that sets have lately, where that stays too few.

        Args:
            wanted: past frames of the model.

        Returns:
            0 where no set had any for that long; None where nothing is wrong.
        """
        without = list(self._run_below(1))
        if _lasts(without):
            return 0
        short = list(self._run_below(wanted))
        # An empty history that has begun to fill gets the time of a start.
        while short and not short[-1].history_valid:
            short.pop()
        return max(report.history_valid for report in short) if _lasts(short) else None

    def _newest(self) -> list[SetReport]:
        return list(self._processed)[-_LATENCIES:]

    def _run_below(self, enough: int) -> Iterator[SetReport]:
        """The newest sets, back to the first that had past frames enough."""
        later_ns: int | None = None
        # From the newest back, so that nothing has to be kept in step with the sets as they come.
        for report in reversed(self._processed):
            # Where stamps went back, a start began.
            went_back = later_ns is not None and report.stamp_ns > later_ns
            if report.history_valid >= enough or went_back:
                return
            later_ns = report.stamp_ns
            yield report


def _lasts(run: Sequence[SetReport]) -> bool:
    """Whether sets in a row, the newest first, are more than a start."""
    return len(run) >= _LASTS and run[0].stamp_ns - run[-1].stamp_ns >= _LASTS_NS
