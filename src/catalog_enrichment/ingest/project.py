"""Starts a project from a user's own file (job init_project): a config with a guessed mapping, and a first dictionary.

It reads a bounded sample of the file without Spark, writes two files into a folder, and says what it has guessed and
which commands come next. The config has a line for each guess, with the reason in a comment beside it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.draft_dictionary import dictionary_of
from catalog_enrichment.ingest.file_sample import FileSample, read_sample
from catalog_enrichment.ingest.guess import Given, Guesses, guess
from catalog_enrichment.ingest.guess_columns import Guess
from catalog_enrichment.ingest.project_config import DICTIONARY, certifiable_from, config_text, reason_of
from catalog_enrichment.monitoring.stages import Say, to_stderr

CONFIG = "config.toml"

_WIDTH = 120
"""Characters of a line of the printed table."""
_LONGEST_REASON = 400
_ALL_VALUES = "attributes_of_all_rows.json"
"""The dictionary that a further command drafts from all rows of a large file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """The options of init_project."""

    folder: Path
    """The folder of config, dictionary, catalog and models."""
    file: Path
    """The user's file."""
    given: Given
    columns: Sequence[str] = ()
    """The names of all columns of a CSV or TSV file without a header."""
    encoding: str = ""
    """Encoding of a text file; empty: guessed."""
    overwrite: bool = False
    """Replace a config and a dictionary that are there."""


def init_project(project: Project, say: Say = to_stderr) -> dict[str, Any]:
    """Write the config and the dictionary, and return the job's summary.

    Raises ConfigError for files that are there already, a file that does not exist, or a given column that it does not
    have; DataContractError for a file that is empty, damaged, of an unknown format, or has no id or title. Nothing is
    written then.
    """
    given = project.given
    _check_folder(project)
    if given.min_count < 1:
        raise ConfigError(f"--min-count must be at least 1, not {given.min_count}")
    folder, file = project.folder.resolve(), project.file.expanduser().resolve()
    sample = read_sample(file, project.columns, project.encoding)
    guesses = guess(sample, file, given)
    sample = guesses.products.sample
    name = _project_name(folder)
    dictionary, values = dictionary_of(guesses.counts, guesses.several, given.min_count, name)
    dictionary["attributes"] += [{"name": attribute, **entry} for attribute, entry in guesses.open_values.items()]
    values |= {attribute: {"kind": entry["kind"]} for attribute, entry in guesses.open_values.items()}
    # relative where the file is in the project's folder, which can then be moved
    path = str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
    text = _encoded(config_text(path, name, sample, guesses, given.min_count), file)
    strict.build(Config, tomllib.loads(text.decode()), where=CONFIG)  # before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DICTIONARY).write_text(json.dumps(dictionary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CONFIG).write_bytes(text)
    commands = _next_commands(project.folder / CONFIG, trainable=bool(guesses.attributes))
    notes = [*_notes(project.folder, sample, guesses), "Next:", *(f"  {command}" for command in commands)]
    for line in (*_table(file, sample, guesses), "", *notes):
        say(line)
    return {
        "status": "succeeded",
        "config": str(folder / CONFIG),
        "dictionary": str(folder / DICTIONARY),
        "format": sample.format,
        "sampled_rows": sample.rows,
        "all_rows": sample.whole,
        "export": guesses.products.export.name if guesses.products.export else None,
        "mapping": {name: found.selector for name, found in guesses.roles.items() if found.column},
        "not_found": [name for name, found in guesses.roles.items() if not found.column],
        "attributes": {name: {"column": found.column} | values[name] for name, found in guesses.attributes.items()},
        "next": commands,
    }


def _check_folder(project: Project) -> None:
    folder = project.folder
    existing = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not existing.is_dir():
        raise ConfigError(f"{folder} is no folder and cannot be made one: {existing} is a file")
    there = [name for name in (CONFIG, DICTIONARY) if os.path.lexists(folder / name)]
    if there and not project.overwrite:
        raise ConfigError(
            f"{' and '.join(there)} in {folder} would be overwritten: name another folder, or --overwrite"
        )


def _encoded(text: str, file: Path) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"--from {str(file)!r}: a path in a config must be valid UTF-8. Rename the file") from None


def _project_name(folder: Path) -> str:
    """Return the name of the MLflow model and experiment: letters, digits and underscores of the folder's name."""
    plain = "".join(c if c.isascii() and c.isalnum() else " " for c in folder.name)
    return "_".join(plain.split()) or "products"


