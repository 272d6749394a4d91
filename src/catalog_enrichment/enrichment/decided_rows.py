"""The decisions on scored products, taken by column: rows of the contract `predictions`.

    candidates of pending attributes ─▶ facts, an array of booleans each ─▶ decision and reason of each combination

What follows from the facts is said once, by :func:`precision.decide.outcome`, which is asked for each distinct
combination of facts in a batch. Python runs per batch and per distinct name or slice, not per product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment import contract
from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.precision.decide import Facts, outcome, rejection_reason
from catalog_enrichment.precision.units import NO_ANSWER, NOTHING, Bools, Ints
from catalog_enrichment.reasons import TRANSIENT, Reason
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.value_names import Names
    from catalog_enrichment.dictionary import Attribute
    from catalog_enrichment.enrichment.request import RunRequest


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """Everything a decision rests on beside the product, fixed once per run on the driver."""

    attributes: tuple[str, ...]
    """Enabled attributes the model has a head for."""
    certificates: Mapping[tuple[str, str], Certificate]
    """The certificates by (attribute, modality path)."""
    model_name: str
    model_version: str
    scored_by: ScoredBy
    """The weights and settings that gave the scores, without the compute type, which is the executor's."""
    standard: Standard
    dictionary: Mapping[str, Attribute]
    """The attributes by name."""
    names: Names
    """The names in force of the model's labels."""
    run_id: str
    now: datetime

    @classmethod
    def of(cls, request: RunRequest, run_id: str) -> DecisionRules:
        model = request.model
        scored_by = ScoredBy(
            weights_hash=model.weights_hash,
            preprocessing_hash=model.preprocessing_hash,
            max_image_bytes=request.images.max_bytes,
            max_image_pixels=request.images.max_pixels,
            scaled_side=request.images.copy_side,
            compute_type="",
        )
        return cls(
            attributes=tuple(attribute.name for attribute in request.attributes),
            certificates={(c.attribute, c.modality.value): c for c in model.certificates},
            model_name=model.name,
            model_version=model.version,
            scored_by=scored_by,
            standard=request.standard,
            dictionary={attribute.name: attribute for attribute in request.attributes},
            names=request.names,
            run_id=run_id,
            now=datetime.now(UTC),
        )


def decide_rows(scored: DataFrame, rules: DecisionRules) -> DataFrame:
    """Return rows of the contract `predictions`.

    ``scored``: scored products with their ``pending`` attributes, ``human_attributes`` (those with an active human
    value) and ``with_picture`` (attribute and content hash of active model values that were decided with a picture).
    """

    def decide_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield decided_batch(batch, rules)

    return scored.mapInArrow(decide_batches, contract.spark_schema("predictions"))


def decided_batch(products: pa.RecordBatch, rules: DecisionRules) -> pa.RecordBatch:
    """Return the decisions on ``products``, in their order, then by attribute, then as the candidates are given.

    Every pending attribute gets a row: without a candidate that of NO_ANSWER (I7). Of labels that were merged into one
    value the first stays, the best: what is written was certified under its own label.
    """
    return _Batch(products, rules).decided()


_REJECTIONS: tuple[Reason | None, ...] = (None, *Reason)


class _Rows(NamedTuple):
    """The rows to decide, n of them, as positions and numbers of names."""

    product: Ints
    attribute: Ints
    """Position in ``rules.attributes``."""
    candidate: Ints
    """Position among all candidates of the batch; -1: no answer."""
    value: Ints
    """Number of the value by the names in force; -1: no answer."""


