"""The job import_proposals: brings answers that were made elsewhere into the table `proposals`.

    look -> read: the rows beside the stored products, read as proposals -> compare with the stored answers -> write

Every row has one outcome, so the counts add up (I7). An answer about another content than the product's present one is
stale: it is stored where the row says which content it was, for the content may come back, and nowhere used before. A
killed run that is started again has the same run id, reuses its checkpoints and gives the same result (I5); an import
that changes nothing writes nothing. Nothing else in the catalog is changed: the next run decides on the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from catalog_enrichment import __version__
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.proposal_columns import SelectedRows, select_rows
from catalog_enrichment.ingest.sources import locate_files, opened_files
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.proposers import answer_rows
from catalog_enrichment.proposers.answers import MOST_EXAMPLES
from catalog_enrichment.records import NOTHING_TO_DO, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.spark.frames import largest_groups

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.proposer import ProposalsConfig
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.context import Context

TABLE = "proposals"
KEY = ("proposer", "version", "product_id", "content_hash", "attribute")
"""The key of the table: a later answer replaces an earlier one."""

_ANSWER = KEY[2:]
NEW, KEPT, UNCHANGED = "new", "kept", "unchanged"
"""Counts of the rows of the table: added, with other candidates than before, and as they were."""
_ANSWERS, _CHANGES = "answers", "changes"
_UNUSABLE = (answer_rows.UNKNOWN, answer_rows.NO_ID, answer_rows.NO_CONTENT, answer_rows.BAD_TIME,
             answer_rows.CORRUPT_ROW)  # fmt: skip


def proposals_config(config: Config) -> ProposalsConfig:
    """Return the section `[proposals]`. Raises ConfigError if the config has none."""
    if config.proposals is None:
        raise ConfigError(
            "the config has no [proposals] section (format, path, name, version): there is nothing to import"
        )
    return config.proposals


def import_proposals(context: Context) -> dict[str, Any]:
    """Store the answers that `[proposals]` names; return the run's summary.

    Raises ConfigError for an attribute that the dictionary does not have, and DataContractError where there are no
    products yet, where the files lack a column or have no row, and where no row is about a product.
    """
    config, catalog, given = context.config, context.catalog, proposals_config(context.config)
    record = RunRecord(
        kind=RunKind.IMPORT_PROPOSALS,
        stages=Stages(context.say),
        config=config.without_secrets(),
        secrets=config.secrets(),
    )
    with runs.recorded(catalog, record), runs.dropping_checkpoints_if_refused(catalog, record):
        _check(context, given)
        record.config_hash = stable_hash(__version__, asdict(given), context.dictionary.hash())
        record.window = {"proposer": given.name, "version": given.version}
        return _import(context, record, given)


def _check(context: Context, given: ProposalsConfig) -> None:
    named = {*given.answers.columns, *given.answers.scores, *given.answers.evidence}
    if unknown := sorted(named - set(context.dictionary.attributes)):
        raise ConfigError(
            f"proposals.answers: {unknown} are no attributes of the dictionary, which has "
            f"{sorted(context.dictionary.attributes)}"
        )
    context.catalog.check_has_products()


def _import(context: Context, record: RunRecord, given: ProposalsConfig) -> dict[str, Any]:
    catalog, stages = context.catalog, record.stages
    location = locate_files(given.path, given.format, context.config.path("."), "proposals.path")
    source = opened_files(context.spark, given.format, location)
    with stages("look"):
        record.input_fingerprint = source.fingerprint("")
        last = runs.newest_of(catalog, RunKind.IMPORT_PROPOSALS)
    if last is not None and _is_unchanged(catalog, record, last):
        context.say(f"nothing to do: run {last['run_id']} imported these files, and nothing has changed since")
        return {"job": "import_proposals", "status": NOTHING_TO_DO, "run_id": None, "seconds": stages.seconds}

    record.run_id = run_id = _run_id(catalog, record)
    with stages("read") as stage:
        selected = select_rows(source, given, context.dictionary)
        task = answer_rows.ReadAnswers(
            rows=selected.reader,
            dictionary=context.dictionary,
            stored=frozenset(selected.stored),
            form=stable_hash(asdict(given.answers))[:8],
        )
        rows = _beside_products(selected, catalog).mapInArrow(task, answer_rows.READ_TYPE)
        read = catalog.checkpoints.get_or_compute(run_id, _ANSWERS, rows)
        unknown = _count(record, read)
        _refuse_if_unusable(record, given, location.path, unknown)
        answers = read.where("product_id IS NOT NULL").select(*_ANSWER, "candidates", "form")
        stage.count(record.counts["rows"], record.counts[answer_rows.PRODUCTS])
    with stages("compare"):
        stored = catalog.stored(TABLE)
        changes = catalog.checkpoints.get_or_compute(run_id, _CHANGES, _changes(stored, answers, given))
        changed = {row["known"]: row["count"] for row in changes.groupBy("known").count().collect()}
        record.count(**{NEW: changed.get(False, 0), KEPT: changed.get(True, 0)})
        record.count(**{UNCHANGED: answers.count() - sum(changed.values())})
    for line in _in_words(record, unknown):
        context.say(line)
    if not record.counts[NEW]:
        catalog.checkpoints.drop(run_id)
        context.say("nothing to do: the table has these answers already")
        return _summary(record, NOTHING_TO_DO, unknown) | {"run_id": None}
    with stages("publish") as stage:
        stage.rows_out = _write(catalog, record, given, changes)
    runs.write(catalog, record)  # the last write of the run
    catalog.checkpoints.drop(run_id)
    return _summary(record, RunStatus.SUCCEEDED, unknown)


# --- the last import --------------------------------------------------------------------------------------------------


def _is_unchanged(catalog: Catalog, record: RunRecord, last: Mapping[str, Any]) -> bool:
    """Return whether ``last`` read the same files in the same way, and neither products nor answers changed since."""
    if (last["input_fingerprint"], last["config_hash"]) != (record.input_fingerprint, record.config_hash):
        return False
    seen = last["table_versions"] or {}
    return all(seen.get(table) == catalog.tables.written_versions(table)[0] for table in ("products", TABLE))


def _run_id(catalog: Catalog, record: RunRecord) -> str:
    """Return the same id for the same inputs and the same products and answers before.

    A run that was killed after its commit is resumed, if what it had compared is still there.
    """

    def run_id(answers_before: int) -> str:
        inputs = (record.input_fingerprint, record.config_hash, catalog.tables.written_versions("products")[0])
        return make_run_id(RunKind.IMPORT_PROPOSALS, *inputs, answers_before)

    return runs.resumable_id(catalog, TABLE, _CHANGES, run_id)


# --- the stages -------------------------------------------------------------------------------------------------------


def _beside_products(selected: SelectedRows, catalog: Catalog) -> DataFrame:
    """Return the rows with their outcome, their product's language and the content that they are about, the rows about
    a product and content one after the other, in the order of the files."""
    from pyspark.sql import functions as F

    products = catalog.read("products", columns=["product_id", "content_hash", "updated_at", "language"])
    products = products.withColumnRenamed("content_hash", "present")
    rows = selected.frame.join(products, "product_id", "left")
    about = F.col("content_hash") == F.col("present")
    content = F.col("content_hash")
    if selected.by_time:
        about = F.coalesce(F.col("updated_at") <= F.col("answered_at"), F.lit(False))
        content = F.col("present")
    outcome = (
        F.when(F.col("problem").isNotNull(), F.col("problem"))
        .when(F.col("present").isNull(), answer_rows.UNKNOWN)
        .when(about, answer_rows.CURRENT)
        .otherwise(answer_rows.STALE)
    )
    rows = rows.withColumn("outcome", outcome).withColumn("content_hash", content)
    columns = ("product_id", "content_hash", "language", "outcome", *selected.cells)
    ordered = rows.repartition("product_id").sortWithinPartitions(
        "product_id", "content_hash", "outcome", *selected.order
    )
    return ordered.select(*columns)


def _count(record: RunRecord, read: DataFrame) -> list[str]:
    """Set the record's counts and, per attribute, its numbers; return a few products that the catalog does not have."""
    from pyspark.sql import functions as F

    counted = read.where("product_id IS NULL")
    sums = counted.where("value IS NULL").groupBy("attribute", "counted").agg(F.sum("number").alias("number"))
    numbers = {(row["attribute"], row["counted"]): row["number"] for row in sums.collect()}
    by_outcome = {name: numbers[None, name] for name in answer_rows.OUTCOMES if numbers.get((None, name))}
    products = {name: numbers.get((None, name), 0) for name in (answer_rows.PRODUCTS, answer_rows.UNKNOWN_PRODUCTS)}
    record.count(rows=sum(by_outcome.values()), outcomes=by_outcome, **products)
    unmapped = counted.where("value IS NOT NULL AND attribute IS NOT NULL").groupBy(
        "attribute", F.col("value").alias("name")
    )
    largest = largest_groups(unmapped.agg(F.sum("number").alias("size")), MOST_EXAMPLES, by="attribute").collect()
    examples: dict[str, dict[str, int]] = {}
    for row in sorted(largest, key=lambda row: (-row["size"], row["name"])):
        examples.setdefault(row["attribute"], {})[row["name"]] = row["size"]
    record.attributes = {
        name: {count: numbers.get((name, count), 0) for count in answer_rows.COUNTS}
        | {"unmapped_values": examples.get(name, {})}
        for name in sorted({name for name, _ in numbers if name is not None})
    }
    named = counted.where(F.col("counted") == answer_rows.UNKNOWN_PRODUCTS).where("value IS NOT NULL")
    return sorted(row["value"] for row in named.orderBy("value").limit(answer_rows.MOST_UNKNOWN).collect())


