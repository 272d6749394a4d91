"""Recognises errors of the surroundings: disks, permissions, memory, MLflow's store, Spark's JVM.

The libraries raise them in classes of their own, wrapped in each other. :data:`_RULES` tells them apart by errno and
texts of the whole chain of causes; each rule gives an exception of :mod:`catalog_enrichment.errors`, and with it
the job's exit code, and a message that says what to do.
"""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from catalog_enrichment import errors, extras
from catalog_enrichment.errors import (
    CatalogEnrichmentError,
    ConfigError,
    DataContractError,
    RegistryError,
    TemporaryFailure,
)
from catalog_enrichment.masking import masked

_RAISED_ON_WORKER = re.compile(
    r"^catalog_enrichment\.errors\.(ConfigError|DataContractError|MissingFileError|TemporaryFailure): (.+)$",
    re.MULTILINE,
)
"""The last line of a Python worker's traceback, which the driver has as text."""

_ABSENT = re.compile(r"ModuleNotFoundError: (?:No module named '|import of )(\w+)")
"""A package that cannot be imported, also in the text of a worker's traceback."""

_OTHER_WORKER = (
    r"No module named '?catalog_enrichment\b|import of catalog_enrichment halted|"
    r"Can't get attribute '\w+' on <module 'catalog_enrichment|PYTHON_VERSION_MISMATCH"
)
"""In a worker's traceback, where the worker lacks this package, or has another version of it or of Python."""

_NO_MESSAGE = "its message is in Spark's JVM, which does not answer"


def recognised(problem: BaseException) -> CatalogEnrichmentError | None:
    """Return the error to report instead of ``problem``; None if it is a bug."""
    chain = list(_chain(problem))
    text = "\n".join(map(described, chain))
    if on_purpose := _RAISED_ON_WORKER.search(text):
        kind: type[CatalogEnrichmentError] = getattr(errors, on_purpose[1])
        return kind(on_purpose[2])
    if (absent := _ABSENT.search(text)) and absent[1] in extras.EXTRA_OF:
        return ConfigError(f"{extras.missing(absent[1])}. On a cluster its workers may need it, too")
    lines = [line for line in described(problem).splitlines() if line.strip()]
    for rule in _RULES:
        if (named := rule.matches(chain, text)) is not None:
            return rule.error(rule.message.format(where=masked(lines[0])[:330], named=named))
    return None


def described(problem: BaseException) -> str:
    """Return class and message. An error of Spark asks the JVM for its message, which fails if the JVM has ended."""
    try:
        message = str(problem)
    except Exception:
        message = _NO_MESSAGE
    return f"{type(problem).__name__}: {message}".rstrip(": ")


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield ``problem`` and the errors that it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = problem
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _mlflow_does_not_answer(link: BaseException) -> bool:
    """Return whether MLflow's client says that the server cannot be reached, is overloaded or fails."""
    answer = r"API request to \S+ failed with (?:timeout )?exception|failed with error code (?:5\d\d|429)\b"
    status = _mlflow_status(link)
    return status is not None and (status >= 500 or status == 429 or bool(re.search(answer, str(link))))


def _mlflow_refuses(link: BaseException) -> bool:
    """Return whether MLflow's client says that the server wants an account, or the account lacks the right."""
    status = _mlflow_status(link)
    return status is not None and (status in (401, 403) or bool(re.search(r"with error code 40[13]\b", str(link))))


def _mlflow_status(link: BaseException) -> int | None:
    """Return the HTTP status of an error of MLflow's client, 0 if the server sent none; None for another error."""
    kind = type(link)
    if not kind.__module__.startswith("mlflow."):
        return None
    # only a RestException is the server's: the client's own errors have the code of a failing server, too
    return int(link.get_http_status_code()) if kind.__name__ == "RestException" else 0  # type: ignore[attr-defined]


def _of_mlflow(link: BaseException) -> bool:
    """Return whether MLflow or the library under its database raised the error, or it was raised while they or the
    registry worked."""
    frames = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(link.__traceback__)]
    return any(
        name.startswith(("mlflow.", "sqlalchemy.", "catalog_enrichment.registry."))
        for name in (type(link).__module__, *frames)
    )


def _of_connect(link: BaseException) -> bool:
    """Return whether Spark Connect's client raised the error; its check that the server is the same has no class."""
    kind = type(link)
    return kind.__module__.startswith(("grpc.", "pyspark.errors.exceptions.connect")) or (
        kind.__name__ == "PySparkAssertionError"
    )


def _lost_jvm(link: BaseException) -> bool:
    """Return whether the error says that Spark's JVM has ended, is py4j's, or is of a connection that py4j could not
    open."""
    if any(part in described(link) for part in _LOST_JVM):
        return True
    frames = traceback.walk_tb(link.__traceback__) if isinstance(link, ConnectionError) else ()
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    return type(link).__name__ == "Py4JNetworkError" or any(name.startswith("py4j.") for name in modules)


