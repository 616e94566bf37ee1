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
