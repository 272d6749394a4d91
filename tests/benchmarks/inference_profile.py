"""Where a worker's time goes in Spark: timers around the steps of the scoring stage's UDF.

:func:`profiled_udf` is the UDF of `inference.udf` with a clock at each step; every task writes its sums to a file. The
forward thread is measured by the clock on the wall, and its steps add up to the time of the task; the thread that
decodes, which runs beside it, by the processor time that it used. A clock costs less than a microsecond.
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from benchmark import called, markdown

if TYPE_CHECKING:
    import pandas as pd

    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.inference.udf import ShippedModel

STEPS = {
    "start": "start of the task: imports, the loaded model",
    "input": "wait for Spark's products; Arrow to pandas",
    "tokenize": "clean and tokenize, to divide into passes",
    "wait": "wait for the thread that decodes",
    "inputs": "tokenize again, stack and normalise pictures",
    "forward": "forward pass",
    "output": "candidates to Arrow",
    "taken": "wait until Spark has taken the scores",
}
"""Step -> what it is; in the forward thread, one after the other. What is left is `rest`."""
QUERY = "query.json"
"""The file with the figures of the query, beside those of its tasks."""
DECODE = "decode"
"""Decoding and scaling, in a thread of its own: processor time."""


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.products = 0
        self._begun = time.perf_counter()

    @contextmanager
    def step(self, name: str, now: Callable[[], float] = time.perf_counter) -> Iterator[None]:
        start = now()
        try:
            yield
        finally:
            self.seconds[name] += now() - start

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with its time added to a step."""

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.step(name):
                return function(*args, **kwargs)

        return measured

    def each(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the items; the time of waiting for them is added to a step."""
        while True:
            with self.step(name):
                item = next(items, self)
            if item is self:
                return
            yield item

    def write(self, folder: str) -> None:
        whole = time.perf_counter() - self._begun
        content = {"products": self.products, "seconds": dict(self.seconds), "task": whole}
        (Path(folder) / f"{uuid.uuid4()}.json").write_text(json.dumps(content))


class _Waited:
    """The decoder's threads: time of a task is that of its thread, time of its result that of waiting."""

    def __init__(self, clock: Clock, threads: Any) -> None:
        self._clock, self._threads = clock, threads

    def __enter__(self) -> _Waited:
        self._threads.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self._threads.__exit__(*problem)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        def in_thread() -> Any:
            with self._clock.step(DECODE, time.thread_time):
                return function(*args)

        future = self._threads.submit(in_thread)
        future.result = self._clock.timed("wait", future.result)
        return future


@contextmanager
def installed(clock: Clock, predictor: Any) -> Iterator[None]:
    """Put the clock into the engine and the predictor, and take it out at the end."""
    from catalog_enrichment.inference import engine, forward

    threads, divide, prepare = engine.ThreadPoolExecutor, forward.ForwardPasses.divide, predictor._preprocessor.inputs
    hooks = [predictor._net.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))]
    started: list[float] = []
    hooks.append(
        predictor._net.register_forward_hook(
            lambda *_: clock.seconds.update({"forward": time.perf_counter() - started.pop()})
        )
    )
    engine.ThreadPoolExecutor = lambda *args, **kwargs: _Waited(clock, threads(*args, **kwargs))
    forward.ForwardPasses.divide = clock.timed("tokenize", divide)
    predictor._preprocessor.inputs = clock.timed("inputs", prepare)
    try:
        yield
    finally:
        engine.ThreadPoolExecutor, forward.ForwardPasses.divide = threads, divide
        predictor._preprocessor.inputs = prepare
        for hook in hooks:
            hook.remove()


def profiled_udf(model: ShippedModel, limits: ImagesConfig, rows: int, folder: str) -> Any:
    """Return the UDF of :func:`~catalog_enrichment.inference.udf.scoring_udf`; its tasks write to ``folder``."""
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    from catalog_enrichment.inference.udf import SCORED_TYPE

    def score(columns: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        from catalog_enrichment.inference import udf

        clock = Clock()
        with clock.step("start"):
            predictor = udf.task_predictor(model.artifact_hash, model.directory(), udf.task_device(), model.numbers)
        yield from scored(clock, predictor, columns, limits, rows)
        clock.write(folder)

    score.__annotations__ = {"columns": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return pandas_udf(score, returnType=SCORED_TYPE).asNondeterministic()


def scored(
    clock: Clock, predictor: Any, columns: Iterator[Any], limits: ImagesConfig, rows: int
) -> Iterator[pd.DataFrame]:
    """Score columns as the UDF does, by the clock."""
    from catalog_enrichment.inference import engine, udf

    with installed(clock, predictor):
        batches = (engine.UndecodedBatch(*map(list, given)) for given in clock.each("input", columns))
        for found in engine.score_batches(predictor, batches, limits, rows):
            with clock.step("output"):
                frame = udf.as_pandas(udf.to_arrow(found))
            clock.products += len(found)
            with clock.step("taken"):
                yield frame


def of_tasks(contents: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the milliseconds per product of every step, over the tasks that :meth:`Clock.write` wrote."""
    products = sum(content["products"] for content in contents)
    seconds: Counter[str] = Counter()
    for content in contents:
        seconds.update(content["seconds"])
        seconds["task"] += content["task"]
    found = {name: 1000 * seconds[name] / products for name in (*STEPS, DECODE, "task")}
    return found | {"rest": found["task"] - sum(found[name] for name in STEPS)}


class JvmTime(AbstractContextManager["JvmTime"]):
    """The processor time of the JVM below this process."""

    seconds = 0.0

    def __init__(self, pid: int) -> None:
        self._processes = called(pid, "java")

    def _now(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes if psutil.pid_exists(process.pid))

    def __enter__(self) -> JvmTime:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._now() - self._start


def lines(worlds: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the table for people; ``worlds``: world -> step -> ms per product and worker, and figures of the query."""
    names = {
        **STEPS,
        "rest": "rest",
        "task": "**all of the task**",
        DECODE: "decode and scale, in a thread beside it (CPU)",
    }
    rows: dict[str, list[object]] = {
        label: [round(found[name], 3) for found in worlds.values()] for name, label in names.items()
    }
    for name, label in {
        "query_s": "query, s",
        "fixed_s": "query over a product per worker, s",
        "jvm_s_per_1024": "processor time of the JVM per 1,024 products, s",
    }.items():
        rows[label] = [round(found[name], 2) for found in worlds.values()]
    yield from markdown(list(worlds), rows, "ms per product and worker")
