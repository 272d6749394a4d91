"""Words of titles: the features are scikit-learn's, the pool is a geometric mean, and a version keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from sklearn.feature_extraction.text import TfidfVectorizer

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.models import artifact, title_words
from catalog_enrichment.models.predictor import load_predictor
from catalog_enrichment.models.title_words import TitleWords, Vocabulary, WordExpert
from catalog_enrichment.records import Cardinality

from .conftest import HEADS, save, tiny

TITLES = ["Red wool scarf", "red Wool shoe, red sole", "Green shoe", "Caf\u00e9 cup, green", "green", "a b c"]
ONE, MANY = Cardinality.ONE, Cardinality.MANY


@pytest.fixture
def words() -> TitleWords:
    vocabulary = Vocabulary.of(TITLES)
    dice = np.random.default_rng(0)

    def expert(values: int, share: float) -> WordExpert:
        weights = dice.normal(0, 2, (len(vocabulary.terms), values)).astype(np.float32)
        return WordExpert(weights, dice.normal(0, 1, values).astype(np.float32), share, 1.5)

    return TitleWords(vocabulary, {"type": expert(3, 0.4), "material": expert(4, 0.3)})


def test_features_are_those_of_scikit_learn() -> None:
    vocabulary = Vocabulary.of(TITLES)
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(TITLES)
    assert list(vocabulary.terms) == theirs.get_feature_names_out().tolist()
    assert "red wool" in vocabulary.terms
    np.testing.assert_allclose(vocabulary.features(TITLES).toarray(), theirs.transform(TITLES).toarray(), rtol=1e-6)


def test_the_most_frequent_terms_are_kept() -> None:
    assert Vocabulary.of(TITLES, most=2).terms == ("green", "red")


def test_vowel_signs_and_other_marks_do_not_end_a_word() -> None:
    hindi, bengali = "\u0915\u093f\u0924\u093e\u092c", "\u09b2\u09be\u09b2"
    assert title_words.terms_of(f"{hindi} {bengali}") == [hindi, bengali, f"{hindi} {bengali}"]
    assert title_words.terms_of("\u2764\ufe0fRed") == ["red"]


def test_characters_and_their_pairs_are_the_words_of_scripts_without_spaces() -> None:
    """A red cotton shirt, A4; then a sign of voicing of two code points, which NFC makes one."""
    assert title_words.terms_of("\u8d64\u3044\u7dbfT\u30b7\u30e3\u30c4 A4") == [
        *("\u8d64\u3044", "\u3044\u7dbf", "\u30b7\u30e3", "\u30e3\u30c4", "a4"),
        *("\u8d64\u3044 \u3044\u7dbf", "\u3044\u7dbf \u30b7\u30e3", "\u30b7\u30e3 \u30e3\u30c4", "\u30e3\u30c4 a4"),
        *("\u8d64", "\u3044", "\u7dbf", "\u30b7", "\u30e3", "\u30c4"),
    ]
    assert title_words.terms_of("\u30cf\u3099") == ["\u30d0"]
    thai, lao, burmese, khmer = "\u0e2a\u0e35", "\u0eaa\u0eb5", "\u101b\u1031", "\u1791\u17b9"
    for word, full_stop in ((thai, "\u0e5a"), (lao, "."), (burmese, "\u104b"), (khmer, "\u17d4")):
        terms = [word, word, f"{word} {word}", *word, *word]
        assert title_words.terms_of(f"{word}{full_stop}{word}") == terms


@pytest.mark.parametrize(
    ("title", "usual"),
    [
        ("\uff8a\uff9e\uff6f\uff78\uff9e", "\u30d0\u30c3\u30b0"),  # half-width
        ("\uff2c\uff25\uff27\uff2f \uff11\uff10\uff10\uff05", "LEGO 100%"),  # full-width
        ("\u8d64\u30fb\u9ed2 \u0e3f100", "\u8d64 \u9ed2 100"),  # a middle dot ends a word; the sign of the baht
        ("LEGO\u2122 set", "lego set"),
        ("Baum\u00adwolle", "baumwolle"),  # a soft hyphen
        ("red\u200bwool", "red wool"),  # a space of zero width, as Khmer has between words
    ],
)
def test_two_ways_to_write_a_title_have_the_same_terms(title: str, usual: str) -> None:
    assert title_words.terms_of(title) == title_words.terms_of(usual)


def test_a_repeated_han_character_is_a_word() -> None:
    assert title_words.terms_of("\u4f50\u3005") == ["\u4f50\u3005", "\u4f50", "\u3005"]


def test_a_long_title_has_the_same_terms_as_training_reads_of_it_and_as_enrichment_does() -> None:
    recipe = replace(tiny(), title_words=True)
    assert recipe.model.max_chars < recipe.max_chars
    assert replace(tiny(), title_words=False).max_chars == recipe.model.max_chars
    title = " ".join(f"word{number}" for number in range(1000))
    found = title_words.terms_of(title)
    assert title_words.terms_of(clean_text(title, recipe.max_chars)) == found
    assert 50 < len(found) < 200


def test_titles_without_words_and_missing_titles_have_no_features() -> None:
    assert Vocabulary.of(TITLES).features([None, "", "unheard of", "a b"]).nnz == 0
    assert Vocabulary.of(["one", "two", None]).terms == ()


def test_the_pool_is_the_weighted_geometric_mean(words: TitleWords) -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)
    titles = ["red wool", "green shoe"]
    expert, features = words.experts["type"], words.vocabulary.features(titles)
    q = special.softmax(features @ expert.weights + expert.bias, axis=1)
    mean = (p * q**expert.share) ** (1 / expert.temperature)
    (found,) = words.pooled({"type": p}, {"type": ONE}, titles).values()
    np.testing.assert_allclose(found, mean / mean.sum(axis=1, keepdims=True), rtol=1e-5)
    assert found.dtype == np.float32


def test_each_of_several_values_is_pooled_by_itself(words: TitleWords) -> None:
    p = np.array([[0.9, 0.2, 0.0, 1.0]], dtype=np.float32)
    expert = words.experts["material"]
    own = (words.vocabulary.features(["red wool"]) @ expert.weights + expert.bias)[0]
    (found,) = words.pooled({"material": p}, {"material": MANY}, ["red wool"]).values()
    expected = special.expit((special.logit([0.9, 0.2]) + expert.share * own[:2]) / expert.temperature)
    np.testing.assert_allclose(found[0, :2], expected, rtol=1e-4)
    assert np.isfinite(found).all()
    assert found[0, 2] < 1e-3
    assert found[0, 3] > 1 - 1e-3


def test_probabilities_of_zero_stay_finite_and_numbers_of_training_and_enrichment_give_the_same(
    words: TitleWords,
) -> None:
    p = np.array([[1.0, 0.0, 0.0], [0.3, 0.6, 0.1]], dtype=np.float32)
    (found,) = words.pooled({"type": p}, {"type": ONE}, ["red wool", "green"]).values()
    assert np.isfinite(found).all()
    assert found[0].argmax() == 0
    (of_training,) = words.pooled({"type": p.astype(np.float64)}, {"type": ONE}, ["red wool", "green"]).values()
    np.testing.assert_array_equal(of_training, found)


def test_titles_that_say_nothing_and_attributes_without_an_expert_stay_as_they_are(words: TitleWords) -> None:
    p = {"type": np.array([[0.7, 0.2, 0.1]] * 2, dtype=np.float32), "color.main": np.eye(3, dtype=np.float32)[:2]}
    found = words.pooled(p, {"type": ONE, "color.main": ONE}, ["unheard of", None])
    for name, values in p.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_version_scores_with_its_experts_and_its_weights_hash_covers_them(
    tmp_path: Path, words: TitleWords, batch: ProductBatch
) -> None:
    saved = save(tmp_path / "version")
    batch = ProductBatch(TITLES, batch.descriptions, batch.pictures)
    plain, before = load_predictor(saved).predict(batch), artifact.weights_hash(saved)
    artifact.write_title_words(saved, words)
    artifact.verify(saved)
    after = artifact.weights_hash(saved)
    assert after != before
    scores = load_predictor(saved).predict(batch)
    cardinalities = {name: head.cardinality for name, head in HEADS.items()}
    for name, values in words.pooled(plain.probabilities, cardinalities, TITLES).items():
        np.testing.assert_allclose(scores.probabilities[name], values, rtol=1e-6)
    assert not np.allclose(scores.probabilities["type"], plain.probabilities["type"])
    content = (saved / title_words.TERMS).read_text()
    (saved / title_words.TERMS).write_text(content.replace('"share": 0.4', '"share": 0.5'))
    assert artifact.weights_hash(saved) != after


def test_the_experts_of_a_vote_are_pooled_with_the_vote(tmp_path: Path, words: TitleWords, batch: ProductBatch) -> None:
    folder = tmp_path / "vote"
    artifact.save_ensemble(folder, "vote", [save(folder / artifact.MEMBERS / f"{n:02d}") for n in range(2)])
    batch = ProductBatch(TITLES, batch.descriptions, batch.pictures)
    plain, before = load_predictor(folder).predict(batch).probabilities["type"], artifact.weights_hash(folder)
    artifact.write_title_words(folder, words)
    assert artifact.weights_hash(folder) != before
    found = load_predictor(folder).predict(batch).probabilities["type"]
    np.testing.assert_allclose(found, words.pooled({"type": plain}, {"type": ONE}, TITLES)["type"], rtol=1e-6)
    assert not np.allclose(found, plain)


def test_a_products_scores_do_not_depend_on_the_other_products(words: TitleWords) -> None:
    p = np.full((len(TITLES), 3), 1 / 3, dtype=np.float32)
    together = words.pooled({"type": p}, {"type": ONE}, TITLES)["type"]
    alone = [words.pooled({"type": p[:1]}, {"type": ONE}, [title])["type"][0] for title in TITLES]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_a_damaged_file_is_refused(tmp_path: Path, words: TitleWords) -> None:
    saved = save(tmp_path / "version")
    artifact.write_title_words(saved, words)
    (saved / title_words.WEIGHTS).write_bytes(b"no safetensors")
    with pytest.raises(ModelContractError, match=r"title_words.safetensors does not match its checksum"):
        load_predictor(saved)
    with pytest.raises(ModelContractError, match=r"title_words.safetensors cannot be read"):
        title_words.load(saved)