def _jvm_out_of_memory(link: BaseException) -> bool:
    """Return whether Spark's JVM has ended because a task used up its memory: only its exit code says so."""
    if "pyspark" not in sys.modules or not _lost_jvm(link):
        return False
    from pyspark import SparkContext

    process = getattr(SparkContext._gateway, "proc", None)  # spark-submit starts the JVM itself
    try:
        return process is not None and process.wait(_SECONDS_TO_END) == _OUT_OF_MEMORY
    except subprocess.TimeoutExpired:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """The errors of a cause: errno, text or link must match somewhere in the chain."""

    error: type[CatalogEnrichmentError]
    message: str
    """``{where}`` stands for the first line of the outermost error, ``{named}`` for what ``also`` found."""
    errnos: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    link: Callable[[BaseException], bool] | None = None
    also: str = ""
    """A pattern that the chain's text must have, too."""
    of: Callable[[BaseException], bool] | None = None
    """True for a link that the chain must have, too."""

    def matches(self, chain: Sequence[BaseException], text: str) -> str | None:
        """Return what the pattern ``also`` finds in ``text``, the chain's; None if it is no error of this cause."""
        found = (
            any(isinstance(link, OSError) and link.errno in self.errnos for link in chain)
            or any(part in text for part in self.texts)
            or (self.link is not None and any(map(self.link, chain)))
        )
        match = re.search(self.also, text)
        return match[0] if found and match and (self.of is None or any(map(self.of, chain))) else None


_LOST_JVM = (
    *(_NO_MESSAGE, "Answer from Java side is empty", "Error while sending or receiving"),
    *("An error occurred while trying to connect to the Java server", "SparkContext was shut down"),
    "Cannot call methods on a stopped SparkContext",
)

_OUT_OF_MEMORY = 52
"""Exit code of Spark's JVM after an OutOfMemoryError that no code has caught (SparkExitCode.OOM)."""

_SECONDS_TO_END = 5.0
"""Time that a JVM has to end after it has stopped Spark."""

_LOST_WORKER = ("Python worker exited unexpectedly", "Python worker failed to connect", "ExecutorLostFailure")

_OBJECT_STORE = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "Error performing ")
"""In the messages of the object_store library, which obstore and deltalake share."""

_SQLITE_DAMAGED = ("disk image is malformed", "file is not a database")

_PARQUET_DAMAGED = ("FAILED_READ_FILE", "is not a Parquet file", "Could not read footer", "ChecksumException")
"""In the messages of Spark and its reader of parquet."""

