"""audit_ingest: reviewers' verdicts become part of the catalog.

    verdicts -> retract, human sets -> estimates -> alarm: pause the attribute; enough: confirm the certificate

Only verdicts that are new, or have changed since, are ingested. The run's id is a hash of them: killed anywhere and
started again it ends the same. The row in `runs`, written last, makes its verdicts count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import consequences, estimates, verdict_table
from catalog_enrichment.audit.review_records import ItemState
from catalog_enrichment.catalog import human_labels, review_tables, runs, switches
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.monitoring.stages import Say, Stages
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.precision.audit_statistics import NO_ROWS, right_rows_missing
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, Op, RunKind, RunStatus, Source, make_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from catalog_enrichment.audit.estimates import AttributeAudit
    from catalog_enrichment.audit.review_records import ItemOutcome
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context
    from catalog_enrichment.precision.audit_statistics import AuditEstimate

_MODEL = Source.MODEL.value

WHO = "audit_ingest"
"""Who moved the switch that an alarm paused."""

Row = dict[str, Any]


def audit_ingest(
    context: Context, store: ReviewStore, dry_run: bool = False, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Ingest the new verdicts. Return the summary. ``config``: options of the commands that it names.

    Raises GateRefused, after everything is written, if these verdicts raised an alarm: its summary is the job's.
    """
    catalog, stages = context.catalog, Stages(context.say)
    record = RunRecord(kind=RunKind.AUDIT, stages=stages, config=context.config.without_secrets())
    with runs.recorded(catalog, record, unless=dry_run):
        if not dry_run:  # a run killed between the ledger's commit and its refresh left readers behind
            catalog.refresh_current_values("catch-up")
        with stages("read") as stage:
            before = review_tables.newest(catalog)
            found = new_verdicts(catalog, store, review_tables.ingested(catalog))
            new, stage.rows_out = found.rows, len(found.rows)
        record.run_id = run_id_of(new)
        now = before | {row["item_id"]: row for row in new}
        audit = _audit(context, before, now, found)
        plan = consequences.ledger_plan(new, before, context.dictionary)
        summary = _summary(record, new, plan, audit)
        labels = human_labels.gold_labels_of(audit.drawn, now.values())
        summary["gold_answers"] = human_labels.gold_counts(labels)
        status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if new else NOTHING_TO_DO
        effects = Counter[consequences.Effect]()
        if new:
            with stages("plan") as stage:
                planned = consequences.planned(catalog, record, plan)
                effects = consequences.count_events(planned)
                stage.rows_out = effects.total()
            record.count(**_counts(summary, effects))
            record.attributes = {"audit": summary["attributes"], "certificates_audited": summary["certificates"]}
            if status == RunStatus.SUCCEEDED:
                _write(catalog, record, new, planned, audit)
                summary["events"] = record.counts["events"]
            catalog.checkpoints.drop(record.run_id)
    _say(context.say, audit, found, effects, config)
    if dry_run:
        context.say("nothing is written: this is a dry run")
    summary |= {"status": status, "seconds": stages.seconds}
    if status == RunStatus.SUCCEEDED and audit.alarms():
        raise GateRefused(_alarm(audit, config), summary)
    return summary


def _write(catalog: Catalog, record: RunRecord, new: Sequence[Row], planned: DataFrame, audit: Audit) -> None:
    """Write the verdicts, the ledger's events, pauses and confirmations, and last the run's row."""
    stages = record.stages
    with stages("land") as stage:
        rows = [row | {"run_id": record.run_id} for row in new]
        stage.rows_out = catalog.append_rows(review_tables.VERDICTS, rows, record.run_id)
    with stages("publish") as stage:
        stage.rows_out = consequences.publish(catalog, record, planned)
        record.count(events=stage.rows_out)
    with stages("conclude"):
        switches.write(catalog, audit.pauses(record.run_id), record.run_id)
        catalog.append_rows(review_tables.CONFIRMATIONS, audit.confirmations(record), record.run_id)
    runs.write(catalog, record)


def run_id_of(rows: Sequence[Row]) -> str:
    """Return the id of the run that ingests these rows of `verdicts`."""
    return make_run_id(RunKind.AUDIT, [[*map(str, sorted(row.items()))] for row in rows])


@dataclass(frozen=True, slots=True)
class NewVerdicts:
    """What the review store says about the drawn items."""

    rows: list[Row]
    """Rows of `verdicts`, without a run: settled items whose answer differs from the answer that was ingested."""
    disputed: set[str]
    """Ids of items."""
    open: set[str]
    """Ids of items that have too few verdicts; suggestions to shops' managers are left out."""

    @property
    def unsettled(self) -> set[str]:
        """Return the ids of the items that wait for verdicts."""
        return self.open | self.disputed


