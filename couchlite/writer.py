"""The one thread of a process that writes to a database.

It takes functions of a WriteTxn and commits whatever is queued as one group with one fsync: while one group
syncs, the next gathers, so concurrency becomes batches by itself. Order: run the functions, commit, wake the
feed, and only then answer.

A function decides before it writes. One that refuses (a CouchliteError before its first write) does not
disturb its neighbours; one that fails after it wrote something spoils the group, which is then run again
without it. Source of the idea: datasette's write thread, bbolt's DB.Batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from .counts import Mark
from .engine import Batch, Engine, Space
from .errors import CouchliteError, DatabaseNotFound
from .partitions import PartitionChanges
from .ranks import RankChanges
from .records import STATE_KEY, State, time_mark, u64
from .seq_counts import SeqCountChanges

T = TypeVar("T")

GROUP_FUNCTIONS_MAX = 512
"""A bound on how long the first of a group waits for the last."""
IDLE_S = 5.0
"""A thread without work ends after this; hundreds of quiet databases need no threads."""


class WriteTxn:
    """A batch, and the counters that go with it."""

    __slots__ = (
        "after_commit",
        "before",
        "bodies_before",
        "kv",
        "partitions",
        "ranks",
        "seq_counts",
        "state",
    )

    def __init__(self, kv: Batch, *, partitioned: bool) -> None:
        self.kv = kv
        self.state = State.decode(kv.get(Space.META, STATE_KEY))
        self.before = Mark.of(self.state)
        self.bodies_before = self.state.last_body
        self.ranks = RankChanges()
        self.seq_counts = SeqCountChanges()
        self.partitions = PartitionChanges() if partitioned else None
        self.after_commit: list[Callable[[], None]] = []
        """Run once the batch is durable; for what must not happen before."""

    def save_state(self) -> None:
        """Write the counters; and once a minute, how far the bodies have come by then."""
        now = time.time()
        minute = int(now // 60)
        if minute > self.state.marked_minute:
            self.state.marked_minute = minute
            self.kv.put(Space.META, time_mark(now), u64(self.bodies_before))
        self.kv.put(Space.META, STATE_KEY, self.state.encode())


Job = tuple[Callable[[WriteTxn], Any], "Future[Any]"]


class Writer:
    """`committed(before, state, writes)` is called in the writer's thread after each durable commit: how far
    the database had come before it, the counters after it, and of how many writes it consists."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        committed: Callable[[Mark, State, int], None],
        *,
        partitioned: bool = False,
    ) -> None:
        self._engine = engine
        self._name = name
        self._committed = committed
        self._partitioned = partitioned
        self._queue: deque[Job] = deque()
        self._work = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, function: Callable[[WriteTxn], T]) -> Future[T]:
        """Queue `function`; the future is done when its effects are durable."""
        future: Future[T] = Future()
        with self._work:
            if self._closed:
                raise DatabaseNotFound()
            self._queue.append((function, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"writer {self._name}", daemon=True)
                self._thread.start()
            else:
                self._work.notify()
        return future

    def close(self) -> None:
        """Commit what is queued, then end the thread."""
        with self._work:
            self._closed = True
            thread = self._thread
            self._work.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)

    def _next_group(self) -> list[Job]:
        with self._work:
            if not self._queue and not self._closed:
                self._work.wait(IDLE_S)
            if not self._queue:
                self._thread = None
                return []
            return [self._queue.popleft() for _ in range(min(len(self._queue), GROUP_FUNCTIONS_MAX))]

    def _commit(self, group: list[Job]) -> None:
        group = [job for job in group if job[1].set_running_or_notify_cancel()]
        while group:
            run = _GroupRun(group, partitioned=self._partitioned)
            try:
                txn = self._engine.write(run)
            except _Spoiled as spoiled:
                spoiled.future.set_exception(spoiled.error)
                group = [job for job in group if job[1] is not spoiled.future]
                continue
            except BaseException as error:
                for _function, future in group:
                    future.set_exception(error)
                return
            if run.wrote:
                writes = sum(failure is None for _future, _result, failure in run.outcomes)
                self._committed(txn.before, txn.state, writes)
            for function in txn.after_commit:
                function()
            for future, result, failure in run.outcomes:
                if failure is None:
                    future.set_result(result)
                else:
                    future.set_exception(failure)
            return


class _Spoiled(Exception):
    """A function failed after it had written."""

    def __init__(self, future: Future[Any], error: BaseException) -> None:
        self.future, self.error = future, error


class _GroupRun:
    """Runs a group's functions in one batch; may be called again with a fresh batch."""

    def __init__(self, group: list[Job], *, partitioned: bool) -> None:
        self._group = group
        self._partitioned = partitioned
        self.outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        self.wrote = False

    def __call__(self, kv: Batch) -> WriteTxn:
        self.outcomes = []
        txn = WriteTxn(kv, partitioned=self._partitioned)
        for function, future in self._group:
            writes_before = kv.writes
            try:
                self.outcomes.append((future, function(txn), None))
            except CouchliteError as error:
                if kv.writes != writes_before:
                    raise _Spoiled(future, error) from error
                self.outcomes.append((future, None, error))
            except Exception as error:
                raise _Spoiled(future, error) from error
        self.wrote = kv.writes > 0
        if self.wrote:
            txn.ranks.write(kv)
            txn.seq_counts.write(kv)
            if txn.partitions is not None:
                txn.partitions.write(kv)
            txn.save_state()
        return txn
