# SPDX-License-Identifier: Apache-2.0
"""What was measured, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 1e-4
"""Largest difference that counts as equal."""


@dataclass(frozen=True)
class Speedup:
    """A fast way against a plain one."""

    name: str
    """Name of the operation that is computed in both ways."""
    fast_ms: float
    """Median time of the fast way, milliseconds."""
    plain_ms: float
    """Median time of the plain way, milliseconds."""
    target: float
    """How many times faster it ought to be."""
    fast_peak_mib: float | None = None
    """Largest memory that the fast way holds beyond its input; None where not measured."""
    plain_peak_mib: float | None = None
    """Largest memory that the plain way holds beyond its input; None where not measured."""

    @property
    def ratio(self) -> float:
        """How many times faster the fast way is than the plain one."""
        return self.plain_ms / self.fast_ms


@dataclass(frozen=True)
class Report:
    """All measurements."""

    device: str
    """Device that computed, such as `cpu` or `cuda:0`."""
    threads: int
    """Threads of a CPU operation."""
    load: float
    """Processes that were running before it began, mean of a minute. More than a few tenths
    disturb what is measured."""
    cores: int
    """Number of processor cores of the machine."""
    comparisons: tuple[Speedup, ...]
    """Each operation in both ways, in the order in which they ran."""
    differences: dict[str, float]
    """Largest absolute difference between two ways; for pooling relative to the largest value
    where that is above one."""
    single_ms: dict[str, float]
    """Median times of single steps by name, milliseconds."""

    @property
    def equal(self) -> bool:
        """Whether all ways agree within `TOLERANCE`."""
        return all(value < TOLERANCE for value in self.differences.values())

    def table(self) -> str:
        """The figures as lines of text, with a verdict on each target."""
        header = (
            f"{'':<28}{'fast':>11}{'plain':>11}{'ratio':>9}{'target':>9}{'':>10}{'peak MiB':>17}"
        )
        lines = [
            f"device {self.device}, {self.threads} threads, load {self.load:.1f} on {self.cores} "
            f"cores before",
            "",
            header,
        ]
        for row in self.comparisons:
            verdict = "met" if row.ratio >= row.target else "not met"
            memory = "–"
            if row.fast_peak_mib is not None and row.plain_peak_mib is not None:
                memory = f"{row.fast_peak_mib:.0f} : {row.plain_peak_mib:.0f}"
            lines.append(
                f"{row.name:<28}{row.fast_ms:>8.1f} ms{row.plain_ms:>8.1f} ms{row.ratio:>8.1f}x"
                f"{row.target:>8.1f}x{verdict:>10}{memory:>17}"
            )
        lines += ["", "single steps"]
        lines += [f"  {name:<26}{value:>8.1f} ms" for name, value in self.single_ms.items()]
        lines += ["", f"largest differences (limit {TOLERANCE:g})"]
        for name, value in self.differences.items():
            lines.append(f"  {name:<26}{value:>11.2e}{'' if value < TOLERANCE else '  TOO LARGE'}")
        return "\n".join(lines)
