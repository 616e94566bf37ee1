# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/architecture.md that imports can break; imports within functions count."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
INSTALLED = ("labeldistill_core", "labeldistill_ros")
ROS = {"rclpy", "rcl_interfaces", "sensor_msgs", "std_msgs", "geometry_msgs", "vision_msgs"}
WITHOUT_ROS = ("labeldistill_ros.sync", "labeldistill_ros.sets", "labeldistill_ros.messages")


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its name; a package is named by its folder."""
    found = {}
    for path in (REPOSITORY / package).rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports, wherever in it; without what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from imported(child)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """What a file imports; each is read by five tests."""
    return frozenset(imported(ast.parse(path.read_text())))


@cache
def graph() -> dict[str, frozenset[str]]:
    """Module to the modules of this repository that it imports."""
    paths = {name: p for top in (*INSTALLED, "benchmarks") for name, p in modules(top).items()}
    result = {}
    for name, path in paths.items():
        found = set()
        for target in imports_of(path):
            parent = target.rpartition(".")[0]
            found |= {target} & paths.keys() or {parent} & paths.keys()
        result[name] = frozenset(found - {name})
    return result


def foreign(name: str) -> set[str]:
    """Top-level names that a module imports."""
    path = modules(name.partition(".")[0])[name]
    return {target.partition(".")[0] for target in imports_of(path)}


def test_no_circle_of_imports() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " imports ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in graph()[name]:
                visit(target, (*way, name))
            done.add(name)

    for name in graph():
        visit(name, ())


@pytest.mark.parametrize("name", modules("labeldistill_core"))
def test_the_core_imports_nothing_of_ros(name: str) -> None:
    assert not foreign(name) & {"labeldistill_ros", *ROS}


@pytest.mark.parametrize("name", [name for top in INSTALLED for name in modules(top)])
def test_what_is_installed_stands_without_tests_and_benchmarks(name: str) -> None:
    assert not foreign(name) & {"unittest", "pytest", "benchmarks", "tests"}


@pytest.mark.parametrize(
    "name", [n for n in modules("labeldistill_ros") if n.startswith(WITHOUT_ROS)]
)
def test_sets_and_messages_need_no_ros_client(name: str) -> None:
    assert "rclpy" not in foreign(name)
    reached, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph()[module]
    assert not [module for module in reached if "rclpy" in foreign(module)]


def test_a_circle_of_lazy_imports_would_be_seen() -> None:
    source = "def f():\n    from labeldistill_core import boxes\n"
    assert list(imported(ast.parse(source))) == ["labeldistill_core.boxes"]


def test_no_class_name_stands_for_two_things() -> None:
    trees = [ast.parse(path.read_text()) for top in INSTALLED for path in modules(top).values()]
    names = Counter(n.name for t in trees for n in ast.walk(t) if isinstance(n, ast.ClassDef))
    assert not [name for name, count in names.items() if count > 1]
