"""How `couchlite replicate` shows what it does: a bar on a terminal, lines elsewhere, JSON if asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from couchlite.jsontext import dumps
from replicator.ledger_rows import Counts
from replicator.peer import Change, Doc, Missing, Refusal, Seq
from replicator.record import Recorder

EXCEPTIONS_SHOWN = 20
"""Revisions that were not written are printed up to so many; the ledger has the others."""
EXCEPTIONS_KEPT = 1_000
RATE_WINDOW_S = 10.0
LINE_S = 5.0
"""How often a line is printed where there is no terminal."""


class Tally:
    """A Recorder that counts what this command does, and passes it on to the ledger's."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.exceptions: list[dict[str, str]] = []
        """The first of them."""
        self.next: Recorder | None = None

    def wrote(self, docs: Sequence[Doc]) -> None:
        self.counts.written += len(docs)
        if self.next is not None:
            self.next.wrote(docs)

    def skipped(self, changes: Sequence[Change], missing: Sequence[Missing]) -> None:
        lacking = sum(len(item.revs) for item in missing)
        self.counts.skipped += max(0, sum(len(change.revs) for change in changes) - lacking)
        if self.next is not None:
            self.next.skipped(changes, missing)

    def refused(self, refusals: Sequence[Refusal]) -> None:
        self.counts.refused += len(refusals)
        self._keep(refusals, "refused")
        if self.next is not None:
            self.next.refused(refusals)

    def missed(self, refusals: Sequence[Refusal]) -> None:
        self.counts.missing += len(refusals)
        self._keep(refusals, "missing")
        if self.next is not None:
            self.next.missed(refusals)

    def _keep(self, refusals: Sequence[Refusal], outcome: str) -> None:
        for refusal in refusals[: EXCEPTIONS_KEPT - len(self.exceptions)]:
            self.exceptions.append({**refusal._asdict(), "outcome": outcome})

    def began(self, session_id: str, start_seq: Seq) -> None:
        if self.next is not None:
            self.next.began(session_id, start_seq)

    async def flush(self, through_seq: Seq) -> None:
        if self.next is not None:
            await self.next.flush(through_seq)


class Display(Protocol):
    """Told now and then how things are."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *exc: object) -> None: ...

    def show(self, counts: Counts, total: int | None) -> None:
        """:param total: how many revisions it will be, as far as can be told."""
        ...

    def tell(self, message: str) -> None:
        """Something happened."""
        ...


def counted(counts: Counts) -> str:
    """`1,200 written, 3 already there, 1 refused`."""
    parts = [f"{counts.written:,} written", f"{counts.skipped:,} already there"]
    if counts.refused:
        parts.append(f"{counts.refused:,} refused")
    if counts.missing:
        parts.append(f"{counts.missing:,} missing at the source")
    return ", ".join(parts)


def done(counts: Counts) -> int:
    """Revisions dealt with."""
    return counts.written + counts.skipped + counts.refused + counts.missing


class Bar:
    """A bar with rate and time left, on standard error."""

    def __init__(self, title: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
        )
        self._task = self._progress.add_task(title, total=None, told="")
        self._rate = _Rate()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def show(self, counts: Counts, total: int | None) -> None:
        told = counted(counts) + self._rate.told(done(counts), total)
        self._progress.update(self._task, completed=done(counts), total=total, told=told)

    def tell(self, message: str) -> None:
        self._console.print(message, style="yellow", markup=False)


class _Rate:
    """How fast it goes, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def told(self, now_done: int, total: int | None) -> str:
        """`, 1,200/s, 5 s left`."""
        now = time.monotonic()
        self._samples.append((now, now_done))
        while len(self._samples) > 2 and self._samples[0][0] < now - RATE_WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = (now_done - before) / max(now - since, 0.001)
        told = f", {rate:,.0f}/s"
        if rate > 0 and total is not None and total > now_done:
            told += f", {_duration((total - now_done) / rate)} left"
        return told


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Lines:
    """A line every few seconds, for logs; of JSON if asked for."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._rate = _Rate()
        self._at = time.monotonic()
        self._shown = 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def show(self, counts: Counts, total: int | None) -> None:
        now, now_done = time.monotonic(), done(counts)
        told = self._rate.told(now_done, total)
        if now - self._at < LINE_S or now_done == self._shown:
            return
        self._at, self._shown = now, now_done
        if self._as_json:
            self._print({"state": "running", **asdict(counts), "total": total})
        else:
            of_all = "" if total is None else f" of {total:,}"
            click.echo(f"{now_done:,}{of_all}: {counted(counts)}{told}")

    def tell(self, message: str) -> None:
        if self._as_json:
            self._print({"state": "waiting", "reason": message})
        else:
            click.echo(message, err=True)

    def _print(self, value: dict[str, Any]) -> None:
        click.echo(dumps(value))


class Silent:
    """Where one value is printed at the end."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def show(self, counts: Counts, total: int | None) -> None: ...

    def tell(self, message: str) -> None: ...
