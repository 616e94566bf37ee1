# SPDX-License-Identifier: Apache-2.0
"""Result boxes of many samples as arrays, which also read as the lists that the format has.

The nuScenes validation split with the 500 boxes that a sample may have is 3 million boxes. As lists
of dictionaries they take 4 GB, and every step over them a loop in Python; as arrays 0.4 GB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NoReturn, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import DataError
from labeldistill_core.names import shown

ResultBox = dict[str, Any]
"""One box of the results format."""

_PLACE = re.compile(r" - at `\$(?:\[(\d+)\])?(?:\.(\w+))?.*`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")

# JSON has no other way to say what is no number, and numpy reads these words as what they say.
_Number = float | Literal["NaN", "Infinity", "-Infinity"]
_Two = Annotated[list[_Number], Meta(min_length=2, max_length=2)]
_Three = Annotated[list[_Number], Meta(min_length=3, max_length=3)]
_Four = Annotated[list[_Number], Meta(min_length=4, max_length=4)]


# No cycles can be in it, and a garbage collector that looks at every box takes a third of the time.
class _Box(msgspec.Struct, gc=False):
    """One box of the results format; what else stands in it is passed over."""

    sample_token: str
    translation: _Three
    size: _Three
    rotation: _Four
    velocity: _Two
    detection_name: str
    detection_score: _Number
    attribute_name: str = ""


_DECODER = msgspec.json.Decoder(list[_Box])


@dataclass(frozen=True, eq=False)
class BoxArrays:
    """N boxes in the frame "map", one array for each quantity, in nuScenes' units and order."""

    values: NDArray[np.float64]
    """(N, 13) centre x, y, z; width, length, height; quaternion w, x, y, z; vx, vy; score."""
    labels: NDArray[np.int64]
    """(N,) index into `class_names`."""
    attributes: NDArray[np.int64]
    """(N,) index into `attribute_names`."""
    attribute_names: tuple[str, ...]
    """Names of all attributes that occur; empty text for none."""
    class_names: tuple[str, ...] = CLASSES
    """Names of the classes, those that do not occur included."""

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.values)

    def __getitem__(self, rows: slice | NDArray[Any]) -> BoxArrays:
        """Some of the boxes."""
        return replace(
            self,
            values=self.values[rows],
            labels=self.labels[rows],
            attributes=self.attributes[rows],
        )

    @property
    def centers_m(self) -> NDArray[np.float64]:
        """(N, 3) geometric centres, metres."""
        return self.values[:, 0:3]

    @property
    def sizes_m(self) -> NDArray[np.float64]:
        """(N, 3) width, length, height, metres."""
        return self.values[:, 3:6]

    @property
    def yaws(self) -> NDArray[np.float64]:
        """(N,) headings, radians from +x towards +y: where the rotation takes the x axis."""
        # Of any length, as the devkit takes them: the square of 1e200 is no number.
        quaternions = self.values[:, 6:10]
        w, x, y, z = (quaternions / np.abs(quaternions).max(axis=1, keepdims=True)).T
        yaws: NDArray[np.float64]
        yaws = np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
        return yaws

    @property
    def velocities_m_s(self) -> NDArray[np.float64]:
        """(N, 2) metres per second; NaN where unknown."""
        return self.values[:, 10:12]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(N,) detection scores."""
        return self.values[:, 12]

    def rows(self, sample_token: str) -> list[ResultBox]:
        """The boxes as the results format has them."""
        return [
            {
                "sample_token": sample_token,
                "translation": row[0:3],
                "size": row[3:6],
                "rotation": row[6:10],
                "velocity": row[10:12],
                "detection_name": self.class_names[label],
                "detection_score": row[12],
                "attribute_name": self.attribute_names[attribute],
            }
            for row, label, attribute in zip(
                self.values.tolist(), self.labels.tolist(), self.attributes.tolist(), strict=True
            )
        ]


def joined(parts: Sequence[BoxArrays]) -> BoxArrays:
    """All boxes in a row; the names of their attributes may differ.

    Raises:
        ValueError: their classes differ.
    """
    class_names = parts[0].class_names if parts else CLASSES
    if any(part.class_names != class_names for part in parts):
        raise ValueError("the boxes' labels are of several lists of classes")
    names: dict[str, int] = {}
    attributes = []
    for part in parts:
        codes = np.array([names.setdefault(n, len(names)) for n in part.attribute_names], np.int64)
        attributes.append(codes[part.attributes] if len(part) else part.attributes)
    return BoxArrays(
        np.concatenate([np.empty((0, 13)), *(part.values for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.labels for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *attributes]),
        tuple(names),
        class_names,
    )


class ResultColumns(Mapping[str, list[ResultBox]]):
    """Boxes by sample token: a mapping as the results format has it, kept as arrays."""

    def __init__(self, parts: Mapping[str, BoxArrays]) -> None:
        """Put the boxes of all samples together.

        Args:
            parts: boxes by sample token, in the order that breaks ties between equal scores.
        """
        counts = [len(part) for part in parts.values()]
        ends = np.cumsum([0, *counts]).tolist()
        self._slices = {
            token: slice(start, end)
            for token, start, end in zip(parts, ends[:-1], ends[1:], strict=True)
        }
        self.boxes = joined(list(parts.values()))
        """Of all samples, one after the other."""

    def __getitem__(self, token: str) -> list[ResultBox]:
        """Boxes of one sample."""
        return self.columns(token).rows(token)

    def __iter__(self) -> Iterator[str]:
        """Sample tokens."""
        return iter(self._slices)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._slices)

    def columns(self, token: str) -> BoxArrays:
        """Boxes of one sample as arrays."""
        return self.boxes[self._slices[token]]

    def only(self, tokens: Sequence[str]) -> ResultColumns:
        """Some of the samples, in this order."""
        return ResultColumns({token: self.columns(token) for token in tokens})


def columns_of(
    boxes: object,
    token: str,
    source: str = "",
    astray: Counter[str] | None = None,
    class_names: tuple[str, ...] = CLASSES,
) -> BoxArrays:
    """Boxes of one sample as arrays.

    Args:
        boxes: list of boxes in the results format; or the same as JSON, not decoded yet.
        token: of the sample.
        source: where they stand, such as a file's path; the error begins with it.
        astray: counts the boxes that name another sample than this one, by this one's token.
        class_names: of all classes that a box may have.

    Raises:
        DataError: a box lacks a field, holds something else there than it must, or cannot be, as
            one without a size. A velocity may be NaN.
    """
    where = f"{source}: " if source else ""
    try:
        parsed = _converted(boxes)
    except msgspec.ValidationError as error:
        _refuse(where, token, str(error))
    except RecursionError:
        raise DataError(f"{where}sample {shown(token)} is nested too deeply") from None
    values = np.array(
        [(*b.translation, *b.size, *b.rotation, *b.velocity, b.detection_score) for b in parsed],
        np.float64,
    ).reshape(-1, 13)
    known = {name: label for label, name in enumerate(class_names)}
    labels = np.array([known.get(b.detection_name, -1) for b in parsed], np.int64)
    if astray is not None and (others := sum(b.sample_token != token for b in parsed)):
        astray[token] += others
    names: dict[str, int] = {}
    attributes = [names.setdefault(b.attribute_name, len(names)) for b in parsed]
    found = BoxArrays(values, labels, np.array(attributes, np.int64), tuple(names), class_names)
    check_values(where, token, found, [b.detection_name for b in parsed])
    return found


def _converted(boxes: object) -> list[_Box]:
    if isinstance(boxes, msgspec.Raw):
        return _DECODER.decode(boxes)
    try:
        return msgspec.convert(boxes, list[_Box])
    except msgspec.ValidationError:
        # numpy's numbers and arrays, which programs hand over, are none of JSON's types. Only here,
        # since walking through all boxes takes longer than the conversion.
        return msgspec.convert(_plain(boxes), list[_Box])


def _plain(value: object) -> object:
    """The same in Python's own types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _refuse(where: str, token: str, text: str) -> NoReturn:
    place = _PLACE.search(text)
    reason = text[: place.start()] if place else text
    if reason.startswith("Invalid enum value"):  # of `_Number`; it shows the text at any length
        reason = "Expected `float`, got `str`"
    if missing := _MISSING.fullmatch(reason):
        reason = f"its `{missing[1]}` is missing"
    elif place and place[2]:
        reason = f"its `{place[2]}`: {reason}"
    box = f"box {place[1]} of " if place and place[1] else ""
    raise DataError(f"{where}{box}sample {shown(token)} is malformed: {reason}")


