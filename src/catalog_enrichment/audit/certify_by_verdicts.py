"""certify_model --by-verdicts: certificates from people's verdicts on drawn proposals, without merchants' labels.

    audit_sample --of proposals -> the review page -> audit_ingest -> certify_model --by-verdicts ATTRIBUTE
    -> a model version with the same files and a confirmed certificate -> the candidate -> promote_model

The test (precision.verdict_test) holds at every look: the job may run after each session of reviewers, and says how
many more verdicts are likely needed. The verdicts are about the values of this model version alone, and no other
candidate is chosen by them, so there is no label use to count. They train later versions as other verdicts do; products
that were judged are not drawn again. Each modality path has a statement of its own with its own delta, as in every
certificate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import proposal_verdicts, reissue
from catalog_enrichment.audit.proposal_verdicts import CertifiedPath, JudgedProposals
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError, GateRefused, RegistryError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.monitoring.text_tables import Column, aligned_table, count, text
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.precision import verdict_certificates, verdict_test
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.precision.verdict_certificates import Verdicts
from catalog_enrichment.precision.verdict_test import Needed, VerdictStep, VerdictTest, verdicts_needed
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.registry.model_registry import CANDIDATE
from catalog_enrichment.registry.trained_model import BY_VERDICTS

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import PrecisionConfig
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel


@dataclass(frozen=True, slots=True)
class CertifyRequest:
    attribute: str
    model_version: str | None = None
    """Without it the candidate is certified, else the champion."""
    dry_run: bool = False
    """Test and print; register nothing."""


@dataclass(frozen=True, slots=True)
class _Tested:
    """A certificate of the model with the test of the verdicts on its proposals."""

    old: Certificate
    judged: JudgedProposals
    test: VerdictTest
    needed: Needed | None
    """For the first threshold that is not certified; None if all are."""

    @property
    def name(self) -> str:
        return f"{PATHS[self.old.modality]}, {self.old.compute_type}"

    def evidence(self) -> tuple[Any, ...]:
        """Return what the test rests on, as plain data for a hash."""
        drawn = self.judged.drawn
        path = (self.old.modality.value, self.old.compute_type)
        return (*path, drawn.product_ids, drawn.wrong_scores.tolist(), drawn.settled.tolist())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the summary."""
        certified, undecided = self.test.certified, self.test.undecided
        return {
            "modality": self.old.modality.value,
            "compute_type": self.old.compute_type,
            "old": self.old.certificate_id,
            "old_threshold": self.old.threshold,
            "drawn": len(self.judged.drawn),
            "settled": int(np.count_nonzero(self.judged.drawn.settled)),
            "sequence": self.test.sequence.number,
            "delta": self.test.sequence.delta,
            "certified": None if certified is None else asdict(certified),
            "undecided": None if undecided is None else asdict(undecided),
            "needed": None if self.needed is None else asdict(self.needed),
        }


