"""The description of a model version: what it was trained on, and what each certificate allows. Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.masking import masked
from catalog_enrichment.precision.claim import PATHS

if TYPE_CHECKING:
    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.registry.trained_model import TrainedModel

LONGEST = 5000
"""Characters of a description that MLflow's database takes."""

_COLUMNS = ["attribute", "products", "numbers", "threshold", "accepted", "wrong", "precision at least"]
_COLUMNS += ["written of the open", "status", "valid until"]
_HEAD = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]


def model_card(trained: TrainedModel) -> str:
    """The description, at most :data:`LONGEST` characters: what does not fit is counted."""
    lines = [*_about(trained), "", *_HEAD]
    rows = [_row(one) for one in trained.certificates]
    abstentions = [f"- {_named(one)}: {one.why_abstains}" for one in trained.certificates if one.threshold is None]
    warnings = [f"- {masked(line)}" for line in trained.warnings]
    lines += rows
    if abstentions:
        lines += ["", "Nothing is written where:", *abstentions]
    if warnings:
        lines += ["", "Warnings:", *warnings]
    return shortened(lines)


def shortened(lines: list[str], longest: int = LONGEST) -> str:
    """The lines as one text; where they are longer than ``longest`` characters, the first of them and how many more."""
    text = "\n".join(lines)
    kept = list(lines)
    while len(text) > longest:
        kept.pop()
        text = "\n".join([*kept, "", f"{len(lines) - len(kept)} more lines: see certificates.json of the MLflow run."])
    return text


def _about(trained: TrainedModel) -> list[str]:
    lineage = trained.lineage
    recipe = trained.params.get("recipe")
    if version := lineage.get("recertified_from"):
        return [f"The files of version {version}, with certificates from audited values."]
    if version := lineage.get("certified_from"):
        return [f"The files of version {version}, with certificates from people's verdicts on its proposals."]
    counts = f"{lineage.get('labelled', 0):,} labelled products"
    return [
        f"Recipe `{recipe}`, trained on {counts} (label set `{str(lineage.get('label_set_hash', ''))[:16]}`).",
        "A value is written where its score is at least the threshold. A certificate's claim is about the products "
        "that had no value when it was issued.",
    ]


def _row(one: Certificate) -> str:
    written = one.threshold is not None
    cells = [
        one.attribute,
        PATHS[one.modality],
        one.compute_type,
        f"{one.threshold:.4f}" if one.threshold is not None else "nothing is written",
        f"{one.accepted:,}" if written else "",
        f"{one.wrong:,}" if written else "",
        f"{one.lower_bound:.3f}" if written else "",
        f"{one.accept_rate:.0%}" if written else "",
        one.status.value if written else "",
        f"{one.expires_at:%Y-%m-%d}" if written else "",
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _named(one: Certificate) -> str:
    return f"{one.attribute} (products {PATHS[one.modality]}, {one.compute_type})"
