# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share; each command's own dataclass inherits the ones it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import tyro

from labeldistill_core.config import StudentConfig
from labeldistill_core.config_files import classes_of
from labeldistill_core.config_json import from_mapping, to_mapping
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.runtime.device import Precision

FieldsT = TypeVar("FieldsT", bound="StudentFields")


@dataclass(frozen=True)
class StudentFields:
    """Fields of a configuration that are options, too; `labeldistill config --help` lists them."""

    student: StudentConfig
    """The camera-only detector."""


def take_single_fields(args: Sequence[str], default: FieldsT) -> tuple[FieldsT, list[str]]:
    """Read single fields of a configuration, such as --student.grid.cell-m.

    Args:
        args: of the command line, with whatever else there is.
        default: what the fields are that are not given.

    Returns:
        The fields, and the arguments that are none.

    Raises:
        ConfigError: a number is not finite.
    """
    # An option has hyphens where its field has underscores.
    paths = tuple(f"--{each.name.replace('_', '-')}." for each in fields(default))
    # By themselves, since the help of a command would drown in them.
    if {"-h", "--help"} & set(args) or not any(word.startswith(paths) for word in args):
        return default, list(args)
    found, rest = tyro.cli(
        type(default),
        args=args,
        default=default,
        return_unknown_args=True,
        config=(tyro.conf.AvoidSubcommands,),
    )
    # As strictly as what a file says: a command line has numbers such as nan, too.
    return from_mapping(type(default), to_mapping(found), "the options"), rest


@dataclass(frozen=True, kw_only=True)
class TablesOptions:
    """Which tables of a nuScenes data root are read."""

    version: str | None = None
    """Folder of the data root's tables, such as v1.0-mini; when not given, the only one that is
    there, or v1.0-trainval of several."""


@dataclass(frozen=True, kw_only=True)
class ClassesOptions(TablesOptions):
    """Which tables of a nuScenes data root are read, and which classes their boxes have."""

    config: Path | None = None
    """Configuration of one's own, or a checkpoint, whose classes are taken; nuScenes' ten when not
    given."""

    def tables(self, dataroot: Path) -> NuScenesTables:
        """The tables of a data root.

        Raises:
            DataError: they cannot be used.
            ConfigError: the configuration cannot be used.
        """
        return NuScenesTables(dataroot, self.version, classes_of(self.config))


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where a network runs."""

    device: str = "auto"
    """Where the network runs: cpu, cuda:0 and so on, or auto."""


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(DeviceOptions):
    """Where a network runs, and in which numbers."""

    precision: Precision = "float32"
    """Number format of the convolutions."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which student detects."""

    model: Path | None = None
    """Student checkpoint; the demo's when not given."""


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(InferenceOptions, ModelOptions):
    """Which student detects, where it runs, and in which numbers."""