def new_verdicts(catalog: Catalog, store: ReviewStore, ingested: Mapping[str, Row]) -> NewVerdicts:
    """Return what is new in the review store. ``ingested``: item id -> the verdict that was ingested last."""
    known = {row["item_id"] for row in review_tables.drawn(catalog)}
    rows: list[Row] = []
    disputed, not_judged = set[str](), set[str]()
    for sample in store.samples():
        for outcome in store.outcomes(sample.sample_id):
            if outcome.state is ItemState.DISPUTED:
                disputed.add(outcome.item.item_id)
            elif outcome.item.item_id not in known:
                continue
            elif outcome.state is ItemState.OPEN:
                not_judged.add(outcome.item.item_id)
            else:
                row = catalog.names.in_verdict(_row(outcome, sample.purpose.value))
                was = ingested.get(row["item_id"])
                if was is None or any(row[name] != was[name] for name in ("answer", "right_values")):
                    rows.append(row)
    return NewVerdicts(sorted(rows, key=lambda row: str(row["item_id"])), disputed, not_judged)


def _row(outcome: ItemOutcome, purpose: str) -> Row:
    item = outcome.item
    assert outcome.answer is not None
    return {
        "item_id": item.item_id,
        "sample_id": item.sample_id,
        "purpose": purpose,
        "product_id": item.product_id,
        "attribute": item.attribute,
        "value": item.value,
        "answer": outcome.answer.value,
        "right_values": sorted(outcome.right_values),
        "reviewers": list(outcome.reviewers),
        "settled_at": outcome.settled_at,
    }


# --- alarms and confirmations ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The estimates, and the alarms, pauses and confirmations that follow from them."""

    attributes: dict[str, AttributeAudit]
    certificates: dict[tuple[str, str], AuditEstimate]
    """(attribute, certificate id) -> its precision."""
    earlier_alarms: frozenset[tuple[str, str]]
    """Attributes with an alarm by the earlier verdicts, each with its model version."""
    stopped: frozenset[str]
    """Attributes that were paused or off before this run."""
    confirmed: frozenset[str]
    """Ids of the certificates that were confirmed before."""
    target: float
    alpha: float
    drawn: Sequence[Row] = ()
    """All drawn rows of complete samples."""
    missing: Mapping[tuple[str, str], int | None] = field(default_factory=dict)
    """(attribute, certificate id) -> how many further verdicts confirm it if all say that the value is right."""

    def alarms(self) -> list[str]:
        """Return the attributes whose alarm nobody was told of: these verdicts raised it, or it pauses one now."""
        return [
            name
            for name, audit in self.attributes.items()
            if audit.alarm and not ((name, audit.model_version) in self.earlier_alarms and name in self.stopped)
        ]

    def pauses(self, run_id: str) -> list[Switch]:
        """Return the switches of the attributes that an alarm pauses now."""
        return [
            Switch(scope=Scope.ATTRIBUTE, attribute=name, state=State.PAUSED, who=WHO, why=audit.why(), run_id=run_id)
            for name, audit in self.attributes.items()
            if audit.alarm and name not in self.stopped
        ]

    def newly_confirmed(self) -> dict[tuple[str, str], AuditEstimate]:
        """Return the certificates whose lower bound reaches the target, of attributes without an alarm."""
        return {
            (name, certificate): found
            for (name, certificate), found in self.certificates.items()
            if found.lower >= self.target
            and certificate not in self.confirmed
            and name not in self.stopped
            and not (name in self.attributes and self.attributes[name].alarm)
        }

    def state(self, name: str, certificate: str) -> str:
        """Return what the verdicts say about a certificate (:mod:`verdict_table`)."""
        if name in self.stopped:
            return verdict_table.WAS_STOPPED
        if name in self.attributes and self.attributes[name].alarm:
            return verdict_table.PAUSED
        if certificate in self.confirmed:
            return verdict_table.WAS_CONFIRMED
        return verdict_table.CONFIRMED if (name, certificate) in self.newly_confirmed() else verdict_table.OPEN

    def judged_paths(
        self, found: NewVerdicts, effects: Mapping[consequences.Effect, int]
    ) -> list[verdict_table.JudgedPath]:
        """Return a row for people per certificate whose values were drawn."""
        waiting = verdict_table.waiting_by_certificate(self.drawn, found.unsettled)
        concerned = {row["item_id"] for row in found.rows} | found.unsettled
        none_missing = right_rows_missing(NO_ROWS, self.target, self.alpha)

        def changed(key: tuple[str, str], op: Op) -> int:
            return effects.get(consequences.Effect(*key, op.value, Source.MODEL.value), 0)

        return [
            verdict_table.JudgedPath(
                attribute=key[0],
                modality=modality,
                certificate_id=key[1],
                found=self.certificates.get(key),
                state=self.state(*key),
                retracted=changed(key, Op.RETRACT),
                reinstated=changed(key, Op.REINSTATE),
                waiting=waiting[key],
                missing=self.missing.get(key, none_missing),
            )
            for key, modality in verdict_table.certificates_of(self.drawn, concerned).items()
        ]

    def confirmations(self, record: RunRecord) -> list[Row]:
        return [
            {
                "certificate_id": certificate,
                "attribute": name,
                "lower_bound": found.lower,
                "rows": found.rows,
                "wrong": found.wrong,
                "alpha": self.alpha,
                "confirmed_at": record.started_at,
                "run_id": record.run_id,
            }
            for (name, certificate), found in self.newly_confirmed().items()
        ]


