"""Scoring on a GPU without Spark: the forward pass alone, a plain loop, and the engine from JPEG bytes to scores.

    python tests/benchmarks/gpu.py                      (a GPU; under 9 minutes)
    python tests/benchmarks/gpu.py --small              (tiny models, also on a CPU; under a minute)

It needs the packages torch, timm, transformers and pyarrow with what these install, and no Spark, MLflow or network.
Two models with random weights: BERT-base with DenseNet-121, and BERT-base with ViT-L/16, texts of 128 tokens, pictures
of 224 px. For each:

- forward only: the network in the fastest number type of the device, inputs in its memory; with TFLOP/s, counted by
  torch.utils.flop_counter.
- plain: decode, tokenize and forward in sequence, one thread, 32 products at a time, fp32.
- end to end: the engine of the workers (catalog_enrichment.inference), from JPEG bytes to candidates, with 1 to 16
  threads that decode. Busy is the share of the time in which the device is within a forward pass.
- out of memory: the engine in a GPU whose memory holds a third of a pass (on a CPU the exception is raised by hand):
  every product has its scores, in smaller passes.
- the largest difference between the engine's and the plain loop's probability of a product's best value.

Each measurement runs for some seconds, and what the budget (--seconds) does not allow is left out and named. Goals, on
a GPU only: end to end at least 0.9 of forward only and 8 times plain. The last line is one JSON object. Exits with 3 if
a goal is missed, products are lost or scores differ.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as in the workers
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inference import engine
from catalog_enrichment.inputs.text import TextTokenizer, clean_text
from catalog_enrichment.models import artifact, compute_types
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.spec import BertSize, FitSpec, Head, ImageSpec, ModelSpec, Recipe, TextSpec
from catalog_enrichment.records import Cardinality

THREADS = (1, 2, 4, 8, 16)
"""Threads that decode, tried in turn."""
OF_FORWARD, OF_PLAIN = 0.9, 8.0
"""Goals of end to end, relative to forward only and to plain."""
NOT_MEASURED = "not measured"
HEADS = {
    "color": Head(Cardinality.ONE, tuple(f"colour {number}" for number in range(40))),
    "material": Head(Cardinality.MANY, tuple(f"material {number}" for number in range(20))),
}
BATCH = 512
"""Products of an Arrow batch, as in the scoring stage."""
PLAIN_BATCH = 32


def _spec(bert: BertSize, tokens: int, image: ImageSpec) -> ModelSpec:
    return ModelSpec(text=TextSpec(bert=bert, pooling="mean", max_length=tokens), image=image)


_BASE = BertSize(hidden=768, layers=12, heads=12, intermediate=3072, vocab_size=30_000)
_TINY = BertSize(hidden=32, layers=1, heads=2, intermediate=64, vocab_size=2_000)
FULL = {
    "bert_base+densenet121": _spec(_BASE, 128, ImageSpec(name="densenet121", size=224)),
    "bert_base+vit_large_16": _spec(_BASE, 128, ImageSpec(name="vit_large_patch16_224", size=224)),
}
SMALL = {
    "tiny_bert+test_efficientnet": _spec(_TINY, 32, ImageSpec(name="test_efficientnet", size=64)),
    "tiny_bert+test_vit": _spec(_TINY, 32, ImageSpec(name="test_vit", size=64, args={"img_size": 64})),
}


@dataclass(frozen=True)
class Products:
    """Products to score, again and again from the first."""

    titles: list[str]
    descriptions: list[str]
    pictures: list[bytes]
    """JPEG."""

    @classmethod
    def generated(cls, number: int, words: int, side: int) -> Products:
        """Return products with texts of more than ``words`` words and pictures of ``side`` pixels."""
        draw = np.random.default_rng(7)
        syllables = ["ba", "ko", "ri", "ta", "mu", "lo", "se", "ni", "da", "fe", "gu", "po", "vi", "za", "he", "ju"]
        known = np.array(["".join(draw.choice(syllables, 3)) for _ in range(4_000)])
        titles = [" ".join(draw.choice(known, 8)) for _ in range(number)]
        descriptions = [" ".join(draw.choice(known, words)) for _ in range(number)]
        return cls(titles, descriptions, [_jpeg(draw, side) for _ in range(number)])

    def batches(self, size: int, until: Callable[[int], bool]) -> Iterator[slice]:
        """Yield the products' positions, ``size`` at a time, again and again, until ``until(products given)``."""
        for number in count():
            if number and until(number * size):
                return
            start = number * size % len(self.titles)
            yield slice(start, start + size)

    def undecoded(self, rows: slice) -> engine.UndecodedBatch:
        images = [[{"bytes": picture}] for picture in self.pictures[rows]]
        return engine.UndecodedBatch(self.titles[rows], self.descriptions[rows], images)


