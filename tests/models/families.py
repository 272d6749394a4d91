"""Tiny text encoders, a family per code path, as their authors would leave them in a folder: tokenizer and weights.

Real tokenizer classes over vocabularies of a few words, and random weights; nothing is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    CamembertTokenizer,
    FlaubertConfig,
    FlaubertModel,
    FlaubertTokenizer,
)
from transformers.models.bert_japanese import BertJapaneseTokenizer

from catalog_enrichment.models.spec import FitSpec, FusionSpec, ImageSpec, ModelSpec, Recipe, TextSpec

HIDDEN, POSITIONS = 16, 40
JAPANESE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "赤い", "綿", "の", "シャツ", "セーター", "ウール", "青い"]
FRENCH = ["chemise rouge en coton", "pull bleu en laine", "robe verte de soie", "chaussures en cuir pour femme"]
LETTERS = "abcdefghijklmnopqrstuvwxyzéê"
LENGTH = 24
_FRENCH = ["chemise rouge", "l'été", "", "rouge"], ["pull en laine", "", "rouge", "rouge " * 60]
_JAPANESE = ["赤い綿のシャツ", "青いシャツ", "", "赤い、ウール"], ["ウールのセーター", "", "赤い", "青い" * 60]
TEXTS = {"japanese": _JAPANESE, "camembert": _FRENCH, "flaubert": _FRENCH}
"""Family -> titles and descriptions in its language."""
_SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def japanese(folder: Path) -> Path:
    """Write a BERT with token types whose tokenizer is in Python and needs packages: MeCab with ipadic, WordPiece."""
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(JAPANESE) + "\n", encoding="utf-8")
    tokenizer = BertJapaneseTokenizer(
        str(vocabulary), word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"}
    )
    config = BertConfig(vocab_size=len(JAPANESE), max_position_embeddings=POSITIONS, **_SIZES)
    return _saved(folder, tokenizer, BertModel(config))


def camembert(folder: Path) -> Path:
    """Write a RoBERTa: no token types, and positions are numbered from behind the padding's id, 1."""
    learned = Tokenizer(models.Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(
        FRENCH * 20, trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", show_progress=False)
    )
    marks = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    pieces = [(piece, score) for piece, score in json.loads(learned.to_str())["model"]["vocab"] if piece not in marks]
    tokenizer = CamembertTokenizer(vocab=[*((mark, 0.0) for mark in marks), *pieces, ("<mask>", 0.0)])
    config = CamembertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS + 2,
        pad_token_id=1,
        bos_token_id=5,
        eos_token_id=6,
        type_vocab_size=1,
        **_SIZES,
    )
    return _saved(folder, tokenizer, CamembertModel(config))


def flaubert(folder: Path) -> Path:
    """Write an XLM that takes token types for words; the pre-norm kind (small, large, base uncased) needs a cache."""
    folder.mkdir(parents=True)
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "ro", "rou", "ge</w>", "rouge</w>"]
    vocabulary = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{number}>" for number in range(10)), *pieces]
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(json.dumps({piece: number for number, piece in enumerate(vocabulary)}), encoding="utf-8")
    files[1].write_text("r o\nro u\ng e</w>\nrou ge</w>\n", encoding="utf-8")
    config = FlaubertConfig(
        vocab_size=len(vocabulary),
        emb_dim=HIDDEN,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=POSITIONS,
        pre_norm=True,
    )
    return _saved(folder, FlaubertTokenizer(*map(str, files)), FlaubertModel(config))


FAMILIES = {"japanese": japanese, "camembert": camembert, "flaubert": flaubert}


def reading(folders: dict[str, Path], first: str, second: str | None = None) -> Recipe:
    """Return a recipe that reads title and description apart, with the ``folders``' encoders of these families."""

    def text(family: str) -> TextSpec:
        return TextSpec(name=str(folders[family]), fields="apart", pooling="cls", max_length=LENGTH)

    model = ModelSpec(
        text=text(first),
        second_text=text(second) if second else None,
        image=ImageSpec(name="lcnet_035", size=32),
        fusion=FusionSpec(kind="concat"),
    )
    return Recipe(name="tiny", model=model, fit=FitSpec(epochs=1))


def _saved(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase, model: torch.nn.Module) -> Path:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:  # wide enough for words to matter; padding has no vector, as in all of these
            torch.nn.init.normal_(weight, std=0.2)
            if "position" not in name and weight.shape[0] == model.config.vocab_size:
                weight.data[model.config.pad_token_id] = 0
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
