# SPDX-License-Identifier: Apache-2.0
"""The nuScenes result file: written, and read with errors that name sample, box and field."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import msgspec
import numpy as np
from msgspec import Meta
from typing_extensions import NotRequired, TypedDict

from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_boxes import ResultBox
from labeldistill_core.names import shown

_META = {
    "use_camera": True,
    "use_lidar": False,
    "use_radar": False,
    "use_map": False,
    "use_external": False,
}
_PLACE = re.compile(r" - at `\$(?:\[(\d+)\])?(?:\.(\w+))?.*`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")

_Two = Annotated[list[float], Meta(min_length=2, max_length=2)]
_Three = Annotated[list[float], Meta(min_length=3, max_length=3)]
_Four = Annotated[list[float], Meta(min_length=4, max_length=4)]


class _Box(TypedDict):
    """One box of the results format; what else stands in it is passed over."""

    sample_token: str
    translation: _Three
    size: _Three
    rotation: _Four
    velocity: _Two
    detection_name: str
    detection_score: float
    attribute_name: NotRequired[str]


class _File(msgspec.Struct):
    """Boxes by sample, each sample's as they stand there."""

    results: dict[str, msgspec.Raw]


def write_results(path: Path, results: Mapping[str, Sequence[ResultBox]]) -> None:
    """Write a result file: boxes by sample token, made without LiDAR, radar or maps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"meta": _META, "results": results}))


def read_results(path: Path) -> dict[str, list[ResultBox]]:
    """Boxes by sample token of a result file, `.json` or `.json.gz`.

    Raises:
        DataError: it is missing or no result file; or a box lacks a field, holds something else
            there than it must, or cannot be, as one without a size. A velocity may be NaN.
    """
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read the result file {path}: {error}") from error
    decoder = msgspec.json.Decoder(list[_Box])
    try:
        try:
            # Samples stay raw text here and are parsed one by one, so that an error can name the
            # sample.
            content: dict[str, Any] = dict(msgspec.json.decode(text, type=_File).results)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Python's own writer puts NaN into files, as the devkit does for unknown velocities
            content = _python_json(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(
            f"{path} is no nuScenes result file: it needs JSON with the key 'results', which maps "
            f"sample tokens to lists of boxes ({reason})"
        ) from error
    found: dict[str, list[ResultBox]] = {}
    for token, boxes in content.items():
        try:
            if isinstance(boxes, msgspec.Raw):
                parsed = decoder.decode(boxes)
            else:
                parsed = msgspec.convert(boxes, list[_Box])
        except msgspec.ValidationError as error:
            _refuse(path, token, str(error))
        except RecursionError:
            raise DataError(f"{path}: sample {shown(token)} is nested too deeply") from None
        found[token] = cast(list[ResultBox], parsed)
        for box in found[token]:
            box.setdefault("attribute_name", "")
        _check_values(path, token, found[token])
    return found


def _python_json(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError("it has no such key")
    return results


def _refuse(path: Path, token: str, text: str) -> NoReturn:
    place = _PLACE.search(text)
    reason = text[: place.start()] if place else text
    if missing := _MISSING.fullmatch(reason):
        reason = f"its `{missing[1]}` is missing"
    elif place and place[2]:
        reason = f"its `{place[2]}`: {reason}"
    box = f"box {place[1]} of " if place and place[1] else ""
    raise DataError(f"{path}: {box}sample {shown(token)} is malformed: {reason}")


def _check_values(path: Path, token: str, boxes: list[ResultBox]) -> None:
    """Refuse boxes that cannot be."""
    if not boxes:
        return
    finite = ("translation", "size", "rotation", "detection_score")
    values = {
        field: np.array([box[field] for box in boxes]).reshape(len(boxes), -1)
        for field in (*finite, "velocity")
    }
    # The devkit asserts, or scores nonsense, where a value cannot be; here the box is named.
    known = np.array([box["detection_name"] in CLASSES for box in boxes])
    checks = [
        ("detection_name", known, f"is none of {', '.join(CLASSES)}"),
        *((f, np.isfinite(values[f]).all(axis=1), "is infinite or no number") for f in finite),
        ("velocity", ~np.isinf(values["velocity"]).any(axis=1), "is infinite"),
        ("size", (values["size"] > 0).all(axis=1), "must be above zero"),
        ("rotation", (values["rotation"] != 0).any(axis=1), "is no quaternion"),
    ]
    for field, good, reason in checks:
        if not good.all():
            row = int(np.argmin(good))
            what = "class" if field == "detection_name" else f"`{field}`"
            raise DataError(
                f"{path}: box {row} of sample {shown(token)} is malformed: its {what} "
                f"{shown(str(boxes[row][field]))} {reason}"
            )
