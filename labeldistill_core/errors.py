# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can act on: each message names the thing that is wrong and how to mend it."""

from __future__ import annotations


class LabelDistillError(Exception):
    """Base of all errors of this project, which a user can mend.

    A command prints its message in one line and ends with 2; `exit_codes` lists all exit codes.
    """


class ConfigError(LabelDistillError):
    """A configuration value is impossible or contradicts another one."""


class CheckpointError(LabelDistillError):
    """A weights file is missing, damaged, unsafe or made for another network."""


class StoppedError(LabelDistillError):
    """A signal ended the work, of which what was whole is kept."""

    def __init__(self, message: str, signal: int) -> None:
        """A message that says how to go on, and the signal's number."""
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[type[StoppedError], tuple[str, int]]:
        """All arguments, of which pickle would leave out the signal on the way to a parent."""
        return StoppedError, (str(self), self.signal)


class NotFiniteError(LabelDistillError, FloatingPointError):
    """A network computes NaN or infinite numbers."""


class DataError(LabelDistillError):
    """A data set, image or annotation cannot be used."""


class BagError(LabelDistillError):
    """A rosbag lacks what is needed or contradicts itself."""
