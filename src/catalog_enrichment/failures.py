"""Recognises errors of the surroundings: disks, permissions, memory, MLflow's store, Spark's JVM.

The libraries raise them in classes of their own, wrapped in each other, so that they are told apart by the errno and
the texts of the whole chain of causes.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

from catalog_enrichment import errors
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, RegistryError, TemporaryFailure

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FORBIDDEN_TEXTS = ("Permission denied", "Read-only file system", "attempt to write a readonly database")
_STORAGE = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN}
_STORAGE_TEXTS = (
    *("Input/output error", "Stale file handle", "Transport endpoint is not connected", "Connection timed out"),
    "disk I/O error",
)
_FILES = {errno.EMFILE, errno.ENFILE}
_FILES_TEXTS = ("Too many open files",)
_LOCKED_TEXTS = ("database is locked",)
_UNOPENED_TEXTS = ("unable to open database file",)
_DAMAGED_TEXTS = ("no such table", "database disk image is malformed", "file is not a database", "Detected out-of-date")
_NO_MESSAGE = "its message is in Spark's JVM, which does not answer"
_LOST_JVM_TEXTS = (
    _NO_MESSAGE,
    "Answer from Java side is empty",
    "An error occurred while trying to connect to the Java server",
    "Error while sending or receiving",
    "SparkContext was shut down",
    "Cannot call methods on a stopped SparkContext",
)
_LOST_JVM_CLASSES = {"Py4JNetworkError"}
_LOST_WORKER_TEXTS = ("Python worker exited unexpectedly", "Python worker failed to connect", "ExecutorLostFailure")
_RAISED_ON_WORKER = re.compile(
    r"^catalog_enrichment\.errors\.(ConfigError|DataContractError|TemporaryFailure): (.+)$", re.MULTILINE
)
"""The last line of a Python worker's traceback, which Spark gives as text."""
_NO_MLFLOW_ANSWER = re.compile(
    r"API request to \S+ failed with (?:timeout )?exception|failed with error code (?:5\d\d|429)\b"
)
_MLFLOW_REFUSAL = re.compile(r"failed with error code 40[13]\b")
"""In the messages of MLflow's client."""
_OBJECT_STORE_TEXTS = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "Error performing ")
"""In the messages of the object_store library, which obstore and deltalake share."""
_STORE_REFUSES = re.compile(
    r"\b40[13] (?:Forbidden|Unauthorized)|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|PermissionDenied|"
    r"Unauthenticated|InvalidToken|ExpiredToken"
)
_NO_BUCKET = re.compile(r"NoSuchBucket|The specified bucket does not exist|ContainerNotFound")
_PATH_TEXTS = ("Could not determine home directory", "embedded null byte", "embedded null character")
_MEMORY_TEXTS = ("java.lang.OutOfMemoryError", "Cannot allocate memory")


