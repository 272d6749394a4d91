"""Runs on a real lake, real MLflow, real Spark; the model's nonsense is published as if it were certified."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.enrichment import backfill, decide, pipeline, publish, score, select, summary
from catalog_enrichment.enrichment.select import Window
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused, ModelContractError
from catalog_enrichment.frames import persisted_frames
from catalog_enrichment.operations import explain, rollback, suggestions
from catalog_enrichment.operations import promotion_diff as promotion
from catalog_enrichment.report import run as run_report

from .. import sample_catalog
from ..sample_catalog import PRODUCTS, SampleCatalog, listing, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> SampleCatalog:
    """Products imported, two versions registered, the first of them champion. Tests work on copies."""
    sample = sample_catalog.build(tmp_path_factory.mktemp("template") / "sample", spark)
    rows = [listing(number) for number in range(PRODUCTS)]
    rows[5]["image"] = "nosuch.jpg"
    rows[6]["opt_out"] = True
    sample.feed(rows)
    sample.import_products()
    scratch = tmp_path_factory.mktemp("artifacts")
    sample_catalog.register(sample, scratch, seed=1)
    sample_catalog.register(sample, scratch, seed=2)
    sample.registry.promote("1", expected_current=None)
    return sample


@pytest.fixture
def sample(template: SampleCatalog, tmp_path: Path) -> SampleCatalog:
    return template.copy_to(tmp_path / "sample")


def enrich(sample: SampleCatalog, window: Window | None = None, **options: Any) -> dict[str, Any]:
    return pipeline.enrich(sample.context(), sample.model(), window or Window(), **options)


@pytest.fixture(scope="module")
def first_run(
    template: SampleCatalog, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SampleCatalog, dict[str, Any]]:
    """The template after its first run, and the run's summary."""
    sample = template.copy_to(tmp_path_factory.mktemp("first") / "sample")
    return sample, enrich(sample)


@pytest.fixture
def enriched(first_run: tuple[SampleCatalog, dict[str, Any]], tmp_path: Path) -> SampleCatalog:
    """A copy of the sample after its first run, to change."""
    return first_run[0].copy_to(tmp_path / "enriched")


@pytest.fixture
def run(first_run: tuple[SampleCatalog, dict[str, Any]]) -> dict[str, Any]:
    """The summary of the first run."""
    return first_run[1]


def test_i7_counts_add_up_and_every_applicable_attribute_has_one_decision(run: dict[str, Any]) -> None:
    assert run["status"] == "succeeded"
    assert run["products"] == PRODUCTS
    assert run["skipped_reasons"] == {"opted_out": 1}
    assert run["predicted"] + run["skipped"] + sum(run["quarantined"].values()) == PRODUCTS
    assert run["unusable_images"] == {"image_missing": 1}
    for name, applicable in {"color": 23, "material": 19}.items():
        counts = run["attributes"][name]
        assert counts["written"] + counts["suggested"] + counts["abstained"] == applicable


def test_i1_a_merchant_value_stays_and_is_at_most_disagreed_with(
    template: SampleCatalog, enriched: SampleCatalog
) -> None:
    before = values(template, "merchant")
    assert values(enriched, "merchant") == before
    asserted = {(row["product_id"], row["attribute"]) for row in table(enriched, "attribute_values")}
    assert asserted
    assert not asserted & set(before)


def test_i2_every_written_value_names_a_certificate_that_allows_it(enriched: SampleCatalog) -> None:
    certificates = {c.certificate_id: c for c in enriched.model().certificates}
    for event in table(enriched, "attribute_values"):
        certificate = certificates[event["certificate_id"]]
        assert certificate.attribute == event["attribute"]
        assert certificate.modality == event["modality"] == "both"
        assert event["score"] >= certificate.threshold == event["threshold"]
        assert event["value"] in certificate.values


def test_i2_without_a_picture_nothing_is_written(enriched: SampleCatalog) -> None:
    assert not [row for row in table(enriched, "attribute_values") if row["product_id"] == "p005"]
    decided = [row for row in table(enriched, "predictions") if row["product_id"] == "p005"]
    assert {(row["decision"], row["reason"], row["image_reason"]) for row in decided} == {
        ("abstain", "no_certificate", "image_missing")
    }


