"""python -m benchmarks [--only a,b] [--rounds 3] [--against NAME=URL[,PID]] [--json FILE]

Starts a `couchlite serve` of this checkout, runs every workload on it and on the servers named with --against
in turn (A B A B ...), so that a machine that drifts slows all of them alike, and prints medians and ratios.
The URLs carry the administrator's credentials. Needs wrk on the PATH.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from .servers import Couchlite, Server
from .workloads import WORKLOADS, Workload


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", help="these workloads, comma-separated: " + ", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", action="append", default=[], metavar="NAME=URL[,PID]")
    parser.add_argument("--workers", type=int, help="worker processes of couchlite (default: one a core)")
    parser.add_argument("--dir", type=Path, help="where couchlite's temporary data directory is made")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(WORKLOADS)
    others = [_other(text) for text in options.against]
    with Couchlite(options.workers, options.dir) as couchlite:
        servers = [couchlite, *others]
        print(f"{'workload':20} {'unit':>9}" + "".join(f" {server.name:>14}" for server in servers), end="")
        print("   ratio (goal)" if others else "")
        figures = {}
        for name in names:
            figures[name] = measure(WORKLOADS[name], servers, options.rounds)
            print(_row(WORKLOADS[name], servers, figures[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def _other(text: str) -> Server:
    name, _, rest = text.partition("=")
    url, _, pid = rest.partition(",")
    return Server(name, url, int(pid) if pid else None)


def measure(workload: Workload, servers: list[Server], rounds: int) -> dict[str, list[float]]:
    """Figures of each server, one a round; a server that fails at it has fewer."""
    figures: dict[str, list[float]] = {server.name: [] for server in servers}
    failed = set()
    for round_number in range(rounds):
        for server in servers:
            if server.name in failed:
                continue
            try:
                if workload.set_up and round_number == 0:
                    workload.set_up(server)
                figures[server.name].append(workload.run(server))
            except (RuntimeError, OSError) as error:
                failed.add(server.name)
                print(f"{workload.name}: {server.name}: {error}", file=sys.stderr)
    return figures


def _row(workload: Workload, servers: list[Server], figures: dict[str, list[float]]) -> str:
    row = f"{workload.name:20} {workload.unit:>9}"
    for server in servers:
        values = figures[server.name]
        row += f" {statistics.median(values):14,.1f}" if values else f" {'-':>14}"
    ours, *others = (figures[server.name] for server in servers)
    for theirs in others:
        if ours and theirs:
            pairs = zip(ours, theirs, strict=False)
            ratio = statistics.median(a / b if workload.higher_is_better else b / a for a, b in pairs)
            row += f"   {ratio:6.2f}x"
            if workload.goal is not None:
                row += f" (≥ {workload.goal:g})"
    return row


if __name__ == "__main__":
    main()
