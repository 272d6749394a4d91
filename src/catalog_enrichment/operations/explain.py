"""Explains a value: who wrote it or why there is none, with which certificate, its history, and how to undo it.

Also looks up what the other operations need: a product, an attribute, and the newest set that a person gave.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from catalog_enrichment import reasons
from catalog_enrichment.catalog import ledger, renames, review_tables, runs, switches
from catalog_enrichment.catalog.switches import Scope, State, Switches
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import commands, used_certificates, value_history
from catalog_enrichment.operations.commands import ANY_CONFIG, UndoOption
from catalog_enrichment.operations.used_certificates import UsedCertificate
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate, is_below
from catalog_enrichment.reasons import PROPOSER_KEY, Reason
from catalog_enrichment.records import Cardinality, Decision, Modality, QuarantineStage, Source
from catalog_enrichment.web.pages import when

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context

Row = Mapping[str, Any]

_OF_THE_RUN = ("attributes", "config")
"""Columns of a decision's run that are not a part of the decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonSet:
    """The newest active set that a person gave for one attribute of a product."""

    values: tuple[str, ...]
    """Sorted; empty if the person said that there is no value."""
    run_id: str
    by: str | None = None
    """The person's name; None where the run's row in `runs` is missing or does not say it."""
    reason: str | None = None

    @property
    def who_and_why(self) -> str:
        return ": ".join(part for part in (self.by, self.reason) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueFacts:
    """The rows of the tables about a product and an attribute."""

    product: Row
    attribute: Attribute
    current: Row | None
    """The row of `current_values`: what readers see."""
    decisions: Sequence[Row]
    """Rows of `predictions` with ``decided_at`` and _OF_THE_RUN, newest run first, by rank."""
    history: Sequence[Row]
    """Ledger events, oldest first."""
    quarantined: Sequence[Row] = ()
    """Quarantine rows of the product, newest first."""
    rolled_back: Collection[str] = ()
    """Ids of the runs whose work on the attribute is rolled back."""
    person: PersonSet | None = None
    """The set that a person gave, also where the merchant's value is seen."""
    switched: Switches = field(default_factory=Switches)
    confirmed: Mapping[str, Row] = field(default_factory=dict)
    """Id of each certificate that an audit has confirmed -> the row of `confirmations`."""

    @property
    def name(self) -> str:
        return self.attribute.name

    @property
    def removed(self) -> bool:
        """Readers see no value because a person said that there is none."""
        return self.current is None and self.person is not None and not self.person.values

    @property
    def by_person(self) -> bool:
        return self.removed or (self.current is not None and self.current["source"] == Source.HUMAN.value)

    @property
    def run_to_undo(self) -> str | None:
        """The run that gave what readers see, or by which a person said that there is no value."""
        if self.current is not None:
            run_id: str | None = self.current["run_id"]
            return run_id
        return self.person.run_id if self.removed and self.person else None

    @property
    def merchant_values(self) -> list[str]:
        return list((self.product["merchant_attributes"] or {}).get(self.name) or ())


def explain_value(
    context: Context, product_id: str, attribute: str, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Return who wrote a product's value or why there is none, its certificate and history, and how to undo it.

    ``config``: options of the commands that undo it. Raises ConfigError for a product or attribute that the catalog
    does not know.
    """
    facts = _facts(context.catalog, product_id, _attribute_of(context, attribute))
    renamed = renames.about(context.catalog, attribute)
    wanted = facts.current["certificate_id"] if facts.current else None
    certificate = None if facts.by_person else used_certificates.used(facts.decisions, wanted, facts.confirmed)
    options = _undo_options(context.catalog, facts, config)
    explained = {
        "product_id": product_id,
        "title": facts.product["title"],
        "attribute": attribute,
        "merchant_values": facts.merchant_values,
        "current": facts.current,
        "person": asdict(facts.person) if facts.person else None,
        "why": why(facts, context.config.enrich),
        "evidence": value_history.evidence_of(facts.current, facts.history, facts.product),
        "certificate": certificate.to_dict() if certificate else None,
        "certificate_numbers": certificate.numbers(context.config.precision.provisional_cap) if certificate else [],
        "history": facts.history,
        "renames": renamed,
        "decisions": [{k: v for k, v in row.items() if k not in _OF_THE_RUN} for row in facts.decisions],
        "undo": options[0].command if options else None,
        "undo_options": [asdict(option) for option in options],
    }
    for line in [*_in_words(explained, facts, certificate), *(f"  {option.in_words()}" for option in options)]:
        context.say(line)
    return explained


# --- look up --------------------------------------------------------------------------------------------------------


def known_attribute(dictionary: Dictionary, name: str) -> Attribute:
    """Return the attribute. Raises ConfigError if it is not in the dictionary."""
    if name not in dictionary:
        raise ConfigError(f"no attribute {name!r} in the dictionary; it has {sorted(dictionary.attributes)}")
    return dictionary[name]


def _attribute_of(context: Context, name: str) -> Attribute:
    """Return the attribute, also if it has left the dictionary, then without values. Raises ConfigError if neither the
    dictionary nor the ledger knows it."""
    from pyspark.sql import functions as F

    if name not in context.dictionary:
        events = context.catalog.read("attribute_values", columns=["attribute"])
        if not events.where(F.col("attribute") == name).isEmpty():
            return Attribute(name=name, cardinality=Cardinality.MANY, values=())
    return known_attribute(context.dictionary, name)


def known_product(catalog: Catalog, product_id: str, attribute: str) -> dict[str, Any]:
    """Return the product's row without pictures. Raises ConfigError, with the reason if an import refused the row."""
    from pyspark.sql import functions as F

    product = rows_about(catalog, "products", product_id).drop("images").first()
    if product is not None:
        return dict(product.asDict())
    where = f"no product {product_id!r} in the catalog ({catalog.location('products')})"
    rows = rows_about(catalog, "quarantine", product_id)
    refused = rows.where(F.col("stage") == QuarantineStage.IMPORT.value)
    newest = refused.orderBy(F.desc("quarantined_at")).first()
    if newest is not None:
        case = reasons.Case(attribute=attribute, detail=newest["detail"] or "")
        raise ConfigError(f"{where}: {reasons.sentence(Reason(newest['reason']), case)}")
    events = rows_about(catalog, "attribute_values", product_id)
    gone = events.where(F.col("reason") == Reason.PRODUCT_GONE.value)
    gone = gone.orderBy(F.desc("asserted_at")).first()
    raise ConfigError(f"{where}: run {gone['run_id']} removed it on {when(gone['asserted_at'])}" if gone else where)


def events_about(catalog: Catalog, product_id: str, attribute: str) -> DataFrame:
    """Return the ledger's events about one attribute of a product: all that a replay of its values needs."""
    from pyspark.sql import functions as F

    return rows_about(catalog, "attribute_values", product_id).where(F.col("attribute") == attribute)


def rows_about(catalog: Catalog, table: str, product_id: str) -> DataFrame:
    """Return the rows of the table about the product."""
    import pyarrow as pa

    return catalog.read(table, ids=pa.array([product_id], pa.string()))


def person_set(catalog: Catalog, active: DataFrame) -> PersonSet | None:
    """Return the newest set of a person among ``active``, assert events about one attribute of one product."""
    from pyspark.sql import functions as F

    newest = ledger.newest_sets(active.where(F.col("source") == Source.HUMAN.value)).first()
    if newest is None:
        return None
    run = runs.find(catalog, newest["run_id"])
    return person_set_of(newest["values"], newest["run_id"], run["window"] if run else None)


def person_set_of(values: Collection[str], run_id: str, window: str | None) -> PersonSet:
    """Return the set of the ledger's ``values``. ``window``: the column of the run's row in `runs`, if it has one."""
    asked = json.loads(window or "{}")
    given = () if ledger.NO_VALUE in values else tuple(sorted(values))
    return PersonSet(values=given, run_id=run_id, by=asked.get("by"), reason=asked.get("reason"))


def seen_in_words(current: Row | None, person: PersonSet | None) -> str:
    """Say what readers see and who gave it. ``current``: the row of `current_values`, None if they see no value."""
    if current is None and person is not None and not person.values:
        return f"no value, as {person.by or 'a person'} said in run {person.run_id}"
    if current is None:
        return "no value"
    by = f"model version {current['model_version']}, run {current['run_id']}"
    if current["source"] == Source.MERCHANT.value:
        by = "the merchant"
    elif current["source"] == Source.HUMAN.value:
        by = f"{(person.by if person else None) or 'a person'}, run {current['run_id']}"
    return f"{', '.join(current['values'])}, by {by}"


def _facts(catalog: Catalog, product_id: str, attribute: Attribute) -> ValueFacts:
    from pyspark.sql import functions as F

    rows, of_this = partial(rows_about, catalog, product_id=product_id), F.col("attribute") == attribute.name
    product = known_product(catalog, product_id, attribute.name)
    quarantine = rows(table="quarantine").where(F.col("stage") == QuarantineStage.DECODE.value)
    finished = runs.latest_attempts(catalog).select("run_id", F.col("finished_at").alias("decided_at"), *_OF_THE_RUN)
    decisions = rows(table="predictions").where(of_this).join(finished, "run_id")
    current = rows(table="current_values").where(of_this).first()
    events = events_about(catalog, product_id, attribute.name)
    return ValueFacts(
        product=product,
        attribute=attribute,
        current=current.asDict() if current else None,
        decisions=[_with_proposer(row.asDict()) for row in decisions.orderBy(F.desc("decided_at"), "rank").collect()],
        history=[row.asDict() for row in ledger.history(events, product_id, attribute.name).collect()],
        quarantined=[row.asDict() for row in quarantine.orderBy(F.desc("quarantined_at")).collect()],
        person=person_set(catalog, ledger.active(events)),
        rolled_back=runs.rolled_back(catalog, [attribute.name]).get(attribute.name, ()),
        switched=switches.read(catalog),
        confirmed=review_tables.confirmations(catalog),
    )


# --- why ------------------------------------------------------------------------------------------------------------


def why(facts: ValueFacts, rules: EnrichConfig) -> str:
    """Say why readers see this value or none, why newer facts have not changed it, and what would.

    ``rules``: the disabled shops and categories of the config.
    """
    return " ".join(f"{sentence}." for sentence in _sentences(facts, rules))


def _sentences(facts: ValueFacts, rules: EnrichConfig) -> list[str]:
    current, newest = facts.current, next(iter(facts.decisions), None)
    if current and current["source"] == Source.MERCHANT.value:
        return [reasons.merchant_gave(facts.merchant_values), *_no_values(facts)]
    if facts.by_person:
        reason = Reason.REMOVED_BY_PERSON if facts.removed else Reason.SET_BY_PERSON
        who_and_why = facts.person.who_and_why if facts.person else ""
        return [reasons.sentence(reason, reasons.Case(attribute=facts.name, detail=who_and_why))]
    if current:
        return list(_why_active(facts, current, rules))
    if not_decided := _why_not_decided(facts, rules):
        return [not_decided]
    content = facts.product["content_hash"]
    changed = newest is None or newest["content_hash"] != content
    refused = [row for row in facts.quarantined if changed and row["content_hash"] == content]
    if refused:
        detail = f"{refused[0]['reason']}: {refused[0]['detail']}"
        return [reasons.sentence(Reason.ALREADY_QUARANTINED, reasons.Case(attribute=facts.name, detail=detail))]
    if newest is None:
        return [reasons.never_scored(facts.name)]
    if _published(newest):  # and readers see nothing
        return [_why_retracted(facts)]
    about = [_why_decided(facts, newest)]
    last = value_history.last_retract(facts.history)
    if last is not None and last["reason"] == Reason.CATEGORY_CHANGED.value:
        about.append(reasons.sentence(Reason.CATEGORY_CHANGED, reasons.Case(attribute=facts.name)))
    if newest["reason"] == Reason.PROVISIONAL_CAP.value and newest["certificate_id"] in facts.confirmed:
        about.append(reasons.CONFIRMED_SINCE)
    return [*about, "The content has changed since: the next run decides"] if changed else about


def _no_values(facts: ValueFacts) -> list[str]:
    """Return a sentence for each of the merchant's texts that is no number or text of the attribute."""
    attribute, language = facts.attribute, facts.product["language"]
    unread = [value for value in facts.merchant_values if attribute.is_open and attribute.renewed(value) is None]
    return [reasons.no_value_given(value, attribute.why_not(value, language) or "") for value in unread]


def _why_active(facts: ValueFacts, current: Row, rules: EnrichConfig) -> Iterator[str]:
    """Yield sentences about a model value that readers see: who wrote it, and why newer facts have not changed it."""
    run_id = current["run_id"]
    written = [row for row in facts.decisions if row["run_id"] == run_id and _published(row)]
    yield _why_decided(facts, written[0]) if written else reasons.decision_not_stored(current["values"], run_id)
    newest = next(iter(facts.decisions), None)
    if newest and newest["run_id"] in facts.rolled_back:
        yield reasons.seen_after_rollback(newest["run_id"], newest["value"] if _published(newest) else None)
    in_force = [row for row in facts.decisions if row["run_id"] not in facts.rolled_back]
    if in_force and in_force[0]["run_id"] != run_id:
        yield "It stands, although in the newest decision " + _why_decided(facts, in_force[0])
    contents = {event["content_hash"] for event in facts.history if event["run_id"] == run_id}
    if not_decided := _why_not_decided(facts, rules):
        yield "The next run retracts it: " + not_decided
    elif contents and facts.product["content_hash"] not in contents:
        yield "It was written for older content: the next run decides on the new content, or retracts it"


def _why_not_decided(facts: ValueFacts, rules: EnrichConfig) -> str:
    """Say why no run decides the attribute of this product, in the order of :mod:`enrichment.select`; "" if runs do."""
    product, category = facts.product, facts.product["category"] or ""
    case = reasons.Case(attribute=facts.name, category=category, shop=product["shop_id"])
    if product["opt_out"]:
        return reasons.sentence(Reason.OPTED_OUT, case)
    if product["shop_id"] in rules.disabled_shops:
        return reasons.sentence(Reason.SHOP_DISABLED, case)
    if not facts.attribute.values and not facts.attribute.is_open:
        return reasons.attribute_removed(facts.name)
    if not facts.attribute.enabled:
        return reasons.attribute_disabled(facts.name)
    if not facts.attribute.applies_to(product["category"]):
        return reasons.sentence(Reason.NOT_APPLICABLE, case)
    for root in rules.disabled_categories:
        if is_below(category, root):
            return reasons.category_disabled(root)
    for switch in facts.switched.entries:
        concerns = {
            Scope.ATTRIBUTE: switch.attribute == facts.name,
            Scope.SHOP: switch.target == product["shop_id"],
            Scope.CATEGORY: is_below(category, switch.target),
        }
        if switch.state is State.OFF and concerns.get(switch.scope, False):
            return reasons.switched_off(str(switch), switch.who, switch.why)
    return ""


def _why_decided(facts: ValueFacts, decision: Row) -> str:
    """Return the sentence of a decision's reason."""
    if decision["reason"] == Reason.HUMAN_VALUE_STANDS.value and facts.person is None:
        return reasons.person_took_back(facts.name)
    content = used_certificates.recorded(decision, decision["certificate_id"])
    certificate = Certificate.from_dict(content) if content else None
    images = json.loads(decision["config"] or "{}").get("images", {})
    case = reasons.Case(
        attribute=facts.name,
        value=decision["value"],
        score=decision["score"],
        products=claim.PATHS[Modality(decision["modality"])],
        certificate=certificate,
        unseen=claim.unseen(certificate, [decision["category"] or ""], [decision["language"] or ""])
        if certificate
        else "",
        differing=claim.differing_fields(certificate, decision["compute_type"], images) if certificate else (),
        merchant_values=facts.merchant_values,
    )
    return reasons.sentence(Reason(decision["reason"]), case)


def _why_retracted(facts: ValueFacts) -> str:
    """Say why a value that was published is not there, by the last event in force that took a value back."""
    last = value_history.last_retract(facts.history)
    if last is None or last["reason"] is None:
        return reasons.never_scored(facts.name)
    return reasons.sentence(Reason(last["reason"]), reasons.Case(attribute=facts.name))


def _published(decision: Row) -> bool:
    return bool(decision["decision"] == Decision.PUBLISH.value)


# --- undo, text -------------------------------------------------------------------------------------------------------


def _with_proposer(decision: dict[str, Any]) -> dict[str, Any]:
    return decision | {"proposer": json.loads(decision["attributes"] or "{}").get(PROPOSER_KEY)}


def _undo_options(catalog: Catalog, facts: ValueFacts, config: Sequence[str]) -> list[UndoOption]:
    if (run_id := facts.run_to_undo) is None:
        taken_back = value_history.last_retract(facts.history)
        if facts.current is not None or taken_back is None or taken_back["undoes"] is None:
            return []
        return [commands.undo_of_rollback(taken_back["run_id"], config)]
    key = (facts.product["product_id"], facts.name)
    return commands.undo_options(key, run_id, facts.by_person, commands.count_others(catalog, run_id, *key), config)


def _in_words(explained: dict[str, Any], facts: ValueFacts, certificate: UsedCertificate | None) -> Iterator[str]:
    yield f"{explained['product_id']}: {explained['title']}"
    yield f"{explained['attribute']}: {seen_in_words(facts.current, facts.person)}"
    yield f"  why: {explained['why']}"
    yield from (f"  {told['sentence']}" for told in explained["evidence"])
    for decision in explained["decisions"][:5]:
        against = f", threshold {decision['threshold']:.3f}" if decision["threshold"] is not None else ""
        who = f" ({decision['proposer']})" if decision["proposer"] else ""
        proposed = f"{decision['value']!r}, score {decision['score']:.3f}" if decision["value"] else "nothing"
        yield (
            f"  {when(decision['decided_at'])} version {decision['model_version']}{who} proposed {proposed}{against}: "
            f"{decision['decision']} ({decision['reason']})"
        )
        if decision["evidence"]:
            yield f"    evidence: {decision['evidence']}"
    if certificate:
        yield from (f"  {line}" for line in certificate.in_words())
        for number in explained["certificate_numbers"]:
            yield f"    {number['name']} {number['value']}: {number['meaning']}"
    for line in value_history.in_words(explained["history"]):
        yield f"  {line}"
    for row in explained["renames"]:
        yield f"  {when(row['renamed_at'])} {row['was']!r} was renamed to {row['value']!r}, run {row['run_id']}"
