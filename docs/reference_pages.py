"""Writes docs/reference/*.md from the code: jobs, config keys, recipe keys and fusions, make targets, Python modules.

    python docs/reference_pages.py            # writes the pages that changed
    python docs/reference_pages.py --check    # writes nothing; exit 1 if a page differs from the code

Uses the standard library and this package alone, no Sphinx and no torch. The texts are those of the code: the help of
the jobs' arguments, the docstrings of the dataclasses and of their fields, the comments of the make targets.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unittest import mock

from catalog_enrichment import cli
from catalog_enrichment.cli import command
from catalog_enrichment.config.schema import Config
from catalog_enrichment.demo import __main__ as demo
from catalog_enrichment.demo import compare as demo_compare
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.ingest import draft_dictionary
from catalog_enrichment.models.spec import Recipe, fusion_files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "catalog_enrichment"
FOLDER = ROOT / "docs" / "reference"

GENERATED = "<!-- Written by docs/reference_pages.py from the code: `make docs` writes it again. Do not edit. -->\n"

PROGRAMS = {
    "catalog_enrichment.ingest.draft_dictionary": draft_dictionary.main,
    "catalog_enrichment.demo": demo.main,
    "catalog_enrichment.demo.compare": demo_compare.main,
}
"""Modules that are called with `python -m`."""

PUBLIC_MODULES = {
    "Configs, dictionaries, errors": ["config.load", "config.schema", "dictionary", "errors", "reasons", "records"],
    "Model versions: load, score, register": [
        "registry.model_registry",
        "models.predictor",
        "inputs.product_batch",
        "models.artifact",
    ],
    "Recipes, and the base of fusions": ["models.recipe_files", "models.spec", "models.fusion.base"],
    "Metrics, certificates, decisions": [
        "precision.classification_metrics",
        "precision.bootstrap",
        "precision.certificate",
        "precision.certify",
        "precision.decide",
    ],
    "The catalog": ["catalog.lake", "catalog.ledger"],
}
"""Heading -> modules whose public names the page python.md documents, by autodoc."""


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {
        "jobs.md": jobs_page(),
        "config.md": config_page(),
        "recipes.md": recipes_page(),
        "make.md": make_page(),
        "python.md": python_page(),
    }


def jobs() -> list[str]:
    """The jobs, in the order of pyproject.toml."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


# --- jobs -------------------------------------------------------------------------------------------------------------


class _Parsed(Exception):
    """Ends a program when it is about to parse its arguments; carries the parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(main: Callable[..., Any]) -> argparse.ArgumentParser:
    """The complete parser of a program, which is ended where it would parse its arguments."""

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parsed(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            main([])
        except _Parsed as ended:
            return ended.parser
    raise TypeError(f"{main} has parsed no arguments with argparse")


def jobs_page() -> str:
    exit_codes = (command.__doc__ or "").rsplit("\n\n", 1)[-1]
    lines = [
        "# Jobs",
        "",
        "Each job is a console script, `python jobs/NAME.py` and `spark-submit jobs/NAME.py`. Progress goes to "
        "stderr; the last line of stdout is a JSON summary.",
        "",
        _one_line(exit_codes),
        "",
    ]
    parsers = {name: parser_of(getattr(cli, name)) for name in jobs()}
    lines += _table(("job", "what it does"), [(f"[{name}](#{name})", _what_it_does(p)) for name, p in parsers.items()])
    lines += [""]
    for name, parser in parsers.items():
        lines += _program(f" {name}", name, parser)
    lines += ["## Other programs", ""]
    for module, main in PROGRAMS.items():
        lines += _program(f"# {module}", f"python -m {module}", parser_of(main))
    return _page(lines)


def _what_it_does(parser: argparse.ArgumentParser) -> str:
    """Return the first paragraph of the program's description, without its full stop."""
    return _one_line(inspect.cleandoc(parser.description or "").split("\n\n")[0]).removesuffix(".")


