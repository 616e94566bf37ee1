# SPDX-License-Identifier: Apache-2.0
"""`config/detector.yaml` and the table in `docs/node.md`, written from the parameters themselves.

`python -m labeldistill_ros.parameter_docs` in a checkout writes both anew; a test compares them.
"""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path
from typing import Any

from labeldistill_ros.parameters import (
    CameraParameters,
    ClassParameters,
    Parameters,
    Spec,
    flatten,
)

BEGIN = "<!-- parameters: written by python -m labeldistill_ros.parameter_docs -->"
END = "<!-- end of parameters -->"

_HEAD = """\
# Parameters of the detector node with their defaults. Written by
# `python -m labeldistill_ros.parameter_docs`; copy it, change the copy and give it to the launch
# file as params_file. Only those marked (live) can be set while the node is configured.
/**:
  ros__parameters:
"""


def _value(value: Any) -> str:
    # JSON is YAML but for NaN, for which YAML has a word of its own.
    if isinstance(value, float) and math.isnan(value):
        return ".nan"
    return json.dumps(value)


def _remark(spec: Spec) -> str:
    parts = [spec.text]
    if spec.bounds:
        parts.append(f"From {spec.bounds[0]:g} to {spec.bounds[1]:g}.")
    if spec.choices:
        parts.append(f"One of {', '.join(filter(None, spec.choices))}.")
    if spec.live:
        parts.append("(live)")
    return " ".join(parts)


def _entries(tree: object, indent: str) -> list[str]:
    """Lines of all parameters, groups below their common name."""
    lines: list[str] = []
    open_group = ""
    for name, value, spec in flatten(tree):
        # Groups are nested mappings in a parameter file; the head is written when the first of a
        # group comes.
        group, _, leaf = name.rpartition(".")
        if group != open_group:
            lines += ["", f"{indent}{group}:"]
            open_group = group
        inner = indent + "  " * bool(group)
        lines += [f"{inner}# {line}" for line in textwrap.wrap(_remark(spec), 96 - len(inner))]
        lines.append(f"{inner}{leaf}: {_value(value)}")
    return lines


def yaml_text() -> str:
    """The parameter file with all defaults, each explained."""
    lines = _entries(Parameters(), "    ")
    lines += ["", "    # For each camera of the model, where it differs from the derived topics:"]
    lines += ["    # cameras:", "    #   CAM_FRONT:"]
    for name, value, spec in flatten(CameraParameters()):
        lines += [f"    #     # {line}" for line in textwrap.wrap(_remark(spec), 86)]
        lines.append(f"    #     {name}: {_value(value)}")
    lines += ["", "    # For each class of the model:", "    # classes:", "    #   pedestrian:"]
    for name, value, spec in flatten(ClassParameters()):
        lines += [f"    #     # {line}" for line in textwrap.wrap(_remark(spec), 86)]
        lines.append(f"    #     {name}: {_value(value)}")
    return _HEAD + "\n".join(lines) + "\n"


def markdown_table() -> str:
    """The parameters as a table."""
    rows = ["| parameter | default | |", "|---|---|---|"]
    for name, value, spec in [
        *flatten(Parameters()),
        *flatten(CameraParameters(), "cameras.<camera>."),
        *flatten(ClassParameters(), "classes.<class>."),
    ]:
        rows.append(f"| `{name}` | `{_value(value)}` | {_remark(spec)} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """A Markdown page with its table of parameters written anew."""
    # Everything outside of the marks is written by hand and stays.
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown_table()}\n{END}{after}"


def main() -> None:
    """Write both files of the checkout that this module is in."""
    root = Path(__file__).resolve().parents[1]
    (root / "config" / "detector.yaml").write_text(yaml_text())
    page = root / "docs" / "node.md"
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main()
