from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.inputs.text import clean_text


@pytest.mark.parametrize("raw", [None, "", "  \n\t ", "\x00\x01\x7f"])
def test_nothing_readable_gives_the_empty_string(raw: str | None) -> None:
    assert clean_text(raw, 100) == ""


def test_nul_and_control_characters_go_without_splitting_the_word() -> None:
    assert clean_text("na\x00vy\x07 \x9bblue", 100) == "navy blue"


def test_lone_surrogates_go_and_the_rest_encodes_as_utf8() -> None:
    cleaned = clean_text("red \ud83d shirt \udfff", 100)
    assert cleaned == "red shirt"
    assert cleaned.encode("utf-8") == b"red shirt"


def test_runs_of_white_space_of_any_kind_become_one_space() -> None:
    assert clean_text("\tred\r\n\u3000cotton\u00a0\u2003shirt\v", 100) == "red cotton shirt"


def test_text_is_brought_into_nfc() -> None:
    assert clean_text(unicodedata.normalize("NFD", "crème brûlée 한글"), 100) == "crème brûlée 한글"


@pytest.mark.parametrize("raw", ["👩🏽‍👧 dress", "‏שמלה אדומה", "فستان أحمر", "ネイビー シルク", "robe d'été"])
def test_emoji_and_every_script_stay(raw: str) -> None:
    assert clean_text(raw, 100) == raw


def test_text_is_clipped_without_a_trailing_space() -> None:
    assert clean_text("red shirt", 4) == "red"
    assert clean_text("한" * 10, 7) == "한" * 7
    assert clean_text(unicodedata.normalize("NFD", "한" * 10), 7) == "한" * 7


def test_a_megabyte_of_combining_marks_does_not_hold_up_the_batch() -> None:
    started = time.perf_counter()
    clean_text("\u0301\u0323" * 500_000, 500)
    assert time.perf_counter() - started < 2


@given(st.text(alphabet=st.characters(), max_size=60), st.integers(1, 40))
def test_cleaning_is_idempotent_bounded_and_encodable(raw: str, max_chars: int) -> None:
    cleaned = clean_text(raw, max_chars)
    assert clean_text(cleaned, max_chars) == cleaned
    assert len(cleaned) <= max_chars
    assert unicodedata.is_normalized("NFC", cleaned)
    cleaned.encode("utf-8")
