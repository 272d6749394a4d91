"""The documents name only what exists; docs/architecture.md names every room, and its reading paths are short."""

from __future__ import annotations

import argparse
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from catalog_enrichment import cli, resources
from catalog_enrichment.config.schema import Config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "catalog_enrichment"
README, RUNBOOK, CONTRIBUTING = (ROOT / name for name in ("README.md", "deploy/RUNBOOK.md", "CONTRIBUTING.md"))
OTHERS = (ROOT / "examples" / "README.md", ROOT / "deploy" / "README.md")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = [README, RUNBOOK, CONTRIBUTING, *OTHERS, *sorted((ROOT / "docs").glob("*.md"))]
JOBS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
TARGETS = re.findall(r"^([a-z_-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document.parent.name}-{document.stem}"
)


def code_of(document: Path) -> str:
    """The document's code: what is in backticks, and indented or fenced blocks; Python is test_reference's."""
    text = re.sub(r"^```python\n.*?^```\n", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^(?: {4}.*\n)+", text, re.MULTILINE) + re.findall(
        r"^```.*?^```", text, re.MULTILINE | re.DOTALL
    )
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text), *re.findall(r"\]\(([^)]+)\)", text)])


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return each job's parser, taken where the job would use it."""
    caught: dict[str, argparse.ArgumentParser] = {}

    def parse_args(parser: argparse.ArgumentParser, *_: Any) -> None:
        caught[parser.prog] = parser
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        for job in JOBS:
            with pytest.raises(SystemExit):
                getattr(cli, job)([])
    assert set(caught) == set(JOBS)
    return caught


def test_the_architecture_names_every_room_and_every_file_of_the_shared_ground() -> None:
    text = ARCHITECTURE.read_text()
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == rooms
    shared = {file.name for file in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", text, re.MULTILINE)) == shared


def test_a_reading_path_names_at_most_five_files_that_exist() -> None:
    section = ARCHITECTURE.read_text().split("## Reading paths")[1].split("\n## ")[0]
    paths = section.split("\n### ")[1:]
    assert len(paths) >= 8
    for path in paths:
        files = re.findall(r"^\d\. `([\w/.]+)`", path, re.MULTILINE)
        assert 1 <= len(files) <= 5, path.splitlines()[0]
        assert [file for file in files if not (PACKAGE / file).is_file()] == [], path.splitlines()[0]


def test_the_table_of_recipes_has_every_recipe_and_no_other() -> None:
    recipes = {file.stem for file in resources.folder("recipes").glob("*.toml")}
    table = (ROOT / "docs" / "data-scientist.md").read_text().split("| recipe | paper |")[1].split("\n\n")[0]
    first_cells = "".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == recipes


@each_document
def test_a_document_names_only_jobs_and_make_targets_that_exist(document: Path) -> None:
    code = code_of(document)
    called = re.findall(r"^ *(\w+) --config", code, re.MULTILINE) + re.findall(r"jobs/([a-z]\w*)\.py", code)
    assert sorted(set(called) - set(JOBS)) == []
    assert sorted(set(re.findall(r"\bmake ([a-z_-]+)", code)) - set(TARGETS)) == []


@each_document
def test_a_document_names_only_configs_recipes_and_files_that_exist(document: Path) -> None:
    code = code_of(document)
    for shipped in re.findall(r"\b(?:config|recipes|schemas):[\w./-]+", code):
        assert resources.locate(shipped).is_file(), shipped
    folders = "src|tests|schemas|deploy|mlflow|jobs"
    for path in re.findall(rf"(?<![\w/.:-])((?:{folders})/[\w./-]*\w/?)", code):
        assert (ROOT / path).exists() or "NAME" in path, path
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
        assert (document.parent / link).exists(), link


@each_document
def test_a_document_names_only_modules_that_exist(document: Path) -> None:
    modules = re.findall(r"\bcatalog_enrichment((?:\.[a-z]\w*)+)", code_of(document))
    for module in modules:
        assert importlib.util.find_spec(f"catalog_enrichment{module}"), module


@each_document
def test_a_document_names_only_options_that_a_job_has(document: Path) -> None:
    """The options of all jobs, and those of the programs that the documents call besides."""
    known = {"--output", "--min-count", "--all-files", "--help", "--room", "--file", "--sample"}
    known |= {option for parser in parsers().values() for action in parser._actions for option in action.option_strings}
    lines = [line for line in code_of(document).splitlines() if not re.search(r"pytest|ruff|uv |pip ", line)]
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(lines)))
    assert sorted(flags - known) == []


@each_document
def test_a_document_names_only_config_keys_that_exist(document: Path) -> None:
    sections = {field.name for field in fields(Config)}
    keys = set(keys_of(Config))
    named = re.findall(
        rf"(?<![\w./-])((?:{'|'.join(sections)})(?!\.md\b)(?:\.[a-z_]+)+)(?![\w/]*\.(?:py|toml))", code_of(document)
    )
    assert (
        sorted({name for name in named if name not in keys and not name.startswith("source.mapping.attributes.")}) == []
    )


def keys_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config dataclass, sections included."""
    for name, annotation in get_type_hints(kind).items():
        if name not in {field.name for field in fields(kind)}:
            continue
        yield prefix + name
        for section in (annotation, *get_args(annotation)):
            if is_dataclass(section):
                yield from keys_of(section, f"{prefix}{name}.")
