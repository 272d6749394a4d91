"""What is declared about the labels that a proposer has seen, and the check beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from catalog_enrichment.config.proposer import NOTHING_SEEN
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.seen_products import Declaration, matched, seen, sentence

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def declared(text: str, root: Path) -> Declaration:
    return Declaration.of(text, cast(Config, SimpleNamespace(path=lambda name: root / name)))


def products(ids: str, times: list[datetime | None] | None = None) -> Dataset:
    at = times or [None] * len(ids)
    return cast(Dataset, cast(Any, SimpleNamespace(ids=list(ids), first_imported_at=at)))


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("2026-03-01", MARCH),
        ("2026-03-01T02:00:00+02:00", MARCH),
        (NOTHING_SEEN, None),
    ],
)
def test_a_date_without_a_zone_is_midnight_utc(text: str, before: datetime | None, tmp_path: Path) -> None:
    found = declared(text, tmp_path)
    assert (found.before, found.ids) == (before, frozenset())


@pytest.mark.parametrize(("content", "message"), [(None, "a date like .* or the path"), (b"\n \n", "no product ids")])
def test_what_is_none_of_the_three_forms_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        declared("ids.txt", tmp_path)


def test_a_product_is_seen_with_its_content_group_and_at_an_unknown_time(tmp_path: Path) -> None:
    before, at, later = datetime(2026, 2, 28, 23, 59, tzinfo=UTC), MARCH, datetime(2026, 4, 1, tzinfo=UTC)
    dataset, groups = products("abcde", [before, at, later, None, later]), np.array([0, 1, 0, 3, 4])
    assert seen(declared("2026-03-01", tmp_path), dataset, groups).tolist() == [True, False, True, True, False]
    assert not seen(declared(NOTHING_SEEN, tmp_path), dataset, groups).any()


def test_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    dataset = products("ab", [datetime(2026, 2, 28, 23, 59), datetime(2026, 3, 1)])
    assert seen(declared("2026-03-01", tmp_path), dataset, np.arange(2)).tolist() == [True, False]


def test_a_date_before_the_first_import_is_refused(tmp_path: Path) -> None:
    """A catalog that was made anew has forgotten when products came: nothing would count as seen."""
    dataset = products("ab", [MARCH, None])
    with pytest.raises(DataContractError, match=r"no product was imported before 2026-03-01 .*made anew"):
        seen(declared("2026-03-01", tmp_path), dataset, np.arange(2))


def test_how_many_of_the_declared_ids_are_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\nb\nx\n")
    assert matched(declared("ids.txt", tmp_path), products("abcd")) == "2 of the 3 ids in ids.txt are products here"
    assert matched(declared(NOTHING_SEEN, tmp_path), products("ab")) == ""


def test_the_products_of_a_file_are_seen_with_their_content_groups(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfa\r\n b \r\n\r\nunknown\r\n")
    found = seen(declared("ids.txt", tmp_path), products("abcd"), np.array([0, 1, 1, 2]))
    assert found.tolist() == [True, True, True, False]


def test_a_file_of_another_catalog_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("x\ny\n")
    with pytest.raises(DataContractError, match=r"none of the 2 ids in ids\.txt"):
        seen(declared("ids.txt", tmp_path), products("ab"), np.arange(2))


def test_the_sentence_names_the_file_and_its_ids_but_not_its_folder(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\nb\n")
    text = sentence(declared("ids.txt", tmp_path))
    assert "2 products in ids.txt" in text
    assert str(tmp_path) not in text
    (tmp_path / "ids.txt").write_text("b\na\na\n")
    assert sentence(declared("ids.txt", tmp_path)) == text, "the order does not matter"
    (tmp_path / "ids.txt").write_text("a\nc\n")
    assert sentence(declared("ids.txt", tmp_path)) != text
    assert "before 2026-03-01 00:00 UTC" in sentence(declared("2026-03-01", tmp_path))
    assert "no label of this catalog" in sentence(declared(NOTHING_SEEN, tmp_path))