def _audit(context: Context, before: Mapping[str, Row], now: Mapping[str, Row], new: NewVerdicts) -> Audit:
    """Estimate. ``before``, ``now``: item id -> the verdict that counted until now, and that counts from now on."""
    catalog, rule = context.catalog, context.config.precision
    drawn, of_one_run = review_tables.drawn(catalog), review_tables.of_one_run(review_tables.sample_windows(catalog))
    switched_on = {
        switch.attribute: switch.at
        for switch in switches.history(catalog)
        if switch.scope is Scope.ATTRIBUTE and switch.state is State.ON and switch.at is not None
    }

    def alarms(items: list[estimates.ReviewedItem]) -> dict[str, AttributeAudit]:
        return estimates.by_attribute(items, switched_on, 1 - rule.target)

    items = estimates.counting_items(drawn, now, new.disputed, of_one_run)
    earlier = alarms(estimates.counting_items(drawn, before, new.disputed, of_one_run))
    return Audit(
        attributes=alarms(items),
        certificates=estimates.by_certificate(items, rule.delta),
        earlier_alarms=frozenset((name, audit.model_version) for name, audit in earlier.items() if audit.alarm),
        stopped=stopped_attributes(catalog),
        confirmed=review_tables.confirmed(catalog),
        target=rule.target,
        alpha=rule.delta,
        drawn=drawn,
        missing=estimates.missing_by_certificate(items, rule.target, rule.delta),
    )


def stopped_attributes(catalog: Catalog) -> frozenset[str]:
    """Return the attributes that are paused or off, by people or by runs that have finished.

    A pause by a run that was killed, this run among them, does not count: nobody was told of it.
    """
    finished = runs.succeeded_ids(catalog)
    not_on = switches.read(catalog).of(Scope.ATTRIBUTE, State.PAUSED, State.OFF)
    return frozenset(switch.attribute for switch in not_on if switch.run_id is None or switch.run_id in finished)


# --- for people -----------------------------------------------------------------------------------------------------


def _summary(record: RunRecord, new: Sequence[Row], plan: consequences.LedgerPlan, audit: Audit) -> dict[str, Any]:
    return {
        "run_id": record.run_id if new else None,
        "verdicts": len(new),
        "answers": dict(sorted(Counter(row["answer"] for row in new).items())),
        "refused": len(plan.refused),
        "human_sets": sum(bool(values) and values != consequences.NOTHING for values in plan.human.values()),
        "without_value": sum(values == consequences.NOTHING for values in plan.human.values()),
        "unknown_values": plan.unknown,
        "events": 0,
        "attributes": {name: found.to_dict() for name, found in audit.attributes.items()},
        "certificates": {
            certificate: {"attribute": name} | asdict(found)
            for (name, certificate), found in audit.certificates.items()
        },
        "confirmed": sorted(certificate for _, certificate in audit.newly_confirmed()),
        "alarms": audit.alarms(),
        "paused": [str(switch) for switch in audit.pauses(record.run_id)],
    }


def _counts(summary: Row, effects: Mapping[consequences.Effect, int]) -> dict[str, int]:
    """Return the numbers of the run's row: what list_runs shows of it."""

    def events(op: Op) -> int:
        return sum(number for effect, number in effects.items() if (effect.op, effect.source) == (op.value, _MODEL))

    return {
        "verdicts": summary["verdicts"],
        "wrong": sum(number for answer, number in summary["answers"].items() if answer in review_tables.WRONG),
        "retracted": events(Op.RETRACT),
        "reinstated": events(Op.REINSTATE),
        "human_sets": summary["human_sets"] + summary["without_value"],
        "confirmed": len(summary["confirmed"]),
        "paused": len(summary["paused"]),
    }


def _say(
    say: Say, audit: Audit, found: NewVerdicts, effects: Mapping[consequences.Effect, int], config: Sequence[str]
) -> None:
    """Print the table for people, and the commands that are next."""
    paths = audit.judged_paths(found, effects)
    if not found.rows:
        say("no verdict is new or has changed since the last audit_ingest")
    if paths:
        say(f"\n{verdict_table.as_table(paths)}\n")
    samples = len({row["sample_id"] for row in audit.drawn})
    for line in verdict_table.next_steps(paths, found.rows, len(found.unsettled), samples, config):
        say(line)


def _alarm(audit: Audit, config: Sequence[str]) -> str:
    """Return the message of an alarm, with the commands that follow."""
    lines = []
    for name in audit.alarms():
        certificates = [certificate for attribute, certificate in audit.certificates if attribute == name]
        back = "; ".join(
            command("rollback_run", [*config, "--certificate", certificate]) for certificate in certificates
        )
        sample = command("audit_sample", [*config, "--attribute", name])
        lines.append(
            f"{name} is paused: {audit.attributes[name].why()}. Nothing new is written until it is certified again: "
            f"draw a new sample ({sample}), judge it, then recertify_model. To take back what was written: {back}. "
            "Draw and judge before you take back: what is taken back cannot be drawn"
        )
    return "\n".join(lines)
