# SPDX-License-Identifier: Apache-2.0
"""`labeldistill config`: a configuration of one's own, to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from labeldistill_core.config_files import from_yaml, read_config, to_yaml
from labeldistill_core.config_of_data import like_data
from labeldistill_core.console import Flat, last_flag, last_value
from labeldistill_core.errors import ConfigError
from labeldistill_core.names import shown
from labeldistill_core.presets import Preset, find_preset

_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class ConfigOptions:
    """All fields of a configuration."""

    preset: Annotated[Preset, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
    """What is printed."""
    like: Path | None = None
    """Data root whose cameras are taken, and the classes of which it has boxes."""
    version: str | None = None
    """Folder of that data root's tables; when not given, the only one that is there, or
    v1.0-trainval of several."""
    published: bool = False
    """As the published code has it, where it differs from the paper; single fields that are given
    take the place of its own."""
    of: tyro.conf.Suppress[str] = ""
    """Preset or file whose fields are the defaults."""

    @classmethod
    def prepared(cls, args: Sequence[str]) -> tuple[ConfigOptions, Sequence[str]]:
        """Defaults of the command line: those of the preset or the file that it begins with."""
        source = args[0] if args and not args[0].startswith("-") else "demo"
        preset = read_config(Path(source)) if source.endswith(_ENDINGS) else find_preset(source)
        like, version = last_value(args, "--like"), last_value(args, "--version")
        if like:
            preset = like_data(preset, Path(like), version)
        if last_flag(args, "--published"):
            preset = preset.as_published()
        return cls(preset, of=source), args


def config(source: Positional[str], options: Flat[ConfigOptions]) -> None:
    """Print the whole configuration of a preset as YAML, to be changed and given with --config.

    Each field is an option here, too: it takes the place of the preset's.

    Args:
        source: name of a preset; or a YAML or JSON file to check and to complete.
        options: single fields.
    """
    if options.of != source:
        # Its fields are the defaults of the options, which are read before anything else.
        raise ConfigError(f"name {shown(source)} before the options: labeldistill config SOURCE")
    preset = options.preset
    encoder = replace(preset.label_encoder, channels=preset.teacher.second_channels)
    text = to_yaml(preset)
    # What follows from other fields is not printed, so it cannot be changed by itself either.
    if from_yaml(text, source) != replace(preset, label_encoder=encoder):
        raise ConfigError(
            "tasks and radii follow from the list `classes`: print the configuration, and change "
            "them there"
        )
    print(text, end="")
