"""The arithmetic of `make bench`, its worlds and the environments of its contenders; nothing is timed."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import gpu
from benchmark import PeakMemory, in_turn
from inference_contenders import ALLOCATOR, CONTENDERS, environment
from inference_full import FullModel
from inference_job import Job, Measured, Run, Version, files_of
from inference_model import PlainModel, batches, first_begin, last_end, note_end, wait_for_all
from inference_profile import DECODE, STEPS, Clock, lines, of_tasks, scored
from inference_results import NOT_INSTALLED, Outcome, difference, products_per_second, summary, table
from inference_worlds import Product, enlarged, read_products, write_world

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inference import engine
from catalog_enrichment.inference.forward import ForwardPasses
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.predictor import Predictor

BENCHMARKS = Path(__file__).parent / "benchmarks"
LABELS = {"color": ("red", "green", "blue")}
REFERENCE = pa.table(
    {
        "row": [0, 1],
        "color": ["red", "green"],
        "color_score": [0.6, 0.41],
        "color_all": [[0.6, 0.3, 0.1], [0.4, 0.41, 0.19]],
    }
)


def found(*products: tuple[int, str, float | None]) -> pa.Table:
    rows, values, scores = zip(*products, strict=True)
    return pa.table({"row": rows, "color": values, "color_score": pa.array(scores, pa.float64())})


def outcome(*seconds: float, **more: object) -> Outcome:
    return Outcome([Measured(taken, 100 * taken) for taken in seconds], products=100, **more)  # type: ignore[arg-type]


def test_rates_are_the_lowest_the_median_and_the_highest_of_the_rounds() -> None:
    assert products_per_second(outcome(2.0, 10.0, 4.0)) == [10.0, 25.0, 50.0]


def test_the_summary_has_ratios_of_medians_and_the_largest_peak() -> None:
    contenders = {"bare": outcome(1.0), "plain": outcome(2.0, 4.0, 5.0), "ours": outcome(2.0)}
    line = json.loads(json.dumps(summary({"small": contenders, "large": {"plain": outcome(8.0)}})))
    assert line == {
        "small": {
            "bare": {"products_per_s": [100.0, 100.0, 100.0], "of_plain": 4.0, "of_bare": 1.0, "peak_rss_mib": 100},
            "plain": {"products_per_s": [20.0, 25.0, 50.0], "of_plain": 1.0, "of_bare": 0.25, "peak_rss_mib": 500},
            "ours": {"products_per_s": [50.0, 50.0, 50.0], "of_plain": 2.0, "of_bare": 0.5, "peak_rss_mib": 200},
        },
        "large": {
            "plain": {"products_per_s": [12.5, 12.5, 12.5], "of_plain": 1.0, "of_bare": None, "peak_rss_mib": 800}
        },
    }


def test_contenders_without_figures_are_in_the_table_only() -> None:
    outcomes = {
        "small": {"plain": outcome(2.0), "ray": Outcome(absent=NOT_INSTALLED), "daft": Outcome(absent="failed")}
    }
    assert list(summary(outcomes)["small"]) == ["plain"]
    lines = table(outcomes).splitlines()
    assert lines[3].startswith("| ray | not installed |")
    assert lines[4].startswith("| daft | failed |")


def test_the_table_marks_predictions_beyond_the_tolerance() -> None:
    near = outcome(2.0, difference=0.001, tolerance=0.001)
    far = outcome(2.0, difference=0.0011, tolerance=0.001)
    lines = table({"small": {"plain": near, "ours": far}}).splitlines()
    assert lines[2] == "| plain | 50 | [50.0, 50.0] | 1 | - | 200 | 0.001 | 0.001 |  |"
    assert lines[3].endswith("| 200 | 0.0011 | 0.001 | TOO FAR |")
    assert near.agrees
    assert not far.agrees


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        (found((1, "green", 0.41), (0, "red", 0.6)), 0.0),  # another order
        (found((0, "red", 0.58), (1, "green", 0.42)), 0.02),
        # the reference has 0.40 for red and 0.41 for green
        (found((0, "red", 0.6), (1, "red", 0.405)), 0.005),
        (found((0, "green", 0.6), (1, "green", 0.41)), 0.3),
        (found((0, "blue", 0.1), (1, "green", 0.41)), 0.5),
        (found((0, "red", 0.6)), float("inf")),
        (found((0, "red", 0.6), (0, "red", 0.6)), float("inf")),
        (found((0, "violet", 0.6), (1, "green", 0.41)), float("inf")),
        (found((0, "red", float("nan")), (1, "green", 0.41)), float("inf")),
        (found((0, "red", None), (1, "green", 0.41)), float("inf")),
    ],
)
def test_the_difference_is_the_largest_of_a_probability(predictions: pa.Table, expected: float) -> None:
    """It is infinite where rows, values or numbers are missing."""
    assert difference(REFERENCE, predictions, LABELS) == pytest.approx(expected)


def test_each_round_begins_with_another_contender() -> None:
    assert [in_turn(["a", "b", "c"], number) for number in (0, 1, 3)] == [list("abc"), list("bca"), list("abc")]


def test_only_plain_alloc_has_allocator_settings() -> None:
    inherited = {"MALLOC_ARENA_MAX": "7", "OMP_NUM_THREADS": "9", "LD_PRELOAD": "x.so"}
    inherited |= {"HOME": "here", "PYTHONPATH": "p"}
    for name, kind in CONTENDERS.items():
        given = environment(kind, inherited)
        settings = {key: value for key, value in given.items() if key.startswith("MALLOC_")}
        assert settings == (ALLOCATOR if name == "plain_alloc" else {}), name
        assert "LD_PRELOAD" not in given
        assert given["OMP_NUM_THREADS"] == "1"
        assert given["HOME"] == "here"
        assert given["PYTHONPATH"] == f"{BENCHMARKS.resolve()}:{Path('p').resolve()}"


@pytest.mark.parametrize("problem", ["", "no bf16 here"])
def test_tolerances_are_those_of_the_compute_type(monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: problem if numbers == "bf16" else "")
    given = {name: (kind.tolerance("small"), kind.tolerance("large")) for name, kind in CONTENDERS.items()}
    bf16 = {name for name, (small, _) in given.items() if small == compute_types.TOLERANCE["bf16"]}
    assert bf16 == {"plain_bf16"} | (set() if problem else {"ours", "ours_again"})
    other_pixels = {name for name, (small, _) in given.items() if small == 1}
    assert other_pixels == {name for name in CONTENDERS if name.endswith("_full")}
    copies = {name for name, (_, large) in given.items() if large == 1} - other_pixels
    assert copies == {"ours", "ours_again", "ours_eager", "ours_arrow", "spark_udf"}


def test_a_world_has_every_product_once_in_files_of_equal_size(tmp_path: Path) -> None:
    products = [Product(f"title {number}", "", bytes([number])) for number in range(10)]
    write_world(tmp_path / "world", products, files=4)
    files = files_of(tmp_path / "world")
    assert [pq.read_metadata(file).num_rows for file in files] == [3, 3, 2, 2]
    read = [
        (row, title) for batch in batches(files, 2) for row, title in zip(batch["row"], batch["title"], strict=True)
    ]
    assert read == [(number, f"title {number}") for number in range(10)]
    write_world(tmp_path / "few", products[:2], files=4)
    assert len(files_of(tmp_path / "few")) == 2


def test_large_pictures_have_at_least_1000_pixels_on_the_shorter_side() -> None:
    sink = io.BytesIO()
    Image.fromarray(np.full((80, 60, 3), 90, np.uint8)).save(sink, "PNG")
    sizes = {Image.open(io.BytesIO(enlarged(sink.getvalue(), seed))).size for seed in range(4)}
    assert len(sizes) > 1
    for width, height in sizes:
        assert 1000 <= width < 1600
        assert height / width == pytest.approx(80 / 60, abs=0.01)


def test_products_of_a_file_are_those_with_title_and_picture_repeated_if_few(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "PNG")
    picture = sink.getvalue()
    titles, pictures = ["a", None, " ", "b", "c"], [picture, picture, picture, b"broken", picture]
    pq.write_table(pa.table({"title": titles, "image": pictures}), tmp_path / "listings.parquet")
    assert [product.title for product in read_products(tmp_path / "listings.parquet", 5)] == ["a", "c", "a", "c", "a"]


def test_generated_products_have_pictures_of_224_pixels() -> None:
    products = read_products(None, 12)
    assert len({product.title for product in products}) > 6
    assert {Image.open(io.BytesIO(product.image)).size for product in products} == {(224, 224)}


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    version = Version(**dict.fromkeys(("artifact", "artifact_hash", "uri", "tracking_uri", "config"), "x"))
    run = Run(folder="f", predictions="p")
    job = Job(contender="plain", version=version, workers=2, runs=(run,), answer="a")
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_workers_wait_for_each_other_before_the_clock_starts(tmp_path: Path) -> None:
    (tmp_path / "loaded-other").touch()
    wait_for_all(tmp_path, "this", workers=2)
    with pytest.raises(RuntimeError, match="1 of 2 workers"):
        first_begin(tmp_path, workers=2)
    (tmp_path / "began-other").write_text("1.5")
    assert first_begin(tmp_path, workers=2) == 1.5
    (tmp_path / "ended-other").write_text("2.5")
    assert last_end(tmp_path) == 2.5
    note_end(tmp_path, "this")
    assert 2.5 < last_end(tmp_path) <= time.monotonic()


@pytest.mark.parametrize("proportional", [False, True])
def test_peak_memory_is_of_this_process_and_those_below(proportional: bool) -> None:
    with PeakMemory(proportional) as memory:
        pass
    assert 10 < memory.mib < 100_000


def test_the_steps_of_a_profiled_task_add_up_and_the_scores_are_those_of_the_engine(tmp_path: Path) -> None:
    products = gpu.Products.generated(40, words=20, side=64)
    folder = gpu.saved(tmp_path / "model", gpu.SMALL["tiny_bert+test_efficientnet"], products)
    predictor = Predictor.load(folder)
    given = products.undecoded(slice(0, 40))
    columns = tuple(pd.Series(list(column)) for column in (given.titles, given.descriptions, given.images))
    own = vars(engine)["ThreadPoolExecutor"], vars(ForwardPasses)["divide"], predictor._preprocessor.inputs
    clock = Clock()
    frames = list(scored(clock, predictor, iter([columns, columns]), ImagesConfig(keep_scaled=False), rows=16))
    clock.write(str(tmp_path))
    after = vars(engine)["ThreadPoolExecutor"], vars(ForwardPasses)["divide"], predictor._preprocessor.inputs
    assert after == own
    [expected] = engine.score_batches(predictor, [given], ImagesConfig(keep_scaled=False), rows=16)
    for frame in frames:
        assert [row.candidates[0].score for row in expected] == [
            row[0]["score"] for row in frame["candidates"].tolist()
        ]
    [content] = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert content["products"] == 80
    assert set(content["seconds"]) == {*STEPS, DECODE} - {"start"}
    assert sum(value for name, value in content["seconds"].items() if name != DECODE) <= content["task"]


def test_the_profile_is_milliseconds_per_product_over_all_tasks() -> None:
    tasks = [
        {"products": 10, "seconds": {"forward": 0.2, "decode": 0.1}, "task": 0.3},
        {"products": 30, "seconds": {"forward": 0.2, "input": 0.04}, "task": 0.5},
    ]
    found = of_tasks(tasks)
    assert {name: found[name] for name in ("forward", "input", "decode", "wait", "task")} == {
        "forward": 10, "input": 1, "decode": 2.5, "wait": 0, "task": 20,
    }  # fmt: skip
    assert found["rest"] == pytest.approx(9)  # decoding runs beside the steps
    shown = "\n".join(lines({"small": found | {"query_s": 2.0, "fixed_s": 0.5, "jvm_s_per_1024": 1.38}}))
    assert "| forward pass | 10 |" in shown
    assert "| rest | 9 |" in shown
    assert "per 1,024 products, s | 1.38 |" in shown


def test_the_loop_of_a_tutorial_decodes_in_full_and_stretches(tmp_path: Path) -> None:
    products = gpu.Products.generated(4, words=20, side=64)
    folder = gpu.saved(tmp_path / "model", gpu.SMALL["tiny_bert+test_efficientnet"], products)
    columns = products.titles, products.descriptions, products.pictures
    # pictures of the model's own size are not scaled: both loops see the same pixels and texts
    own, shared = (kind(folder).predict(*columns) for kind in (FullModel, PlainModel))
    for name, values in own.items():
        np.testing.assert_allclose(values, shared[name], atol=1e-5)
    sink = io.BytesIO()
    Image.new("RGB", (200, 100), (250, 0, 0)).save(sink, "JPEG")
    pixels = FullModel(folder).inputs(["a"], ["b"], [sink.getvalue()]).pixels
    assert pixels.shape == (1, 3, 64, 64)
    assert float(pixels.std(dim=(2, 3)).max()) == 0  # stretched: no white above and below
