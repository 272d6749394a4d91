"""A person corrects or removes one value, and takes that back; models leave it alone."""

from __future__ import annotations

import getpass
import json
from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.operations import explain, rollback, set_value
from catalog_enrichment.operations.explain import PersonSet
from catalog_enrichment.operations.set_value import Correction
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.kinds import Kind, NumberRule

from ..open_words import BRAND, WIDTH
from ..sample_catalog import SampleCatalog, change, enrich, killed_at, table, values

COLOR = Attribute(
    name="color", cardinality=Cardinality.ONE, values=("Navy Blue", "Light Blue", "Red"),
    aliases={"en": {"navy": "Navy Blue"}, "de": {"rot": "Red"}, "xx": {"rot": "Light Blue"}},
)  # fmt: skip
MATERIAL = Attribute(name="material", cardinality=Cardinality.MANY, values=("Cotton", "Wool", "Silk"))
SEASON = Attribute(name="season", cardinality=Cardinality.ONE, values=("Winter",), enabled=False)
SIZE = Attribute(name="size", cardinality=Cardinality.ONE, values=tuple(f"{n} cm" for n in range(100, 150)))
DICTIONARY = Dictionary({known.name: known for known in (COLOR, MATERIAL, SEASON, SIZE)})


def correction(attribute: str, *given: str, **more: Any) -> Correction:
    return Correction(**{"product_id": "p1", "attribute": attribute, "values": given, "by": "ann"} | more)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (correction("colour", "Red"), r"no attribute 'colour' in the dictionary; it has \['color'"),
        (correction("color", "Navi Blue"), r"'Navi Blue' is no value of color .* nearest are \['Navy Blue', "),
        (correction("color", "nvy"), r"nearest are \['Navy Blue'\]"),
        (correction("color", "Q"), r"it has \['Navy Blue', 'Light Blue', 'Red'\]$"),
        (correction("size", "zzz"), r"'119 cm'\] and 30 more$"),
        (correction("color", ""), "'' is no value of color"),
        (correction("color", "Red", "navy"), r"one value per product, and these are 2: \['Navy Blue', 'Red'\]"),
        (correction("material", "Cotton", "Silkk"), r"nearest are \['Silk'\]"),
        (correction("season", "Winter"), 'season is switched off: set "enabled"'),
        (correction("color"), "or --remove"),
        (correction("color", "Red", remove=True), "not both"),
        (correction("color", "Red", by=" "), "--by needs a name"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(asked: Correction, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked.check(DICTIONARY)


def test_spellings_are_mapped_in_the_products_language() -> None:
    assert correction("color", "NAVY", "navy-blue").canonical_values(COLOR, None) == ["Navy Blue"]
    assert correction("color", "rot").canonical_values(COLOR, "de") == ["Red"]
    assert correction("color", "rot").canonical_values(COLOR, "xx") == ["Light Blue"]
    assert correction("material", "wool", "cotton", "Wool").canonical_values(MATERIAL, "en") == ["Cotton", "Wool"]
    turkish = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",), aliases={"tr": {"kırmızı": "Red"}})
    correction("color", "KIRMIZI").check(Dictionary({"color": turkish}))
    correction("season", remove=True).check(DICTIONARY)  # what is switched off can be removed
    assert correction("season", remove=True).canonical_values(SEASON, None) == []


def test_numbers_are_read_by_their_kind_or_refused_with_the_reason() -> None:
    width = Attribute(
        name="width",
        cardinality=Cardinality.ONE,
        kind=Kind.NUMBER,
        number=NumberRule(unit="cm", low=1, high=500),
    )
    assert correction("width", "510 mm").canonical_values(width, None) == ["51 cm"]
    assert correction("width", "1,5 m").canonical_values(width, "de") == ["150 cm"]
    with pytest.raises(ConfigError, match="'12-15 cm' is no value of width: it has several numbers"):
        correction("width", "12-15 cm").canonical_values(width, None)


def test_a_number_is_read_once_in_the_products_language() -> None:
    length = Attribute(
        name="length", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=NumberRule(unit="m", low=1, high=2000)
    )
    typed = correction("length", "1,299")
    assert typed.canonical_values(length, "de") == ["1.299 m"]
    stored = correction("length", "1.299 m", as_stored=True)
    assert stored.canonical_values(length, "de") == ["1.299 m"]
    assert correction("length", "1.299 m").canonical_values(length, "de") == ["1299 m"]


def test_a_number_that_is_plausible_in_some_language_may_be_meant() -> None:
    year = Attribute(
        name="year", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=NumberRule(unit="", low=1000, high=2100)
    )
    correction("year", "1.999").check(Dictionary({"year": year}))
    correction("year", "1,999").check(Dictionary({"year": year}))
    with pytest.raises(ConfigError, match="not in the plausible range"):
        correction("year", "2.999").check(Dictionary({"year": year}))


def test_what_a_person_said_is_compared_in_the_units_of_now() -> None:
    metres = replace(WIDTH, number=NumberRule(unit="m"))
    said = PersonSet(values=("109 cm",), run_id="set_value-1", by="ann", reason=None)
    renewed = set_value._as_said_now(said, metres)
    assert renewed is not None
    assert renewed.values == ("1.09 m",)
    text = PersonSet(values=("Acme",), run_id="set_value-1", by="ann", reason=None)
    assert set_value._as_said_now(text, BRAND) == text
    assert set_value._as_said_now(None, BRAND) is None


def test_the_user_is_named_by_login_or_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert set_value.login_name() == "ann"

    def no_name() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert set_value.login_name().startswith("user ")


def say(sample: SampleCatalog, product_id: str, attribute: str, *given: str, **more: Any) -> dict[str, Any]:
    dry_run = more.pop("dry_run", False)
    asked = correction(attribute, *given, product_id=product_id, remove=not given, **more)
    return set_value.set_value(sample.context(), asked, dry_run)


def attempts(sample: SampleCatalog) -> list[dict[str, Any]]:
    rows = [row for row in table(sample, "runs") if row["kind"] == "set_value"]
    return sorted(rows, key=lambda row: row["finished_at"])


KEY = ("p001", "color")


def test_a_correction_stands_before_every_model_until_it_is_undone_i1_i5_i6(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(enriched)
    other = "Red" if before[KEY] != ("Red",) else "Green"
    ledger_before = len(table(enriched, "attribute_values"))

    dry = say(enriched, *KEY, other, dry_run=True)
    assert (dry["status"], dry["before"]["values"], dry["after"]["values"]) == ("dry_run", list(before[KEY]), [other])
    assert (values(enriched), len(table(enriched, "attribute_values"))) == (before, ledger_before)
    corrected = say(enriched, *KEY, other.upper(), reason="see the second picture")
    assert corrected["run_id"] == dry["run_id"]
    assert values(enriched) == before | {KEY: (other,)}
    assert values(enriched, "human") == {KEY: (other,)}
    [row] = attempts(enriched)
    assert (row["run_id"], row["status"]) == (corrected["run_id"], "succeeded")
    assert dict(row["counts"]) == {"events.color": 1}
    assert json.loads(row["window"]) == {
        "product_id": "p001", "attribute": "color", "values": [other], "by": "ann", "reason": "see the second picture",
    }  # fmt: skip
    told = explain.explain_value(enriched.context(), *KEY)
    assert "(ann: see the second picture)" in told["why"]
    assert told["undo"] == corrected["undo"] == f"rollback_run --config FILE --run-id {corrected['run_id']}"
    assert told["certificate"] is None

    again = say(enriched, *KEY, other)
    assert (again["status"], again["run_id"], again["undo"]) == (
        "nothing_to_do", corrected["run_id"], corrected["undo"],
    )  # fmt: skip
    assert len(table(enriched, "attribute_values")) == ledger_before + 1

    rolled_back = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched, "human") == {KEY: (other,)}
    assert values(enriched, "model") == {}
    rollback.rollback_run(enriched.context().catalog, rolled_back["run_id"])

    removed = say(enriched, *KEY)
    without = {key: value for key, value in before.items() if key != KEY}
    assert values(enriched) == without
    assert "there is no color (ann)" in explain.explain_value(enriched.context(), *KEY)["why"]
    rollback.rollback_run(enriched.context().catalog, removed["run_id"])
    assert values(enriched) == before | {KEY: (other,)}


@pytest.mark.slow
def test_no_model_writes_what_a_person_said_until_that_is_undone(enriched: SampleCatalog) -> None:
    """Neither another version, nor on other content; afterwards it is decided again."""
    corrected, removed = say(enriched, *KEY, "Red"), say(enriched, *KEY)
    enriched.promotion.promote("2", expected_current="1")
    change(enriched, 1, title="Another title")
    newer = enrich(enriched)
    assert KEY not in values(enriched)
    decided = {row["reason"] for row in table(enriched, "predictions")
               if (row["run_id"], row["product_id"], row["attribute"]) == (newer["run_id"], *KEY)}  # fmt: skip
    assert decided == {"human_value_stands"}
    assert enrich(enriched)["status"] == "nothing_to_do"

    rollback.rollback_run(enriched.context().catalog, removed["run_id"])
    assert values(enriched)[KEY] == ("Red",)
    rollback.rollback_run(enriched.context().catalog, corrected["run_id"])
    assert KEY not in values(enriched, "human")
    reopened = enrich(enriched)
    assert (reopened["predicted"], set(reopened["attributes"])) == (1, {"color"})
    assert KEY in values(enriched, "model")


@pytest.mark.slow
def test_a_correction_that_was_killed_is_finished_and_can_be_made_again_after_its_undo_i5(
    enriched: SampleCatalog,
) -> None:
    before = values(enriched)
    with killed_at(Catalog, "refresh_current_values"):
        say(enriched, "p002", "material", "wool", "Cotton")
    assert values(enriched) == before
    assert not attempts(enriched)
    done = say(enriched, "p002", "material", "Cotton", "Wool", "wool")
    assert done["status"] == "succeeded"
    assert values(enriched)["p002", "material"] == ("Cotton", "Wool")
    events = [row for row in table(enriched, "attribute_values") if row["source"] == "human"]
    assert [row["run_id"] for row in events] == [done["run_id"]] * 2
    rollback.rollback_run(enriched.context().catalog, done["run_id"])
    assert values(enriched) == before
    again = say(enriched, "p002", "material", "Cotton", "Wool")
    assert (again["status"], again["run_id"] != done["run_id"]) == ("succeeded", True)
    assert values(enriched)["p002", "material"] == ("Cotton", "Wool")
    assert [row["run_id"] for row in attempts(enriched)] == [done["run_id"], again["run_id"]]


def test_what_is_refused_writes_nothing_but_its_attempt_i1(sample: SampleCatalog) -> None:
    before = values(sample)
    with pytest.raises(ConfigError, match="no product 'nosuch' in the catalog"):
        say(sample, "nosuch", "color", "Red")
    with pytest.raises(ConfigError, match="material does not apply to category Home/Textiles"):
        say(sample, "p007", "material", "Wool")
    for given in (["Red"], []):
        with pytest.raises(GateRefused, match=r"the merchant gave .*corrected in the merchant's feed"):
            say(sample, "p003", "color", *given)
    assert values(sample) == before
    assert not table(sample, "attribute_values")
    made = [(row["status"], json.loads(row["window"])["product_id"]) for row in attempts(sample)]
    assert made == [("failed", "nosuch"), ("failed", "p007"), ("refused", "p003"), ("refused", "p003")]


@pytest.mark.usefixtures("spark")
def test_the_command_line_names_the_undo_with_the_same_config(
    enriched: SampleCatalog, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(name: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
        code = getattr(cli, name)(["--config", str(enriched.file), *arguments])
        printed = capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]), printed.err

    code, done, progress = job("set_value", "--by", "ann", "--remove", *KEY)
    assert (code, done["status"], done["after"]["values"]) == (0, "succeeded", [])
    assert done["undo"] == f"rollback_run --config {enriched.file} --run-id {done['run_id']}"
    assert f"to undo: {done['undo']}" in progress
    assert "color is now: no value, as ann said" in progress
    assert job("explain_value", "--product-id", "p001", "--attribute", "color")[1]["undo"] == done["undo"]
    code, missing, _ = job("set_value", "--dry-run", "--", "-p' OR 1=1", "color", "Red")
    assert (code, missing["error"]) == (2, "ConfigError")
    assert 'no product "-p\' OR 1=1"' in missing["message"]
