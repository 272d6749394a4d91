"""docs/reference is what the code says now, and the code blocks of all documents work: jobs, configs, Python."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from catalog_enrichment import dictionary
from catalog_enrichment.config import strict
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Recipe, fusion_files

from .test_docs import DOCUMENTS, JOBS, ROOT, TARGETS, keys_of, parsers

REFERENCE = ROOT / "docs" / "reference"
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


reference_pages = _load(ROOT / "docs" / "reference_pages.py")


# --- the generated pages ----------------------------------------------------------------------------------------------


def test_the_pages_are_those_that_the_code_gives_now() -> None:
    differing = [name for name, text in reference_pages.pages().items() if text != (REFERENCE / name).read_text()]
    assert differing == [], "run python docs/reference_pages.py"
    assert {file.name for file in REFERENCE.glob("*.md")} == set(reference_pages.pages())


def section(page: str, heading: str) -> str:
    """The text from a heading, which the page has once, to the next heading."""
    parts = re.split(r"^#+ (.+)$", (REFERENCE / page).read_text(), flags=re.MULTILINE)
    (found,) = [text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name == heading]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_argument_of_a_job_is_in_its_section(job: str) -> None:
    text = section("jobs.md", job)
    rows = {row.split(" | ")[0] for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)}
    named = {word for row in rows for word in re.findall(r"`([^` ]+)[^`]*`", row)}
    arguments = [action for action in parsers()[job]._actions if action.dest != "help"]
    wanted = {name for action in arguments for name in action.option_strings or [str(action.metavar)]}
    assert named == wanted
    for action in arguments:
        assert (action.help or "") % {"default": action.default} in text, action.dest
        assert all(f"`{choice}`" in text for choice in action.choices or ()), action.dest
    usage = re.findall(r"^```\n(.*)\n```", text, re.MULTILINE)[0]
    required = [action.option_strings[0] for action in arguments if action.required and action.option_strings]
    assert [option for option in required if option not in usage] == []
    assert " ".join((parsers()[job].description or "").split()) in " ".join(text.split())


def described(page: str, top: type[Any]) -> dict[str, str]:
    """Dotted key -> its row, of all tables of a page; a section that refers to another section has its rows."""
    rows: dict[str, str] = {}
    for name, kind, several in reference_pages.sections(top):
        heading = f"`[[{name}]]`" if several else f"`[{name}]`" if name else "Top of the file"
        text = section(page, heading)
        same = re.findall(r"^The keys of `\[(.+)\]`, above\.$", text, re.MULTILINE)
        text = section(page, f"`[{same[0]}]`") if same else text
        keys = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
        assert set(keys) == {field.name for field in dataclasses.fields(kind) if name or not _is_section(field)}
        rows |= {f"{name}.{key}".lstrip("."): row for key, row in keys.items()}
    return rows


def _is_section(field: dataclasses.Field[Any]) -> bool:
    return "Config" in str(field.type) or "Spec" in str(field.type)


@pytest.mark.parametrize(("page", "top"), [("config.md", Config), ("recipes.md", Recipe)])
def test_every_key_has_a_row_with_type_default_and_text(page: str, top: type[Any]) -> None:
    rows = described(page, top)
    keys = set(keys_of(top))
    sections = {name for name, _, _ in reference_pages.sections(top)}
    assert keys - sections <= set(rows)
    assert set(rows) <= keys
    for key, row in rows.items():
        kind, default, text = row.split(" | ", 2)
        assert kind, key
        assert text or "below" in kind, f"{key}: write a docstring below the field"
        assert default or "table" in kind, key


@pytest.mark.parametrize(
    ("key", "start", "part"),
    [
        ("catalog.path", "string | required | ", ""),
        ("precision.delta", "number | `0.05` | ", "delta / (k (k + 1))"),
        ("images.fetch.retries", "integer | `2` | ", "status 429"),
        ("compare.recipes.set", "table of values | `{}` | ", "change every member"),
        ("compare.recipes", "tables `[[compare.recipes]]`, below | ", ""),
        ("enrich.compute_type", 'one of `"auto"`, `"fp32"`, `"bf16"` | `"auto"` | ', "Number type of the scores"),
        ("spark.conf", "table of strings | ", ""),
        ("source.mapping.title", 'string | `"title"` | ', "goes to quarantine"),
    ],
)
def test_a_row_has_the_fields_own_type_default_and_docstring(key: str, start: str, part: str) -> None:
    row = described("config.md", Config)[key]
    assert row.startswith(start)
    assert part in row


def test_every_fusion_is_listed_with_its_options() -> None:
    for kind in fusion_files():
        listed = re.findall(r"^\| `(\w+)` \|", section("recipes.md", f"`{kind}`"), re.MULTILINE)
        assert listed == [field.name for field in dataclasses.fields(fusion_class(kind).Options)], kind


def test_every_make_target_is_listed() -> None:
    assert re.findall(r"^\| `make ([a-z_-]+)` \| .+ \|$", (REFERENCE / "make.md").read_text(), re.MULTILINE) == TARGETS


def test_every_public_module_exists_and_says_what_it_is() -> None:
    modules = re.findall(r"^\.\. automodule:: (\S+)$", (REFERENCE / "python.md").read_text(), re.MULTILINE)
    assert modules == [
        f"catalog_enrichment.{name}" for names in reference_pages.PUBLIC_MODULES.values() for name in names
    ]
    for module in modules:
        assert importlib.import_module(module).__doc__, module


def test_check_tells_a_page_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference_pages, "FOLDER", tmp_path)
    monkeypatch.setattr(reference_pages, "pages", lambda: {"jobs.md": "jobs", "make.md": "make"})
    assert [reference_pages.main(arguments) for arguments in (["--check"], [], ["--check"])] == [1, 0, 0]
    (tmp_path / "make.md").write_text("old")
    capsys.readouterr()
    assert reference_pages.main(["--check"]) == 1
    assert capsys.readouterr().out == "differs: docs/reference/make.md\n"


def test_every_page_is_in_the_table_of_contents() -> None:
    docs = ROOT / "docs"
    listed = {
        str((index.parent / page).relative_to(docs))
        for index in docs.rglob("index.md")
        for entry in re.findall(r"^([\w/*-]+)$", index.read_text(), re.MULTILINE)
        for page in ([entry] if entry != "*" else [file.stem for file in index.parent.glob("*.md") if file != index])
    }
    pages = {str(file.relative_to(docs).with_suffix("")) for file in docs.rglob("*.md") if "_build" not in file.parts}
    assert listed == pages - {"index"}


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: f"{document.parent.name}-{document.stem}")
def test_a_link_to_a_heading_finds_it(document: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", document.read_text()):
        target = (document.parent / file).resolve() if file else document
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in {_slug(heading) for heading in headings}, f"{document.name}: {file}#{anchor}"


# --- the code blocks of the documents ---------------------------------------------------------------------------------


class Block(NamedTuple):
    document: str
    line: int
    text: str


def blocks(language: str) -> Iterator[Block]:
    """Fenced blocks of a language in all documents; "sh": also those that are indented or have no language."""
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(r"^```([\w{}-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] == language or (language == "sh" and not match[1]):
                yield Block(document.name, text.count("\n", 0, match.start()) + 2, match[2])
        if language == "sh":
            for match in re.finditer(r"(?:^    .*\n)+", re.sub(r"^```.*?^```$", _blank, text, flags=re.M | re.S), re.M):
                yield Block(document.name, text.count("\n", 0, match.start()) + 1, textwrap.dedent(match[0]))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "", match[0])


def job_calls() -> list[tuple[str, str, list[str]]]:
    """Where, job, arguments: of every line of a shell block that calls a job, by whatever launcher."""
    calls = []
    for block in (block for block in blocks("sh") if "──" not in block.text):  # not the diagram
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
            if not re.search(r"\b(?:" + "|".join(JOBS) + r")\b", line.split("#")[0]):
                continue
            words = shlex.split(line, comments=True)
            at = next((at for at, word in enumerate(words) if Path(word).stem in JOBS), None)
            if at is not None and all(re.search(r"python|spark-submit$", word) for word in words[:at]):
                calls.append((f"{block.document}:{block.line + number}", Path(words[at]).stem, words[at + 1 :]))
    return calls


CALLS = job_calls()


def test_the_documents_call_every_job() -> None:
    """So that the next test cannot pass for want of calls."""
    assert {job for _, job, _ in CALLS} == set(JOBS)


@pytest.mark.parametrize(("where", "job", "arguments"), CALLS, ids=[f"{where}-{job}" for where, job, _ in CALLS])
def test_a_job_takes_the_arguments_of_its_call_in_a_document(where: str, job: str, arguments: list[str]) -> None:
    """Placeholders are values, N is a number. A changed config key must exist."""
    try:
        args = parsers()[job].parse_args(["7" if word == "N" else word for word in arguments])
    except SystemExit:
        pytest.fail(f"{where}: {job} does not take {arguments}")
    for override in getattr(args, "set", []):
        load_config("config:compare_demo.toml", [re.sub(r"=N$", "=7", override)])


def test_every_toml_block_is_a_config_or_a_recipe() -> None:
    """A block of a config is laid over a shipped config, key by key: it may have few of the keys."""
    found = list(blocks("toml"))
    assert len(found) >= 4
    base = tomllib.loads((ROOT / "deploy" / "config" / "demo.toml").read_text())
    for block in found:
        content, where = tomllib.loads(block.text), f"{block.document}:{block.line}"
        if "fit" in content:
            strict.build(Recipe, content, where)
        else:
            config = strict.build(Config, _laid_over(base, content), where)
            assert config.source is not None


def _laid_over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}


def test_every_json_block_is_a_dictionary(tmp_path: Path) -> None:
    found = list(blocks("json"))
    assert found
    for block in found:
        (tmp_path / "attributes.json").write_text(block.text)
        assert dictionary.load(tmp_path / "attributes.json").enabled


PYTHON = [(f"{block.document}:{block.line}", block.text) for block in blocks("python")]
assert len(PYTHON) >= 2
PYTHON += [(str(file.relative_to(ROOT)), file.read_text()) for file in EXAMPLES]


@pytest.mark.parametrize(("where", "code"), PYTHON, ids=[where for where, _ in PYTHON])
def test_python_compiles_and_its_imports_resolve(where: str, code: str) -> None:
    compile(code, where, "exec")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    for node in imports:
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names), where
        elif node.module != "__future__":
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not _importable(module, alias.name)]
            assert missing == [], f"{where}: {node.module} has no {missing}"


def _importable(module: ModuleType, name: str) -> bool:
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


# --- examples ---------------------------------------------------------------------------------------------------------


def test_the_minimal_config_loads_with_its_feed_and_dictionary() -> None:
    config = load_config(ROOT / "examples" / "minimal" / "config.toml")
    assert config.source is not None
    assert config.training is not None
    rows = [json.loads(line) for line in config.path(config.source.path).read_text().splitlines()]
    assert {config.source.mapping.product_id, config.source.mapping.title, "colour"} <= set(rows[0])
    assert dictionary.load(config.path(config.catalog.dictionary)).enabled == list(config.source.mapping.attributes)
    load_model_recipe(config.training.recipe, config.training.set)


def test_the_own_fusions_recipe_names_the_file_beside_it() -> None:
    """Until that file is copied into the package nothing else is wrong with the recipe."""
    folder = ROOT / "examples" / "own_fusion"
    (file,) = folder.glob("*.py")
    with pytest.raises(ConfigError, match=f"^recipe.toml: model.fusion: there is no fusion '{file.stem}'[^;]*$"):
        load_model_recipe(folder / "recipe.toml")
    recipe = load_model_recipe(folder / "recipe.toml", {"model.fusion.kind": "late", "model.fusion.options": {}})
    assert isinstance(recipe, Recipe)


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_has_the_pictures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "-b", "html", "docs", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {"report.png", "training.png"} <= {file.name for file in (tmp_path / "_images").iterdir()}