def test_i3_every_row_of_a_run_carries_the_one_version_it_resolved(sample: SampleCatalog) -> None:
    model = sample.model()
    sample.registry.promote("2", expected_current="1")  # the alias moves while the run goes on
    pipeline.enrich(sample.context(), model, Window())
    assert {row["model_version"] for row in table(sample, "predictions")} == {"1"}
    assert {row["model_version"] for row in table(sample, "attribute_values")} == {"1"}


def test_i5_running_again_changes_nothing_and_says_so(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    before = {name: catalog.version(name) for name in ("predictions", "attribute_values", "current_values", "runs")}
    again = enrich(enriched)
    assert again["status"] == "nothing_to_do"
    assert again["skipped_reasons"] == {"already_scored": 23, "opted_out": 1}
    assert {name: catalog.version(name) for name in before} == before


class KilledError(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


@contextmanager
def killed_at(owner: Any, name: str, unless_label: str = "") -> Iterator[None]:
    """Whatever runs inside dies when it calls ``owner.name``; not where the call is labelled ``unless_label``."""
    original = getattr(owner, name)

    def kill(*arguments: Any, **named: Any) -> Any:
        if unless_label and unless_label in [argument for argument in arguments if isinstance(argument, str)]:
            return original(*arguments, **named)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, kill)
        try:
            yield
        except KilledError:
            return
    pytest.fail(f"nothing called {name}")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(decide, "decide_once", id="scored", marks=pytest.mark.slow),
        pytest.param(score, "quarantined", id="predictions landed"),
        pytest.param(LakeCatalog, "refresh_current_values", id="ledger committed"),
        pytest.param(runs, "write", id="readers served", marks=pytest.mark.slow),
    ],
)
def test_i5_a_run_killed_anywhere_and_started_again_ends_as_if_undisturbed(
    sample: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any], owner: Any, name: str
) -> None:
    with killed_at(owner, name, unless_label="catch-up"):
        enrich(sample)
    if name in ("decide_once", "quarantined"):
        assert not table(sample, "attribute_values")
        assert not values(sample, "model")
    resumed = enrich(sample)
    assert (ledger_of(sample), values(sample)) == (ledger_of(enriched), values(enriched))
    assert resumed["run_id"] == run["run_id"]
    assert len(table(sample, "runs")) == 2  # the import and the run


def test_i1_a_merchant_value_that_arrives_while_a_run_lies_dead_is_respected(sample: SampleCatalog) -> None:
    with killed_at(publish, "refuse_over_cap"):
        enrich(sample)
    change(sample, 1, color="Blue")
    enrich(sample)
    events = table(sample, "attribute_values")
    assert not [row for row in events if (row["product_id"], row["attribute"]) == ("p001", "color")]
    assert values(sample)["p001", "color"] == ("Blue",)


def change(sample: SampleCatalog, number: int, **changes: Any) -> None:
    """Import one product anew."""
    sample.feed([listing(number, **changes)])
    sample.with_settings("source.min_volume_ratio=0").import_products()


def ledger_of(sample: SampleCatalog) -> list[tuple[Any, ...]]:
    names = ("product_id", "attribute", "value", "op", "certificate_id")
    return sorted((*(row[name] for name in names), round(row["score"], 4)) for row in table(sample, "attribute_values"))


def test_i6_rollback_restores_what_readers_saw_and_so_does_its_rollback(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    after = values(enriched)
    assert after != before
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched) == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched) == after


def test_i6_a_rollback_killed_before_readers_see_it_is_finished_by_the_next(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    with killed_at(LakeCatalog, "refresh_current_values"):
        rollback.rollback_run(enriched.context().catalog, run["run_id"])
    done = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert done["status"] == "succeeded"
    assert values(enriched) == before
    assert [row["run_id"] for row in table(enriched, "runs") if row["kind"] == "rollback"] == [done["run_id"]]
    assert rollback.rollback_run(enriched.context().catalog, run["run_id"])["status"] == "nothing_to_do"


def test_i6_one_attribute_of_a_run_can_be_taken_back(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    after = values(enriched)
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="color")
    assert list(undone["events"]) == ["color"]
    assert values(enriched) == {
        key: v for key, v in after.items() if key[1] != "color" or key in values(enriched, "merchant")
    }
    assert (
        rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="color")["status"] == "nothing_to_do"
    )