def _program(title: str, command: str, parser: argparse.ArgumentParser) -> list[str]:
    """``title``: what follows the two signs of a heading."""
    rows = [_argument(action, parser) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    usage = [command, *(_usage(action) for action in parser._actions if action.required)]
    return [
        f"##{title}",
        "",
        *([_prose(inspect.cleandoc(parser.description)), ""] if parser.description else []),
        "```",
        " ".join([*usage, "[OPTION ...]"]),
        "```",
        "",
        *_table(("argument", "default", "meaning"), rows),
        "",
    ]


def _usage(action: argparse.Action) -> str:
    """The argument as the command line needs it."""
    value = _metavar(action)
    if action.option_strings:
        return f"{action.option_strings[0]} {value}".strip()
    return f"[{value} ...]" if action.nargs == "*" else value


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> tuple[str, str, str]:
    value = _metavar(action)
    names = ", ".join(f"`{option} {value}`" if value else f"`{option}`" for option in action.option_strings)
    text = (action.help or "") % {"default": action.default, "prog": parser.prog}
    if action.choices is not None:
        text = "; ".join(filter(None, [text, f"one of {', '.join(f'`{choice}`' for choice in action.choices)}"]))
    required = action.required and action.nargs != "*"
    default = "required" if required else ""
    if not required and action.default not in (None, False, [], argparse.SUPPRESS):
        default = f"`{action.default}`"
    return names or f"`{value}`", default, text


def _metavar(action: argparse.Action) -> str:
    """The name of an argument's value; "" for a switch."""
    if action.nargs == 0:
        return ""
    return str(action.metavar or action.dest.upper())


# --- dataclasses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a config file."""

    name: str
    """Without its section."""
    type: str
    default: str
    """As TOML; "required" or "none" where there is no default."""
    text: str
    section: type[Any] | None
    """The dataclass of a key that is a table, or a list of tables."""
    several: bool = False
    """The key is a list of tables."""


@cache
def keys_of(kind: type[Any]) -> list[Key]:
    """The keys of a config dataclass, in the order of its fields."""
    hints, texts = get_type_hints(kind), field_texts(kind)
    return [_key(field, hints[field.name], texts.get(field.name, "")) for field in fields(kind)]


def field_texts(kind: type[Any]) -> dict[str, str]:
    """Field -> the docstring below it in the source."""
    return _texts_below(ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0])


def _texts_below(node: Any) -> dict[str, str]:
    """Name of an annotated assignment in a class -> the string below it."""
    texts = {}
    for statement, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = below.value if isinstance(below, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[statement.target.id] = _prose(value.value)
    return texts


def _key(field: Field[Any], annotation: Any, text: str) -> Key:
    section = next((one for one in (annotation, *get_args(annotation)) if is_dataclass(one)), None)
    several = get_origin(annotation) in (list, tuple) and section is not None
    return Key(
        name=field.name,
        type="tables" if several else "table" if section else type_text(annotation),
        default=_default(field, section is not None),
        text=text,
        section=section if isinstance(section, type) else None,
        several=several,
    )


def _default(field: Field[Any], is_section: bool) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None:
        return "none"
    return "" if is_section and not isinstance(value, list | tuple) else f"`{toml(value)}`"


def toml(value: Any) -> str:
    """The value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def type_text(annotation: Any) -> str:
    """The type in words that TOML's readers know."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f"`{toml(one)}`" for one in arguments)
    if origin is types.UnionType:
        return type_text(arguments[0])
    if origin in (list, tuple):
        count = "" if origin is list or Ellipsis in arguments else f"{len(arguments)} "
        return f"list of {count}{_plural(type_text(arguments[0]))}"
    if origin is dict:
        return f"table of {_plural(type_text(arguments[1]))}"
    names = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "value"}
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _plural(name: str) -> str:
    return name if name.startswith(("one of", "list of", "table of")) else f"{name}s"


def sections(kind: type[Any], name: str = "", several: bool = False) -> Iterator[tuple[str, type[Any], bool]]:
    """Dotted name, dataclass, and whether it is a list of tables: of ``kind`` and of every section below it."""
    yield name, kind, several
    for key in keys_of(kind):
        if key.section is not None:
            yield from sections(key.section, f"{name}.{key.name}".lstrip("."), key.several)


def _sections(kind: type[Any], of_all: str) -> list[str]:
    """A heading, the class's docstring and a table of keys for every section; the table of a class only once."""
    lines: list[str] = []
    described: dict[type[Any], str] = {}
    for name, section, several in sections(kind):
        if section in described:
            lines += [f"## `[{name}]`", "", f"The keys of `[{described[section]}]`, above.", ""]
            continue
        described[section] = name
        keys = [key for key in keys_of(section) if name or key.section is None]
        title = f"`[[{name}]]`" if several else f"`[{name}]`" if name else of_all
        rows = [(f"`{key.name}`", key.type, key.default, key.text) for key in keys if key.section is None]
        rows += [
            (f"`{key.name}`", _link(f"{name}.{key.name}", key.several), key.default, key.text)
            for key in keys
            if key.section is not None
        ]
        lines += [f"## {title}", "", *_intro(section), *_table(("key", "type", "default", "meaning"), rows), ""]
    return lines


def _link(name: str, several: bool) -> str:
    return f"tables `[[{name}]]`, below" if several else f"table `[{name}]`, below"


def _intro(kind: type[Any]) -> list[str]:
    """The class's docstring, unless dataclass made it."""
    text = kind.__doc__ or ""
    return [] if text.startswith(f"{kind.__name__}(") or not text else [_prose(inspect.cleandoc(text)), ""]


# --- pages ------------------------------------------------------------------------------------------------------------