def _jpeg(draw: np.random.Generator, side: int) -> bytes:
    """Return a picture with large shapes and some noise, as large as a photograph of this side."""
    coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
    noisy = np.asarray(coarse) + draw.normal(0, 6, (side, side, 3))
    sink = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(sink, "JPEG", quality=90)
    return sink.getvalue()


class Budget:
    """The seconds of the whole run, and those of a measurement."""

    def __init__(self, seconds: float, each: float) -> None:
        self._end, self.each, self.left_out = time.monotonic() + seconds, each, list[str]()

    def allows(self, name: str, seconds: float) -> bool:
        """Return whether ``seconds`` are left; else the measurement is noted as left out."""
        if allowed := time.monotonic() + seconds <= self._end:
            return allowed
        self.left_out.append(name)
        print(f"{name}: left out, the time budget is used up", flush=True)
        return False


class Busy:
    """The time within forward passes of a network: between CUDA events on a GPU, by the clock on a CPU."""

    def __init__(self, net: torch.nn.Module, device: str) -> None:
        self._spans: list[list[Any]] = []
        self._cuda = device != "cpu"
        self._hooks = [
            net.register_forward_pre_hook(lambda *_: self._spans.append([self._now()])),
            net.register_forward_hook(lambda *_: self._spans[-1].append(self._now())),
        ]

    def _now(self) -> Any:
        if not self._cuda:
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        """Return the sum, and stop measuring."""
        for hook in self._hooks:
            hook.remove()
        if not self._cuda:
            return float(sum(end - start for start, end in self._spans))
        torch.cuda.synchronize()
        return float(sum(start.elapsed_time(end) for start, end in self._spans)) / 1000


class Plain:
    """The loop that documentation shows: Pillow, a tokenizer, a forward pass in fp32, a batch after the other."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import AutoTokenizer

        loaded = artifact.load(folder)
        self._net, self._spec, self._device = loaded.net.to(device), loaded.spec, device
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "text" / artifact.TOKENIZER)

    def score(self, products: Products, rows: slice) -> dict[str, np.ndarray]:
        """Return attribute -> probabilities (B, V); temperatures are 1."""
        from catalog_enrichment.models.network import ModelInputs
        from catalog_enrichment.models.text_encoders import Tokens

        image = self._spec.image
        side = (image.size, image.size)
        opened = [Image.open(io.BytesIO(data)).convert("RGB").resize(side) for data in products.pictures[rows]]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in opened])).permute(0, 3, 1, 2)
        pixels = (pixels.float() / 255 - torch.tensor(image.mean)[:, None, None]) / torch.tensor(image.std)[
            :, None, None
        ]
        texts = self._tokenizer(
            products.titles[rows],
            products.descriptions[rows],
            truncation=True,
            max_length=self._spec.text.max_length,
            padding=True,
            return_tensors="pt",
        )
        present = torch.ones(len(pixels), dtype=torch.bool)
        tokens = Tokens(texts["input_ids"], texts["attention_mask"], texts["token_type_ids"], present)
        with torch.inference_mode():
            logits = self._net(ModelInputs({"text": (tokens,)}, pixels, present).to(self._device)).logits
            return {
                name: (found.softmax(1) if HEADS[name].cardinality is Cardinality.ONE else found.sigmoid())
                .cpu()
                .numpy()
                for name, found in logits.items()
            }


def saved(folder: Path, spec: ModelSpec, products: Products) -> Path:
    """Save a model version with random weights and a tokenizer that knows the products' words."""
    texts = [clean_text(text, spec.max_chars) for text in (*products.titles, *products.descriptions)]
    tokenizers = {"text": TextTokenizer.train(texts, 8_000)}
    torch.manual_seed(0)
    net = build_network(spec, HEADS, tokenizers)
    recipe = Recipe(name="random", model=spec, fit=FitSpec(epochs=1))
    artifact.save(folder, net, tokenizers, recipe, dict.fromkeys(HEADS, 1.0))
    return folder