def test_rolling_back_a_run_that_wrote_nothing_says_which_runs_did(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=run["run_id"]):
        rollback.rollback_run(enriched.context().catalog, "enrich-nosuch")
    with pytest.raises(ConfigError, match=r"it wrote \['color', 'material'\]"):
        rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="size")


def test_changed_content_is_scored_again_and_an_abstention_then_retracts(
    enriched: SampleCatalog, tmp_path: Path
) -> None:
    assert ("p001", "color") in values(enriched, "model")
    change(enriched, 1, title="Another thing altogether", image=None)  # no picture: the text-only path abstains
    run = enrich(enriched)
    assert run["predicted"] == 1
    assert ("p001", "color") not in values(enriched, "model")
    last = [row for row in table(enriched, "attribute_values") if row["run_id"] == run["run_id"]]
    assert {(row["op"], row["reason"]) for row in last} == {("retract", "content_changed")}
    rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert ("p001", "color") in values(enriched, "model")


def test_content_that_changes_back_is_decided_again(enriched: SampleCatalog) -> None:
    """Content A, then B, then A: readers must not keep what was decided about B. The second B is another run, too."""
    about_a = values(enriched, "model")
    other = {"title": "Another thing altogether", "image": None}  # no picture: abstains, and A's value goes
    ids = []
    for changes, expected in ((other, None), ({}, about_a["p001", "color"]), (other, None)):
        change(enriched, 1, **changes)
        run = enrich(enriched)
        assert run["predicted"] == 1
        assert values(enriched, "model").get(("p001", "color")) == expected
        ids.append(run["run_id"])
    assert len(set(ids)) == 3


def test_a_version_that_becomes_champion_again_is_decided_again(enriched: SampleCatalog) -> None:
    by_first = values(enriched, "model")
    only = Window(product_ids=("p001", "p002"))
    enriched.registry.promote("2", expected_current="1")
    enrich(enriched, only)
    enriched.registry.promote("1", expected_current="2")
    assert enrich(enriched, only)["predicted"] == 2
    assert values(enriched, "model") == by_first
    assert enrich(enriched)["status"] == "nothing_to_do"


def test_a_version_that_abstains_retracts_what_an_older_one_wrote_and_i6_holds(
    enriched: SampleCatalog, tmp_path: Path
) -> None:
    """PRECISION, "One version at a time": for version 3 no colour scores high enough, and it may not write material."""
    before = values(enriched, "model")
    colors = {key for key in before if key[1] == "color"}
    thresholds = {"color": 1.0, "material": None}
    sample_catalog.register(enriched, tmp_path, seed=3, thresholds=thresholds)
    enriched.registry.promote("3", expected_current="1")
    run = enrich(enriched)
    after = values(enriched, "model")
    assert after == {key: value for key, value in before.items() if key not in colors}
    assert {row["reason"] for row in table(enriched, "attribute_values") if row["op"] == "retract"} == {"superseded"}
    assert run["attributes"]["color"]["retracted"] == len(colors) > 0
    assert run["attributes"]["material"]["retracted"] == 0
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched, "model") == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched, "model") == after


def test_an_attribute_switched_on_again_is_scored_and_nothing_else_is(sample: SampleCatalog) -> None:
    on = (sample.folder / "attributes.json").read_text()
    (sample.folder / "attributes.json").write_text(on.replace('"name": "color",', '"name": "color", "enabled": false,'))
    assert set(enrich(sample)["attributes"]) == {"material"}
    (sample.folder / "attributes.json").write_text(on)
    second = enrich(sample)
    assert set(second["attributes"]) == {"color"}
    assert second["predicted"] == 23


def test_what_the_merchant_takes_away_is_open_again(enriched: SampleCatalog) -> None:
    assert values(enriched, "merchant")["p003", "color"] == ("Red",)
    change(enriched, 3, color=None)
    run = enrich(enriched)
    assert (run["predicted"], set(run["attributes"])) == (1, {"color"})
    assert ("p003", "color") in values(enriched, "model")


def test_a_merchant_who_opts_out_later_has_no_model_values(enriched: SampleCatalog) -> None:
    assert ("p001", "color") in values(enriched, "model")
    change(enriched, 1, opt_out=True)
    assert not [key for key in values(enriched, "model") if key[0] == "p001"]