def check_values(where: str, token: str, found: BoxArrays, names: Sequence[str] = ()) -> None:
    """Refuse boxes that cannot be.

    Args:
        where: what the sentence begins with, such as the file.
        token: of their sample.
        found: the boxes.
        names: of their classes, as they came; needed where one may be unknown.

    Raises:
        DataError: names the first such box, and the number that it has.
    """
    # The devkit asserts, or scores nonsense, where a value cannot be; here the box is named.
    values = found.values
    fields = {
        "translation": values[:, 0:3],
        "size": values[:, 3:6],
        "rotation": values[:, 6:10],
        "velocity": values[:, 10:12],
        "detection_score": values[:, 12:13],
    }
    checks = [
        ("detection_name", found.labels >= 0, f"is none of {', '.join(found.class_names)}"),
        *(
            (name, np.isfinite(field).all(axis=1), "is infinite or no number")
            for name, field in fields.items()
            if name != "velocity"  # may be unknown
        ),
        ("velocity", ~np.isinf(fields["velocity"]).any(axis=1), "is infinite"),
        ("size", (fields["size"] > 0).all(axis=1), "must be above zero"),
        ("rotation", (fields["rotation"] != 0).any(axis=1), "is no quaternion"),
    ]
    for name, good, reason in checks:
        if not good.all():
            row = int(np.argmin(cast("NDArray[np.bool_]", good)))
            of_class = name not in fields
            value = names[row] if of_class else fields[name][row].tolist()
            value = value[0] if name == "detection_score" else value
            raise DataError(
                f"{where}box {row} of sample {shown(token)} is malformed: its "
                f"{'class' if of_class else f'`{name}`'} {shown(str(value))} {reason}"
            )