def certify_by_verdicts(
    context: Context, registry: Registry, request: CertifyRequest, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Certify an attribute of a model version by verdicts; return the summary. Under the catalog's write lock.

    ``config``: options of the commands that messages name. Raises ConfigError for an attribute that the version does
    not have, DataContractError if nothing was drawn of its proposals, and GateRefused, with the summary and what is
    missing, if no threshold is certified yet.
    """
    catalog, stages, rule = context.catalog, Stages(context.say), context.config.precision
    record = RunRecord(kind=RunKind.CERTIFY, stages=stages, config=context.config.without_secrets())
    record.window = {"by": "verdicts", "attribute": request.attribute, "model_version": request.model_version}
    with runs.recorded(catalog, record, unless=request.dry_run):
        model = _model(registry, request)
        record.model_name, record.model_version = model.name, model.version
        with stages("test"):
            judged = proposal_verdicts.read(catalog, registry, model, request.attribute)
            tested = _test(model, request.attribute, judged, rule)
        names = {"model": model.name, BY_VERDICTS: model.version, "model_version": model.version}
        summary = names | {"attribute": request.attribute, "paths": [path.to_dict() for path in tested]}
        context.say(_table(tested))
        passed = [path for path in tested if path.test.certified is not None]
        if request.dry_run:
            return summary | {"status": DRY_RUN, "seconds": stages.seconds}
        record.run_id = _run_id(model.name, model.version, request.attribute, tested, rule)
        if not passed:
            raise GateRefused(_why_not(model, request.attribute, tested, rule.target, config), summary)
        if record.run_id in runs.succeeded_ids(catalog):
            return summary | {"status": NOTHING_TO_DO, "run_id": record.run_id, "seconds": stages.seconds}
        with stages("issue"):
            issued = {path.old.certificate_id: _issued(context, model, path) for path in passed}
        if all(verdict_certificates.same_evidence(path.old, issued[path.old.certificate_id]) for path in passed):
            version, earlier = model.version, reissue.ancestors(registry, model.version)[1:]
            ids = [_run_id(model.name, before, request.attribute, tested, rule) for before in earlier]
            if done := runs.succeeded_ids(catalog) & set(ids):
                return summary | {"status": NOTHING_TO_DO, "run_id": done.pop(), "seconds": stages.seconds}
            record.run_id = next(iter(ids), record.run_id)  # it was killed after it had registered the version
        else:
            with stages("register"):
                version = reissue.register(registry, model, issued, BY_VERDICTS).version
        record.count(certified=len(passed), judged=sum(len(path.judged.drawn) for path in passed))
        runs.write(catalog, record)
    summary |= {"status": RunStatus.SUCCEEDED, "run_id": record.run_id, "model_version": version}
    context.say(f"version {version} is certified and is the candidate; next: {command('promote_model', config)}")
    return summary | {"seconds": stages.seconds}


def _model(registry: Registry, request: CertifyRequest) -> ResolvedModel:
    """Return the version to certify. Raises ConfigError if it does not have the attribute."""
    if request.model_version:
        model = registry.resolve(version=request.model_version)
    else:
        try:
            model = registry.resolve(alias=CANDIDATE)
        except RegistryError:
            model = registry.resolve()
    if request.attribute not in model.heads:
        raise ConfigError(
            f"{model.name} version {model.version} proposes no {request.attribute!r}: it has {sorted(model.heads)}"
        )
    return model


def _test(
    model: ResolvedModel, attribute: str, judged: Mapping[CertifiedPath, JudgedProposals], rule: PrecisionConfig
) -> list[_Tested]:
    """Test the certificates of ``attribute`` of whose proposals some were drawn."""
    found = []
    for old in model.certificates:
        of_path = judged.get((old.modality, old.compute_type)) if old.attribute == attribute else None
        if (
            of_path is None
            or (test := verdict_test.run_tests(of_path.drawn, rule.target, rule.delta, rule.step)) is None
        ):
            continue
        undecided = test.undecided
        needed = None if undecided is None else verdicts_needed(undecided, rule.target, test.sequence.delta)
        found.append(_Tested(old, of_path, test, needed))
    return found


def _run_id(name: str, version: str, attribute: str, tested: Sequence[_Tested], rule: PrecisionConfig) -> str:
    """Return the id of a run that certifies ``version`` by these verdicts."""
    evidence = stable_hash(*(repr(path.evidence()) for path in tested))
    return make_run_id(RunKind.CERTIFY, name, version, attribute, (rule.target, rule.delta, rule.step), evidence)


def _issued(context: Context, model: ResolvedModel, tested: _Tested) -> Certificate:
    step, judged, head = tested.test.certified, tested.judged, model.heads[tested.old.attribute]
    assert step is not None
    places = judged.drawn.at(step.threshold, tested.test.sequence.first_sample).tolist()
    population = proposal_verdicts.population(context, tested.old, judged, places, step.threshold)
    verdicts = Verdicts(
        drawn=judged.drawn,
        content_hashes=judged.content_hashes,
        test=tested.test,
        data_window=judged.data_window,
        values=head.labels,
        cardinality=head.cardinality,
    )
    return verdict_certificates.from_proposals(
        tested.old, verdicts, population, context.config.precision, datetime.now(UTC)
    )


# --- for people -----------------------------------------------------------------------------------------------------


_COLUMNS = (
    Column("products", text("path"), "<"),
    Column("score from", lambda row: f"{row['threshold']:.4f}"),
    Column("drawn", count("drawn")),
    Column("judged", count("judged")),
    Column("wrong", count("wrong")),
    Column("waiting", count("waiting")),
    Column("W", lambda row: f"{row['wealth']:,.1f}"),
    Column("right at least", lambda row: f"{row['lower_bound']:.1%}"),
    Column("", text("outcome"), "<"),
)


def _table(tested: Sequence[_Tested]) -> str:
    """Return the lowest certified and the first undecided threshold of each path, as text for a terminal."""
    rows = [
        {"path": path.name, "outcome": _outcome(path, step), **asdict(step)}
        for path in tested
        for step in (path.test.certified, path.test.undecided)
        if step is not None
    ]
    return aligned_table(rows, _COLUMNS)


def _outcome(tested: _Tested, step: VerdictStep) -> str:
    if step.certified:
        return "certified"
    needed = tested.needed
    assert needed is not None
    if needed.likely is None:
        return f"not reachable: about {needed.precision:.1%} are right"
    return f"about {needed.likely:,} more verdicts likely, {needed.at_best:,} if all are right"


def _why_not(
    model: ResolvedModel, attribute: str, tested: Sequence[_Tested], target: float, config: Sequence[str]
) -> str:
    """Say what is missing, and the next commands."""
    lines = [f"{attribute} of {model.name} version {model.version} is not certified yet:"]
    for path in tested:
        step = path.test.undecided
        assert step is not None
        lines.append(
            f"  - {path.name}: {step.wrong} of {step.judged} judged products are wrong at scores >= "
            f"{step.threshold:.4f}; {_outcome(path, step)}"
        )
        if step.waiting:
            lines.append(
                f"    {step.waiting} settled products wait behind a product without a settled verdict: judge in the "
                "order of the draw, adjudicate disputes, and run audit_ingest"
            )
    options = [*config, "--of", "proposals", "--attribute", attribute, "--model-version", model.version]
    options += ["--seed", str(1 + max(int(path.judged.drawn.samples[-1]) for path in tested))]
    return "\n".join([*lines, _next_draw(tested, target, options, command("audit_ingest", config))])


def _next_draw(tested: Sequence[_Tested], target: float, options: Sequence[str], ingest: str) -> str:
    """Say what to draw and judge next. ``options``: of audit_sample; ``ingest``: the command that follows."""
    drawn = sum(len(path.judged.drawn) for path in tested)
    reachable = [
        (ceil((path.needed.likely - path.needed.left) * drawn / len(path.judged.drawn)), path)
        for path in tested
        if path.needed is not None and path.needed.likely is not None
    ]
    if reachable:
        more, nearest = min(reachable, key=lambda pair: pair[0])  # one path is enough for a new version
        lowest = float(nearest.judged.drawn.lowest[-1])
        draw = command("audit_sample", [*options, "--uniform", str(more), "--lowest", f"{lowest:g}"])
        further = f"Draw {more} more with {draw}. " if more > 0 else ""
        return f"{further}Judge the drawn products that have no settled verdict, then {ingest} and this job again"
    scores = [verdict_test.promising_score(path.judged.drawn, path.test, target) for path in tested]
    higher = max((score for score in scores if score is not None), default=None)
    if higher is None:
        return "Too many proposals are wrong at the highest scores: a better model is needed"
    draw = command("audit_sample", [*options, "--uniform", "300", "--lowest", str(higher)])
    return (
        f"Too many proposals are wrong at these scores. Draw proposals with higher scores: {draw}. This begins a new "
        "test with a smaller share of delta"
    )
