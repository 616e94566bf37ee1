# SPDX-License-Identifier: Apache-2.0
"""Categories of a data set as labels of a configuration's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.classes import BICYCLE_RACK, NUSCENES, UNSCORED_CATEGORIES, ClassList

UNSCORED = -1
"""Label of a box of no class."""
RACK = -2
"""Label of a bicycle rack."""


def labels_of(categories: Sequence[str], classes: ClassList) -> NDArray[np.int64]:
    """(C + 1,) label of each category; the last is that of a box that has none."""
    positions = {name: label for label, name in enumerate(classes.names)}
    labels = [
        positions[classes.class_of[category]]
        if category in classes.class_of
        else (RACK if category == BICYCLE_RACK else UNSCORED)
        for category in categories
    ]
    return np.array([*labels, UNSCORED], np.int64)


def notes_on_categories(file: Path, categories: Sequence[str], classes: ClassList) -> list[str]:
    """What a user should know of a data set's categories and those of the classes.

    Args:
        file: table of the categories.
        categories: of the data set.
        classes: of the configuration.
    """
    there, wanted = set(categories), classes.class_of.keys()
    # nuScenes' own are left out on purpose where no class names them.
    known = wanted | NUSCENES.class_of.keys() | UNSCORED_CATEGORIES
    notes = []
    if unknown := sorted(there - known):
        notes.append(
            f"{file}: {', '.join(unknown)} is no nuScenes category and of no class of the "
            "configuration; such boxes are left out unless a class names the category"
        )
    if absent := sorted(wanted - there - NUSCENES.class_of.keys()):
        notes.append(
            f"{file} has no {', '.join(absent)}, which the configuration names as categories of "
            f"its classes; it has {', '.join(sorted(there)) or 'none'}"
        )
    return notes