def test_another_model_with_the_same_version_number_is_another_model(enriched: SampleCatalog, tmp_path: Path) -> None:
    other = enriched.with_settings("mlflow.model_name=other")
    sample_catalog.register(other, tmp_path, seed=5)
    other.registry.promote("1", expected_current=None)
    assert enrich(other)["predicted"] == 23


def test_a_dry_run_does_not_even_finish_what_was_killed(sample: SampleCatalog) -> None:
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample)
    before = values(sample)
    enrich(sample, dry_run=True)
    assert values(sample) == before


def test_a_new_version_scores_everything_anew_and_supersedes(enriched: SampleCatalog) -> None:
    enriched.registry.promote("2", expected_current="1")
    run = enrich(enriched)
    assert run["model_version"] == "2"
    assert run["predicted"] == 23
    current = [row for row in table(enriched, "current_values") if row["source"] == "model"]
    assert {row["model_version"] for row in current} == {"2"}


def test_max_products_takes_the_newest_and_says_what_remains(sample: SampleCatalog) -> None:
    run = enrich(sample, Window(max_products=5))
    assert (run["predicted"], run["remaining"]) == (5, 18)
    assert {row["product_id"] for row in table(sample, "predictions")} == {f"p{n:03d}" for n in range(19, 24)}
    assert enrich(sample, Window(max_products=5))["remaining"] == 13


def test_a_dry_run_writes_nothing_that_readers_see(sample: SampleCatalog) -> None:
    before = values(sample)
    run = enrich(sample, dry_run=True)
    assert run["status"] == "dry_run"
    assert run["attributes"]["color"]["written"] > 0
    assert values(sample) == before
    assert not table(sample, "predictions")
    assert len(table(sample, "runs")) == 1


def test_the_cap_on_changes_refuses_before_anything_is_written(sample: SampleCatalog) -> None:
    with pytest.raises(GateRefused, match=r"enrich\.max_changes = 3"):
        enrich(sample.with_settings("enrich.max_changes=3"))
    assert not table(sample, "predictions")
    assert not values(sample, "model")
    refused = [row for row in table(sample, "runs") if row["kind"] == "enrich"]
    assert [(row["attempt"], row["status"]) for row in refused] == [(1, "refused")]
    assert "enrich.max_changes = 3" in refused[0]["error"]
    done = enrich(sample)
    attempts = {(row["attempt"], row["status"]) for row in table(sample, "runs") if row["run_id"] == done["run_id"]}
    assert attempts == {(1, "refused"), (2, "succeeded")}


def test_switching_off_shops_and_categories_takes_effect_at_the_next_run(sample: SampleCatalog) -> None:
    run = enrich(sample.with_settings("enrich.disabled_shops=['shop-1']", "enrich.disabled_categories=['Home']"))
    assert run["skipped_reasons"] == {"not_applicable": 2, "opted_out": 1, "shop_disabled": 12}
    assert {int(row["product_id"][1:]) % 2 for row in table(sample, "predictions")} == {0}


def test_an_empty_catalog_has_nothing_to_enrich(sample: SampleCatalog) -> None:
    shutil.rmtree(sample.folder / "catalog")
    assert enrich(sample)["status"] == "nothing_to_do"


def test_a_catalog_that_fails_its_snapshot_gate_stops_the_run(sample: SampleCatalog, tmp_path: Path) -> None:
    suite = sample.folder / "suite.json"
    suite.write_text(
        '{"name": "strict", "expectations": [{"type": "expect_column_values_to_not_be_null", '
        '"kwargs": {"column": "description"}}, {"type": "expect_column_values_to_be_in_set", '
        '"kwargs": {"column": "category", "value_set": ["Toys"]}}]}'
    )
    with pytest.raises(DataContractError, match="category"):
        enrich(sample.with_settings("enrich.snapshot_suite=suite.json"))
    assert not table(sample, "predictions")
    assert [row["status"] for row in table(sample, "runs") if row["kind"] == "enrich"] == ["failed"]


def test_a_model_of_another_dictionary_is_refused(sample: SampleCatalog) -> None:
    text = (sample.folder / "attributes.json").read_text().replace('"Blue"', '"Navy"')
    (sample.folder / "attributes.json").write_text(text)
    with pytest.raises(ModelContractError, match="Blue"):
        sample.registry.check_labels(sample.model(), sample.context().dictionary)