def recognised(problem: BaseException) -> CatalogEnrichmentError | None:
    """The error to report instead of ``problem``; None if it is none of the surroundings, and so a bug."""
    chain = list(_chain(problem))
    text = "\n".join(map(described, chain))
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    where = _first_line(problem)
    if on_purpose := _RAISED_ON_WORKER.search(text):
        kind: type[CatalogEnrichmentError] = getattr(errors, on_purpose[1])
        return kind(on_purpose[2])
    if numbers & _FULL or _has(text, _FULL_TEXTS):
        return TemporaryFailure(
            f"a disk is full: {where}. Free space for catalog.path, Spark's temporary folder (spark.local.dir, TMPDIR) "
            "and the MLflow store, and run again"
        )
    if _has(text, _MEMORY_TEXTS) or any(isinstance(link, MemoryError) for link in chain):
        return ConfigError(
            f"out of memory: {where}. Raise spark.driver_memory, or lower enrich.forward_rows and enrich.batch_bytes"
        )
    if any(isinstance(link, RuntimeError | ValueError) for link in chain) and _has(text, _PATH_TEXTS):
        return ConfigError(
            f"a path of the config or of an option cannot be one: {where}. Look for ~NAME of a user that is not here, "
            "and for control characters"
        )
    if _has(text, _LOCKED_TEXTS):
        return TemporaryFailure(
            f"the MLflow store is locked by another process: {where}. Run again when that has ended; for several jobs "
            "at a time use an MLflow server instead of a sqlite file"
        )
    if _has(text, _OBJECT_STORE_TEXTS):
        return _of_object_store(text, where)
    if any(map(_mlflow_does_not_answer, chain)):
        return TemporaryFailure(f"the MLflow server fails or does not answer: {where}. Run again when it does")
    if any(map(_mlflow_refuses, chain)):
        return RegistryError(
            f"the MLflow server refuses the request: {where}. Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) in the job's environment to an account that may do it"
        )
    if numbers & _STORAGE or _has(text, _STORAGE_TEXTS):
        return TemporaryFailure(f"a disk or network drive fails or does not answer: {where}. Run again when it does")
    if numbers & _FILES or _has(text, _FILES_TEXTS):
        return TemporaryFailure(f"too many files are open: {where}. Raise the limit (ulimit -n), and run again")
    if _has(text, _UNOPENED_TEXTS):
        return RegistryError(f"the MLflow store cannot be opened: {where}. Check the folder of mlflow.tracking_uri")
    if _has(text, _DAMAGED_TEXTS):
        return RegistryError(f"the MLflow store is damaged or of another version: {where}. Check mlflow.tracking_uri")
    if numbers & _FORBIDDEN or _has(text, _FORBIDDEN_TEXTS):
        return ConfigError(
            f"a folder or file cannot be used: {where}. Give the job's user the right to it, or set another"
        )
    if any(map(_lost_jvm, chain)) or _has(text, _LOST_JVM_TEXTS):
        return TemporaryFailure(
            "Spark's JVM has ended or does not answer, for example because the machine ran out of memory. Run again: "
            f"what was finished is kept ({where})"
        )
    if _has(text, _LOST_WORKER_TEXTS):
        return TemporaryFailure(
            "a Python worker or executor of Spark was lost, for example because the machine ran out of memory. Run "
            f"again: what was finished is kept. If it comes again, lower enrich.forward_rows and "
            f"enrich.batch_bytes ({where})"
        )
    return None


def _of_object_store(text: str, where: str) -> CatalogEnrichmentError:
    if _NO_BUCKET.search(text):
        return ConfigError(f"the object store has no such bucket: {where}. Make it first, or set catalog.path")
    if _STORE_REFUSES.search(text):
        return ConfigError(
            f"the object store refuses the request: {where}. Check the credentials in the job's environment (for S3 "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), their rights, and catalog.storage"
        )
    return TemporaryFailure(f"the object store fails or does not answer: {where}. Run again when it does")


def described(problem: BaseException) -> str:
    """Class and message. An error of Spark asks the JVM for its message, which fails where the JVM has ended."""
    try:
        message = str(problem)
    except Exception:
        message = _NO_MESSAGE
    return f"{type(problem).__name__}: {message}".rstrip(": ")


def _mlflow_does_not_answer(link: BaseException) -> bool:
    """Whether the error is of MLflow's client, and the server could not be reached, is overloaded, or fails itself."""
    kind = type(link)
    if not kind.__module__.startswith("mlflow."):
        return False
    from_server = kind.__name__ == "RestException"  # the client's own errors have the code of a failing server, too
    status = link.get_http_status_code() if from_server else 0  # type: ignore[attr-defined]
    return status >= 500 or status == 429 or bool(_NO_MLFLOW_ANSWER.search(str(link)))


def _mlflow_refuses(link: BaseException) -> bool:
    """Whether the error is of MLflow's client, and the server wants an account, or the account lacks the right."""
    kind = type(link)
    if not kind.__module__.startswith("mlflow."):
        return False
    status = link.get_http_status_code() if kind.__name__ == "RestException" else 0  # type: ignore[attr-defined]
    return status in (401, 403) or bool(_MLFLOW_REFUSAL.search(str(link)))


def _lost_jvm(link: BaseException) -> bool:
    """Whether the error is one of py4j's, or of a connection that py4j could not open."""
    frames = traceback.walk_tb(link.__traceback__) if isinstance(link, ConnectionError) else ()
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    return type(link).__name__ in _LOST_JVM_CLASSES or any(name.startswith("py4j.") for name in modules)


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """``problem``, and what it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = problem
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _has(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def _first_line(problem: BaseException) -> str:
    lines = [line for line in described(problem).splitlines() if line.strip()]
    return lines[0][:330]
