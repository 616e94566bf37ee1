# SPDX-License-Identifier: Apache-2.0
"""Files that carry a configuration."""

from __future__ import annotations

import json
from pathlib import Path

from labeldistill_core.checkpoints import kind_of, read_checkpoint
from labeldistill_core.classes import NUSCENES, ClassList, ObjectClass
from labeldistill_core.config_json import from_mapping
from labeldistill_core.errors import CheckpointError, ConfigError


def classes_of_checkpoint(file: Path) -> ClassList:
    """Classes that a student, a teacher or a label encoder was trained with.

    Raises:
        CheckpointError: the file is missing or damaged, or holds another network.
    """
    kind = kind_of(file) or "student"
    if kind not in ("student", "teacher", "label encoder"):
        raise CheckpointError(f"{file} holds a {kind}, which has no classes")
    try:
        content = json.loads(read_checkpoint(file, kind).config)  # type: ignore[arg-type]
        head = content if kind == "label encoder" else content["head"]
        if "classes" not in head:
            return NUSCENES
        return ClassList(tuple(from_mapping(ObjectClass, one) for one in head["classes"]))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: its configuration is damaged: {error}") from error
