"""Validates a whole snapshot before anything is written: by a great_expectations suite, and by trying some pictures.

Suites are JSON in schemas/expectations: {name, expectations: [{type, kwargs, meta, severity}], meta}. The caller gives
the value of a kwarg ``{"$PARAMETER": name}``; ``meta.expected`` is the expectation in words. A failed expectation of
severity ``critical`` refuses the snapshot; a failure of another severity is only recorded in the document.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.inputs.images import UnusablePictures, first_usable_of_each
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.spark import api_mode
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_LOOK_AT_COLUMN = {"expect_column_to_exist", "expect_column_values_to_be_of_type"}
"""Expectations that look at no value."""

_LOOK_AT_NULLS = _LOOK_AT_COLUMN | {"expect_column_values_to_be_null", "expect_column_values_to_not_be_null"}
"""Expectations that only ask whether there is a value."""

_SIZE = 32
"""Pixels. Whether a picture can be decoded does not depend on it."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The outcome of a suite on a snapshot."""

    success: bool
    document: dict[str, Any]
    """great_expectations' result document: counts and shares, no rows."""
    failures: list[str]
    """A sentence for each failed critical expectation: column, expected, observed."""


def check_snapshot(frame: DataFrame, suite_path: Path, parameters: dict[str, Any]) -> ValidationResult:
    """Validate ``frame`` against the suite; a missing column is a failure, not an exception.

    Only the columns that the suite names are read, and no values where it asks only whether they are there. Raises
    ConfigError for an unusable suite or a missing parameter.
    """
    suite = _load(suite_path, parameters)
    with persisted_frames() as persist:  # else every expectation would read the source again
        document = _validate(persist(_validated_columns(suite, frame)), suite, suite_path)
        failures = [_failure(r, frame.columns, parameters) for r in document["results"] if _refuses(r)]
    return ValidationResult(not failures, document, list(dict.fromkeys(failures)))


def _load(path: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    def fill(node: dict[str, Any]) -> Any:
        if set(node) != {"$PARAMETER"}:
            return node
        if node["$PARAMETER"] not in parameters:
            raise ConfigError(f"{path}: parameter {node['$PARAMETER']!r} is not given; given: {sorted(parameters)}")
        return parameters[node["$PARAMETER"]]

    try:
        suite = json.loads(path.read_text(), object_hook=fill)
        return {"name": suite["name"], "expectations": suite["expectations"], "meta": suite.get("meta", {})}
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is not a usable suite of expectations: {problem!r}") from None


def _validated_columns(suite: dict[str, Any], frame: DataFrame) -> DataFrame:
    """Return the columns of ``frame`` that the suite names, with as much of their values as it looks at.

    They are cached, and a million titles would not fit. A column with binary data becomes "is not null".
    """
    from pyspark.sql import functions as F

    asked: dict[str, set[str]] = {}
    for expectation in suite["expectations"]:
        asked.setdefault(expectation["kwargs"].get("column"), set()).add(expectation["type"])
    columns = []
    for field in frame.schema:
        if field.name not in asked:
            continue
        column, kind = F.col(field.name), field.dataType
        if "binary" in kind.simpleString():
            column = column.isNotNull()
        elif asked[field.name] <= _LOOK_AT_COLUMN:
            column = F.lit(None).cast(kind)
        elif asked[field.name] <= _LOOK_AT_NULLS and kind.simpleString() == "string":
            column = F.when(column.isNotNull(), F.lit(""))
        columns.append(column.alias(field.name))
    return frame.select(*columns or [F.lit(True).alias("row")])


def _validate(frame: DataFrame, suite: dict[str, Any], path: Path) -> dict[str, Any]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    try:
        expectations = gx.ExpectationSuite(**suite)
    except Exception as problem:  # great_expectations raises many types, all for a wrong suite
        raise ConfigError(f"{path} is not a usable suite of expectations: {problem}") from None
    if len(expectations.expectations) < len(suite["expectations"]):  # it drops unknown types and only logs that
        known = {expectation.expectation_type for expectation in expectations.expectations}
        unknown = [e.get("type") for e in suite["expectations"] if e.get("type") not in known]
        raise ConfigError(f"{path} is not a usable suite: great_expectations does not know or accept {unknown}")
    source = context.data_sources.add_spark("snapshot", persist=False)
    definition = source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole")
    batch = definition.get_batch(batch_parameters={"dataframe": frame})
    counts_only = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
    result: dict[str, Any] = batch.validate(expectations, result_format=counts_only).to_json_dict()
    return result


def _refuses(result: dict[str, Any]) -> bool:
    return not result["success"] and result["expectation_config"].get("severity", "critical") == "critical"


def _failure(result: dict[str, Any], available: list[str], parameters: dict[str, Any]) -> str:
    """Return the failed expectation as a sentence."""
    config = result["expectation_config"]
    column = config["kwargs"].get("column")
    if column is not None and column not in available:
        return f"column {column!r} is missing; the columns are {sorted(available)}"
    in_words = config.get("meta", {}).get("expected")
    kwargs = {name: value for name, value in config["kwargs"].items() if name not in ("batch_id", "column")}
    expected = in_words.format(**parameters) if in_words else f"{config['type']} {kwargs}"
    return f"{column or 'the snapshot'}: expected {expected}; observed {_observed(result)}"


def _observed(result: dict[str, Any]) -> str:
    observed = result.get("result", {})
    if observed.get("observed_value") is not None:
        return str(observed["observed_value"])
    if "unexpected_count" in observed:
        failed, rows = observed["unexpected_count"], observed["element_count"]
        return f"{failed:,} of {rows:,} rows ({100 * failed / rows if rows else 0:.1f}%) that fail"
    problem = result.get("exception_info", {})
    return f"nothing: {str(problem.get('exception_message') or problem)[:300]}"


# --- pictures ---------------------------------------------------------------------------------------------------------


def try_pictures(rows: DataFrame, limits: ImagesConfig) -> UnusablePictures:
    """Fetch and decode the pictures of `images.sample` of the rows with pictures: a wrong folder is noticed then.

    This runs on the executors, as an enrichment will. The same rows are drawn every time. ``rows``: row_key,
    product_id, images.
    """
    from pyspark.sql import functions as F

    pictures = UnusablePictures()
    if not limits.sample:
        return pictures
    with_pictures = rows.where(F.size("images.version") > 0)
    drawn = with_pictures.orderBy(F.xxhash64("product_id"), "row_key").select("row_key").limit(limits.sample)
    sample = rows.join(F.broadcast(drawn), "row_key").select("images")

    def decode(images: pd.Series) -> pd.DataFrame:
        decoded = first_usable_of_each(list(images), Square(_SIZE), limits)
        return pd.DataFrame([(picture.reason, picture.detail) for picture in decoded], columns=["reason", "detail"])

    outcome = F.pandas_udf(decode, "struct<reason:string,detail:string>")("images")
    tried = sample.repartition(api_mode.of(rows.sparkSession).parallelism()).select(outcome.alias("outcome"))
    pictures.add((row["outcome"]["reason"], row["outcome"]["detail"]) for row in tried.collect())
    return pictures


def refuse_unusable_pictures(pictures: UnusablePictures, max_unusable: float) -> None:
    """Raise GateRefused if more than this share of the tried products have no usable picture."""
    if pictures.too_many(max_unusable):
        raise GateRefused(
            f"{pictures.sentence()} Nothing was imported. If it is right so, import once with "
            "--set images.max_unusable=1",
            {"pictures_tried": pictures.tried, "unusable_pictures": dict(pictures.by_reason)},
        )
