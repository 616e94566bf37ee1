# SPDX-License-Identifier: Apache-2.0
"""The nuScenes result file: written, and read with errors that name sample, box and field."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_columns import ResultBox, ResultColumns, columns_of
from labeldistill_core.files import read_bounded, whole_file
from labeldistill_core.names import shown

_LOG = logging.getLogger(__name__)
LARGEST_BYTES = 4 << 30
"""Bytes of a result file; that of nuScenes' whole validation split has 1.2 GB."""
Source = Literal["camera", "lidar", "radar", "map", "external"]
"""What the boxes of a result file may be made from, as its `meta` has it."""

_NOT_FINITE = re.compile(rb"(?<=[\[,:\s])(NaN|-?Infinity)(?=[\s,\]}])")


class _File(msgspec.Struct):
    """Boxes by sample, each sample's as they stand there."""

    results: dict[str, msgspec.Raw]


def write_results(
    path: Path, results: Mapping[str, Sequence[ResultBox]], source: Source = "camera"
) -> None:
    """Write a result file.

    Args:
        path: of the file.
        results: boxes by sample token.
        source: the one thing that they were made from.

    Raises:
        OSError: it cannot be written; a file of this name stays as it was.
    """
    meta = {f"use_{name}": name == source for name in get_args(Source)}
    with whole_file(path) as place, place.open("wb") as file:
        file.write(f'{{"meta": {json.dumps(meta)}, "results": {{'.encode())
        # Sample by sample, since the text of a whole split is a gigabyte.
        for i, token in enumerate(results):
            text = ", " * (i > 0) + f"{json.dumps(token)}: {json.dumps(results[token])}"
            file.write(text.encode())
        file.write(b"}}")


def read_results(path: Path, class_names: tuple[str, ...] = CLASSES) -> ResultColumns:
    """Boxes by sample token of a result file, `.json` or `.json.gz`.

    Args:
        path: of the file.
        class_names: of all classes that a box may have.

    Raises:
        DataError: it is missing or no result file, or a box is malformed; see `columns_of`.
    """
    try:
        data = read_bounded(path, LARGEST_BYTES)
        text = _unzipped(path, data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read the result file {path}: {error}") from error
    try:
        content = _samples(text.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(
            f"{path} is no nuScenes result file: it needs JSON with the key 'results', which maps "
            f"sample tokens to lists of boxes ({reason})"
        ) from error
    astray: Counter[str] = Counter()
    found = ResultColumns(
        {
            token: columns_of(boxes, token, str(path), astray, class_names)
            for token, boxes in content.items()
        }
    )
    if astray:
        # The devkit counts a box for the sample that it names itself, and so finds other scores.
        _LOG.warning(
            "%s: %d boxes name another sample in `sample_token` than the one they stand under, "
            "such as in sample %s; they count for the one they stand under",
            path, astray.total(), shown(next(iter(astray))),
        )  # fmt: skip
    return found


def _unzipped(path: Path, data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        text = file.read(LARGEST_BYTES + 1)
    if len(text) > LARGEST_BYTES:
        raise DataError(f"{path} stands for more than {LARGEST_BYTES >> 30} GiB: name another file")
    return text


def _samples(text: bytes) -> dict[str, msgspec.Raw]:
    """Boxes by sample; they stay text and are parsed one by one, so that an error can name one."""
    try:
        return msgspec.json.decode(text, type=_File).results
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Python's own writer puts NaN into files, as the devkit does for unknown velocities. JSON
        # knows no such word, and Python's own reader makes 4 GB of a whole split.
        quoted, count = _NOT_FINITE.subn(rb'"\1"', text)
        if not count:
            raise
        return msgspec.json.decode(quoted, type=_File).results
