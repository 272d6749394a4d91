"""The table `switches`: the newest row counts, rows that change nothing are left out, and no lock is needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog_enrichment import contract
from catalog_enrichment.audit import set_switch
from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Cardinality

from ..open_words import OPEN_WORDS
from .catalog_rows import product

COLOR = Dictionary({"color": Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Green"))})


def switch(scope: Scope, state: State, target: str = "", attribute: str = "", **given: str) -> Switch:
    return Switch(
        scope=scope, state=state, target=target, attribute=attribute, **{"who": "ann", "why": "tests"} | given
    )


def test_the_newest_row_of_a_target_counts(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    assert switches.read(catalog).entries == ()
    off = switch(Scope.SHOP, State.OFF, "s1")
    switches.write(catalog, [off, switch(Scope.SHOP, State.PAUSED, "s2"), switch(Scope.CATEGORY, State.OFF, "s1")])
    now = switches.read(catalog)
    assert [entry.key for entry in now.entries] == sorted(entry.key for entry in now.entries)
    assert now.targets(Scope.SHOP, State.OFF) == ["s1"]
    assert now.targets(Scope.SHOP, State.OFF, State.PAUSED) == ["s1", "s2"]
    switches.write(catalog, [switch(Scope.SHOP, State.ON, "s1")])
    assert switches.read(catalog).targets(Scope.SHOP, State.OFF, State.PAUSED) == ["s2"]
    assert switches.read(catalog).targets(Scope.CATEGORY, State.OFF) == ["s1"]
    past = switches.history(catalog)
    assert [entry.state for entry in past] == [State.OFF, State.PAUSED, State.OFF, State.ON]
    times = [entry.at for entry in past if entry.at]
    assert times == sorted(set(times))
    assert len(times) == 4


def test_i5_a_row_that_changes_nothing_is_not_written(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    off = switch(Scope.ATTRIBUTE, State.OFF, attribute="color")
    assert switches.write(catalog, [switch(Scope.ATTRIBUTE, State.ON, attribute="color")]) == []
    assert len(switches.write(catalog, [off, off])) == 1
    assert switches.write(catalog, [off]) == []
    assert len(switches.write(catalog, [switch(Scope.SHOP, State.PAUSED, "x")], "run-1")) == 1
    assert switches.write(catalog, [switch(Scope.SHOP, State.PAUSED, "y")], "run-1") == [], "a run's rows once only"
    assert len(switches.history(catalog)) == 2


def test_a_switch_can_be_moved_while_a_job_writes(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    with catalog.writing():
        red = switch(Scope.VALUE, State.OFF, "Red", attribute="color")
        done = set_switch.set_switch(Catalog(tmp_path / "catalog"), COLOR, red)
    assert done["status"] == "succeeded"
    assert done["not_on"][0].startswith("value color = Red is off: tests (ann, 20")
    again = set_switch.set_switch(catalog, COLOR, red)
    assert again["status"] == "nothing_to_do"


def test_a_number_or_text_is_switched_in_any_spelling(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")

    def move(state: State, target: str, attribute: str = "width") -> str:
        moved = switch(Scope.VALUE, state, target, attribute=attribute)
        return str(set_switch.set_switch(catalog, OPEN_WORDS, moved)["status"])

    assert move(State.OFF, "1.09 m") == "succeeded"
    assert switches.read(catalog).targets(Scope.VALUE, State.OFF) == ["109 cm"]
    assert move(State.OFF, "109,5 cm") == "nothing_to_do", "within the tolerance"
    assert move(State.OFF, "112 cm") == "succeeded"
    assert move(State.ON, "43 in") == "succeeded"
    assert switches.read(catalog).targets(Scope.VALUE, State.OFF) == ["112 cm"]
    assert move(State.PAUSED, "HP", "brand") == "succeeded"
    assert move(State.PAUSED, "hewlett packard", "brand") == "nothing_to_do"
    with pytest.raises(ConfigError, match="'12-15 cm' is no value of width in the dictionary: it has several numbers"):
        move(State.OFF, "12-15 cm")


@pytest.mark.parametrize(
    ("good", "misspelled", "nearest"),
    [
        (switch(Scope.SHOP, State.OFF, "shop-17"), "shp-17", "'shop-17'"),
        (switch(Scope.CATEGORY, State.OFF, "Apparel"), "Aparel", "'Apparel'"),
        (switch(Scope.CATEGORY, State.PAUSED, "Apparel/Hats"), "Apparel/Hat", "'Apparel/Hats'"),
        (switch(Scope.CERTIFICATE, State.PAUSED, "certificate-1"), "certificate-2", "pause its attribute"),
        (switch(Scope.STRATUM, State.PAUSED, "both/en/Apparel", "color"), "both/de/Apparel", "'both/en/Apparel'"),
    ],
)
def test_a_switch_of_a_name_that_the_catalog_does_not_have_is_refused(
    tmp_path: Path, good: Switch, misspelled: str, nearest: str
) -> None:
    catalog = Catalog(tmp_path / "catalog")
    usual = {"title": "", "images": [], "merchant_attributes": {}, "updated_at": datetime(2026, 5, 1, tzinfo=UTC)}
    of_shop = product("p1", shop_id="shop-17", category="Apparel/Hats", language="en", **usual)
    catalog.append_rows("products", [of_shop], "products")
    event = dict.fromkeys(contract.columns("attribute_values"), "x") | {"certificate_id": "certificate-1"}
    numbers = {"score": 0.9, "threshold": 0.8, "asserted_at": usual["updated_at"]}
    catalog.append_rows("attribute_values", [event | numbers], "events")
    with pytest.raises(ConfigError, match=f"nothing in the catalog has the {good.scope.value} .*{nearest}"):
        set_switch.set_switch(catalog, COLOR, replace(good, target=misspelled))
    assert switches.history(catalog) == []
    assert set_switch.set_switch(catalog, COLOR, good)["status"] == "succeeded"
    on = replace(good, target=misspelled, state=State.ON)
    assert set_switch.set_switch(catalog, COLOR, on)["status"] == "nothing_to_do"


def test_what_a_run_pauses_stays_off_where_somebody_switched_it_off(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    off, pause = (switch(Scope.ATTRIBUTE, state, attribute="color") for state in (State.OFF, State.PAUSED))
    switches.write(catalog, [off])
    assert switches.write(catalog, [replace(pause, run_id="ingest-1")]) == []
    assert switches.read(catalog).of(Scope.ATTRIBUTE, State.OFF)
    assert len(switches.write(catalog, [pause])) == 1, "a person may"


def test_identity_is_what_decisions_rest_on(tmp_path: Path) -> None:
    first, second = (switches.Switches((switch(Scope.SHOP, State.OFF, "s1", why=why),)) for why in ("a", "b"))
    assert first.identity() == second.identity() == [("shop", "", "s1", "off")]
    assert first.with_more([switch(Scope.SHOP, State.ON, "s1")]).entries == ()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (switch(Scope.SHOP, State.OFF, "s", who=" "), "--by needs a name"),
        (switch(Scope.SHOP, State.OFF, "s", why=""), "--reason a text"),
        (switch(Scope.SHOP, State.OFF, "s", attribute="color"), "--attribute is needed for the scopes"),
        (switch(Scope.VALUE, State.OFF, "Red"), "--attribute is needed for the scopes"),
        (switch(Scope.ATTRIBUTE, State.OFF, "x", attribute="color"), "needs no TARGET"),
        (switch(Scope.CERTIFICATE, State.OFF), "needs a TARGET"),
        (switch(Scope.ATTRIBUTE, State.OFF, attribute="size"), "'size' is not in the dictionary"),
        (switch(Scope.VALUE, State.OFF, "Blue", attribute="color"), "'Blue' is no value of color"),
        (switch(Scope.STRATUM, State.OFF, "both/en/x", attribute="color"), "can be paused, not off"),
    ],
)
def test_a_switch_that_cannot_be_is_refused(tmp_path: Path, asked: Switch, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        set_switch.set_switch(Catalog(tmp_path / "catalog"), COLOR, asked)
    assert not (tmp_path / "catalog" / "switches").exists()
