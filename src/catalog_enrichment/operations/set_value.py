"""Sets the values of an attribute of a product that a person gives, or that it has none (source human).

What a person says comes before what models write, now and later: a model abstains with the reason human_value_stands.
It does not come before the merchant's value (I1), so where the merchant gives a value nothing is written. A new set of
a person replaces the older set as a whole; `rollback_run` takes a set back, and readers see again what they saw before.

`--remove` asserts that there is no value (:data:`catalog_enrichment.catalog.ledger.NO_VALUE`) instead of retracting the
model's: a retraction would hold only until another model version or other content is decided.
"""

from __future__ import annotations

import difflib
import getpass
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment import reasons
from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.masking import masked
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import explain
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.operations.explain import PersonSet
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, Cardinality, RunKind, RunStatus, Source, make_run_id
from catalog_enrichment.values import numbers
from catalog_enrichment.values.spelling import spelling

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context

SHOWN_VALUES = 20
"""Most values of an attribute that an error message lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """A person's request."""

    product_id: str
    attribute: str
    values: tuple[str, ...] = ()
    """The whole set, as typed; empty with ``remove``."""
    as_stored: bool = False
    """The values have been read in the product's language already, and are as they are stored."""
    remove: bool = False
    """The product has no value."""
    by: str
    """The person's name."""
    reason: str | None = None

    def check(self, dictionary: Dictionary) -> None:
        """Raise ConfigError for a request that cannot be meant, without a look at the catalog."""
        attribute = explain.known_attribute(dictionary, self.attribute)
        if bool(self.values) == self.remove:
            raise ConfigError("name the right VALUE, or --remove where the product has none; not both")
        if not self.by.strip():
            raise ConfigError("--by needs a name")
        if self.values and not attribute.enabled:
            raise ConfigError(reasons.attribute_disabled(attribute.name))
        problems = []
        languages = numbers.LANGUAGE_OF_MARK.values() if attribute.number else (None, *sorted(attribute.aliases))
        for language in languages:  # the product's language is not known yet
            try:
                self.canonical_values(attribute, language)
            except ConfigError as problem:
                problems.append(problem)
            else:
                return
        raise problems[0]

    def canonical_values(self, attribute: Attribute, language: str | None) -> list[str]:
        """Return the dictionary's values for the typed ones, sorted.

        Raises ConfigError for an unknown spelling, and for several values of an attribute with one value.
        """
        language = None if self.as_stored and attribute.is_open else language
        values = sorted({_canonical(attribute, value, language) for value in self.values})
        if attribute.cardinality is Cardinality.ONE and len(values) > 1:
            raise ConfigError(f"{attribute.name} has one value per product, and these are {len(values)}: {values}")
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueBefore:
    """The state of the product and attribute before the correction."""

    product: Mapping[str, Any]
    current: Mapping[str, Any] | None
    """What readers see (contract `current_values`), derived now."""
    person: PersonSet | None


def _canonical(attribute: Attribute, given: str, language: str | None) -> str:
    if value := attribute.canonical(given, language):
        return value
    if attribute.is_open:
        raise ConfigError(f"{given!r} is no value of {attribute.name}: {attribute.why_not(given, language)}")
    spellings = attribute.spellings(language)
    close = difflib.get_close_matches(spelling(given, language), spellings, n=10)
    if nearest := list(dict.fromkeys(spellings[name] for name in close))[:3]:
        known = f"the nearest are {nearest}"
    else:
        more = len(attribute.values) - SHOWN_VALUES
        known = f"it has {list(attribute.values[:SHOWN_VALUES])}" + (f" and {more:,} more" if more > 0 else "")
    raise ConfigError(f"{given!r} is no value of {attribute.name} in the dictionary; {known}")


def login_name() -> str:
    """Return the name of the user who runs the program; their number where they have no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def set_value(
    context: Context, correction: Correction, dry_run: bool = False, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Write what a person says, unless a person has said it already. Return the summary.

    ``config``: options of the command that undoes it. The row in `runs` says who and why. Raises ConfigError for an
    unknown product, attribute or value, and GateRefused where the merchant gives a value.
    """
    catalog, say, stages = context.catalog, context.say, Stages(context.say)
    record = RunRecord(kind=RunKind.SET_VALUE, stages=stages, secrets=context.config.secrets())
    record.window = _window(correction, correction.values, record.secrets)
    with runs.recorded(catalog, record, unless=dry_run):
        correction.check(context.dictionary)
        with stages("look up"):
            before = _before(catalog, correction)
            values = _allowed_values(correction, context.dictionary[correction.attribute], before)
            record.window = _window(correction, values, record.secrets)
            said = _as_said_now(before.person, context.dictionary[correction.attribute])
            record.run_id, said_before = _identify(catalog, correction, values, said)
        say(f"{correction.product_id}: {before.product['title']}")
        say(f"{correction.attribute} is: {explain.seen_in_words(before.current, before.person)}")
        status: str = DRY_RUN if dry_run else NOTHING_TO_DO if said_before else RunStatus.SUCCEEDED
        if status == RunStatus.SUCCEEDED:
            with stages("publish") as stage:
                stage.rows_out = _publish(catalog, record, before.product, correction.attribute, values)
                record.count(events={correction.attribute: stage.rows_out})
            runs.write(catalog, record)
    undo = None if dry_run and not said_before else command("rollback_run", [*config, "--run-id", record.run_id])
    for line in _in_words(correction, values, said_before, dry_run):
        say(line)
    if undo:
        say(f"to undo: {undo}")
    return {
        "status": status,
        "run_id": record.run_id,
        "product_id": correction.product_id,
        "attribute": correction.attribute,
        "before": {name: (before.current or {}).get(name) for name in ("values", "source", "run_id")},
        "after": {"values": values, "source": Source.HUMAN.value},
        "undo": undo,
        "seconds": stages.seconds,
    }


