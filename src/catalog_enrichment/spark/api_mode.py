"""All that differs between the two API modes of Spark: classic, whose driver has a JVM, and Spark Connect.

A client of Spark Connect is in another process, often on another machine, than Spark's driver: it has no SparkContext,
no JVM and no RDDs. Other files call :func:`of` and use neither (tests/test_layout.py).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of Spark's running stages, added up."""

    total: int
    completed: int
    running: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed attempts" if self.failed else ""
        return f"{self.completed:,} of {self.total:,} tasks done, {self.running:,} running{failed}"


class ApiMode(Protocol):
    """What the jobs need of a session beyond DataFrames."""

    def parallelism(self) -> int:
        """Return how many tasks Spark runs at a time, as far as it tells; at least 1."""
        ...

    def runs_here(self) -> bool:
        """Return whether tasks are known to run on this machine."""
        ...

    def ship(self, folder: Path, name: str) -> None:
        """Send a folder to every worker, which finds it at :func:`shipped`; a ``name`` is sent once per session."""
        ...

    def is_in_order(self, frame: DataFrame) -> bool:
        """Return whether ``frame`` is known to have a single partition."""
        ...

    def persist(self, frame: DataFrame) -> DataFrame:
        """Persist ``frame`` where Spark can, and return it."""
        ...

    def set(self, name: str, value: str | int) -> bool:
        """Set a setting of the session; return False where the platform lets nobody set it."""
        ...


def of(spark: SparkSession) -> ApiMode:
    """Return the API mode of a session."""
    return _connect_of(spark) if is_connect(spark) else Classic(spark)


def is_connect(spark: SparkSession) -> bool:
    """Return whether the session is a client of Spark Connect."""
    return type(spark).__module__.startswith("pyspark.sql.connect.")


def shipped(name: str) -> Path:
    """Return the folder that :meth:`ApiMode.ship` has sent as ``name``. Works in tasks only."""
    from pyspark import SparkFiles

    return Path(SparkFiles.getRootDirectory()) / name  # of a session of Connect: its own folder


def running_tasks() -> Tasks | None:
    """Return what Spark computes now; None if there is no Spark in this process or it computes nothing."""
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    found = [tasks for connect in list(_CONNECT.values()) for tasks in list(connect.running.values())]
    if context is not None:
        tracker = context.statusTracker()
        stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
        found += [
            Tasks(stage.numTasks, stage.numCompletedTasks, stage.numActiveTasks, stage.numFailedTasks)
            for stage in stages
            if stage is not None
        ]
    if not found:
        return None
    return Tasks(
        total=sum(tasks.total for tasks in found),
        completed=sum(tasks.completed for tasks in found),
        running=sum(tasks.running for tasks in found),
        failed=sum(tasks.failed for tasks in found),
    )


def reading_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of Spark that a block which reads a source may raise."""
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    return PySparkException, Py4JJavaError  # the second: Java errors without a PySpark class


def message_of(problem: Exception) -> str:
    """Return the message of one of :func:`reading_errors`, without the trace of a JVM."""
    java = getattr(problem, "java_exception", None)
    return str(java.getMessage() if java is not None else problem)


def _archive(folder: Path, name: str) -> str:
    """Return the path of a new zip file. It has the ``name``: a session of Connect takes a file name only once."""
    return shutil.make_archive(f"{tempfile.mkdtemp(prefix='catalog-enrichment-')}/{name}", "zip", folder)


def remember_names(spark: SparkSession) -> None:
    """Let pyspark find classes of the JVM that it asks for by name, several times for each function of a column.

    It asks for some without their package, and Java looks for them in every jar before that of Spark.
    """
    if is_connect(spark):
        return
    jvm = spark.sparkContext._jvm
    for name in ("org.apache.spark.sql.functions", "org.apache.spark.api.python.PythonUtils"):
        found = getattr(jvm, name)
        for known in (name, name.rpartition(".")[2]):
            setattr(jvm, known, found)


# --- classic ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Classic:
    """A session in the process of Spark's driver."""

    spark: SparkSession

    def parallelism(self) -> int:
        return max(1, int(self.spark.sparkContext.defaultParallelism))

    def runs_here(self) -> bool:
        master: str = self.spark.sparkContext.master
        return master.startswith("local") and not master.startswith("local-cluster")

    def ship(self, folder: Path, name: str) -> None:
        if name not in {str(uri).partition("#")[2] for uri in self.spark.sparkContext.listArchives}:
            self.spark.sparkContext.addArchive(f"{_archive(folder, name)}#{name}")

    def is_in_order(self, frame: DataFrame) -> bool:
        partitions: int = frame.rdd.getNumPartitions()
        return partitions <= 1

    def persist(self, frame: DataFrame) -> DataFrame:
        return frame.persist()

    def set(self, name: str, value: str | int) -> bool:
        self.spark.conf.set(name, value)
        return True


# --- Spark Connect ----------------------------------------------------------------------------------------------------

_NOT_SERVERLESS = ("NOT_SUPPORTED_WITH_SERVERLESS", "CONFIG_NOT_AVAILABLE")
"""In the messages of a platform that manages caches and settings itself, as Databricks serverless does."""


class Connect:
    """A client of Spark Connect."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = weakref.ref(spark)
        self._parallelism = 0
        self._shipped: set[str] = set()
        self.running: dict[str, Tasks] = {}
        """Operation -> its tasks, as the server has last reported them."""
        spark.registerProgressHandler(self._progress)

    @property
    def spark(self) -> SparkSession:
        spark = self._spark()
        assert spark is not None
        return spark

    def parallelism(self) -> int:
        """Count the partitions of a range: the server tells its number of cores in no other way."""
        from pyspark.sql import functions as F

        if not self._parallelism:
            number = F.spark_partition_id().alias("number")
            self._parallelism = max(1, self.spark.range(1 << 20).select(number).distinct().count())
        return self._parallelism

    def runs_here(self) -> bool:
        return False

    def ship(self, folder: Path, name: str) -> None:
        if name not in self._shipped:
            archive = _archive(folder, name)
            self.spark.addArtifacts(f"{archive}#{name}", archive=True)
            self._shipped.add(name)
            shutil.rmtree(Path(archive).parent)

    def is_in_order(self, frame: DataFrame) -> bool:  # noqa: ARG002  the protocol's signature
        return False

    def persist(self, frame: DataFrame) -> DataFrame:
        try:
            return frame.persist()
        except Exception as problem:
            if not _is_refused(problem):
                raise
            return frame  # computed again where it is used again

    def set(self, name: str, value: str | int) -> bool:
        try:
            self.spark.conf.set(name, value)
        except Exception as problem:
            if not _is_refused(problem):
                raise
            return False
        return True

    def _progress(
        self, stages: Iterable[Any] | None, inflight_tasks: int, operation_id: str | None, done: bool
    ) -> None:
        if done:
            self.running.pop(operation_id or "", None)
            return
        known = [stage for stage in stages or () if not stage.done]
        total, completed = sum(s.num_tasks for s in known), sum(s.num_completed_tasks for s in known)
        self.running[operation_id or ""] = Tasks(total, completed, inflight_tasks, 0)


_CONNECT: weakref.WeakKeyDictionary[SparkSession, Connect] = weakref.WeakKeyDictionary()
"""What is known about the sessions of Spark Connect."""


def _connect_of(spark: SparkSession) -> Connect:
    if spark not in _CONNECT:
        _CONNECT[spark] = Connect(spark)
    return _CONNECT[spark]


def _is_refused(problem: Exception) -> bool:
    return any(word in str(problem) for word in _NOT_SERVERLESS)
