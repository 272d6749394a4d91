"""The write lease of a catalog in an object store: one job at a time writes, and one that lost it cannot commit.

A store has no lock that the operating system releases. So the lease is an object, put only if it is not there or still
has the entity tag that was read: who holds it, a token that grows by one with every change of the holder, and for how
long a sign of life counts. A thread of the holder puts it again three times in that period. Where no sign of life came
for longer, by the store's own clock, another job may take the lease over.

The holder may then still live: it slept, or could not reach the store. Three things keep it from writing. Before each
commit it asks whether its last sign of life is young enough, and gives a new one if not; that fails once another job
has taken over. Every commit of a holder carries the token as the Delta application transaction :data:`FENCE`. And who
takes a lease over first commits its own token, with no rows, to every table that the lease protects: in Delta a commit
conflicts with a concurrent one of the same application, and a later one sees the larger token.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from catalog_enrichment.errors import GateRefused, TemporaryFailure

if TYPE_CHECKING:
    from catalog_enrichment.catalog.object_storage import ObjectStorage

FENCE = "lease"
"""Delta application transaction whose version is the token of the writer."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the lease's object says."""

    holder: str
    """Of one acquisition; unique."""
    by: str
    """Host and process, for people."""
    token: int
    seconds: float
    """How long a sign of life counts."""
    beats: int = 0
    """Signs of life so far: makes every put another object, with another entity tag."""
    released: bool = False
    fenced: bool = False
    """Whether the tables know the token, or need not: the holder before gave the lease back."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Lease:
    """One lease by name; :meth:`held` is the block in which this process has it."""

    def __init__(
        self,
        storage: ObjectStorage,
        name: str,
        seconds: float,
        largest_token: Callable[[], int] = lambda: 0,
        doing: str = "another job is writing to this catalog",
    ) -> None:
        """``largest_token``: that the tables know, asked where the lease's object is not there. ``doing``: what the
        holder does, for the refusal of others."""
        self._largest_token, self._doing = largest_token, doing
        self._storage, self._path, self._seconds = storage, f"_leases/{name}.json", seconds
        self._mine: LeaseRecord | None = None
        self._tag = ""
        self._alive_at = 0.0
        self._changing = threading.Lock()

    @property
    def token(self) -> int | None:
        """That of this process while it is in the block of :meth:`held`; else None."""
        return self._mine.token if self._mine else None

    @contextmanager
    def held(self, wait_seconds: float, fence: Callable[[int], None] | None = None) -> Iterator[None]:
        """Hold the lease. ``fence``: keeps earlier holders from writing; called with the token where one of them may
        still live.

        A holder that shows no sign of life is waited for until its lease has expired, whatever ``wait_seconds`` is.
        Raises GateRefused, after ``wait_seconds``, while another job holds the lease and lives.
        """
        taken = self._acquire(wait_seconds)
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(done,), name="lease", daemon=True)
        beating.start()
        try:
            if fence is not None and not taken.fenced:
                fence(taken.token)
            self._change(lambda mine: replace(mine, fenced=True))
            yield
        finally:
            done.set()
            beating.join()
            with suppress(Exception):  # it expires
                self._change(lambda mine: replace(mine, released=True))
            self._mine = None

    def require(self) -> None:
        """Raises TemporaryFailure if another job may hold the lease by now. No check outside of :meth:`held`."""
        if self._mine is None or _now() - self._alive_at < self._seconds * 0.8:
            return
        with suppress(Exception):  # the store may be out of reach
            self._change(lambda mine: mine)
        if _now() - self._alive_at >= self._seconds:
            raise self.lost()

    def lost(self) -> TemporaryFailure:
        return TemporaryFailure(
            f"{self._storage.uri}/{self._path}: this job gave no sign of life for {self._seconds:g} s, because it "
            "slept or could not reach the store, and another job may be writing to the catalog. It has stopped; what "
            "it had committed stays. Run it again"
        )

    # the object

    def _acquire(self, wait_seconds: float) -> LeaseRecord:
        limit, seen, unchanged_since = _now() + wait_seconds, "", _now()
        while True:
            before_request = _now()
            found = self._read()
            if found is None or found[0].released or self._expired(found[0], found[2], unchanged_since):
                mine = self._put(found[0], found[1]) if found else self._put(None, None)
                if mine is not None:
                    self._mine, self._alive_at = mine, before_request
                    return mine
                continue  # another was faster
            present, tag, _ = found
            if tag != seen:
                if seen and _now() > limit:
                    raise GateRefused(
                        f"{self._doing} ({self._storage.uri}/{self._path}, held by {present.by}); run again when it is "
                        "done"
                    )
                seen, unchanged_since = tag, _now()
            time.sleep(min(_POLL_SECONDS, present.seconds / 10))

    def _expired(self, present: LeaseRecord, put_at: float, unchanged_since: float) -> bool:
        """Whether the last sign of life is too old: by this process's own clock, or at once by the store's."""
        if _now() - unchanged_since > present.seconds:
            return True
        if time.time() - put_at < present.seconds:  # not worth a question, and wrong clocks only make it wait
            return False
        probe = f"_leases/clock-{uuid.uuid4()}"
        self._storage.put(probe, b"")
        found = self._storage.read_tagged(probe)
        self._storage.delete([probe])
        # one second: stores round their times
        return found is not None and found[2] - put_at > present.seconds + 1

    def _put(self, present: LeaseRecord | None, tag: str | None) -> LeaseRecord | None:
        """Put the lease as its new holder; None if another was faster."""
        before = present.token if present else self._largest_token()
        mine = LeaseRecord(
            holder=str(uuid.uuid4()),
            by=f"{socket.gethostname()}, process {os.getpid()}",
            token=before + 1,
            seconds=self._seconds,
            fenced=present.released and present.fenced if present else before == 0,
        )
        if tag is None:
            self._storage.put_new(self._path, mine.to_json())
        else:
            self._storage.replace_tagged(self._path, mine.to_json(), tag)
        # read, because the answer to a request that was sent twice may be about the second time
        found = self._read()
        if found is None or found[0].holder != mine.holder:
            return None
        self._tag = found[1]
        return mine

    def _change(self, change: Callable[[LeaseRecord], LeaseRecord]) -> None:
        """Put the lease again: a sign of life. Raises TemporaryFailure if it is another's now."""
        with self._changing:
            if self._mine is None:
                return
            before_request = _now()
            mine = replace(change(self._mine), beats=self._mine.beats + 1)
            tag = self._storage.replace_tagged(self._path, mine.to_json(), self._tag)
            if tag is None:
                found = self._read()
                if found is None or found[0].holder != mine.holder:
                    self._alive_at = -self._seconds
                    raise self.lost()
                if found[0] != mine:  # what got through is an earlier put, whose answer was lost
                    tag = self._storage.replace_tagged(self._path, mine.to_json(), found[1])
                tag = tag or found[1]
            self._tag, self._mine, self._alive_at = tag, mine, before_request

    def _read(self) -> tuple[LeaseRecord, str, float] | None:
        """The lease, its entity tag, and when it was put by the store's clock."""
        found = self._storage.read_tagged(self._path)
        return (LeaseRecord(**json.loads(found[0])), found[1], found[2]) if found else None

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(self._seconds / 3):
            with suppress(Exception):  # the next one may succeed; require() says when it is too late
                self._change(lambda mine: mine)


def _now() -> float:
    """Seconds, of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