def _before(catalog: Catalog, correction: Correction) -> ValueBefore:
    """Return the state by the products and the ledger: `current_values` may be behind after a run that was killed."""
    from pyspark.sql import functions as F

    product = explain.known_product(catalog, correction.product_id, correction.attribute)
    active = ledger.active(explain.events_about(catalog, correction.product_id, correction.attribute))
    seen = ledger.current_values(explain.rows_about(catalog, "products", correction.product_id), active)
    current = seen.where(F.col("attribute") == correction.attribute).first()
    person = explain.person_set(catalog, active)
    return ValueBefore(product=product, current=current.asDict() if current else None, person=person)


def _allowed_values(correction: Correction, attribute: Attribute, before: ValueBefore) -> list[str]:
    """Return the values to write, in the product's language. Raises ConfigError and GateRefused."""
    product, current = before.product, before.current
    if current is not None and current["source"] == Source.MERCHANT.value:
        raise GateRefused(f"{reasons.merchant_gave(current['values'])}: it is corrected in the merchant's feed")
    if correction.values and not attribute.applies_to(product["category"]):
        case = reasons.Case(attribute=attribute.name, category=product["category"] or "")
        raise ConfigError(reasons.sentence(Reason.NOT_APPLICABLE, case))
    return correction.canonical_values(attribute, product["language"])


def _window(correction: Correction, values: Sequence[str], secrets: Collection[str]) -> dict[str, Any]:
    """Return the column `window` of the run's row."""
    asked = {"product_id": correction.product_id, "attribute": correction.attribute, "values": list(values)}
    return asked | {"by": correction.by, "reason": masked(correction.reason, secrets) if correction.reason else None}


def _as_said_now(person: PersonSet | None, attribute: Attribute) -> PersonSet | None:
    """Return the set that a person gave, as the dictionary prints its values now: in another unit, it is the same
    set. Another spelling of a text is another set, so that a person can correct the spelling."""
    if person is None or not attribute.is_open:
        return person
    return replace(person, values=tuple(attribute.renewed(value) or value for value in person.values))


def _identify(
    catalog: Catalog, correction: Correction, values: Sequence[str], person: PersonSet | None
) -> tuple[str, bool]:
    """Return the run's id, and whether a person has said the same already: then it is the id of that run.

    A run that was killed after its commit to the ledger has no row yet: it gets its id again and is finished.
    """
    ids = [make_run_id(RunKind.SET_VALUE, correction.product_id, correction.attribute, list(values))]
    while catalog.committed("attribute_values", ids[-1]):  # said before, and replaced or taken back since
        ids.append(make_run_id(RunKind.SET_VALUE, ids[-1], "again"))
    if person is None or set(person.values) != set(values):
        return ids[-1], False
    return person.run_id, person.run_id not in ids or person.run_id in runs.succeeded_ids(catalog)


def _publish(
    catalog: Catalog, record: RunRecord, product: Mapping[str, Any], attribute: str, values: Sequence[str]
) -> int:
    """Commit the events, then derive what readers see of the product. Return how many events the run wrote."""
    at = catalog.next_asserted_at(record.started_at)
    events = ledger.human_assertions(product, attribute, values, ledger.RunStamp(record.run_id, None, None, at))
    written = catalog.append_rows("attribute_values", events, record.run_id)
    catalog.refresh_current_values(record.run_id, explain.rows_about(catalog, "products", product["product_id"]))
    return written


def _in_words(correction: Correction, values: Sequence[str], said_before: bool, dry_run: bool) -> list[str]:
    name = correction.attribute
    what = f"{', '.join(values)}, by {correction.by}" if values else f"no value, as {correction.by} said"
    if said_before:
        return ["nothing is written: a person has said so already"]
    if dry_run:
        return [f"{name} would be: {what}", "nothing is written: this is a dry run"]
    return [f"{name} is now: {what}"]
