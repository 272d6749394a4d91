"""audit_ingest: what reviewers said becomes part of the catalog.

    verdicts -> retract, human sets -> estimates -> alarm: pause the attribute; enough: confirm the certificate

Only verdicts that are new, or have changed since, are taken. The run's id is a hash of them: killed anywhere and
started again it ends as if it had not been. The row in `runs`, written last, makes its verdicts count.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import consequences, estimates
from catalog_enrichment.audit.items import ItemState
from catalog_enrichment.catalog import gold_labels, runs, switches, verdicts
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations.commands import command
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunKind, RunStatus, make_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from catalog_enrichment.audit.estimates import AttributeAudit, ReviewedItem
    from catalog_enrichment.audit.items import Outcome
    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.context import Context
    from catalog_enrichment.precision.audit import AuditEstimate

WHO = "audit_ingest"
"""Who moved the switch, of an alarm."""

Row = dict[str, Any]


def audit_ingest(
    context: Context, store: ReviewStore, dry_run: bool = False, config: Sequence[str] = ("--config", "FILE")
) -> dict[str, Any]:
    """Take in the new verdicts; returns the summary. ``config``: options of the commands that it names.

    Raises GateRefused, after everything is written, if these verdicts raised an alarm: its summary is the job's.
    """
    catalog, stages = context.catalog, Stages(context.say)
    record = RunRecord(kind=RunKind.AUDIT, stages=stages, config=context.config.without_secrets())
    with runs.recorded(catalog, record, unless=dry_run):
        if not dry_run:  # a run killed between the ledger's commit and its refresh left readers behind
            catalog.refresh_current_values("catch-up")
        with stages("read") as stage:
            before = verdicts.newest(catalog)
            new, disputed = new_verdicts(catalog, store, verdicts.ingested(catalog))
            stage.rows_out = len(new)
        record.run_id = make_run_id(RunKind.AUDIT, [[*map(str, sorted(row.items()))] for row in new])
        audit = _audit(context, before, before | {row["item_id"]: row for row in new}, disputed)
        plan_ = consequences.wanted(new, before, context.dictionary)
        summary = _summary(record, new, plan_, audit)
        said = (before | {row["item_id"]: row for row in new}).values()
        summary["gold_answers"] = gold_labels.counts(gold_labels.labels_of(verdicts.drawn(catalog), said))
        if dry_run or not new:
            return summary | {"status": DRY_RUN if dry_run else NOTHING_TO_DO, "seconds": stages.seconds}
        with stages("land") as stage:
            rows = [row | {"run_id": record.run_id} for row in new]
            stage.rows_out = catalog.append_rows(verdicts.VERDICTS, rows, record.run_id)
        with stages("publish") as stage:
            stage.rows_out = consequences.publish(catalog, record, plan_)
            record.count(events=stage.rows_out, verdicts=len(new))
        with stages("conclude"):
            switches.write(catalog, audit.pauses(record.run_id), record.run_id)
            catalog.append_rows(verdicts.CONFIRMATIONS, audit.confirmations(record), record.run_id)
        record.attributes = {"audit": summary["attributes"], "certificates_audited": summary["certificates"]}
        runs.write(catalog, record)
    summary |= {"status": RunStatus.SUCCEEDED, "events": record.counts["events"], "seconds": stages.seconds}
    if audit.alarms():
        raise GateRefused(_alarm(audit, config), summary)
    return summary


def new_verdicts(catalog: Catalog, store: ReviewStore, ingested: Mapping[str, Row]) -> tuple[list[Row], set[str]]:
    """Rows of `verdicts`, without a run, of settled items of drawn samples that say another thing than what was
    ``ingested``; and the ids of disputed items."""
    known = {row["item_id"] for row in verdicts.drawn(catalog)}
    rows, disputed = [], set()
    for sample in store.samples():
        for outcome in store.outcomes(sample.sample_id):
            if outcome.state is ItemState.DISPUTED:
                disputed.add(outcome.item.item_id)
            elif outcome.state is ItemState.SETTLED and outcome.item.item_id in known:
                row = _row(outcome, sample.purpose.value)
                was = ingested.get(row["item_id"])
                if was is None or any(row[name] != was[name] for name in ("answer", "right_values")):
                    rows.append(row)
    return sorted(rows, key=lambda row: str(row["item_id"])), disputed


def _row(outcome: Outcome, purpose: str) -> Row:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    """What was so before this run."""

    alarms: frozenset[tuple[str, str]]
    """Attributes with an alarm by the earlier verdicts, each with its model version."""
    stopped: frozenset[str]
    """Attributes that are paused or off."""
    confirmed: frozenset[str]
    """Ids of certificates."""


class Audit:
    """The estimates, and what follows from them."""

    def __init__(
        self,
        attributes: dict[str, AttributeAudit],
        certificates: dict[tuple[str, str], AuditEstimate],
        before: Active,
        rule: tuple[float, float],
    ) -> None:
        """``rule``: target and alpha."""
        self.attributes, self.certificates = attributes, certificates
        self._before, (self._target, self.alpha) = before, rule

    def alarms(self) -> list[str]:
        """The attributes with an alarm that nobody was told of: these verdicts raised it, or it pauses one now."""
        return [
            name
            for name, one in self.attributes.items()
            if one.alarm and not ((name, one.model_version) in self._before.alarms and name in self._before.stopped)
        ]

    def pauses(self, run_id: str) -> list[Switch]:
        """The attributes that an alarm pauses now."""
        return [
            Switch(scope=Scope.ATTRIBUTE, attribute=name, state=State.PAUSED, who=WHO, why=one.why(), run_id=run_id)
            for name, one in self.attributes.items()
            if one.alarm and name not in self._before.stopped
        ]

    def newly_confirmed(self) -> dict[tuple[str, str], AuditEstimate]:
        """The certificates whose lower bound reaches the target, of attributes without an alarm."""
        return {
            (name, certificate): one
            for (name, certificate), one in self.certificates.items()
            if one.lower >= self._target
            and certificate not in self._before.confirmed
            and name not in self._before.stopped
            and not (name in self.attributes and self.attributes[name].alarm)
        }

    def confirmations(self, record: RunRecord) -> list[Row]:
        return [
            {
                "certificate_id": certificate,
                "attribute": name,
                "lower_bound": one.lower,
                "rows": one.rows,
                "wrong": one.wrong,
                "alpha": self.alpha,
                "confirmed_at": record.started_at,
                "run_id": record.run_id,
            }
            for (name, certificate), one in self.newly_confirmed().items()
        ]


def _audit(context: Context, before: Mapping[str, Row], said: Mapping[str, Row], disputed: set[str]) -> Audit:
    """``before``, ``said``: item id -> the verdict that counted until now, and that counts from now on."""
    catalog, rule = context.catalog, context.config.precision
    drawn, asked = verdicts.drawn(catalog), verdicts.sample_windows(catalog)
    since = _resumed(switches.history(catalog))

    def judged(verdicts_: Mapping[str, Row]) -> list[ReviewedItem]:
        return estimates.judged(drawn, verdicts_, disputed, verdicts.of_one_run(asked))

    rows, error_rate = judged(said), 1 - rule.target
    earlier = estimates.by_attribute(judged(before), since, error_rate)
    active = Active(
        alarms=frozenset((name, one.model_version) for name, one in earlier.items() if one.alarm),
        stopped=_stopped(catalog),
        confirmed=verdicts.confirmed(catalog),
    )
    attributes = estimates.by_attribute(rows, since, error_rate)
    return Audit(attributes, estimates.by_certificate(rows, rule.delta), active, (rule.target, rule.delta))


def _stopped(catalog: Catalog) -> frozenset[str]:
    """Attributes that are paused or off, by people or by runs that have finished.

    A pause by a run that was killed does not count, this run's own among them: nobody was told of it.
    """
    finished = runs.succeeded_ids(catalog)
    not_on = switches.read(catalog).of(Scope.ATTRIBUTE, State.PAUSED, State.OFF)
    return frozenset(one.attribute for one in not_on if one.run_id is None or one.run_id in finished)


def _resumed(past: Sequence[Switch]) -> dict[str, datetime]:
    """Attribute -> when it was last switched on."""
    return {
        one.attribute: one.at
        for one in past
        if one.scope is Scope.ATTRIBUTE and one.state is State.ON and one.at is not None
    }


def _summary(record: RunRecord, new: Sequence[Row], plan_: consequences.LedgerPlan, audit: Audit) -> dict[str, Any]:
    answers: dict[str, int] = {}
    for row in new:
        answers[row["answer"]] = answers.get(row["answer"], 0) + 1
    return {
        "run_id": record.run_id if new else None,
        "verdicts": len(new),
        "answers": dict(sorted(answers.items())),
        "refused": len(plan_.refused),
        "human_sets": sum(bool(values) and values != consequences.NOTHING for values in plan_.human.values()),
        "without_value": sum(values == consequences.NOTHING for values in plan_.human.values()),
        "unknown_values": plan_.unknown,
        "events": 0,
        "attributes": {name: one.to_dict() for name, one in audit.attributes.items()},
        "certificates": {
            certificate: {"attribute": name} | asdict(one) for (name, certificate), one in audit.certificates.items()
        },
        "confirmed": sorted(certificate for _, certificate in audit.newly_confirmed()),
        "alarms": audit.alarms(),
        "paused": [str(one) for one in audit.pauses(record.run_id)],
    }


def _alarm(audit: Audit, config: Sequence[str]) -> str:
    """What an alarm says to people, with the commands that follow."""
    lines = []
    for name in audit.alarms():
        certificates = [certificate for attribute, certificate in audit.certificates if attribute == name]
        back = "; ".join(command("rollback_run", [*config, "--certificate", one]) for one in certificates)
        sample = command("audit_sample", [*config, "--attribute", name])
        lines.append(
            f"{name} is paused: {audit.attributes[name].why()}. Nothing new is written until it is certified again: "
            f"draw a new sample ({sample}), judge it, then recertify_model. To take back what was written: {back}. "
            "Draw and judge before you take back: what is taken back cannot be drawn"
        )
    return "\n".join(lines)
