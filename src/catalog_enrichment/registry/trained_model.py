"""What training passes to the registry, a model version's folder and its records, and the description made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.masking import masked
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    import pyarrow as pa

RECERTIFIED, BY_VERDICTS = "recertified_from", "certified_from"
"""Keys in the lineage of a version that was not trained: the version whose files it has, with new certificates from an
audit, or from verdicts on proposals."""

MADE_ELSEWHERE = "proposer"
"""The key in the lineage of a version whose proposals are made elsewhere: facts about who makes them."""

NOT_TRAINED = frozenset({RECERTIFIED, BY_VERDICTS, MADE_ELSEWHERE})
"""Keys that the lineage of a trained version does not have."""

LONGEST = 5000
"""Characters of a description that MLflow's database takes."""

_COLUMNS = ["attribute", "products", "numbers", "threshold", "accepted", "wrong", "precision at least"]
_COLUMNS += ["written of the unlabelled", "status", "valid until"]
_HEAD = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    artifact: Path
    """The model version's folder, certificates included."""
    certificates: list[Certificate]
    """A certificate per attribute and modality path, abstentions included."""
    metrics: dict[str, float]
    """See :class:`Evaluation`; every name is a valid MLflow metric name."""
    params: dict[str, Any]
    """The recipe and the settings, as a flat mapping with dotted keys."""
    tables: dict[str, list[dict[str, Any]]]
    """See :class:`Evaluation`. Also `epochs` (the losses of every stage), `search` (the candidates for lambda),
    `compute_types` and `mistakes` (:mod:`catalog_enrichment.training.held_out`)."""
    curves: dict[str, dict[str, Any]]
    """See :class:`Evaluation`."""
    history: list[dict[str, float]]
    """See :class:`Fitted`; for a vote, the history of its first member."""
    warnings: list[str]
    """Messages about modalities that the model hardly uses."""
    held_out: list[HeldOutDecision]
    """What the certificates would write on the test fold; the promotion gate pairs it with another version's."""
    lineage: dict[str, Any]
    """The training data: counts, folds, content groups, label set, dictionary."""
    seconds: dict[str, float]
    """Stage -> seconds."""
    labelled: pa.Table | None = None
    """The labelled products that the training read (:func:`training.product_labels.record`); None: it was none."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Product id -> JPEG, for the products in the table `mistakes`."""
    about: str = ""
    """What makes its proposals, and what was declared about it; "" for a recipe that was trained."""


def require_certificates(heads: Collection[str], certificates: Sequence[Certificate]) -> None:
    """Raise ModelContractError unless each of ``heads`` has a certificate for each modality path and number type.

    An abstention is a certificate too.
    """
    certified = {(known.attribute, known.modality, known.compute_type) for known in certificates}
    types = sorted({known.compute_type for known in certificates}) or [""]
    missing = [
        f"{name} ({path}{f', {compute_type}' if len(types) > 1 else ''})"
        for compute_type in types
        for name in heads
        for path in Modality
        if (name, path, compute_type) not in certified
    ]
    if missing or not heads:
        raise ModelContractError(
            f"not registered: the artifact has no certificate for {', '.join(missing) or 'any head'}. A head that "
            "always abstains needs a certificate too."
        )


def model_card(trained: TrainedModel) -> str:
    """Return the description of a model version in Markdown, at most :data:`LONGEST` characters.

    It says what the version was trained on, and what each certificate allows. Lines that do not fit are counted.
    """
    lines = [*_about(trained), "", *_HEAD, *map(_row, trained.certificates)]
    abstentions = [
        f"- {_named(known)}: {known.why_abstains}" for known in trained.certificates if known.threshold is None
    ]
    if abstentions:
        lines += ["", "Nothing is written where:", *abstentions]
    if trained.warnings:
        lines += ["", "Warnings:", *(f"- {masked(line)}" for line in trained.warnings)]
    return shortened(lines)


def shortened(lines: list[str], longest: int = LONGEST) -> str:
    """Return the lines as one text; if it is longer than ``longest``, the first lines and how many more there are."""
    text = "\n".join(lines)
    kept = list(lines)
    while len(text) > longest:
        kept.pop()
        text = "\n".join([*kept, "", f"{len(lines) - len(kept)} more lines: see certificates.json of the MLflow run."])
    return text


def _about(trained: TrainedModel) -> list[str]:
    lineage = trained.lineage
    if version := lineage.get(RECERTIFIED):
        return [f"The files of version {version}, with certificates from audited values."]
    if version := lineage.get(BY_VERDICTS):
        return [f"The files of version {version}, with certificates from people's verdicts on its proposals."]
    counts = f"{lineage.get('labelled', 0):,} labelled products"
    label_set = str(lineage.get("label_set_hash", ""))[:16]
    return [
        trained.about or f"Recipe `{trained.params.get('recipe')}`, trained on {counts} (label set `{label_set}`).",
        "A value is written where its score is at least the threshold. A certificate's claim is about the products "
        "that had no value when it was issued.",
    ]


def _row(certificate: Certificate) -> str:
    threshold = certificate.threshold
    cells = [certificate.attribute, PATHS[certificate.modality], certificate.compute_type]
    if threshold is None:
        cells += ["nothing is written", *[""] * 6]
    else:
        cells += [
            f"{threshold:.4f}",
            f"{certificate.accepted:,}",
            f"{certificate.wrong:,}",
            f"{certificate.lower_bound:.3f}",
            f"{certificate.accept_rate:.0%}",
            certificate.status.value,
            f"{certificate.expires_at:%Y-%m-%d}",
        ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _named(certificate: Certificate) -> str:
    return f"{certificate.attribute} (products {PATHS[certificate.modality]}, {certificate.compute_type})"