def flops_per_product(predictor: Predictor, products: Products) -> float:
    """Return the floating-point operations of a product's forward pass; a multiplication with its addition counts 2."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        predictor.predict(_decoded(predictor, products, 2))
    return counter.get_total_flops() / 2


def _decoded(predictor: Predictor, products: Products, number: int) -> Any:
    from catalog_enrichment.inputs.images import first_usable_of_each
    from catalog_enrichment.inputs.product_batch import ProductBatch

    batch = products.undecoded(slice(0, number))
    decoded = first_usable_of_each(batch.images, predictor.square, ImagesConfig())
    return ProductBatch(batch.titles, batch.descriptions, [picture.pixels for picture in decoded])


def forward_only(predictor: Predictor, products: Products, device: str, seconds: float) -> dict[str, float]:
    """Measure the network on inputs that are in the device's memory."""
    rows = compute_types.ROWS[torch.device(device).type]
    inputs = predictor._preprocessor.inputs(_decoded(predictor, products, rows), device)

    def one_pass() -> int:
        with torch.inference_mode(), compute_types.computing_in(predictor._numbers, device):
            predictor._net(inputs)
        return rows

    rate = timed(one_pass, device, seconds)
    return {"products_per_s": rate, "tflop_per_s": rate * flops_per_product(predictor, products) / 1e12}


def timed(one_pass: Callable[[], int], device: str, seconds: float) -> float:
    """Return the products per second of repeated passes, after a first one that is not measured."""
    one_pass()
    _synchronize(device)
    start, scored = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        scored += one_pass()
        if scored % 8 == 0:
            _synchronize(device)  # passes are queued: without it the queue is measured
    _synchronize(device)
    return scored / (time.monotonic() - start)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def plain_loop(folder: Path, products: Products, device: str, seconds: float) -> float:
    plain, number = Plain(folder, device), count()

    def one_pass() -> int:
        start = next(number) * PLAIN_BATCH % len(products.titles)
        plain.score(products, slice(start, start + PLAIN_BATCH))
        return PLAIN_BATCH

    return timed(one_pass, device, seconds)


@contextmanager
def decoding_threads(number: int) -> Iterator[None]:
    """Have the engine decode with so many threads."""
    own = engine._decoding_threads
    engine._decoding_threads = lambda _: number
    try:
        yield
    finally:
        engine._decoding_threads = own


def end_to_end(predictor: Predictor, products: Products, threads: int, device: str, seconds: float) -> dict[str, float]:
    """Measure the engine from JPEG bytes to candidates; the first batch is not measured."""
    with decoding_threads(threads):
        list(engine.score_batches(predictor, [products.undecoded(slice(0, BATCH))], ImagesConfig()))
        busy, start = Busy(predictor._net, device), time.monotonic()
        given = products.batches(BATCH, lambda _: time.monotonic() - start >= seconds)
        scored = sum(
            len(rows) for rows in engine.score_batches(predictor, map(products.undecoded, given), ImagesConfig())
        )
        taken = time.monotonic() - start
    return {"products_per_s": scored / taken, "busy": busy.seconds() / taken}


