# SPDX-License-Identifier: Apache-2.0
"""The files that name the release name the same one."""

import re
from pathlib import Path

import yaml


def test_all_files_name_one_version(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    released = re.search(r"^(\S+) \((\S+)\)$", (repository / "CHANGELOG.rst").read_text(), re.M)
    manifest = re.search(r"<version>(.+)</version>", (repository / "package.xml").read_text())
    setup = re.search(r'version="(.+)"', (repository / "setup.py").read_text())
    assert released
    assert manifest
    assert setup
    assert manifest[1] == setup[1] == citation["version"] == released[1]
    assert citation["date-released"] == released[2]


def test_links_of_the_documents_lead_to_files(repository: Path) -> None:
    pages = [
        *repository.glob("*.md"),
        *repository.glob("docs/*.md"),
        repository / "benchmarks/README.md",
    ]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_files_that_contributing_and_glossary_name_are_there(repository: Path) -> None:
    named = {
        path
        for page in ("CONTRIBUTING.md", "docs/glossary.md")
        for path in re.findall(
            r"`((?:labeldistill_|tests/|docs/|examples/|scripts/|\.github/)[\w./-]+\.\w+)`",
            (repository / page).read_text(),
        )
    }
    assert len(named) > 20
    assert [path for path in sorted(named) if not (repository / path).is_file()] == []


def test_what_pip_brings_to_a_ros_workspace_is_what_setup_py_asks_for(repository: Path) -> None:
    block = re.search(r"install_requires=\[(.*?)\]", (repository / "setup.py").read_text(), re.S)
    assert block
    wanted = set(re.findall(r'"([\w-]+)', block[1]))
    with_torch = {"filelock", "markupsafe", "typing_extensions"}
    from_rosdep = {"PyYAML"}
    for file in ("README.md", ".github/workflows/ci.yml"):
        command = re.search(
            r"pip install -c src/labeldistill/\S+ ((?:.*\\\n)*.*)", (repository / file).read_text()
        )
        assert command
        named = set(re.findall(r'[\s"]([\w-]+)', " " + command[1]))
        assert wanted - with_torch - from_rosdep <= named, file
