"""Text cleaning and tokenization.

The text form is that of De la Comble et al. 2022, section 3.1: ``[CLS] title [SEP] description [SEP]``, as a text pair,
so that the token types separate title from description.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from catalog_enrichment import extras
from catalog_enrichment.errors import ConfigError

_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters other than white space, and surrogates, which UTF-8 cannot encode."""

_NFC_SHRINKS = 4
"""NFC composes up to four code points into a single code point (base letter and marks, Hangul)."""

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

_ALPHABET_SHARE = 4
"""A quarter of the pieces may be letters, and as many letters inside words; rarer letters are unknown tokens."""

_TOKENIZERS = {name: name for name in ("fugashi", "ipadic", "sacremoses", "sentencepiece")}
_TOKENIZERS["tiktoken"] = "sentencepiece"  # transformers tries it where sentencepiece is missing
"""Word in transformers' message -> package that the tokenizer needs."""


def clean_text(raw: str | None, max_chars: int) -> str:
    """Return ``raw`` without control characters and surrogates, in NFC, at most ``max_chars`` long.

    A single space is between words. Every script, emoji (with joiners) and right-to-left mark is kept. None gives the
    empty string. The result can always be encoded as UTF-8.
    """
    if not raw:
        return ""
    words = " ".join(_UNWANTED.sub("", raw).split())
    # truncated before NFC too: reordering a megabyte of combining marks takes time quadratic in its length
    text = unicodedata.normalize("NFC", words[: _NFC_SHRINKS * max_chars])
    return text[:max_chars].rstrip()


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    """Which part of its text every token of a batch is; N tokens, text by text."""

    text: np.ndarray
    """(N,) 2 x product + 0 for the title, 1 for the description; ascending."""
    start: np.ndarray
    """(N,) first character; ascending in a text."""
    end: np.ndarray
    """(N,) character behind the last."""
    token: np.ndarray
    """(N,) position in the row of the product."""

    def of(self, text: np.ndarray, place: np.ndarray) -> np.ndarray:
        """(n,) the token in which the character at ``place`` of ``text`` is; -1 where no token has it."""
        if not len(self.text):
            return np.full(len(text), -1, dtype=np.int64)
        scale = int(max(self.end.max(), place.max(initial=0))) + 1
        found = np.searchsorted(self.text * scale + self.start, text * scale + place, side="right") - 1
        at = np.maximum(found, 0)
        inside = (found >= 0) & (self.text[at] == text) & (self.end[at] > place)
        return np.where(inside, self.token[at], -1)