def config_page() -> str:
    return _page(
        [
            "# Config keys",
            "",
            "One TOML file for every job. `--set section.key=value` changes a key for one run. An unknown key, a "
            "wrong type or a value out of range is refused (exit 2) with the key's name. "
            "[demo.toml](../../deploy/config/demo.toml) is a config to start from; "
            "`init_project` writes one for a file.",
            "",
            *_sections(Config, "Top of the file"),
            "## Dictionary keys",
            "",
            'The attribute dictionary (`catalog.dictionary`) is a JSON file, `{"attributes": [...]}`, with these keys '
            "per attribute. [demo.v1.json](../../schemas/attributes/demo.v1.json) shows the form. `doc`: free text.",
            "",
            *_table(
                ("key", "type", "default", "meaning"),
                [(f"`{key.name}`", key.type, key.default, key.text) for key in keys_of(Attribute)],
            ),
            "",
            "## Promotion policy",
            "",
            "`mlflow.promotion_policy` names a TOML file; this is the shipped one.",
            "",
            "```toml",
            (ROOT / "mlflow" / "promotion.v1.toml").read_text().strip(),
            "```",
        ]
    )


def recipes_page() -> str:
    lines = [
        "# Recipe keys",
        "",
        "A recipe is a TOML file with all settings of a model and its fit (`training.recipe`). `training.set` changes "
        "keys of it. [demo.toml](../../mlflow/recipes/demo.toml) is a small one.",
        "",
        *_sections(Recipe, "Top of the file"),
        "## Fusions",
        "",
        "`model.fusion.kind`, and what `model.fusion.options` may have for it.",
        "",
    ]
    for kind, file in fusion_files().items():
        module = ast.parse((PACKAGE / "models" / "fusion" / f"{file}.py").read_text())
        fusion = next(
            node
            for node in module.body
            if isinstance(node, ast.ClassDef) and f"kind = '{kind}'" in map(ast.unparse, node.body)
        )
        options = next((node for node in fusion.body if isinstance(node, ast.ClassDef)), None)
        rows = _static_rows(options, _literals(module)) if options else []
        lines += [f"### `{kind}`", "", _prose(ast.get_docstring(fusion) or ""), ""]
        lines += [*_table(("option", "type", "default", "meaning"), rows), ""] if rows else []
    return _page(lines)


def _literals(module: ast.Module) -> dict[str, str]:
    """Name -> type in words, of the module's `NAME = Literal[...]`."""
    assigned = {ast.unparse(node.targets[0]): node.value for node in module.body if isinstance(node, ast.Assign)}
    return {
        name: type_text(Literal[ast.literal_eval(value.slice)])
        for name, value in assigned.items()
        if isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Literal"
    }


def _static_rows(options: ast.ClassDef, literals: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """The fields of a fusion's options, from the source: importing a fusion imports torch."""
    texts = _texts_below(options)
    names = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"} | literals
    rows = []
    for node in options.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            type_name, name = ast.unparse(node.annotation), node.target.id
            default = f"`{toml(ast.literal_eval(node.value))}`" if node.value is not None else "required"
            rows.append((f"`{name}`", names.get(type_name, f"`{type_name}`"), default, texts.get(name, "")))
    return rows


def make_targets() -> dict[str, str]:
    """Target -> its comment in the Makefile."""
    return dict(re.findall(r"^([a-z_-]+):.*?##\s*(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_page() -> str:
    rows = [(f"`make {name}`", text) for name, text in make_targets().items()]
    return _page(["# Make targets", "", *_table(("target", "what it does"), rows)])


def python_page() -> str:
    """MyST with autodoc's directives: the text is made by Sphinx."""
    lines = [
        "# Python modules",
        "",
        "The modules that programs outside of the package are expected to import. All names of other modules, and "
        "names that begin with an underscore, may change without notice.",
        "",
    ]
    for heading, modules in PUBLIC_MODULES.items():
        lines += [f"## {heading}", ""]
        for module in modules:
            name = f"catalog_enrichment.{module}"
            lines += [f"### {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
    return _page(lines)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _page(lines: list[str]) -> str:
    return GENERATED + "\n" + "\n".join(lines).rstrip() + "\n"


def _table(header: tuple[str, ...], rows: list[Any]) -> list[str]:
    cells = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _prose(text: str) -> str:
    """A docstring as Markdown: roles and double backticks are code."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text).strip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page differs")
    check = parser.parse_args(argv).check
    FOLDER.mkdir(exist_ok=True)
    written = {name: text for name, text in pages().items() if _content(FOLDER / name) != text}
    for name, text in written.items():
        print(f"{'differs' if check else 'written'}: docs/reference/{name}")
        if not check:
            (FOLDER / name).write_text(text, encoding="utf-8")
    return int(check and bool(written))


def _content(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