_RULES = (
    _Rule(
        error=TemporaryFailure,
        message="a disk is full: {where}. Free space for catalog.path, Spark's temporary folder (spark.local.dir, "
        "TMPDIR) and the MLflow store, and run again",
        errnos=(errno.ENOSPC, errno.EDQUOT),
        texts=("No space left on device", "Disk quota exceeded", "database or disk is full"),
    ),
    _Rule(
        error=ConfigError,
        message="Spark's JVM ran out of memory: {where}. Another try ends the same way: raise spark.driver_memory (of "
        "executors spark.executor.memory in spark.conf), or lower enrich.batch_bytes",
        texts=("java.lang.OutOfMemoryError", "SparkOutOfMemoryError"),
        link=_jvm_out_of_memory,
    ),
    _Rule(
        error=ConfigError,
        message="Python ran out of memory: {where}. Another try ends the same way: lower enrich.forward_rows and "
        "enrich.batch_bytes (of a training fit.batch_size, in training.set), or run on a larger machine",
        texts=("MemoryError", "Cannot allocate memory", "can't allocate memory", "CUDA out of memory"),
        link=lambda link: isinstance(link, MemoryError),
    ),
    _Rule(
        error=ConfigError,
        message="a path of the config or of an option cannot be used: {where}. Look for ~NAME of a user that is not "
        "here, and for control characters",
        link=lambda link: isinstance(link, RuntimeError | ValueError),
        also="Could not determine home directory|embedded null (?:byte|character)",
    ),
    _Rule(
        error=TemporaryFailure,
        message="the MLflow store is locked by another process: {where}. Run again when that has ended; for several "
        "jobs at a time use an MLflow server instead of a sqlite file",
        texts=("database is locked",),
        of=_of_mlflow,
    ),
    _Rule(
        error=TemporaryFailure,
        message="an SQLite file is locked by another process: {where}. Run again when that has ended",
        texts=("database is locked",),
    ),
    _Rule(
        error=ConfigError,
        message="the object store has no such bucket: {where}. Make it first, or set catalog.path",
        texts=_OBJECT_STORE,
        also="NoSuchBucket|The specified bucket does not exist|ContainerNotFound",
    ),
    _Rule(
        error=ConfigError,
        message="the object store refuses the request: {where}. Check the credentials in the job's environment (for S3 "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), their rights, and catalog.storage",
        texts=_OBJECT_STORE,
        also=r"\b40[13] (?:Forbidden|Unauthorized)|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|"
        "PermissionDenied|Unauthenticated|InvalidToken|ExpiredToken",
    ),
    _Rule(
        error=TemporaryFailure,
        message="the object store fails or does not answer: {where}. Run again when it does",
        texts=_OBJECT_STORE,
    ),
    _Rule(
        error=TemporaryFailure,
        message="the MLflow server fails or does not answer: {where}. Run again when it does",
        link=_mlflow_does_not_answer,
    ),
    _Rule(
        error=RegistryError,
        message="the MLflow server refuses the request: {where}. Set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) in the job's environment to an account that may do it",
        link=_mlflow_refuses,
    ),
    _Rule(
        error=TemporaryFailure,
        message="a disk or network drive fails or does not answer: {where}. Run again when it does",
        errnos=(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN),
        texts=(
            *("Input/output error", "Stale file handle", "Transport endpoint is not connected"),
            *("Connection timed out", "disk I/O error"),
        ),
    ),
    _Rule(
        error=TemporaryFailure,
        message="too many files are open: {where}. Raise the limit (ulimit -n), and run again",
        errnos=(errno.EMFILE, errno.ENFILE),
        texts=("Too many open files",),
    ),
    _Rule(
        error=RegistryError,
        message="the MLflow store cannot be opened: {where}. Check the folder of mlflow.tracking_uri",
        texts=("unable to open database file",),
        of=_of_mlflow,
    ),
    _Rule(
        error=RegistryError,
        message="the MLflow store is damaged or of another version: {where}. Check mlflow.tracking_uri",
        texts=("no such table", *_SQLITE_DAMAGED, "Detected out-of-date"),
        of=_of_mlflow,
    ),
    _Rule(
        error=ConfigError,
        message="an SQLite file cannot be opened or is damaged: {where}. Name another, or restore it from a backup",
        texts=("unable to open database file", *_SQLITE_DAMAGED),
    ),
    _Rule(
        error=DataContractError,
        message="{named} is damaged. Restore it from a backup, or see 'A table is damaged' in deploy/RUNBOOK.md "
        "({where})",
        texts=_PARQUET_DAMAGED,
        also=r"[^\s,]+/part-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.parquet",
    ),
    _Rule(
        error=DataContractError,
        message="a checkpoint of a run is damaged. Delete the folder {named}, and run again ({where})",
        texts=_PARQUET_DAMAGED,
        also=r"[^\s,]+/_staging/[\w.-]+",
    ),
    _Rule(
        error=ConfigError,
        message="a folder or file cannot be used: {where}. Give the job's user the right to it, or set another",
        errnos=(errno.EACCES, errno.EPERM, errno.EROFS),
        texts=("Permission denied", "Read-only file system", "attempt to write a readonly database"),
    ),
    _Rule(
        error=ConfigError,
        message="Spark's Python workers cannot run this program ({named}): where they run, install the "
        f"catalog-enrichment of this process for Python {sys.version_info[0]}.{sys.version_info[1]}, and let "
        "PYSPARK_PYTHON name that Python ({where})",
        texts=("catalog_enrichment", "PYTHON_VERSION_MISMATCH"),
        also=_OTHER_WORKER,
    ),
    _Rule(
        error=TemporaryFailure,
        message="the Spark Connect server fails, does not answer, or has ended the session. Run again when it does: "
        "what was finished is kept ({where})",
        link=_of_connect,
        also="UNAVAILABLE|Socket closed|failed to connect|RETRIES_EXCEEDED|INVALID_HANDLE|SESSION_CLOSED|"
        "Connection reset|recvmsg|RPC deadline exceeded|incorrect server side session|NO_ACTIVE_SESSION",
    ),
    _Rule(
        error=TemporaryFailure,
        message="Spark's JVM has ended or does not answer, for example because the machine ran out of memory. Run "
        "again: what was finished is kept ({where})",
        link=_lost_jvm,
    ),
    _Rule(
        error=ConfigError,
        message="Python workers or executors of Spark were lost several times, or for their memory ({where}). Another "
        "try ends the same way: lower enrich.forward_rows and enrich.batch_bytes, or raise spark.executor.memory and "
        "spark.executor.memoryOverhead in spark.conf",
        texts=_LOST_WORKER,
        also=r"failed (?:[2-9]|\d\d+) times|[Ee]xit code:? (?:52|137)\b|OOMKilled|exceeding memory limits",
    ),
    _Rule(
        error=TemporaryFailure,
        message="a Python worker or executor of Spark was lost, for example because the machine ran out of memory. Run "
        "again: what was finished is kept. If it comes again, lower enrich.forward_rows and enrich.batch_bytes "
        "({where})",
        texts=_LOST_WORKER,
    ),
)
"""The first rule that matches counts."""