class TextTokenizer:
    """A ``transformers`` tokenizer that encodes (title, description) pairs of clean texts, and is saved in a folder.

    The Rust tokenizers start threads and warn when a process that used them forks. A process that forks (Spark's Python
    workers do) sets ``TOKENIZERS_PARALLELISM=false`` in the worker's environment.
    """

    def __init__(self, tokenizer: Any) -> None:
        # the tokenizers written in Python log an error for every truncated pair
        logging.getLogger("transformers.tokenization_python").addFilter(_is_not_truncation_message)
        self._tokenizer = tokenizer
        self._names = ["input_ids", "attention_mask"]
        # tested, because BertJapaneseTokenizer has token types but does not list them
        if any(tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"]):
            self._names.append("token_type_ids")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> TextTokenizer:
        """Learn a lower-cased WordPiece vocabulary of at most ``vocab_size`` pieces, as BERT's (Devlin et al. 2018).

        The same texts, in any order, give the same vocabulary.
        """
        from tokenizers import Tokenizer, decoders, models, processors
        from transformers import PreTrainedTokenizerFast

        start, separator = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
        vocabulary = _learn_pieces(list(texts), vocab_size)
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL["unk_token"]))
        _split_as_bert(tokenizer)
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {separator}",
            pair=f"{start} $A {separator} $B:1 {separator}:1",
            special_tokens=[(token, vocabulary[token]) for token in (start, separator)],
        )
        names = ["input_ids", "token_type_ids", "attention_mask"]
        return cls(PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **_SPECIAL))

    @classmethod
    def from_pretrained(cls, name_or_path: str, local_files_only: bool = False) -> TextTokenizer:
        """Load the tokenizer of a pretrained encoder: a local folder, or a hub name with network access.

        Raises ConfigError, with the extra to install, for a missing package; OSError or ValueError for a missing
        tokenizer.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name_or_path, local_files_only=local_files_only, trust_remote_code=False
            )
        except (ImportError, ValueError) as problem:
            if not isinstance(problem, ImportError) and find_spec("sentencepiece"):
                raise
            # without sentencepiece, transformers reports another library as missing
            raise ConfigError(_not_installed(name_or_path, problem)) from None
        if len(tokenizer) - len(set(tokenizer.all_special_ids)) < 2:  # an empty T5 tokenizer has a single token
            # for a folder without its files transformers makes an empty tokenizer
            raise ValueError("its tokenizer is empty: the files of its vocabulary are missing")
        return cls(tokenizer)

    @classmethod
    def load(cls, directory: Path) -> TextTokenizer:
        """Read what :meth:`save` wrote, without network access. Raises as :meth:`from_pretrained` does."""
        return cls.from_pretrained(str(directory), local_files_only=True)

    def save(self, directory: Path) -> None:
        self._tokenizer.save_pretrained(str(directory))

    def __len__(self) -> int:
        """Return the number of token ids, special tokens included."""
        return len(self._tokenizer)

    def encode(self, titles: Sequence[str], descriptions: Sequence[str], max_length: int) -> dict[str, np.ndarray]:
        """Return the token ids of B products, int64 (B, T), where T is the longest text's and at most ``max_length``.

        Keys: ``input_ids``, ``attention_mask`` (1: token, 0: padding) and, from tokenizers that have them,
        ``token_type_ids`` (0: title, 1: description). Texts that are too long lose tokens from the end of
        the longer of title and description. An empty description gives ``[CLS] title [SEP]``, with the tokenizer's own
        special tokens. A text has at least one token.
        """
        rows: list[dict[str, list[int]]] = [{}] * len(titles)
        with_description = [row for row, text in enumerate(descriptions) if text]
        title_only = [row for row, text in enumerate(descriptions) if not text]
        for members, second in ((with_description, descriptions), (title_only, None)):
            if not members:
                continue
            first = [titles[row] for row in members]
            pairs = [second[row] for row in members] if second is not None else None
            encoded = self._tokenizer(
                first,
                pairs,
                truncation="longest_first",
                max_length=max_length,
                padding=False,
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in self._names,
            )
            for position, row in enumerate(members):
                rows[row] = {name: encoded[name][position] for name in self._names}
        return self._pad(rows)

    def encode_with_places(
        self, titles: Sequence[str], descriptions: Sequence[str], max_length: int
    ) -> tuple[dict[str, np.ndarray], TokenPlaces]:
        """Return :meth:`encode`, and which part of its text every token is. Texts may be empty.

        Raises ConfigError for a tokenizer that does not know this: those that are written in Python.
        """
        if not self._tokenizer.is_fast:
            raise ConfigError("the tokenizer does not say which part of a text a token is: use one written in Rust")
        rows: list[dict[str, list[int]]] = []
        columns: list[list[np.ndarray]] = [[], [], [], []]
        for product, (title, description) in enumerate(zip(titles, descriptions, strict=True)):
            encoded = self._tokenizer(
                title,
                description or None,
                truncation="longest_first",
                max_length=max_length,
                padding=False,
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in self._names,
            )
            rows.append({name: encoded[name] for name in self._names})
            own = encoded.encodings[0]
            of_text = np.array([-1 if which is None else which for which in own.sequence_ids], dtype=np.int64)
            tokens = np.flatnonzero(of_text >= 0)
            offsets = np.array(own.offsets, dtype=np.int64).reshape(-1, 2)[tokens]
            for column, content in zip(columns, (2 * product + of_text[tokens], *offsets.T, tokens), strict=True):
                column.append(content)
        text, start, end, token = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
        return self._pad(rows), TokenPlaces(text, start, end, token)

    def _pad(self, rows: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
        pad = self._tokenizer.pad_token_id or 0  # None for encoders that were trained without padding
        padding = {"input_ids": pad, "attention_mask": 0, "token_type_ids": self._tokenizer.pad_token_type_id}
        empty_text = {"input_ids": [pad], "attention_mask": [1], "token_type_ids": [0]}  # without special tokens
        length = max((len(row["input_ids"]) for row in rows), default=1) or 1
        batch = {name: np.full((len(rows), length), padding[name], dtype=np.int64) for name in self._names}
        for name, array in batch.items():
            for position, row in enumerate(rows):
                ids = row[name] or empty_text[name]
                array[position, : len(ids)] = ids
        return batch


def _is_not_truncation_message(record: logging.LogRecord) -> bool:
    return "overflowing tokens are not returned" not in record.getMessage()


def _not_installed(name: str, problem: Exception) -> str:
    named = [package for word, package in _TOKENIZERS.items() if word in str(problem)]
    remedy = extras.remedy(*named) if named else "Install it"
    first_line = str(problem).strip().partition("\n")[0]
    return f"the tokenizer of {name} needs a package that is not installed: {remedy}. {first_line}"


def _split_as_bert(tokenizer: Any) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _learn_pieces(texts: list[str], vocab_size: int) -> dict[str, int]:
    """Return piece -> id. The letters inside words ("##a") are numbered before training.

    The trainer would number them in the random order of a Rust hash map and break ties by number, so that every process
    would learn a different vocabulary.
    """
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=_SPECIAL["unk_token"]))
    _split_as_bert(tokenizer)
    counts = Counter(letter for text in texts for letter in tokenizer.normalizer.normalize_str(text))
    frequent = sorted((letter for letter in counts if not letter.isspace()), key=lambda x: (-counts[x], x))
    alphabet = sorted(frequent[: max(vocab_size // _ALPHABET_SHARE, 1)])
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_SPECIAL.values(), *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