def _refuse_if_unusable(record: RunRecord, given: ProposalsConfig, path: str, unknown: list[str]) -> None:
    """Raise DataContractError if there are no rows, or none that is about a product of the catalog."""
    rows, outcomes = record.counts["rows"], record.by_reason("outcomes")
    if not rows:
        raise DataContractError(f"{path} has no rows: there is nothing to import. Check proposals.path")
    if all(name in _UNUSABLE for name in outcomes):
        found = ", ".join(f"{number:,} {_WORDS[name]}" for name, number in outcomes.items())
        named = f" ({', '.join(map(repr, unknown))})" if unknown else ""
        raise DataContractError(
            f"no row of {path} is about a product of the catalog: {found}{named}. Check proposals.product_id = "
            f"{given.product_id!r} and proposals.{'content_hash' if given.content_hash else 'answered_at'} = "
            f"{given.content_hash or given.answered_at!r}; nothing was written"
        )


def _changes(stored: DataFrame, answers: DataFrame, given: ProposalsConfig) -> DataFrame:
    """Return the answers that the table does not have, with ``known``: it has another answer for the key.

    The answer that was given stays: a certificate is about it, and scores that follow from it are known to runs. A
    corrected answer is one of another version.
    """
    from pyspark.sql import functions as F

    own = stored.where((F.col("proposer") == given.name) & (F.col("version") == given.version))
    own = own.select(*_ANSWER, F.col("candidates").alias("before"))
    joined = answers.join(own, list(_ANSWER), "left").where(~F.col("candidates").eqNullSafe(F.col("before")))
    return joined.select(*answers.columns, F.col("before").isNotNull().alias("known"))


