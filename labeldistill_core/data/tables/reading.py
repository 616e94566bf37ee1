# SPDX-License-Identifier: Apache-2.0
"""One table's JSON as typed records, a part at a time, with errors that name the record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from labeldistill_core.data.tables.schema import HINTS
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown

BLOCK_BYTES = 8 << 20
"""Bytes read at once: a part and its records fit into the cache."""
_PLACE = re.compile(r" - at `\$\[(\d+)\](?:\.(\w+))?.*`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")

Row = TypeVar("Row", bound=msgspec.Struct)


def read_rows(path: Path, row: type[Row]) -> Iterator[list[Row]]:
    """Read a table.

    Args:
        path: of the JSON file, a list of records.
        row: type of its records.

    Yields:
        Some ten thousand records at a time, in their order.

    Raises:
        DataError: the file is missing, is no table, or a record lacks a field or holds something
            else there than it must.
    """
    # one list type for each table: types that are made at run time are no static types
    decoder: msgspec.json.Decoder[list[Row]] = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
    before = 0
    for part, last in _parts(path):
        rows = _decoded(path, part, decoder, before)
        if rows is None:
            if last:
                _refuse_json(path, part)
            continue
        # This tells `_parts`, which owns the text, that it was read.
        part.clear()
        before += len(rows)
        yield rows


def read_table(path: Path, row: type[Row], *, optional: bool = False) -> list[Row]:
    """All records of a small table; none where it is optional and absent.

    Raises:
        DataError: see `read_rows`.
    """
    if optional and not path.exists():
        return []
    return [record for rows in read_rows(path, row) for record in rows]


def _parts(path: Path) -> Iterator[tuple[bytearray, bool]]:
    """Text up to a border between records, and whether it ends the file.

    A border is looked for without parsing, so it may lie inside a text or a nested list. Such a
    part is no JSON; the reader then leaves it where it is, and it comes again, longer.
    """
    # what could not be parsed stays in `text`, behind it comes what is beyond the border
    text, rest, begun, block = bytearray(), b"", False, BLOCK_BYTES
    try:
        with path.open("rb") as file:
            while data := file.read(block):
                if not begun and json.detect_encoding(data) != "utf-8":
                    # Other encodings cannot be cut at any byte, so the whole file is read.
                    data = _as_utf8(path, data + file.read())
                data = rest + data
                border = _border(data)
                if border < 0:
                    rest, block = data, block * 2
                    continue
                opened = len(text) == 0 and begun
                kept = data[:border].rstrip()[:-1]
                between = data[len(kept) : border]
                text += (b"[" if opened else b"") + kept + b"]"
                begun, rest = True, data[border:]
                yield text, False
                if text:  # it was no JSON: its closing bracket becomes what stood there again
                    text[-1:] = between
                    block *= 2
                else:
                    block = BLOCK_BYTES
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the tables are not complete") from None
    except OSError as error:
        raise DataError(f"{path} is no readable JSON table: {error}") from error
    text += (b"[" if begun and not text else b"") + rest
    yield text, True


def _border(text: bytes) -> int:
    """Where the last record begins that another one precedes; -1 without such."""
    at = len(text)
    while (at := text.rfind(b"{", 0, at)) > 0:
        # No writer puts more white space than that between records.
        before = text[max(0, at - 256) : at].rstrip()
        if before.endswith(b",") and before[:-1].rstrip().endswith(b"}"):
            return at
    return -1


def _as_utf8(path: Path, data: bytes) -> bytes:
    try:
        return data.decode(json.detect_encoding(data)).encode()
    except UnicodeError as error:
        raise DataError(f"{path} is no readable JSON table: {error}") from error


def _decoded(
    path: Path, part: bytearray, decoder: msgspec.json.Decoder[list[Row]], before: int
) -> list[Row] | None:
    """Records of a part; None where it is no JSON."""
    try:
        try:
            return decoder.decode(part)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Python's own writer puts NaN and Infinity into files, which are no JSON; a field that
            # is read refuses them later, with its name
            try:
                content = json.loads(part)
            except ValueError:
                return None
            return msgspec.convert(content, decoder.type)
    except msgspec.ValidationError as error:
        _refuse(path, part, before, str(error))
    except RecursionError:
        raise DataError(f"{path} is no nuScenes table: it is nested too deeply") from None


def _refuse(path: Path, part: bytearray, before: int, text: str) -> NoReturn:
    place = _PLACE.search(text)
    if not place:
        raise DataError(f"{path} is no nuScenes table: it must be a list of records with tokens")
    index, field = int(place[1]), place[2]
    try:
        # Parsed anew by Python, slower but lenient, for nothing but the token to name.
        record: Any = json.loads(part)[index]
    except (ValueError, RecursionError):  # the part is no JSON beyond the record
        record = None
    token = record.get("token") if isinstance(record, dict) else None
    named = f" (token {shown(token)})" if isinstance(token, str) else ""
    reason = text[: place.start()]
    if missing := _MISSING.fullmatch(reason):
        field, reason = missing[1], "it is missing"
    hint = f"; it must be {HINTS[field]}" if field in HINTS else ""
    where = f"field `{field}`: " if field else ""
    raise DataError(f"{path}, record {before + index}{named}: {where}{reason}{hint}")


def _refuse_json(path: Path, part: bytearray) -> NoReturn:
    try:
        json.loads(part)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no readable JSON table: {error}") from error
    raise AssertionError(f"{path} was read at the second attempt")
