"""What shops are told to correct, and that advice follows from the run's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.reasons import Reason
from catalog_enrichment.report import advice
from catalog_enrichment.report.advice import Comparison, Evidence, Written
from catalog_enrichment.validation.by_shop import largest

from ..sample_certificate import abstention, certificate
from .report_samples import NASTY, counted

PICTURES_HELP = Evidence(pictures=Comparison(Written(1000, 350), Written(200, 20)), bounds={"size": 0.9541})


def shops(*problems: dict[str, dict[str, int]], evidence: Evidence = PICTURES_HELP, limit: int = 100) -> dict[str, Any]:
    return advice.shops_to_correct(evidence, *({"shops": largest(of, limit=limit)} for of in problems))


def test_each_shop_is_told_its_most_frequent_problems_and_what_to_do() -> None:
    found = shops(
        {"corner": {"empty_title": 3, "unmapped_value.color": 5}, NASTY: {"empty_title": 1}},
        {"corner": {"no_image": 9, "disagrees_with_merchant.size": 1, "scoring_failed": 50, "below_threshold.size": 2}},
    )
    corner, other = found["rows"]
    assert (corner["shop"], other["shop"], found["others"], corner["more"]) == ("corner", NASTY, 0, 0)
    assert [(problem["number"], problem["what"]) for problem in corner["problems"]] == [
        (9, "products without a picture"),
        (5, "values of color that the dictionary lacks"),
        (3, "rows without a title"),
        (2, "products without size, of which the model is too unsure"),
        (1, "products whose size differs from what title and picture show"),
    ]
    assert corner["problems"][3]["to_do"] == "give the size as a value"
    assert corner["problems"][4]["to_do"].endswith("with such scores at least 95.4% are right")


def test_shops_and_problems_that_are_not_shown_are_summed() -> None:
    many = {f"s{n:03}": {"no_image": 100 - n} for n in range(20)}
    many["s000"] |= {f"unmapped_value.a{n}": 1 + n for n in range(6)}
    found = shops(many, limit=15)
    assert len(found["rows"]) == advice.SHOWN_SHOPS
    assert [len(found["rows"][0]["problems"]), found["rows"][0]["more"]] == [5, 1 + 2]
    assert found["others"] == 20 - advice.SHOWN_SHOPS
    assert found["other_problems"] == sum(100 - n for n in range(advice.SHOWN_SHOPS, 20))


def test_there_is_nothing_to_tell_where_nothing_is_the_merchants_to_solve() -> None:
    assert shops({"a": {"scoring_failed": 4}}) == advice.shops_to_correct(Evidence(), {}, {}) == {}
    assert shops({"a": {"disagrees_with_merchant.color": 4}}) == {}, "nothing is certified of color"


def test_every_quarantine_and_picture_reason_is_told_but_those_the_merchant_cannot_solve() -> None:
    rows = ["unparseable_row", "missing_id", "duplicate_id", "empty_title", "text_too_long"]
    pictures = [reason for reason in Reason if reason.name.startswith("IMAGE_") or reason is Reason.NO_IMAGE]
    for reason in [*rows, *pictures]:
        if reason != Reason.IMAGE_NOT_ALLOWED:  # for the catalog team
            assert shops({"s": {str(reason): 1}})["rows"][0]["problems"][0]["to_do"]


# --- advice and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("having", "lacking", "why"),
    [
        ((1000, 350), (200, 20), None),
        ((1000, 250), (200, 60), "which is not less"),
        ((1000, 250), (200, 45), "which is no difference beyond chance"),
        ((1000, 900), (49, 0), "which are too few to compare"),
        ((0, 0), (300, 90), "which are too few to compare"),
    ],
)
def test_shops_are_asked_for_pictures_only_where_products_with_pictures_were_written_more_often(
    having: tuple[int, int], lacking: tuple[int, int], why: str | None
) -> None:
    """A shop was told to add pictures where products without pictures were written more often."""
    pictures = Comparison(Written(*having), Written(*lacking))
    found = shops({"s": {"no_image": 7, "image_empty": 2}}, evidence=Evidence(pictures=pictures))
    numbers = f"{having[1]:,} of {having[0]:,}"
    if why is None:
        problems = found["rows"][0]["problems"]
        assert [problem["to_do"].split(":")[0] for problem in problems] == ["send a usable picture"] * 2
        assert all(numbers in problem["to_do"] for problem in problems)
        assert found["note"] == ""
    else:
        assert found["rows"] == []
        assert found["note"].startswith("9 products have no usable picture. Nobody is asked for pictures: ")
        assert numbers in found["note"]
        assert found["note"].endswith(f"{why}.")


def test_shops_are_told_to_name_a_value_only_where_that_went_with_more_written_values() -> None:
    def told(having: Written, lacking: Written) -> str:
        evidence = Evidence(named={"color": Comparison(having, lacking)})
        text: str = shops({"s": {"below_threshold.color": 5}}, evidence=evidence)["rows"][0]["problems"][0]["to_do"]
        return text

    assert told(Written(400, 300), Written(600, 100)) == (
        "give the color as a value, or name it in the title or description: values were written for 300 of 400 (75%) "
        "products whose text has the model's value in it, and for 100 of 600 (17%) others"
    )
    assert told(Written(400, 60), Written(600, 100)) == "give the color as a value"
    assert told(Written(49, 49), Written(600, 100)) == "give the color as a value"


def test_the_evidence_counts_products_that_a_model_may_write_to_by_path_and_by_what_their_text_names() -> None:
    reasons = [
        counted("certified", 0, sources={"model": 30, "merchant": 99}, named=25, decision="publish"),
        counted("below_threshold", 0, sources={"none": 50, "human": 99}, named=10),
        counted("certified", 5, "model", named=5, decision="publish", modality="text_only", attribute="size"),
        counted("no_certificate", 20, named=0, modality="text_only", attribute="size"),
    ]
    issued = [certificate(lower_bound=0.97), certificate(lower_bound=0.96), abstention(attribute="size")]
    assert Evidence.of(reasons, issued) == Evidence(
        pictures=Comparison(Written(80, 30), Written(25, 5)),
        named={
            "color": Comparison(Written(35, 25), Written(45, 5)),
            "size": Comparison(Written(5, 5), Written(20, 0)),
        },
        bounds={"color": 0.96},
    )
