# SPDX-License-Identifier: Apache-2.0
"""`docs/api.md`, written from the docstrings of the public API.

`python scripts/api_page.py` in a checkout writes it anew; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
PACKAGE = "labeldistill_core"

_SPECIAL = ("__len__", "__getitem__", "__matmul__")
"""Methods with underscores that a caller uses, by their operators."""
_WIDTH = 92
"""Longer signatures take a line for each parameter."""


def api_page() -> str:
    """The page: the package, then each name of its `__all__`, in order."""
    package = griffe.load(PACKAGE, search_paths=[ROOT], docstring_parser="google")
    assert isinstance(package, griffe.Module)
    names = [str(name) for name in package.exports or ()]
    parts = [
        "# Python API",
        "Written by `python scripts/api_page.py` from the docstrings of what "
        f"`{PACKAGE}.__all__` names.",
        *_texts(package),
        "\n".join(f"* [`{name}`](#{name.lower()})" for name in names),
    ]
    for name in names:
        parts += _entry(package[name])
    return "\n\n".join(parts) + "\n"


def _entry(alias: griffe.Object | griffe.Alias) -> Iterator[str]:
    """A public name: heading, where it is, what it is."""
    target = alias.final_target if isinstance(alias, griffe.Alias) else alias
    yield f"## {target.name}"
    yield f"In `{target.filepath.relative_to(ROOT)}`."  # type: ignore[union-attr]
    if isinstance(target, griffe.Class):
        yield from _class(target)
    elif isinstance(target, griffe.Function):
        yield _code(_signature(target))
        yield from _texts(target)
    else:
        assert isinstance(target, griffe.Attribute)
        names = "".join(f'    "{name}",\n' for name in getattr(import_module(PACKAGE), target.name))
        yield _code(f"{target.name}: {target.annotation} = (\n{names})")
        yield from _texts(target)


def _class(target: griffe.Class) -> Iterator[str]:
    bases = [str(base) for base in target.bases]
    if bases:
        yield f"Is a `{', '.join(bases)}`."
    yield from _texts(target)
    members = {
        name: member
        for name, member in target.members.items()
        if member.has_docstring and (not name.startswith("_") or name in _SPECIAL)
    }
    constructor = target.members.get("__init__")
    if isinstance(constructor, griffe.Function) and constructor.has_docstring:
        yield _code(_signature(constructor, target.name))
        yield from _texts(constructor)
    rows = [
        f"| `{name}` | {_type(member)} | {_cell(' '.join(_texts(member)))} |"
        for name, member in members.items()
        if isinstance(member, griffe.Attribute)
    ]
    if rows:
        yield "\n".join(["| attribute | type | |", "|---|---|---|", *rows])
    for name, member in members.items():
        if isinstance(member, griffe.Function):
            yield f"### {target.name}.{name}".replace("__", r"\_\_")
            yield _code(_signature(member))
            yield from _texts(member)


def _texts(item: griffe.Object) -> Iterator[str]:
    """The sections of a docstring."""
    for section in item.docstring.parsed if item.docstring else ():
        if isinstance(section, griffe.DocstringSectionText):
            yield section.value
        elif isinstance(section, griffe.DocstringSectionParameters):
            yield "\n".join(f"* `{each.name}`: {_line(each.description)}" for each in section.value)
        elif isinstance(section, griffe.DocstringSectionReturns):
            yield "Returns: " + _line(" ".join(each.description for each in section.value))
        elif isinstance(section, griffe.DocstringSectionRaises):
            yield "Raises:"
            yield "\n".join(
                f"* `{each.annotation}`: {_line(each.description)}" for each in section.value
            )
        elif isinstance(section, griffe.DocstringSectionExamples):
            for kind, text in section.value:
                is_code = kind is griffe.DocstringSectionKind.examples
                yield _code(text) if is_code else text
        else:
            raise ValueError(f"{item.path}: no rule for a section of kind {section.kind.value}")


def _signature(function: griffe.Function, class_name: str = "") -> str:
    """As one calls it, without `self`; of a constructor, when its class is named."""
    words: list[str] = []
    for each in function.parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is griffe.ParameterKind.keyword_only and "*" not in words:
            words.append("*")
        default = "" if each.default is None else f" = {_value(each.default, function)}"
        words.append(f"{each.name}: {each.annotation}{default}")
    returns = "" if class_name else f" -> {function.returns}"
    name = class_name or function.name
    line = f"{name}({', '.join(words)}){returns}"
    if len(line) <= _WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"


def _value(default: object, function: griffe.Function) -> object:
    """A default as readers know it: the value of a constant, not its name."""
    own = function.module.members.get(str(default))
    return own.value if isinstance(own, griffe.Attribute) and own.value is not None else default


def _type(attribute: griffe.Attribute) -> str:
    return f"`{_cell(attribute.annotation)}`" if attribute.annotation else ""


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: object) -> str:
    return _line(str(text)).replace("|", r"\|")


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("python scripts/api_page.py writes docs/api.md, and takes no arguments")
    PAGE.write_text(api_page())
