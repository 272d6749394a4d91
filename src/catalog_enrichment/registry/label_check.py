"""A model version's labels beside the dictionary, which may have changed since the version was trained.

Whatever is wrong with an attribute stops that attribute alone; what only differs is said, and the version goes on with
its other values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog_enrichment.catalog.value_names import Names
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.models.spec import Head
    from catalog_enrichment.precision.certificate import Certificate

_NAMED = 5
"""Most values that a line names."""


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """The result of :func:`check_labels`."""

    stopped: Mapping[str, str] = field(default_factory=dict)
    """Attribute -> why the version must not decide it; its values stay unless their product's content changes."""
    differences: tuple[str, ...] = ()
    """Sentences about what the version cannot predict, and what it predicts and is not written."""


def check_labels(
    heads: Mapping[str, Head], words: Dictionary, names: Names, certificates: Collection[Certificate] = ()
) -> LabelCheck:
    """Compare the labels of ``heads``, by the names in force, with the dictionary. Attributes that are switched off do
    not count.

    ``certificates``: those of the model. A certificate is about all values of its pool together: where values have left
    the dictionary and the others alone were wrong more often than it promises, the attribute is stopped.
    """
    stopped, lines = dict[str, str](), list[str]()
    if unlearned := [name for name in words.enabled if name not in heads]:
        lines.append(f"this model version cannot predict {', '.join(unlearned)}: train_model trains a version that can")
    for name, head in heads.items():
        if name not in words:
            lines.append(f"{name} is not in the dictionary any more: nothing of it is predicted, its values go")
            continue
        if not words[name].enabled:
            continue
        if head.cardinality != words[name].cardinality:
            stopped[name] = (
                f"the dictionary says cardinality {words[name].cardinality}, the model version was trained and "
                f"certified for {head.cardinality}: train and promote a version, or change the dictionary back"
            )
        if head.is_open or words[name].is_open:
            if head.is_open != words[name].is_open:
                kind = words[name].kind.value
                stopped[name] = f"the dictionary says kind {kind}, the model version was trained for another: train one"
            elif head.rule and (why := words[name].rule().why_not_certified(head.rule)):
                stopped[name] = f"the dictionary {why}: train and promote a version, or change the dictionary back"
            continue
        labels = {names.now(name, label) for label in head.labels}
        if missing := [value for value in words[name].values if value not in labels]:
            lines.append(
                f"this model version cannot predict {name} {_named(missing)}: with labelled products of it, "
                "train_model trains a version that can"
            )
        gone = sorted(labels - set(words[name].values))
        for certificate in certificates if gone else ():
            gone_labels = {label for label in head.labels if names.now(name, label) in gone}
            accepted, wrong = _counts_without(certificate, gone_labels)
            too_many = wrong - (1 - certificate.target) * accepted > 1e-9  # floats: 10 of 100 are not more than 10%
            if certificate.attribute == name and certificate.threshold and too_many:
                stopped[name] = (
                    f"without {_named(gone)}, which the dictionary does not list any more, {wrong:,} of {accepted:,} "
                    f"accepted values were wrong at certification, more than {1 - certificate.target:.0%}: train and "
                    "promote a version"
                )
        if gone:
            lines.append(f"{name} {_named(gone)} is not in the dictionary any more: it is not written, its values go")
    return LabelCheck(stopped, tuple(lines))


def values_by_name(
    labels: Mapping[str, tuple[str, ...]], words: Dictionary, names: Names
) -> dict[str, tuple[str, ...]]:
    """Return attribute -> the values of the dictionary that a model with ``labels`` can write, by the names in
    force."""
    return {
        name: of
        if words[name].is_open
        else tuple(dict.fromkeys(now for label in of if (now := names.now(name, label)) in words[name].values))
        for name, of in labels.items()
        if name in words
    }


def _counts_without(certificate: Certificate, gone: Collection[str]) -> tuple[int, int]:
    """Return how often a value other than those ``gone`` is accepted on the certification fold, and how often wrong.

    They are the certificate's own numbers where it has none by value.
    """
    if not certificate.by_value:
        return certificate.accepted, certificate.wrong
    rows = [row for row in certificate.by_value if row.value not in gone]
    return sum(row.accepted for row in rows), sum(row.wrong for row in rows)


def _named(values: list[str]) -> str:
    more = f" and {len(values) - _NAMED:,} more" if len(values) > _NAMED else ""
    return ", ".join(map(repr, values[:_NAMED])) + more