def test_backfill_takes_the_slice_in_chunks_and_can_be_resumed(sample: SampleCatalog) -> None:
    sliced = sample.with_settings(
        "backfill.categories=['Apparel']", "backfill.updated_from=2026-01-05", "backfill.chunk_products=8"
    )
    window = backfill.window_of(sliced.config)
    expected = backfill.estimate(sliced.context(), sliced.model(), window)
    assert (expected["products"], expected["to_score"], expected["chunks"]) == (17, 16, 3)
    done = backfill.backfill(sliced.context(), sliced.model(), window)
    assert (done["status"], done["predicted"], len(done["chunks"])) == ("succeeded", 16, 3)
    chunks = [row for row in table(sample, "runs") if row["kind"] == "enrich"]
    assert {row["parent_run_id"] for row in chunks} == {done["run_id"]}
    assert sum(dict(row["counts"])["predicted"] for row in chunks) == 16
    check_seconds(sample, done, chunks)
    again = backfill.backfill(sliced.context(), sliced.model(), window)
    assert (again["status"], again["run_id"]) == ("nothing_to_do", done["run_id"])
    assert {row["product_id"] for row in table(sample, "predictions")} == {
        f"p{n:03d}" for n in range(4, 24) if n % 7 and n != 6
    }


def check_seconds(sample: SampleCatalog, done: dict[str, Any], chunks: list[dict[str, Any]]) -> None:
    """Each chunk has its own seconds, the backfill has their sum, and the next estimate's rate follows from it."""
    for chunk in chunks:
        names = [stage["name"] for stage in chunk["stages"]]
        assert names == ["select", "validate", "score", "decide", "land", "publish"]
        assert dict(chunk["seconds"]) == {stage["name"]: stage["seconds"] for stage in chunk["stages"]}
    total = sum(seconds for chunk in chunks for _, seconds in chunk["seconds"])
    assert sum(done["seconds"].values()) == pytest.approx(total, abs=0.1)
    [parent] = [row for row in table(sample, "runs") if row["kind"] == "backfill"]
    assert dict(parent["seconds"]) == pytest.approx(done["seconds"])
    assert backfill.products_per_second(sample.context().catalog) == pytest.approx(16 / total, rel=0.05)


def test_a_backfill_is_rolled_back_by_its_own_id(sample: SampleCatalog) -> None:
    before = values(sample)
    chunked = sample.with_settings("backfill.chunk_products=12")
    done = backfill.backfill(chunked.context(), chunked.model(), backfill.window_of(chunked.config))
    assert values(sample) != before
    assert rollback.rollback_run(sample.context().catalog, done["run_id"])["status"] == "succeeded"
    assert values(sample) == before


def test_a_backfill_of_content_that_changed_back_is_another_backfill(enriched: SampleCatalog) -> None:
    sliced = enriched.with_settings("backfill.product_ids=['p001']")
    window = backfill.window_of(sliced.config)
    done, seen = [], []
    for title in ("Another thing altogether", "Shirt number 1 red", "Another thing altogether"):
        change(enriched, 1, title=title)
        done.append(backfill.backfill(sliced.context(), sliced.model(), window))
        seen.append(table(enriched, "current_values"))
    assert [one["status"] for one in done] == ["succeeded"] * 3
    assert len({one["run_id"] for one in done}) == 3
    rollback.rollback_run(enriched.context().catalog, done[2]["run_id"])
    assert {row["run_id"] for row in table(enriched, "current_values")} == {row["run_id"] for row in seen[1]}


def test_backfill_by_product_ids(sample: SampleCatalog) -> None:
    (sample.folder / "ids.txt").write_text("p001\n\np002\nnosuch\n")
    named = sample.with_settings("backfill.product_ids=['p003']", "backfill.product_ids_file=ids.txt")
    done = backfill.backfill(named.context(), named.model(), backfill.window_of(named.config))
    assert {row["product_id"] for row in table(sample, "predictions")} == {"p001", "p002", "p003"}
    assert done["products"] == 3


def explained(sample: SampleCatalog, product_id: str, attribute: str) -> dict[str, Any]:
    context = sample.context()
    return explain.explain_value(context.catalog, context.dictionary, product_id, attribute)