class _Batch:
    """The columns of a batch of scored products."""

    def __init__(self, products: pa.RecordBatch, rules: DecisionRules) -> None:
        self.products, self.rules = products, rules
        self.numbers = {name: number for number, name in enumerate(rules.attributes)}
        self.product_of, candidates = _flat(products.column("candidates"))
        names = [candidates.type.field(number).name for number in range(candidates.type.num_fields)]
        self.candidates = dict(zip(names, candidates.flatten(), strict=True))
        self.values = _Numbers()

    def decided(self) -> pa.RecordBatch:
        import pyarrow as pa

        rows, schema = self.rows(), contract.arrow_schema("predictions")
        decision, reason, certificate_id, threshold = self._decisions(rows)
        answered = pa.array(np.where(rows.candidate < 0, 0, rows.candidate), mask=rows.candidate < 0)
        of_candidate = {name: self.candidates[name].take(answered) for name in ("score", "attention", "evidence")}
        known = {
            name: self.products.column(name).take(pa.array(rows.product))
            for name in schema.names
            if name in self.products.schema.names and name not in of_candidate
        }
        columns = {
            **known,
            **of_candidate,
            "attribute": _strings(self.rules.attributes, rows.attribute),
            "value": _strings([*self.values.names, NOTHING], rows.value),
            "rank": self.candidates["rank"].take(answered).fill_null(NO_ANSWER.rank),
            "score": of_candidate["score"].fill_null(NO_ANSWER.score),
            "decision": decision,
            "reason": reason,
            "certificate_id": certificate_id,
            "threshold": threshold,
        }
        same = {name: getattr(self.rules, name) for name in ("model_name", "model_version", "run_id")}
        columns |= {name: pa.repeat(pa.scalar(value), len(rows.product)) for name, value in same.items()}
        return pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in schema], schema=schema)

    def rows(self) -> _Rows:
        """Return a row per candidate of a pending attribute, once per value, and per pending attribute without any."""
        value = self.value_of_candidates
        wanted = np.unique(self._pairs(*_flat(self.products.column("pending"))))
        wanted = wanted[wanted >= 0]
        pairs = self._pairs(self.product_of, self.candidates["attribute"])
        of_wanted = np.flatnonzero(np.isin(pairs, wanted))
        _, first = np.unique(pairs[of_wanted] * len(self.values) + value[of_wanted], return_index=True)
        kept = of_wanted[np.sort(first)]
        missing = wanted[~np.isin(wanted, pairs[kept])]
        none, found = np.full(len(missing), -1), np.concatenate([pairs[kept], missing])
        order = np.argsort(found, kind="stable")  # the candidates of an attribute keep their order
        product, attribute = np.divmod(found[order], max(len(self.numbers), 1))
        return _Rows(
            product, attribute, np.concatenate([kept, none])[order], np.concatenate([value[kept], none])[order]
        )

    # --- names as numbers

    @cached_property
    def value_of_candidates(self) -> Ints:
        """(candidates,): the number of the value by the names in force, and as the dictionary prints it."""
        attributes, names = _encoded(self.candidates["attribute"])
        labels, texts = _encoded(self.candidates["value"])
        return _looked_up(lambda name, label: self.values.of(self._now(names[name], texts[label])), attributes, labels)

    def _now(self, attribute: str, label: str) -> str:
        """Return what a model's value is called now; what the dictionary does not have stays as it is."""
        value, found = self.rules.names.now(attribute, label), self.rules.dictionary.get(attribute)
        return (found.renewed(value) or value) if found else value

    def _attributes(self, names: pa.Array) -> Ints:
        """Return the positions of names in ``rules.attributes``, -1 for others."""
        encoded, texts = _encoded(names)
        return np.asarray([self.numbers.get(name, -1) for name in [*texts, ""]], dtype=np.int64)[encoded]

    def _pairs(self, product: Ints, names: pa.Array) -> Ints:
        """Return a number for each product and name of an attribute; -1 for other names."""
        attribute = self._attributes(names)
        return np.where(attribute < 0, -1, self._pair(product, attribute))

    def _pair(self, product: Ints, attribute: Ints) -> Ints:
        """Return numbers of (product, attribute): those of a product follow each other."""
        return product * len(self.numbers) + attribute

    # --- facts

    def _decisions(self, rows: _Rows) -> tuple[pa.Array, ...]:
        """Return the columns decision, reason, certificate_id and threshold."""
        import pyarrow as pa

        facts = self._facts(rows)
        combinations, which = _distinct(*(facts[name] for name in Facts._fields))
        outcomes = [outcome(Facts._make([*map(bool, known), _REJECTIONS[why]])) for *known, why in combinations]
        held, holder = self._held(rows)
        ids = [None if certificate is None else certificate.certificate_id for certificate in held]
        thresholds = [None if certificate is None else certificate.threshold for certificate in held]
        return (
            _strings([decision.value for decision, _ in outcomes], which),
            _strings([reason.value for _, reason in outcomes], which),
            pa.array(ids, pa.string()).take(_indices(holder)),
            pa.array(thresholds, pa.float64()).take(_indices(holder)),
        )

    def _facts(self, rows: _Rows) -> dict[str, NDArray[Any]]:
        """Return the fields of :class:`Facts`, each (n,); ``rejection`` as positions in _REJECTIONS."""
        given, agrees = self._of_merchant(rows)
        answered = rows.candidate >= 0
        score = np.append(_floats(self.candidates["score"]), NO_ANSWER.score)[rows.candidate]
        rank = np.append(_floats(self.candidates["rank"]), NO_ANSWER.rank)[rows.candidate]
        held, which = self._held(rows)
        threshold = _bounds(held, lambda certificate: certificate.threshold)[which]
        suggest_from = _bounds(held, lambda certificate: certificate.suggest_from)[which]
        labels, texts = _encoded(self.candidates["value"])
        label, names = np.append(labels, -1)[rows.candidate], [*self.values.names, NOTHING]
        dictionary = [self.rules.dictionary[name] for name in self.rules.attributes]

        def in_pool(of: int, text: int) -> bool:
            certificate = held[of]
            return certificate is not None and text >= 0 and certificate.covers(texts[text])

        return {
            "answered": answered & (rank > 0),
            "has_merchant_value": given,
            "agrees_with_merchant": agrees,
            "human_value_present": self._has_human_value(rows),
            "proposed": np.asarray([name != NOTHING for name in names])[rows.value],
            "certified": score >= threshold,
            "suggestible": score >= suggest_from,
            "listed": _looked_up(lambda of, value: dictionary[of].lists(names[value]), rows.attribute, rows.value) > 0,
            "in_pool": _looked_up(in_pool, which, label) > 0,
            "rejection": self._rejection(rows),
        }

    def _of_merchant(self, rows: _Rows) -> tuple[Bools, Bools]:
        """Return whether the merchant has a value, and whether it is the row's."""
        product, entries = _flat_map(self.products.column("merchant_attributes"))
        entry, texts = _flat(entries[1])
        pair = self._pairs(product, entries[0])[entry]
        encoded, names = _encoded(texts)
        value = np.asarray([*(self.values.of(name) for name in names), -1], dtype=np.int64)[encoded]
        size, mine = len(self.values), self._pair(rows.product, rows.attribute)
        known = (pair >= 0) & (value >= 0)
        agrees = np.isin(mine * size + rows.value, pair[known] * size + value[known]) & (rows.value >= 0)
        given = np.isin(mine, pair)
        open_attributes = [number for name, number in self.numbers.items() if self.rules.dictionary[name].is_open]
        unlike = np.flatnonzero(given & ~agrees & (rows.value >= 0) & np.isin(rows.attribute, open_attributes))
        for row in unlike.tolist():  # 50 cm and 50.2 cm can be the same value
            attribute = self.rules.dictionary[self.rules.attributes[rows.attribute[row]]]
            proposed, of_pair = self.values.names[rows.value[row]], value[known & (pair == mine[row])]
            agrees[row] = any(attribute.is_same(proposed, self.values.names[each]) for each in of_pair)
        return given, agrees

    def _has_human_value(self, rows: _Rows) -> Bools:
        given = self._pairs(*_flat(self.products.column("human_attributes")))
        return np.isin(self._pair(rows.product, rows.attribute), given)

    def _picture_outage(self, rows: _Rows) -> Bools:
        """Return whether a picture may be there at the next try, or was usable when the active value was decided."""
        import pyarrow.compute as pc

        reasons = self.products.column("image_reason")
        unreached = pc.is_in(reasons, value_set=_array(sorted(TRANSIENT)))
        text_only = pc.equal(self.products.column("modality"), Modality.TEXT_ONLY.value)
        product, used = _flat(self.products.column("with_picture"))
        name, content = used.flatten()
        same = _bools(pc.equal(content, self.products.column("content_hash").take(_indices(product))))
        before = np.isin(self._pair(rows.product, rows.attribute), self._pairs(product, name)[same])
        return _bools(text_only)[rows.product] & (_bools(unreached)[rows.product] | before)

    def _rejection(self, rows: _Rows) -> Ints:
        """Return positions in _REJECTIONS: why the certificate of the row must not be used."""
        columns = [
            _encoded(self.products.column(name)) for name in ("modality", "category", "language", "compute_type")
        ]
        texts = [[*names, None] for _, names in columns]
        slices, which = _distinct(
            rows.attribute, self._picture_outage(rows), *(numbers[rows.product] for numbers, _ in columns)
        )
        found = [
            self._why_rejected(attribute, bool(outage), *(of[number] for of, number in zip(texts, names, strict=True)))
            for attribute, outage, *names in slices
        ]
        return np.asarray([_REJECTIONS.index(reason) for reason in found], dtype=np.int64)[which]

    def _why_rejected(
        self,
        attribute: int,
        outage: bool,
        modality: str | None,
        category: str | None,
        language: str | None,
        compute_type: str | None,
    ) -> Reason | None:
        rules, path = self.rules, Modality(modality or "")
        return rejection_reason(
            rules.certificates.get((rules.attributes[attribute], path.value)),
            picture_outage=outage,
            scored_by=replace(rules.scored_by, compute_type=compute_type or ""),
            standard=rules.standard,
            modality=path,
            now=rules.now,
            category=category,
            language=language,
        )

    def _held(self, rows: _Rows) -> tuple[list[Certificate | None], Ints]:
        """Return certificates, and for each row the position of its own among them."""
        paths, names = _encoded(self.products.column("modality"))
        pairs, which = _distinct(rows.attribute, paths[rows.product])
        return [self.rules.certificates.get((self.rules.attributes[of], names[path])) for of, path in pairs], which


