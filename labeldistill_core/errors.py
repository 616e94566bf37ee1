# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can act on: each message names the thing that is wrong and how to mend it."""


class LabelDistillError(Exception):
    """Base of all errors of this project; the command line prints its message and exits with 2."""


class ConfigError(LabelDistillError):
    """A configuration value is impossible or contradicts another one."""


class CheckpointError(LabelDistillError):
    """A weights file is missing, damaged, unsafe or made for another network."""


class DataError(LabelDistillError):
    """A data set, image or annotation cannot be used."""


class BagError(LabelDistillError):
    """A rosbag lacks what is needed or contradicts itself."""
