"""A dictionary is drafted from the values that enough products of a source have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog_enrichment import dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import draft_dictionary
from catalog_enrichment.ingest.draft_dictionary import by_value, dictionary_of

from ..config_texts import WITH_OWN_DICTIONARY


def test_spellings_of_one_value_are_counted_together_under_the_most_frequent() -> None:
    spellings = [("rare", 1), ("navy blue", 2), ("Navy-Blue", 3), ("Red", 4), ("Blue", 4), ("--", 9)]
    assert by_value(spellings) == [("Navy-Blue", 5), ("Blue", 4), ("Red", 4), ("rare", 1)]


def test_only_values_with_enough_products_are_in_the_dictionary() -> None:
    counts = {"size": [("S", 3)], "color": [("Red", 4), ("Blue", 3), ("rare", 2)]}
    content, summary = dictionary_of(counts, {"size"}, min_count=3, name="shop")
    values = {row["name"]: (row["cardinality"], row["values"]) for row in content["attributes"]}
    assert values == {"color": ("one", ["Red", "Blue"]), "size": ("many", ["S"])}
    assert summary == {"color": {"values": 2, "too_rare": 1}, "size": {"values": 1, "too_rare": 0}}
    with pytest.raises(DataContractError, match="size: no value has 4 products, the most frequent is 'S' with 3"):
        dictionary_of(counts, set(), min_count=4, name="shop")
    with pytest.raises(DataContractError, match=r"no value has 4 products$"):
        dictionary_of({"size": []}, set(), min_count=4, name="shop")


@pytest.mark.usefixtures("spark")
def test_a_dictionary_is_drafted_from_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaves = ["Shampoos"] * 5 + ["shampoos"] * 2 + ["Nail Polish"] * 3 + ["Wigs"]
    rows = [{"asin": str(n), "title": "t", "categories": [["Beauty", leaf]]} for n, leaf in enumerate(leaves)]
    (tmp_path / "feed.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"broken')
    (tmp_path / "config.toml").write_text(f"""{WITH_OWN_DICTIONARY}
        [source]
        format = "jsonl"
        path = "feed.jsonl"
        [source.mapping]
        product_id = "asin"
        attributes = {{ category = "categories[0][-1]" }}
    """)
    output = tmp_path / "drafts" / "attributes.json"

    def draft(file: Path, min_count: int = 2, *settings: str) -> int:
        arguments = ["--config", str(tmp_path / "config.toml"), "--min-count", str(min_count), "--output", str(file)]
        return draft_dictionary.main([*arguments, *settings])

    assert draft(output) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["attributes"] == {"category": {"values": 2, "too_rare": 1}}
    category = dictionary.load(output)["category"]
    assert (category.values, category.cardinality) == (("Shampoos", "Nail Polish"), "one")
    assert category.spellings()["shampoos"] == "Shampoos"
    other = output.with_name("other.json")
    for arguments, complaint in (
        ((output,), "new file"),
        ((other, 9), "most frequent is 'Shampoos' with 7"),
        ((other, 2, "--set", "source.mapping.attributes={}"), "source.mapping.attributes is empty"),
        ((other, 2, "--set", 'source.mapping.attributes={x="title"}', "--set", 'source.empty_texts=["t"]'), "no row"),
    ):
        assert draft(*arguments) == 2
        assert complaint in capsys.readouterr().err
    assert not other.exists()
