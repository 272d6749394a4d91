"""What merchants should correct, shop by shop. Advice that rests on a comparison states it, and is given only where the
run's numbers show a difference that is not chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.reasons import Reason, RunAttributes
from catalog_enrichment.records import Decision, Modality
from catalog_enrichment.report.outcome_sections import ReasonCount
from catalog_enrichment.validation.by_shop import KEY, UNMAPPED, merged

# --- comparisons ------------------------------------------------------------------------------------------------------

FEWEST = 50
"""Products on each side of a comparison; with fewer nothing is advised."""

SIGNIFICANT = 2.33
"""Standard errors by which the shares must differ: by chance about 1 comparison in 100 does."""


@dataclass(frozen=True, slots=True)
class Written:
    """Products without a merchant's or a person's value, and how many of them were given a value."""

    products: int = 0
    written: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.products + other.products, self.written + other.written)

    def __str__(self) -> str:
        share = f" ({self.written / self.products:.0%})" if self.products else ""
        return f"{self.written:,} of {self.products:,}{share}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Products that have something against those that have it not."""

    having: Written = Written()
    lacking: Written = Written()

    @property
    def enough(self) -> bool:
        """Return whether there are products enough on both sides."""
        return min(self.having.products, self.lacking.products) >= FEWEST

    @property
    def helps(self) -> bool:
        """Return whether products that have it were written more often, beyond chance."""
        if not self.enough:
            return False
        n, m = self.having.products, self.lacking.products
        difference = self.having.written / n - self.lacking.written / m
        pooled = (self.having.written + self.lacking.written) / (n + m)
        return difference > SIGNIFICANT * sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The numbers of a run that advice rests on. Without arguments: none, so nothing that needs them is advised."""

    pictures: Comparison = Comparison()
    """Attributes of products with a usable picture, and without."""
    named: Mapping[str, Comparison] = field(default_factory=dict)
    """Attribute -> products whose title or description has the best value in it, and others."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> the lowest certified precision of what may be written."""

    @classmethod
    def of(cls, reasons: Iterable[ReasonCount], certificates: Iterable[Certificate]) -> Evidence:
        """Count the products of a run, by ``reasons``, and read the bounds of its ``certificates``."""
        paths = {modality.value: Written() for modality in Modality}
        named: dict[str, Comparison] = {}
        for row in reasons:
            published = row.decision == Decision.PUBLISH
            paths[row.modality] += Written(row.open, row.open if published else 0)
            having = Written(row.named, row.named if published else 0)
            lacking = Written(row.open - row.named, row.open - row.named if published else 0)
            known = named.get(row.attribute, Comparison())
            named[row.attribute] = Comparison(known.having + having, known.lacking + lacking)
        bounds: dict[str, float] = {}
        for certificate in certificates:
            if certificate.threshold is not None:
                name, bound = certificate.attribute, certificate.lower_bound
                bounds[name] = min(bounds.get(name, bound), bound)
        pictures = Comparison(paths[Modality.BOTH.value], paths[Modality.TEXT_ONLY.value])
        return cls(pictures=pictures, named=named, bounds=bounds)

    def about_pictures(self) -> str:
        """Return the comparison of products with and without a usable picture, in words."""
        return (
            f"values were written for {self.pictures.having} open attributes of products with a usable picture, and "
            f"for {self.pictures.lacking} of products without"
        )


# --- what each shop should correct ------------------------------------------------------------------------------------

SHOWN_SHOPS = 12
SHOWN_PROBLEMS = 5
"""Per shop."""

_FEED = "correct the feed and send it again"

_PROBLEMS = {
    Reason.UNPARSEABLE_ROW: ("rows that cannot be parsed", _FEED),
    Reason.MISSING_ID: ("rows without a product id", _FEED),
    Reason.DUPLICATE_ID: ("rows with a product id that is there twice", "give every product its own id"),
    Reason.EMPTY_TITLE: ("rows without a title", "give every product a title"),
    Reason.TEXT_TOO_LONG: ("rows with a text that is too long", "shorten it: the quarantine names text and limit"),
    Reason.TOO_MANY_VALUES: ("rows with too many pictures or values", "leave some out: the quarantine names the limit"),
    Reason.IMAGE_UNREACHABLE: (
        "pictures that could not be reached",
        "check that the picture's server answers: these products wait until it does",
    ),
    UNMAPPED: (
        "values of {attribute} that the dictionary lacks",
        "use a value of the list, or ask for the spelling as an alias",
    ),
}
"""Problem -> what the shop's products have, and what the merchant should do. No comparison is behind it: the rows were
refused, or the values not understood. Problems of no table here are not the merchant's to solve."""

