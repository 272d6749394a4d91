"""Recognises errors of the surroundings: disks, permissions, memory, MLflow's store, Spark's JVM.

The libraries raise them in classes of their own, wrapped in each other. :data:`_RULES` tells them apart by errno and
texts of the whole chain of causes; each rule gives an exception of :mod:`catalog_enrichment.errors`, and with it
the job's exit code, and a message that says what to do.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from catalog_enrichment import errors
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, RegistryError, TemporaryFailure

_RAISED_ON_WORKER = re.compile(
    r"^catalog_enrichment\.errors\.(ConfigError|DataContractError|TemporaryFailure): (.+)$", re.MULTILINE
)
"""The last line of a Python worker's traceback, which the driver has as text."""

_NO_MESSAGE = "its message is in Spark's JVM, which does not answer"


def recognised(problem: BaseException) -> CatalogEnrichmentError | None:
    """Return the error to report instead of ``problem``; None if it is a bug."""
    chain = list(_chain(problem))
    text = "\n".join(map(described, chain))
    if on_purpose := _RAISED_ON_WORKER.search(text):
        kind: type[CatalogEnrichmentError] = getattr(errors, on_purpose[1])
        return kind(on_purpose[2])
    lines = [line for line in described(problem).splitlines() if line.strip()]
    for rule in _RULES:
        if rule.matches(chain, text):
            return rule.error(rule.message.format(where=lines[0][:330]))
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


def _lost_jvm(link: BaseException) -> bool:
    """Return whether the error is py4j's, or of a connection that py4j could not open."""
    frames = traceback.walk_tb(link.__traceback__) if isinstance(link, ConnectionError) else ()
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    return type(link).__name__ == "Py4JNetworkError" or any(name.startswith("py4j.") for name in modules)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """The errors of a cause: errno, text or link must match somewhere in the chain."""

    error: type[CatalogEnrichmentError]
    message: str
    """``{where}`` stands for the first line of the outermost error."""
    errnos: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    link: Callable[[BaseException], bool] | None = None
    also: str = ""
    """A pattern that the chain's text must have, too."""

    def matches(self, chain: Sequence[BaseException], text: str) -> bool:
        found = (
            any(isinstance(link, OSError) and link.errno in self.errnos for link in chain)
            or any(part in text for part in self.texts)
            or (self.link is not None and any(map(self.link, chain)))
        )
        return found and re.search(self.also, text) is not None


_OBJECT_STORE = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "Error performing ")
"""In the messages of the object_store library, which obstore and deltalake share."""

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
        message="out of memory: {where}. Raise spark.driver_memory, or lower enrich.forward_rows and "
        "enrich.batch_bytes",
        texts=("java.lang.OutOfMemoryError", "Cannot allocate memory"),
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
    ),
    _Rule(
        error=RegistryError,
        message="the MLflow store is damaged or of another version: {where}. Check mlflow.tracking_uri",
        texts=("no such table", "disk image is malformed", "file is not a database", "Detected out-of-date"),
    ),
    _Rule(
        error=ConfigError,
        message="a folder or file cannot be used: {where}. Give the job's user the right to it, or set another",
        errnos=(errno.EACCES, errno.EPERM, errno.EROFS),
        texts=("Permission denied", "Read-only file system", "attempt to write a readonly database"),
    ),
    _Rule(
        error=TemporaryFailure,
        message="Spark's JVM has ended or does not answer, for example because the machine ran out of memory. Run "
        "again: what was finished is kept ({where})",
        texts=(
            *(_NO_MESSAGE, "Answer from Java side is empty", "Error while sending or receiving"),
            *("An error occurred while trying to connect to the Java server", "SparkContext was shut down"),
            "Cannot call methods on a stopped SparkContext",
        ),
        link=_lost_jvm,
    ),
    _Rule(
        error=TemporaryFailure,
        message="a Python worker or executor of Spark was lost, for example because the machine ran out of memory. Run "
        "again: what was finished is kept. If it comes again, lower enrich.forward_rows and enrich.batch_bytes "
        "({where})",
        texts=("Python worker exited unexpectedly", "Python worker failed to connect", "ExecutorLostFailure"),
    ),
)
"""The first rule that matches counts."""
