"""The list of workloads, in the order in which they run, and the data that several of them read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .load import load
from .servers import Server

BIG = 50_000
BIG_DATABASE = "bench_big"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    """A figure to be measured. `goal` is how many times better than CouchDB 3.5 it is meant to be."""

    name: str
    unit: str
    run: Callable[[Server], float]
    goal: float | None
    higher_is_better: bool
    set_up: Callable[[Server], None] | None


WORKLOADS: dict[str, Workload] = {}


def workload(
    unit: str,
    goal: float | None = None,
    *,
    higher: bool = True,
    set_up: Callable[[Server], None] | None = None,
) -> Callable[[Callable[[Server], float]], Callable[[Server], float]]:
    def register(run: Callable[[Server], float]) -> Callable[[Server], float]:
        WORKLOADS[run.__name__] = Workload(run.__name__, unit, run, goal, higher, set_up)
        return run

    return register


def big(server: Server) -> None:
    if BIG_DATABASE not in server.prepared:
        server.fresh(BIG_DATABASE)
        load(server, BIG_DATABASE, BIG)
        server.prepared.add(BIG_DATABASE)
