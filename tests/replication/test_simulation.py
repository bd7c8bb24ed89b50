"""Nodes that are edited apart, crash, and replicate over a bad network hold the same in the end.

Each run is made from a number. Thousands of them:

    SIMULATION_RUNS=5000 SIMULATION_SEED=1 pytest tests/replication/test_simulation.py

A run that fails tells its number; the same again is SIMULATION_SEED=NUMBER SIMULATION_RUNS=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .simulation import Simulation, simulate, state

SEED = int(os.environ.get("SIMULATION_SEED", "1"))
RUNS = int(os.environ.get("SIMULATION_RUNS", "20"))
STEPS = int(os.environ.get("SIMULATION_STEPS", "60"))


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
async def test_all_nodes_are_equal_in_the_end(seed: int, tmp_path: Path) -> None:
    try:
        await simulate(seed, tmp_path, STEPS)
    except BaseException:
        print(f"this run again: SIMULATION_SEED={seed} SIMULATION_RUNS=1 SIMULATION_STEPS={STEPS}")
        raise


async def test_a_seed_makes_the_same_run_each_time(tmp_path: Path) -> None:
    ends = []
    for again in ("one", "two"):
        simulation = Simulation(99, tmp_path / again)
        try:
            await simulation.run(STEPS)
            ends.append((simulation.log, [state(node.database) for node in simulation.nodes]))
        finally:
            simulation.close()
    assert ends[0] == ends[1]
