# SPDX-License-Identifier: Apache-2.0
"""What is private stays so: tests, benchmarks and examples use public names alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("tests", "benchmarks", "examples")
    for path in (REPOSITORY / folder).rglob("*.py")
)
FOREIGN = {
    "_replace",  # of named tuples
    "_schema",  # of torch's operators
    "_overloadpacket",
    "_state_machine",  # of rclpy's lifecycle nodes, which do not tell their own state otherwise
    "_Node__arguments",  # of launch_ros's actions
    "_Node__parameters",
    "_Node__remappings",
    "_OnActionEventBase__on_event",  # of launch's event handlers
    "_log_dir",  # of launch's logging, whose public name makes the folder when it is read
}
"""Private attributes of other libraries that have no public counterpart."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def reached(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything private that a module takes from elsewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("setattr", "getattr", "delattr", "patch.object")
        ):
            names = [str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if is_private(name))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_private_names_are_left_alone(file: Path) -> None:
    tree = ast.parse((REPOSITORY / file).read_text())
    assert [f"line {line}: {name}" for line, name in reached(tree) if name not in FOREIGN] == []


@pytest.mark.parametrize(
    "source",
    [
        "from labeldistill_core.boxes import _corners",
        "node._active",
        "self.node._active = None",
        'monkeypatch.setattr(module, "_LIMIT", 1)',
        'patch.object(step, "_run")',
        'getattr(node, "_active")',
    ],
)
def test_what_is_private_is_seen(source: str) -> None:
    assert len(list(reached(ast.parse(source)))) == 1


@pytest.mark.parametrize("source", ["self._own = 1", "cls._own", "x.__dict__", "from a import b"])
def test_what_is_public_or_ones_own_is_not(source: str) -> None:
    assert not list(reached(ast.parse(source)))
