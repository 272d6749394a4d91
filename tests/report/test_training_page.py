"""The page of a training says first what can be written, what not and why, and shows untrusted text as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.precision import claim
from catalog_enrichment.records import Modality
from catalog_enrichment.report.run_page import PAGE
from catalog_enrichment.report.training_page import RegisteredTraining, page_values, write_training_page

from .report_samples import NASTY, ParsedPage, abstention, certificate, check_folded_cards, picture
from .training_samples import CURVE, epoch, mistake, modality, trained


def training(**changes: Any) -> RegisteredTraining:
    return RegisteredTraining(trained=trained(**changes), model="shop", version="3", run_id="abc")


def html(folder: Path, **changes: Any) -> str:
    return write_training_page(folder / "training.html", training(**changes)).read_text(encoding="utf-8")


def text(folder: Path, **changes: Any) -> str:
    return ParsedPage(html(folder, **changes)).text


def attribute(name: str = "color", **changes: Any) -> dict[str, Any]:
    (found,) = [row for row in page_values(training(**changes))["attributes"] if row["name"] == name]
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return html(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(source: str) -> ParsedPage:
    return ParsedPage(source)


def test_untrusted_titles_and_values_are_escaped(page: ParsedPage) -> None:
    assert "script" not in page.tags
    assert page.open == page.handlers == []
    assert page.text.count(NASTY) == 2  # a title and a value
    assert "<b>green</b>" in page.text


def test_the_page_has_no_script_and_sends_no_request(source: str, page: ParsedPage) -> None:
    ours = source.replace("http-equiv", "").replace("http://evil.example", "")
    assert "<script" not in ours
    assert "http" not in ours
    assert "url(" not in ours
    assert [link[:23] for link in page.links] == ["data:image/jpeg;base64,"]


def test_a_table_scrolls_in_its_own_box(source: str) -> None:
    assert source.count("<table>") == source.count('<div class="scroll"><table>') > 3


@pytest.mark.parametrize(
    "expected_text",
    [
        "Can be written color , products with text and picture: values with a score of 0.800 or more, of which at "
        "least 95.6% are right (7 of 340 tested products were wrong). 40% of the 1,500 unlabelled products have such a "
        "score. The labels are merchants' values.",
        "Except in: Shoes: color is not written there: about 640 more labelled products of Shoes are needed to certify "
        "it. 210 unlabelled products are there.",
        "color , products without a usable picture: 12 labelled products without a usable picture are in the "
        "certification fold and at least 59 are needed: about 313 more such labelled products.",
        "season , products with text and picture: 9 of 153 wrong at the first threshold, 0.9312 (p = 0.712).",
        "promote_model --config FILE --version 3 --dry-run shows what readers would see change",
        "Warnings color: the picture is hardly used",
        "color with text and picture: yes without a usable picture: no 5,421 9 412 55.0% (50.0 to 60.0) 40.0% 37.5%",
        "season with text and picture: no 700 – – – – –",
        "Training of shop version 3 2026-03-01 09:30 UTC · MLflow run abc",
        "Expected calibration error 0.032",
        "10 test products, median 0.70",
        "picture masked 31.0% 50.0% 9.0 points",
        "text masked 39.9% 50.0% nothing",
        "navy blue 9 c0 red 8",
        "A red shirt predicted navy & white , score 0.910 merchant's value red would be written weight on the text 25%",
        "3 epochs, epoch 2 is kept",
        "folds (labelled products) train 4,000, test 412",
        "duration 1.5 minutes",
    ],
)
def test_the_page_shows(page: ParsedPage, expected_text: str) -> None:
    assert expected_text in page.text


def test_what_can_be_written_comes_first_then_why_not_then_what_to_do(page: ParsedPage) -> None:
    headings = (
        "Can be written",
        "Cannot be written, and why",
        "What to do",
        "Attributes",
        "Mistakes",
        "Learning curves",
    )
    places = [page.text.index(heading) for heading in headings]
    assert places == sorted(places)


def test_a_version_that_can_write_nothing_says_so_and_names_no_command(tmp_path: Path) -> None:
    shown = text(tmp_path, certificates=[abstention("color"), abstention()])
    assert "Nothing can be written, and why color" in shown
    assert "Can be written" not in shown
    assert "promote_model" not in shown


def test_a_version_that_can_write_everything_asks_for_no_labels(tmp_path: Path) -> None:
    shown = text(tmp_path, certificates=[certificate()], warnings=[])
    assert "Cannot be written" not in shown
    assert "Where a sentence above" not in shown
    assert "Warnings" not in shown


@pytest.mark.parametrize(
    ("why", "asks"),
    [
        ("about 1,487 more labelled products would be enough to test it", True),
        ("at least 59 are needed: about 120 more such labelled products", True),
        ("4 of 7 products of the test fold are wrong at the choosing fold's threshold", False),
        ("More labelled products help. People can decide", False),
    ],
)
def test_more_labels_are_advised_only_where_a_reason_gives_their_number(why: str, asks: bool, tmp_path: Path) -> None:
    refused = replace(abstention("size"), why_abstains=why)
    shown = text(tmp_path, certificates=[replace(certificate(), refused_categories=(), refused_languages=()), refused])
    assert ("Where a sentence above gives a number of labelled products" in shown) is asks
    with_slices = text(tmp_path, certificates=[trained().certificates[0], refused])
    assert trained().certificates[0].refused_categories
    assert "Where a sentence above gives a number of labelled products" in with_slices


def test_every_value_of_the_certification_fold_is_shown_with_its_share(page: ParsedPage) -> None:
    assert "every value on the certification fold, products with text and picture" in page.text
    assert "red 300 4 98.7% (96.6 to 99.6)" in page.text
    assert "Status: provisional ." in page.text


def test_attributes_that_can_be_written_come_first() -> None:
    values = page_values(training(certificates=[abstention("age"), certificate("season")]))
    assert [row["name"] for row in values["attributes"]] == ["season", "age"]


def test_only_the_largest_refused_categories_are_listed_and_the_others_are_counted() -> None:
    (shoes,) = trained().certificates[0].refused_categories
    many = tuple(replace(shoes, category=f"c{n}", unlabelled_products=n) for n in range(13))
    certificates = [certificate(refused_categories=many, languages=("en",))]
    shown = page_values(training(certificates=certificates))["partly"]
    assert [line.split(":")[0] for line in shown[:2]] == ["c12", "c11"]
    assert shown[10:] == ["color: 3 more categories and languages like these."]


def test_the_numeric_path_is_named_where_there_are_several() -> None:
    first, other = certificate(), certificate(compute_type="bf16-cpu")
    assert "computed in" not in page_values(training(certificates=[first]))["can_be_written"][0]["text"]
    texts = [row["text"] for row in page_values(training(certificates=[first, other]))["can_be_written"]]
    assert ["computed in bf16-cpu" in shown for shown in texts] == [False, True]
    assert "computed in fp32-cpu" in texts[0]


def test_the_certified_threshold_is_marked_on_the_curve_of_the_whole_model() -> None:
    (mark,) = attribute()["precision_recall"]["marks"]
    assert mark["name"] == "certified: score 0.800 or more"
    assert mark["at"] == (160.0, 7.2)  # recall 0.5, precision 0.96 of 320 x 180
    assert attribute(certificates=[abstention("color")])["precision_recall"]["marks"] == []


def test_the_whole_model_is_drawn_first_and_a_masked_input_is_dashed() -> None:
    lines = [drawn["line"] for drawn in attribute()["precision_recall"]["lines"]]
    names = ["text and picture", "picture masked", "a model of the text alone"]
    assert [(line.name, line.css, line.dashed) for line in lines] == [
        (names[0], "both", False), (names[1], "text", True), (names[2], "text", False),
    ]  # fmt: skip


def test_a_model_of_one_input_has_no_table_of_inputs() -> None:
    tables = trained().tables | {"modalities": [modality("both", 0.4)]}
    assert attribute(tables=tables)["modalities"] == []


def test_only_the_most_frequent_confusions_are_listed() -> None:
    assert [row["products"] for row in attribute()["confusions"]] == [9, 8, 7, 6, 5]


def test_every_stage_has_its_curve_in_the_order_of_the_fit() -> None:
    stages = page_values(training())["stages"]
    assert [stage["title"] for stage in stages] == ["toy, image", "the whole model"]
    (kept,) = stages[1]["chart"]["marks"]
    assert kept["at"][0] == 160.0  # epoch 2 of 1 to 3


def test_a_fit_that_ended_at_its_best_epoch_may_need_more_epochs() -> None:
    falling = trained().tables | {"epochs": [epoch(1, 1.0, 0.9), epoch(2, 0.5, 0.7)]}
    assert [stage["still_falling"] for stage in page_values(training(tables=falling))["stages"]] == ["0.9000 to 0.7000"]
    hardly = trained().tables | {"epochs": [epoch(1, 1.0, 0.9), epoch(2, 0.5, 0.892)]}
    assert [stage["still_falling"] for stage in page_values(training(tables=hardly))["stages"]] == [""]
    assert not any(stage["still_falling"] for stage in page_values(training())["stages"])


def test_a_training_without_curves_and_tables_has_a_page(tmp_path: Path) -> None:
    shown = text(tmp_path, curves={}, tables={}, metrics={}, pictures={}, seconds={}, lineage={})
    assert "season with text and picture: no – – – – – –" in shown


def test_a_curve_of_many_points_is_drawn_with_few(tmp_path: Path) -> None:
    scores = [1 - n / 20_000 for n in range(20_000)]
    curve = {"thresholds": scores, "precision": scores, "recall": [1 - score for score in scores]}
    curves = {"precision_recall": {"color": dict.fromkeys(("both", "image_masked", "text_masked"), curve)}}
    assert len(html(tmp_path, curves=curves)) < 40_000


def test_a_mistake_that_would_not_be_written_is_not_marked(tmp_path: Path) -> None:
    tables = {"mistakes": [mistake(written=False, attention=None)]}
    shown = text(tmp_path, tables=tables)
    assert shown.count("would be written") == 1  # in the explanation
    assert "weight on the text" not in shown


def test_more_mistakes_are_folded_and_their_pictures_are_not_decoded_before_they_are_seen(tmp_path: Path) -> None:
    many = [mistake(product_id=f"p{n}") for n in range(2 * PAGE + 5)]
    pictures = {row["product_id"]: picture() for row in many}
    check_folded_cards(html(tmp_path, tables={"mistakes": many}, pictures=pictures), len(many))


def test_mistakes_are_shown_of_an_attribute_without_metrics(tmp_path: Path) -> None:
    """Its test products have no usable picture, and the metrics are about products with a picture."""
    shown = text(tmp_path, tables={"mistakes": [mistake(attribute="season", predicted="winter", modality="text_only")]})
    assert "season Mistakes on the test products" in shown
    assert "predicted winter , score 0.910" in shown


def test_precision_recall_of_a_threshold_that_accepts_nothing_has_no_mark() -> None:
    curves = {"precision_recall": {"color": {"both": CURVE}}}
    assert attribute(curves=curves, certificates=[certificate(threshold=0.995)])["precision_recall"]["marks"] == []


def test_figures_of_no_product_are_not_shown_as_zero() -> None:
    found = attribute(metrics={"color/products": 0.0, "color/f1_macro": 0.0, "color/r_at_p95_micro": 0.0})
    assert (found["tested_on"], found["f1"], found["r_at_p95"]) == (0, "–", "–")


def test_a_feed_without_pictures_has_the_figures_of_its_texts_and_nothing_about_pictures(tmp_path: Path) -> None:
    known = trained()
    no_pictures = {
        "certificates": [
            certificate(threshold=None, why_abstains=claim.NO_PRODUCTS, accepted=0, wrong=0, lower_bound=0.0),
            certificate(modality=Modality.TEXT_ONLY, languages=("en",), accept_rate=0.4, unlabelled_products=1500),
        ],
        "lineage": {**known.lineage, "with_image": 0},
        "curves": {"precision_recall": {"color": {"both": CURVE}}},
        "tables": {name: rows for name, rows in known.tables.items() if name != "modalities"},
        "warnings": [],
    }
    shown = text(tmp_path, **no_pictures)
    assert "with text and picture" not in shown
    assert "measured on the test products, which have no picture" in shown
    assert "color without a usable picture: yes 5,421 9 412 55.0% (50.0 to 60.0) 40.0% 37.5%" in shown
    assert "Cannot be written" not in shown
    assert "import so many more" not in shown, "nothing is missing"
    (mark,) = attribute(**no_pictures)["precision_recall"]["marks"]
    assert mark["name"] == "certified: score 0.800 or more"
    assert "recall precision text certified" in shown, "the line's name"


def test_errors_that_people_judged_are_told_from_wrong_labels(tmp_path: Path) -> None:
    row = {"attribute": "color", "products": 800, "errors": 120, "judged": 40, "wrong_labels": 22}
    assert (
        "color : for 120 of 800 labelled products the best value is not the merchant's. People judged 40 of these: in "
        "22 (55%, 95% interval 38% to 71%) the merchant is wrong and the model right. Nobody judged the other 80, which"
    ) in text(tmp_path, tables={"judged_errors": [row]})
    assert "Nobody" not in text(tmp_path, tables={"judged_errors": [row | {"judged": 120}]})
    assert "wrong labels" not in text(tmp_path, tables={})
