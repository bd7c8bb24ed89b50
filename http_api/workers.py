"""Several serving processes on one port and one data directory, one more that replicates once it is wanted,
and the supervisor that keeps them.

What must stay true here:
- The supervisor has one thread and no data directory open when it forks: neither a lock nor an LMDB
  environment survives a fork.
- The address is reserved by one who does not listen: a dying worker takes down its own connections, the port
  stays ours, the others go on.
- A worker that dies is replaced, at once if it had lived a while, ever more slowly if it keeps dying. One
  that can't even start when the server starts ends the server: that is a mistake to be told, not to be
  repeated.
- Workers do not outlive the supervisor, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from couchlite.errors import CouchliteError

from . import replicator_process, serving
from .replicator_process import Remote
from .serving import SIGNALS, Serving, Shared

RESTART_DELAY_MIN_S = 0.1
RESTART_DELAY_MAX_S = 5.0
STEADY_S = 10.0
"""A worker that lived this long is replaced without delay when it dies."""
CLOSING_S = 5.0
"""What a stopping worker may take beyond the grace of its requests, to commit and close."""
WORKERS_MAX = 64
REPLICATOR = 255
"""The number by which the workers ask for the replicator: none of theirs."""
PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


class WorkerFailed(Exception):
    """A worker ended before it served; it has said why itself."""


@dataclass(slots=True)
class _Worker:
    number: int
    pid: int = 0
    started_s: float = 0.0
    restart_at_s: float = 0.0
    """Infinite: not until it is wanted."""
    delay_s: float = 0.0


class Supervisor:
    """Runs `count` workers.

    :param ready: called once every worker answers requests.
    """

    def __init__(self, options: Serving, count: int, shared: Shared, ready: Callable[[], None]) -> None:
        self._options = options
        self._shared = shared
        self._ready = ready
        self._replicator = _Worker(REPLICATOR, restart_at_s=math.inf)
        self._workers = [*(_Worker(number) for number in range(count)), self._replicator]
        self._not_ready = set(range(count))
        self._failed = False
        self._stop_until_s: float | None = None
        self._heard, self._announce = os.pipe()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one kills the workers.

        :raises WorkerFailed: a worker did not start.
        """
        with _wakeups() as signals, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ, lambda: self._hear_signals(signals))
            selector.register(self._heard, selectors.EVENT_READ, self._hear_workers)
            gc.collect()
            gc.freeze()  # the collector would write into, and so copy, the pages that the workers share
            while self._stop_until_s is None or any(worker.pid for worker in self._workers):
                self._start_due()
                for key, _ in selector.select(self._next_due_s()):
                    key.data()
                self._bury_dead()
                if self._stop_until_s is not None and time.monotonic() > self._stop_until_s:
                    self._kill(signal.SIGKILL)
        if self._failed:
            raise WorkerFailed

    # Workers

    def _start_due(self) -> None:
        if self._stop_until_s is None:
            for worker in self._workers:
                if not worker.pid and worker.restart_at_s <= time.monotonic():
                    self._start(worker)

    def _start(self, worker: _Worker) -> None:
        supervisor = os.getpid()
        # Blocked until the worker has handlers of its own, so that no order to stop is lost in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        worker.started_s = time.monotonic()
        try:
            worker.pid = os.fork()
        except OSError as error:
            logger.error("no process for worker %d: %s", worker.number, error)
            worker.restart_at_s = worker.started_s + RESTART_DELAY_MAX_S
        else:
            if worker.pid == 0:
                self._be_worker(worker.number, supervisor)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _be_worker(self, number: int, supervisor: int) -> None:
        """Never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's SIGINT is the supervisor's business
            _die_with(supervisor)

            def announce() -> None:
                os.write(self._announce, bytes([number]))

            if number == REPLICATOR:
                replicator_process.run(self._options, self._shared)
            else:
                wanted = Remote(self._options.data_directory, self._want_replicator)
                serving.run(self._options, self._shared, number, ready=announce, replications=wanted)
            status = 0
        except (CouchliteError, OSError) as error:
            logger.critical("%s", error)
        except BaseException:
            logger.critical("worker %d failed", number, exc_info=True)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _bury_dead(self) -> None:
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._bury(worker, status)

    def _bury(self, worker: _Worker, status: int) -> None:
        pid, worker.pid = worker.pid, 0
        if self._stop_until_s is not None:
            return
        if worker is self._replicator and status == 0:
            worker.restart_at_s = math.inf  # it had nothing to do any more
            return
        if self._not_ready:
            self._failed = True
            self._stop()
            return
        now = time.monotonic()
        if now - worker.started_s >= STEADY_S:
            worker.delay_s = 0
        name = "the replicator" if worker is self._replicator else f"worker {worker.number}"
        logger.error("%s (process %d) died; a new one starts in %g s", name, pid, worker.delay_s)
        worker.restart_at_s = now + worker.delay_s
        worker.delay_s = min(max(2 * worker.delay_s, RESTART_DELAY_MIN_S), RESTART_DELAY_MAX_S)

    def _kill(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _stop(self) -> None:
        self._stop_until_s = time.monotonic() + self._options.grace_s + CLOSING_S
        self._kill(signal.SIGTERM)

    # Events

    def _next_due_s(self) -> float | None:
        """Seconds until something must be done without being told to; None: nothing."""
        if self._stop_until_s is not None:
            due = [self._stop_until_s]
        else:
            due = [worker.restart_at_s for worker in self._workers if not worker.pid]
        next_s = min(due, default=math.inf)
        return max(0.0, next_s - time.monotonic()) if next_s < math.inf else None

    def _hear_signals(self, signals: socket.socket) -> None:
        for number in signals.recv(64):
            if number in SIGNALS:
                if self._stop_until_s is None:
                    self._stop()
                else:
                    self._kill(signal.SIGKILL)

    def _hear_workers(self) -> None:
        numbers = os.read(self._heard, WORKERS_MAX)
        if REPLICATOR in numbers and self._replicator.restart_at_s == math.inf:
            self._replicator.restart_at_s = 0
        if self._not_ready:
            self._not_ready.difference_update(numbers)
            if not self._not_ready:
                self._ready()

    def _want_replicator(self) -> None:
        """In a worker: have the replicator started unless it runs."""
        os.write(self._announce, bytes([REPLICATOR]))


@contextlib.contextmanager
def _wakeups() -> Iterator[socket.socket]:
    """A socket on which the number of each signal arrives as one byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)


def _die_with(supervisor: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere see serving.run)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)