def test_explain_names_writer_certificate_history_and_the_way_back(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    told = explained(enriched, "p001", "color")
    assert told["current"]["source"] == "model"
    assert told["current"]["run_id"] == run["run_id"]
    assert told["certificate"]["certificate_id"] == told["current"]["certificate_id"]
    assert [event["op"] for event in told["history"]] == ["assert"]
    assert run["run_id"] in told["undo"]
    merchants = explained(enriched, "p003", "color")
    assert merchants["current"]["source"] == "merchant"
    assert merchants["undo"] is None
    with pytest.raises(ConfigError, match="nosuch"):
        explained(enriched, "nosuch", "color")
    with pytest.raises(ConfigError, match="size"):
        explained(enriched, "p001", "size")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_suggestions_are_exported_per_shop(
    enriched: SampleCatalog, run: dict[str, Any], tmp_path: Path, kind: Any
) -> None:
    suggested = sum(counts["suggested"] for counts in run["attributes"].values())
    assert suggested > 0
    done = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "out", kind)
    assert done["suggestions"] >= suggested
    assert {p.name for p in (tmp_path / "out").glob("shop_id=*")} == {f"shop_id={shop}" for shop in done["shops"]}
    assert list((tmp_path / "out").rglob(f"*.{kind}"))
    assert (
        suggestions.export_suggestions(enriched.context().catalog, tmp_path / "out", kind)["suggestions"]
        == done["suggestions"]
    )


def test_a_suggestion_that_the_merchant_took_up_is_not_exported(enriched: SampleCatalog, tmp_path: Path) -> None:
    against = [row for row in table(enriched, "predictions") if row["reason"] == "disagrees_with_merchant"]
    open_before = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "before", "csv")["suggestions"]
    change(enriched, int(against[0]["product_id"][1:]), color=against[0]["value"])
    open_after = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "after", "csv")["suggestions"]
    assert open_after == open_before - 1