class _Numbers:
    """Numbers of names, in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._known: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def of(self, name: str) -> int:
        number = self._known.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


# --- Arrow as numpy ---------------------------------------------------------------------------------------------------


def _flat(lists: pa.Array) -> tuple[Ints, pa.Array]:
    """Return the elements of lists, and for each the position of its list; null is an empty list."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lists)), lengths), lists.flatten()


def _flat_map(maps: pa.Array) -> tuple[Ints, tuple[pa.Array, pa.Array]]:
    """Return keys and items of maps, and for each the position of its map; null is an empty map."""
    offsets = maps.offsets.to_numpy()
    lengths = np.where(_bools(maps.is_valid()), np.diff(offsets), 0)
    within = (
        np.repeat(offsets[:-1], lengths) + np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    )
    # keys and items hold the whole buffers, also of a slice
    return np.repeat(np.arange(len(maps)), lengths), (
        maps.keys.take(_indices(within)),
        maps.items.take(_indices(within)),
    )


def _encoded(texts: pa.Array) -> tuple[Ints, list[str]]:
    """Return distinct texts, and for each text its position among them; null: one past the last."""
    encoded = texts.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    return encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False).astype(np.int64), names


def _distinct(*columns: NDArray[Any]) -> tuple[list[list[int]], Ints]:
    """Return the distinct rows of integer columns, and for each row its position among them."""
    codes, sizes = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        lowest = int(column.min(initial=0))
        size = int(column.max(initial=0)) - lowest + 1
        if sizes > 2**62 // size:  # number anew those that there are
            codes = np.unique(codes, return_inverse=True)[1]
            sizes = len(codes)
        codes, sizes = codes * size + column - lowest, sizes * size
    _, first, where = np.unique(codes, return_index=True, return_inverse=True)
    return [list(row) for row in zip(*(column[first].tolist() for column in columns), strict=True)], where


def _looked_up(found: Callable[[int, int], int], first: Ints, second: Ints) -> Ints:
    """Return what is ``found`` for each pair of numbers; asked once for each distinct pair."""
    pairs, which = _distinct(first, second)
    return np.asarray([found(*pair) for pair in pairs], dtype=np.int64)[which]


def _bounds(held: list[Certificate | None], bound: Callable[[Certificate], float | None]) -> NDArray[np.float64]:
    """Return a bound of each certificate, infinite where there is none."""
    found = [None if certificate is None else bound(certificate) for certificate in held]
    return np.asarray([np.inf if value is None else value for value in found], dtype=np.float64)


def _strings(names: Any, which: Ints) -> pa.Array:
    return _array(list(names)).take(_indices(np.where(which < 0, len(names) + which, which)))


def _array(texts: list[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(texts, pa.string())


def _indices(which: Ints) -> pa.Array:
    import pyarrow as pa

    return pa.array(which, pa.int64())


def _bools(values: pa.Array) -> Bools:
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _floats(values: pa.Array) -> NDArray[np.float64]:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