class Recorded:
    """A scorer that notes the size of every pass and, with ``most``, has no memory for a larger one."""

    def __init__(self, predictor: Predictor, most: int | None) -> None:
        self._predictor, self._most = predictor, most
        self.heads, self.square = predictor.heads, predictor.square
        self.compute_type, self.text_lengths = predictor.compute_type, predictor.text_lengths
        self.refused, self.scored = list[int](), list[int]()

    def predict(self, batch: Any) -> Any:
        try:
            if self._most and len(batch) > self._most:
                raise torch.OutOfMemoryError("simulated")
            found = self._predictor.predict(batch)
        except torch.OutOfMemoryError:
            self.refused.append(len(batch))
            raise
        self.scored.append(len(batch))
        return found


def out_of_memory(predictor: Predictor, products: Products, device: str) -> dict[str, Any]:
    """Score a batch where the memory holds about a third of a pass."""
    ballast, rows = None, compute_types.ROWS[torch.device(device).type]
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        predictor.predict(_decoded(predictor, products, rows))
        needed = torch.cuda.max_memory_allocated() - before
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        ballast = torch.empty(max(0, free - needed // 3), dtype=torch.uint8, device=device)
    recorded = Recorded(predictor, rows // 3 if device == "cpu" else None)
    batches = [products.undecoded(slice(0, BATCH))]
    found = [row for batch in engine.score_batches(recorded, batches, ImagesConfig()) for row in batch]
    del ballast
    if device != "cpu":
        torch.cuda.empty_cache()
    return {
        "simulated": device == "cpu",
        "products": len(found),
        "lost": sum(row.error is not None for row in found),
        "passes_refused": len(recorded.refused),
        "rows_before": max(recorded.refused, default=0),
        "rows_after": max(recorded.scored, default=0),
    }


def difference(predictor: Predictor, folder: Path, products: Products, device: str) -> float:
    """Return the largest difference of the probability of a product's best value, engine against plain."""
    rows, largest = slice(0, PLAIN_BATCH), 0.0
    reference = Plain(folder, device).score(products, rows)
    [found] = engine.score_batches(predictor, [products.undecoded(rows)], ImagesConfig())
    for position, row in enumerate(found):
        for candidate in row.candidates:
            if candidate.rank == 1:
                column = HEADS[candidate.attribute].labels.index(candidate.value)
                other = reference[candidate.attribute][position, column]
                largest = max(largest, abs(candidate.score - float(other)))
    return largest


def measure(name: str, spec: ModelSpec, products: Products, device: str, budget: Budget) -> dict[str, Any]:
    """Return the figures of a model; what the budget does not allow is missing."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as room:
        folder = saved(Path(room) / "model", spec, products)
        predictor = Predictor.load(folder, device, compute_types.fastest(device))
        figures["compute_type"] = predictor.compute_type
        if budget.allows(f"{name} difference", 10):
            figures["difference"] = difference(predictor, folder, products, device)
            figures["tolerance"] = compute_types.TOLERANCE[predictor._numbers]
        if budget.allows(f"{name} forward only", 2 * budget.each):
            figures["forward_only"] = forward_only(predictor, products, device, budget.each)
        if budget.allows(f"{name} plain", 2 * budget.each):
            figures["plain"] = {"products_per_s": plain_loop(folder, products, device, budget.each)}
        sweep = figures["end_to_end"] = {}
        # the engine's own number of threads comes first: it is what the goals are about
        own = engine._decoding_threads(predictor.compute_type)
        for threads in [own, *(number for number in THREADS if number != own)]:
            if budget.allows(f"{name} end to end, {threads} threads", 3 * budget.each):
                sweep[str(threads)] = end_to_end(predictor, products, threads, device, budget.each)
        figures["threads"] = own
        if budget.allows(f"{name} out of memory", 2 * budget.each):
            figures["out_of_memory"] = out_of_memory(predictor, products, device)
    if device != "cpu":
        torch.cuda.empty_cache()
    return figures | ratios(figures)


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Return end to end, with the engine's own threads, relative to forward only and plain, where both are measured."""
    own = figures["end_to_end"].get(str(figures["threads"]))
    others = {"of_forward_only": "forward_only", "of_plain": "plain"}
    return {
        name: own["products_per_s"] / figures[other]["products_per_s"]
        for name, other in others.items()
        if own and other in figures
    }


def goals(models: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    """Return goal -> the lowest figure of the models, and whether it is met; "not measured" without a GPU."""
    found: dict[str, Any] = {}
    for name, least in (("of_forward_only", OF_FORWARD), ("of_plain", OF_PLAIN)):
        values = [figures[name] for figures in models.values() if name in figures]
        if device == "cpu" or len(values) < len(models):
            found[name] = {"goal": least, "met": NOT_MEASURED}
        else:
            found[name] = {"goal": least, "value": min(values), "met": min(values) >= least}
    return found


def failures(models: dict[str, dict[str, Any]], reached: dict[str, Any]) -> list[str]:
    """Return what is wrong: goals that are missed, products that are lost, scores that differ."""
    wrong = [f"goal {name} is missed" for name, goal in reached.items() if goal["met"] is False]
    for name, figures in models.items():
        if figures.get("difference", 0) > figures.get("tolerance", 0):
            wrong.append(f"{name}: scores differ by {figures['difference']:.3g}")
        recovery = figures.get("out_of_memory", {"lost": 0, "passes_refused": 1})
        if recovery["lost"] or not recovery["passes_refused"]:
            wrong.append(f"{name}: {recovery['lost']} products lost after {recovery['passes_refused']} refused passes")
    return wrong


def rounded(value: Any) -> Any:
    """Return the figures with four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def lines(models: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the table for people."""
    yield "| model | what | products/s | TFLOP/s | busy |"
    yield "|---|---|---|---|---|"
    for name, figures in models.items():
        rows = {what: figures[what] for what in ("forward_only", "plain") if what in figures}
        rows |= {f"end to end, {number} threads": found for number, found in figures["end_to_end"].items()}
        for what, found in rows.items():
            cells = [f"{found[key]:.3g}" if key in found else "-" for key in ("products_per_s", "tflop_per_s", "busy")]
            yield f"| {name} | {what} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    start, device = time.monotonic(), "cpu" if args.cpu else compute_types.default_device()
    if device == "cpu" and not args.small:
        print("there is no GPU: nothing is measured. --small tries the script on a CPU", file=sys.stderr)
        print(json.dumps({"device": "cpu", "models": {}, "goals": goals({}, device)}))
        return 0
    budget = Budget(args.seconds, 0.3 if args.small else 8.0)
    side, words = (64, 40) if args.small else (224, 140)
    products = Products.generated(BATCH * (1 if args.small else 4), words, side)
    models: dict[str, dict[str, Any]] = {}
    for name, spec in (SMALL if args.small else FULL).items():
        if budget.allows(name, 3 * budget.each):
            models[name] = measure(name, spec, products, device, budget)
    reached = goals(models, device)
    print("\n".join(lines(models)))
    wrong = failures(models, reached)
    for sentence in wrong:
        print(sentence)
    figures = {
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "models": models,
        "goals": reached,
        "left_out": budget.left_out,
        "wrong": wrong,
        "seconds": time.monotonic() - start,
    }
    print(json.dumps(rounded(figures)), flush=True)
    return 3 if wrong else 0


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models, a moment per measurement")
    parser.add_argument("--cpu", action="store_true", help="do not use the GPU")
    parser.add_argument("--seconds", type=float, default=480, help="time budget of the whole run")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