# --- what is printed --------------------------------------------------------------------------------------------------


def _table(file: Path, sample: FileSample, guesses: Guesses) -> list[str]:
    """Return the guesses for people: catalog's column, file's column, why."""
    rows = "all rows" if sample.whole else "a sample"
    broken = f", {sample.broken:,} further rows cannot be parsed" if sample.broken else ""
    roles = guesses.roles.items()
    mapped = [(name, _shown(_columns(found)), reason_of(found)) for name, found in roles if found.column]
    attributes = [(f"  {name}", _shown(found.column), found.why) for name, found in guesses.attributes.items()]
    missing = [(name, "-", found.why) for name, found in roles if not found.column]
    unused = [("-", _shown(column), why) for column, why in guesses.unused.items()]
    lines = [("catalog", "column", "why"), *mapped, ("attributes", "", "" if attributes else "none found"), *attributes]
    lines += [("not found", "", "to be added to the config, if the file has it"), *missing] if missing else []
    lines += [("not used", "", "--attribute COLUMN takes it"), *unused] if unused else []
    export = f"{guesses.products.export.name} export, " if guesses.products.export else ""
    of_what = "products looked at" if guesses.products.variants else "rows looked at"
    title = f"{file.name}: {export}{sample.format} ({sample.why}), {sample.rows:,} {of_what} ({rows}){broken}"
    return [_shown(title, 200), *_aligned(lines)]


def _columns(found: Guess) -> str:
    return f"{found.column} and {len(found.more)} more" if found.more else found.column


def _aligned(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Yield the rows as lines; a reason that is too long goes on in the next line."""
    first, second = (max(len(row[place]) for row in rows) for place in (0, 1))
    for row in rows:
        whys = textwrap.wrap(_shown(row[2], _LONGEST_REASON), max(40, _WIDTH - first - second - 4)) or [""]
        yield f"{row[0]:<{first}}  {row[1]:<{second}}  {whys[0]}".rstrip()
        yield from (" " * (first + second + 4) + line for line in whys[1:])


def _shown(text: str, length: int = 30) -> str:
    """Return the text on one line, cut to ``length`` characters."""
    line = text.replace("\n", " ").replace("\t", " ")
    return line if len(line) <= length else line[: length - 3] + "..."


def _notes(folder: Path, sample: FileSample, guesses: Guesses) -> Iterable[str]:
    needed = certifiable_from()
    if sample.whole and (few := [name for name in guesses.attributes if guesses.labelled[name] < needed]):
        yield (
            f"Few labels: {', '.join(few)}. An attribute needs about {needed} products with a value to be certified; "
            "until then nothing of it is written."
        )
    if not guesses.attributes:
        yield "No attribute was found, and training needs one: run this again with --attribute COLUMN --overwrite."
    if not sample.whole and guesses.attributes:
        python = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
        config, output = (shlex.quote(str(folder / name)) for name in (CONFIG, _ALL_VALUES))
        yield "The dictionary has the values of a sample. For those of all rows, run"
        yield f"  {python} -m catalog_enrichment.ingest.draft_dictionary --config {config} --output {output}"
        yield f'and set dictionary = "{_ALL_VALUES}" in {CONFIG}.'


def _next_commands(config: Path, trainable: bool) -> list[str]:
    """Return the commands that come next, as they can be pasted into this shell."""
    argument = f"--config {shlex.quote(str(config))}"
    commands = [f"{_job('import_products')} {argument}"]
    if trainable:
        commands += [f"{_job(name)} {argument}" for name in ("train_model", "promote_model")]
        commands += [f"{_job('enrich_catalog')} {argument} --dry-run"]
        commands += [f"{_job('enrich_catalog')} {argument}  # its last line names the HTML report"]
        values = shlex.quote(str(config.with_name("values.csv")))
        commands += [f"{_job('export_values')} {argument} --out {values}  # what readers see, as one file"]
    return commands


def _job(name: str) -> str:
    """Return how this shell calls a job: by name, by its path in an environment that is not active, or as a script."""
    if shutil.which(name):
        return name
    beside = Path(sys.executable).parent / name
    script = Path(__file__).parents[3] / "jobs" / f"{name}.py"
    if not beside.is_file() and script.is_file():
        return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}"
    return shlex.quote(str(beside)) if beside.is_file() else name