def _write(catalog: Catalog, record: RunRecord, given: ProposalsConfig, changes: DataFrame) -> int:
    """Add the answers to what had none; return how many there are."""
    from pyspark.sql import functions as F

    facts = {
        "proposer": F.lit(given.name),
        "version": F.lit(given.version),
        "answered_at": F.lit(record.started_at),
        "run_id": F.lit(record.run_id),
    }
    return catalog.append(TABLE, changes.where(~F.col("known")).drop("known").withColumns(facts), record.run_id)


_WORDS = {
    answer_rows.CURRENT: "about the product's present content",
    answer_rows.STALE: "about another content (stale)",
    answer_rows.UNKNOWN: "about products that the catalog does not have",
    answer_rows.NO_ID: "without a product id",
    answer_rows.NO_CONTENT: "without a content hash",
    answer_rows.BAD_TIME: "without a time that can be read",
    answer_rows.CORRUPT_ROW: "that cannot be read",
}
"""Outcome -> what is said of its rows."""


def _in_words(record: RunRecord, unknown: list[str]) -> Iterator[str]:
    """Yield what became of the rows, and what was read about each attribute."""
    parts = [f"{number:,} {_WORDS[name]}" for name, number in record.by_reason("outcomes").items()]
    yield f"{record.counts['rows']:,} rows: {', '.join(parts)}"
    if unknown:
        products = record.counts[answer_rows.UNKNOWN_PRODUCTS]
        yield f"warning: the catalog does not have {products:,} of the products, for example {', '.join(unknown)}"
    if kept := record.counts[KEPT]:
        yield (
            f"warning: {kept:,} answers differ from those that this version gave before, which stay: import corrected "
            "answers under another proposals.version, and certify it"
        )
    for name, numbers in (record.attributes or {}).items():
        first = [f"{value!r} ({number:,})" for value, number in list(numbers["unmapped_values"].items())[:5]]
        often = f", most often {', '.join(first)}" if first else ""
        yield (
            f"{name}: {numbers['proposed']:,} products with a proposal; {numbers['without_value']:,} answers say that "
            f"there is no value, {numbers['unreadable']:,} cannot be read; {numbers['bad_score']:,} values without a "
            f"usable score, {numbers['unmapped']:,} that the dictionary does not have{often}"
        )


def _summary(record: RunRecord, status: str, unknown: list[str]) -> dict[str, Any]:
    """Return the job's JSON line: rows = the sum of outcomes. ``new`` are rows of the table, ``kept`` rows that
    stay although the files have another answer."""
    counts = record.counts
    return {
        "job": "import_proposals",
        "run_id": record.run_id,
        "status": status,
        **(record.window or {}),
        "rows": counts["rows"],
        "outcomes": record.by_reason("outcomes"),
        **{name: counts[name] for name in (answer_rows.PRODUCTS, answer_rows.UNKNOWN_PRODUCTS)},
        "unknown_examples": unknown,
        **{name: counts[name] for name in (NEW, KEPT, UNCHANGED)},
        "attributes": record.attributes,
        "seconds": record.stages.seconds,
    }