_PICTURES = {
    Reason.NO_IMAGE: ("products without a picture", "send a usable picture"),
    Reason.IMAGE_MISSING: ("pictures that are not where the feed says", "correct the address of the picture"),
    Reason.IMAGE_EMPTY: ("pictures without bytes", "send a usable picture"),
    Reason.IMAGE_TRUNCATED: ("pictures that are cut off", "send the whole picture"),
    Reason.IMAGE_NOT_AN_IMAGE: ("files that are not pictures", "send a usable picture"),
    Reason.IMAGE_TOO_LARGE: ("pictures that are too large", "send a smaller picture"),
    Reason.IMAGE_UNREADABLE: ("pictures that cannot be decoded", "send a usable picture"),
}
"""The same of pictures that cannot be used: advised where products with a picture were written more often."""


def shops_to_correct(evidence: Evidence, *attributes: RunAttributes) -> dict[str, Any]:
    """Return the shops with the most problems, of the columns `attributes` of the import and the run; {} without any.

    Keys ``rows``: per shop its most frequent problems with what to do, and how many more it has; ``others``: the
    number of the other shops, ``other_problems`` theirs, and ``note``: why pictures are not asked for.
    """
    counted = merged([of[KEY] for of in attributes if KEY in of])
    advised = {shop: _advised(problems, evidence) for shop, problems in counted["shops"].items()}
    order = sorted((shop for shop in advised if advised[shop]), key=lambda shop: (-sum(advised[shop].values()), shop))
    rows = [{"shop": shop, **_problems(advised[shop], evidence)} for shop in order[:SHOWN_SHOPS]]
    hidden = sum(sum(advised[shop].values()) for shop in order[SHOWN_SHOPS:])
    hidden += sum(_advised(counted["others"]["problems"], evidence).values())
    number = len(order[SHOWN_SHOPS:]) + counted["others"]["shops"]
    all_problems = [*counted["shops"].values(), counted["others"]["problems"]]
    pictures = sum(number for problems in all_problems for name, number in problems.items() if name in _PICTURES)
    note = _why_no_pictures(evidence, pictures)
    if not rows and not note:
        return {}
    return {"rows": rows, "others": number, "other_problems": hidden, "note": note}


def _why_no_pictures(evidence: Evidence, pictures: int) -> str:
    """Return why the shops are not told of their ``pictures`` that cannot be used; "" where they are, or there are
    none."""
    if not pictures or evidence.pictures.helps:
        return ""
    compared = evidence.pictures
    why = "which is no difference beyond chance" if compared.enough else "which are too few to compare"
    if compared.enough and compared.lacking.written * compared.having.products > (
        compared.having.written * compared.lacking.products
    ):
        why = "which is not less"
    return (
        f"{pictures:,} products have no usable picture. Nobody is asked for pictures: {evidence.about_pictures()}, "
        f"{why}."
    )


def _advised(problems: Mapping[str, int], evidence: Evidence) -> dict[str, int]:
    """Return the problems that a merchant can solve."""
    return {name: number for name, number in problems.items() if number and _advice(name, evidence)}


def _problems(problems: Mapping[str, int], evidence: Evidence) -> dict[str, Any]:
    order: Sequence[str] = sorted(problems, key=lambda problem: (-problems[problem], problem))
    shown = [{"number": problems[name], **_advice(name, evidence)} for name in order[:SHOWN_PROBLEMS]]
    return {"problems": shown, "more": sum(problems[problem] for problem in order[SHOWN_PROBLEMS:])}


def _advice(problem: str, evidence: Evidence) -> dict[str, str]:
    """Return what the products have and what to do about it; {} where nothing is advised."""
    reason, _, attribute = problem.partition(".")
    if reason in _PROBLEMS:
        what, to_do = _PROBLEMS[reason]  # a Reason is its text
    elif reason in _PICTURES and evidence.pictures.helps:
        what, to_do = _PICTURES[reason]  # type: ignore[index]
        to_do = f"{to_do}: {evidence.about_pictures()}"
    elif reason == Reason.BELOW_THRESHOLD:
        what, to_do = "products without {attribute}, of which the model is too unsure", _give(attribute, evidence)
    elif reason == Reason.DISAGREES_WITH_MERCHANT and attribute in evidence.bounds:
        what = "products whose {attribute} differs from what title and picture show"
        to_do = (
            "check the value, export_suggestions lists them: of other products' values with such scores at least "
            f"{evidence.bounds[attribute]:.1%} are right"
        )
    else:
        return {}
    return {"what": what.replace("{attribute}", attribute), "to_do": to_do.replace("{attribute}", attribute)}


def _give(attribute: str, evidence: Evidence) -> str:
    """Return what to do about products of which the model is too unsure."""
    compared, give = evidence.named.get(attribute, Comparison()), "give the {attribute} as a value"
    if not compared.helps:
        return give
    return (
        f"{give}, or name it in the title or description: values were written for {compared.having} products whose "
        f"text has the model's value in it, and for {compared.lacking} others"
    )