def test_an_export_does_not_overwrite_a_folder_it_did_not_write(sample: SampleCatalog, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another folder"):
        suggestions.export_suggestions(sample.context().catalog, tmp_path, "csv")


def test_the_report_shows_the_run(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    assert run["run_id"] in page
    assert "Shirt number" in page
    assert "data:image/jpeg" in page


def test_the_runs_row_has_what_its_id_is_a_hash_of(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    [row] = [row for row in table(enriched, "runs") if row["kind"] == "enrich"]
    empty = {name for name, value in row.items() if value is None}
    assert empty == {"parent_run_id", "error"}
    assert (row["run_id"], row["model_version"], row["window"]) == (run["run_id"], "1", "{}")


def test_a_chunk_that_failed_after_its_commit_is_rolled_back_with_its_backfill(sample: SampleCatalog) -> None:
    before = values(sample)
    chunked = sample.with_settings("backfill.chunk_products=100")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "add_coverage_after", failing)
        with pytest.raises(OSError, match="disk full"):
            backfill.backfill(chunked.context(), chunked.model(), backfill.window_of(chunked.config))
    rows = {row["kind"]: row for row in table(sample, "runs") if row["kind"] != "import"}
    assert {kind: row["status"] for kind, row in rows.items()} == {"enrich": "failed", "backfill": "failed"}
    assert "disk full" in rows["backfill"]["error"]
    assert values(sample) != before
    written = next(key for key, value in values(sample, "model").items() if value)
    assert explained(sample, *written)["decisions"], "what a failed run published is explained, too"
    assert rollback.rollback_run(sample.context().catalog, rows["backfill"]["run_id"])["status"] == "succeeded"
    assert values(sample) == before


def failing(*_: Any) -> None:
    raise OSError("disk full")


def test_a_run_that_is_resumed_after_its_commit_shows_what_others_committed_meanwhile(sample: SampleCatalog) -> None:
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p001",)))
    catalog = sample.context().catalog
    resumed_state = select.read_ledger(catalog, lambda frame: frame)
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p002",)))
    [run_id] = {row["run_id"] for row in table(sample, "attribute_values") if row["product_id"] == "p001"}
    nothing = publish.Changes(resumed_state.standing.events.limit(0), 0, 0)
    publish.publish(catalog, nothing, resumed_state.standing, run_id)
    assert {"p001", "p002"} <= {product for product, _ in values(sample, "model")}


def test_a_refused_attempt_keeps_its_scores_alone_and_a_dry_run_nothing(sample: SampleCatalog) -> None:
    capped = sample.with_settings("enrich.max_changes=0")
    for _ in range(2):
        with pytest.raises(GateRefused):
            enrich(capped)
    checkpoints = [folder.name.rpartition("-")[0] for folder in (sample.folder / "catalog" / "_staging").glob("*/*")]
    assert checkpoints == ["scored"]
    with pytest.raises(GateRefused):
        enrich(capped, dry_run=True)
    assert not list((sample.folder / "catalog" / "_staging").glob("*/*"))


def test_the_cap_does_not_refuse_what_readers_see_already(sample: SampleCatalog) -> None:
    with killed_at(runs, "write"):
        enrich(sample)
    assert enrich(sample.with_settings("enrich.max_changes=0"))["status"] == "succeeded"


def test_the_report_shows_the_runs_own_stages_whoever_writes_it(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    shown = [name for name in ("select", "score", "decide", "publish") if f">{name}<" in page]
    assert shown == ["select", "score", "decide", "publish"]
    assert ">read<" not in page, "a stage of the import"


def test_a_run_reads_and_replays_the_ledger_once(sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, replays = [], []
    read, active = LakeCatalog.read, ledger.active

    def counted_read(catalog: LakeCatalog, name: str, version: int | None = None) -> Any:
        reads.append(name)
        return read(catalog, name, version)

    def counted_active(events: Any) -> Any:
        replays.append(events)
        return active(events)

    monkeypatch.setattr(LakeCatalog, "read", counted_read)
    monkeypatch.setattr(ledger, "active", counted_active)
    done = enrich(sample)
    assert done["attributes"]["color"]["written"] > 0
    assert (reads.count("attribute_values"), len(replays)) == (1, 1)


def test_readers_see_the_same_after_a_run_as_after_a_replay_of_the_ledger(enriched: SampleCatalog) -> None:
    """The run derives current values from what stood before and its own events; here from all events."""
    change(enriched, 1, title="Another thing altogether", image=None)
    change(enriched, 2, title="Something else")
    enrich(enriched)
    catalog = enriched.context().catalog
    replayed = ledger.current_values(catalog.read("products"), ledger.active(catalog.read("attribute_values")))
    assert values(enriched) == {(row.product_id, row.attribute): tuple(row["values"]) for row in replayed.collect()}
    assert not catalog.current_values_stale()


def test_what_a_run_caches_is_released(sample: SampleCatalog, spark: SparkSession) -> None:
    cached = spark._jsparkSession.sharedState().cacheManager()
    assert cached.isEmpty()
    with pytest.raises(GateRefused):
        enrich(sample.with_settings("enrich.max_changes=0"))
    assert cached.isEmpty()
    run = enrich(sample)
    run_report.write_report(sample.context().catalog, sample.config, run["run_id"])
    assert cached.isEmpty()


def shuffles_of_pictures(node: Any, joined: bool = False) -> tuple[int, int]:
    """Shuffles of a physical plan that carry pictures: above its join, and below it. Cached frames are left out."""
    if node.nodeName() == "AdaptiveSparkPlan":
        node = node.initialPlan()
    columns = {node.output().apply(index).name() for index in range(node.output().size())}
    carries = node.nodeName() == "Exchange" and "images" in columns
    counts = [(carries and not joined, carries and joined)]
    joined = joined or "Join" in node.nodeName()
    children = node.children()
    counts += [shuffles_of_pictures(children.apply(index), joined) for index in range(children.size())]
    return sum(above for above, _ in counts), sum(below for _, below in counts)


@pytest.mark.parametrize("broadcast_keys", [1000, 0])
def test_pictures_are_shuffled_once_on_their_way_to_the_model(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch, broadcast_keys: int
) -> None:
    """Where the keys can be broadcast, the shuffle is above the join: only pictures of products to score take part."""
    monkeypatch.setattr(select, "BROADCAST_KEYS", broadcast_keys)
    context = sample.context()
    request = select.RunRequest.of(sample.config, context.dictionary, sample.model(), Window())
    with persisted_frames() as persist:
        products = select.select_products(context.catalog, request, persist).products
        above, below = shuffles_of_pictures(products._jdf.queryExecution().executedPlan())
        assert products.rdd.getNumPartitions() == 2 * context.spark.sparkContext.defaultParallelism
    assert (above, below) == ((1, 0) if broadcast_keys else (0, 1))


def test_coverage_takes_two_aggregations_however_many_attributes(enriched: SampleCatalog, spark: SparkSession) -> None:
    catalog, plain = enriched.context().catalog, enriched.context().dictionary
    many = Dictionary({name: replace(plain["color"], name=name) for name in ("color", *(f"a{n}" for n in range(9)))})

    def jobs(dictionary: Dictionary) -> tuple[int, dict[str, dict[str, Any]]]:
        group = f"coverage of {len(dictionary.attributes)}"
        spark.sparkContext.setJobGroup(group, group)
        coverage = summary.coverage_by_attribute(catalog, dictionary)
        return len(spark.sparkContext.statusTracker().getJobIdsForGroup(group)), coverage

    adaptive = spark.conf.get("spark.sql.adaptive.enabled")
    spark.conf.set("spark.sql.adaptive.enabled", "false")  # it starts a varying number of jobs for one query
    try:
        few_jobs, coverage = jobs(plain)
        many_jobs, _ = jobs(many)
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    assert few_jobs == many_jobs
    seen = values(enriched)
    for name, applicable in {"color": 24, "material": 20}.items():
        assert coverage[name]["applicable"] == applicable
        assert coverage[name]["coverage"] == round(sum(key[1] == name for key in seen) / applicable, 4)
        assert coverage[name]["merchant"] == sum(key[1] == name for key in values(enriched, "merchant"))
    assert summary.coverage_by_attribute(catalog, Dictionary({})) == {}


# --- the diff of a promotion


def promotion_diff(sample: SampleCatalog, version: str, sampled_products: int = 0) -> dict[str, Any]:
    """Of `promote_model --dry-run`, for a gate that was inconclusive."""
    gate = {"model_name": "m", "model_version": version, "champion_before": "1", "verdict": "inconclusive"}
    gate |= {"reasons": ["recall may be lower"], "comparisons": []}
    model = sample.registry.resolve(version=version)
    return promotion.promotion_diff(sample.context(), model, gate, sampled_products)


def test_the_diff_of_a_promotion_is_what_an_enrichment_then_changes(enriched: SampleCatalog) -> None:
    tables = [table(enriched, name) for name in ("predictions", "attribute_values", "runs")]
    before = values(enriched, "model")
    found = promotion_diff(enriched, "2")
    assert [table(enriched, name) for name in ("predictions", "attribute_values", "runs")] == tables
    assert not list((enriched.config.path("catalog") / "_staging").glob("*/*"))
    assert (found["products"], found["catalog_products"]) == (PRODUCTS, PRODUCTS)

    enriched.registry.promote("2", expected_current="1")
    enrich(enriched)
    after = values(enriched, "model")
    expected: dict[str, Counter[str]] = {name: Counter() for name in found["attributes"]}
    for product, name in before.keys() | after.keys():
        old, new = before.get((product, name)), after.get((product, name))
        kind = "unchanged" if old == new else "added" if old is None else "retracted" if new is None else "changed"
        expected[name][kind] += 1
    counted = {name: {kind: n for kind, n in kinds.items() if n} for name, kinds in found["attributes"].items()}
    assert counted == {name: dict(kinds) for name, kinds in expected.items()}
    assert expected["color"]["changed"]

    page = Path(found["report"]).read_text()
    assert "recall may be lower" in page
    assert page.count("<figure") == sum(kinds.total() - kinds["unchanged"] for kinds in expected.values())
    assert "data:image/jpeg;base64" in page


def test_the_diff_of_a_promotion_can_be_of_a_sample(enriched: SampleCatalog) -> None:
    found = promotion_diff(enriched, "2", sampled_products=8)
    assert 0 < found["products"] < found["catalog_products"] == PRODUCTS
    assert sum(sum(kinds.values()) for kinds in found["attributes"].values()) > 0


def test_the_diff_of_a_version_that_has_decided_everything_is_empty(enriched: SampleCatalog) -> None:
    assert {sum(kinds.values()) for kinds in promotion_diff(enriched, "1")["attributes"].values()} == {0}
