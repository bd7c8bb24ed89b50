"""Databases on nodes of their own that are edited apart, replicate over a network that loses and repeats
messages, and crash: from a seed, always the same.

A node is a data directory. What must stay true here: every choice comes from the seed and from what the
databases hold, never from time; so a connection breaks where something is written (reads change nothing, and
how many of them are under way at such a moment is chance).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from couchlite import Conflict, Database, Server, document
from couchlite.javascript import FunctionPool
from couchlite.revision import Rev
from couchlite.security import SYSTEM
from replicator import Checkpoints, Endpoint, LocalPeer, Options, Refusal, Replication, ReplicationError
from replicator.peer import Batch, Doc, Missing, StreamedDoc

NAME = "notes"
DOCS = ("a", "b", "ü/☃", "_design/d", "file")
STEPS = (
    ("put", 24),
    ("delete", 6),
    ("resolve", 5),
    ("branch", 4),
    ("attach", 5),
    ("replicate", 30),
    ("replicate at once", 4),
    ("deliver again", 5),
    ("compact", 4),
    ("crash", 3),
    ("back up", 2),
    ("restore", 1),
    ("recreate", 1),
)
"""What happens, and how often."""
BATCH = 3
MESSAGES_KEPT = 50


class Lost(ReplicationError):
    def __init__(self) -> None:
        super().__init__("lost", "the simulation has lost a message")


class Network:
    """What happens to the messages of one run: the one numbered `lost_at` is lost, before or after it has had
    its effect; some arrive twice."""

    def __init__(self, chance: random.Random) -> None:
        self.lost_at = chance.randrange(8) if chance.random() < 0.5 else None
        self.arrives = chance.random() < 0.5
        self.twice = {number for number in range(30) if chance.random() < 0.15}
        self._count = -1
        self.sent: list[Sequence[Doc]] = []
        """Messages with documents."""
        self._batches = 0
        self._idle = asyncio.Condition()

    def fetched(self) -> None:
        """A batch of documents will be written."""
        self._batches += 1

    async def written(self) -> None:
        async with self._idle:
            self._batches -= 1
            self._idle.notify_all()

    async def wait_for_batches(self) -> None:
        """Batches and single documents are written by different stages; here, always in the same order."""
        async with self._idle:
            await self._idle.wait_for(lambda: self._batches == 0)

    def next(self) -> tuple[bool, bool, int]:
        """Whether the next message is lost, whether it arrives nevertheless, and how many times."""
        self._count += 1
        is_lost = self._count == self.lost_at
        times = 2 if self._count in self.twice else 1
        return is_lost, not is_lost or self.arrives, times


class SimulatedPeer(LocalPeer):
    """A database behind a network."""

    network: Network

    async def bulk_get(self, wanted: Sequence[Missing]) -> Batch:
        batch = await super().bulk_get(wanted)
        if batch.docs:
            self.network.fetched()
        return batch

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        is_lost, arrives, times = self.network.next()
        self.network.sent.append(docs)
        refused: list[Refusal] = []
        for _ in range(times if arrives else 0):
            refused = await super().bulk_docs(docs)
        if is_lost:
            raise Lost()
        await self.network.written()
        return refused

    async def put(self, streamed: StreamedDoc) -> Refusal | None:
        await self.network.wait_for_batches()
        is_lost, arrives, _times = self.network.next()
        refusal = await super().put(streamed) if arrives else None
        if is_lost:
            raise Lost()
        return refusal

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        is_lost, arrives, _times = self.network.next()
        rev = await super().write_local(doc_id, value) if arrives else ""
        if is_lost:
            raise Lost()
        return rev

    async def deliver(self, docs: Sequence[Doc]) -> None:
        """A message of long ago arrives once more."""
        await self.open()
        await super().bulk_docs(docs)


class Node:
    """A data directory, with a database that may go back in time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.server = Server(path)
        self.server.create(NAME)
        self._has_backup = False

    @property
    def database(self) -> Database:
        return self.server.open(NAME)

    def crash(self) -> None:
        """Start anew with what is on disk."""
        self.server.close()
        self.server = Server(self._path)

    def back_up(self) -> None:
        self.server.close()
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(self._path, self._backup)
        self._has_backup = True
        self.server = Server(self._path)

    def restore(self) -> bool:
        """Whether there was a backup."""
        if self._has_backup:
            self.server.close()
            shutil.rmtree(self._path)
            shutil.copytree(self._backup, self._path)
            self.server = Server(self._path)
        return self._has_backup

    def recreate(self) -> None:
        self.server.delete(NAME)
        self.server.create(NAME)

    @property
    def _backup(self) -> Path:
        return self._path.with_name(f"{self._path.name}-backup")


class Simulation:
    """Of `nodes` nodes in `directory`, all decisions by `seed`."""

    def __init__(self, seed: int, directory: Path, *, nodes: int | None = None) -> None:
        self._chance = random.Random(seed)
        count = nodes or self._chance.randrange(2, 6)
        self.nodes = [Node(directory / f"node-{number}") for number in range(count)]
        self._functions = FunctionPool()
        self._sent: list[Sequence[Doc]] = []
        self._edits = 0
        self.may_have_lost = False
        """A node has gone back in time, so an edit may have gone with it."""
        self.acknowledged: dict[str, set[str]] = {doc_id: set() for doc_id in DOCS}
        self.log: list[str] = []
        """What happened, in words."""

    def close(self) -> None:
        for node in self.nodes:
            node.server.close()

    async def run(self, steps: int) -> None:
        kinds, weights = zip(*STEPS, strict=True)
        for kind in self._chance.choices(kinds, weights, k=steps):
            await self._step(kind)

    async def _step(self, kind: str) -> None:
        at = self._chance.randrange(len(self.nodes))
        node = self.nodes[at]
        self.log.append(f"{kind} {at}")
        match kind:
            case "replicate":
                await self._replicate_somewhere(at)
            case "replicate at once":
                # Each writes to a node of its own, so that none changes what another one finds.
                others = [number for number in range(len(self.nodes)) if number != at]
                plans = [(at, other, Network(self._chance)) for other in others]
                await asyncio.gather(*[self.replicate(*plan) for plan in plans])
                for *_ends, network in plans:
                    self._keep(network)
            case "deliver again":
                if self._sent:
                    docs = self._chance.choice(self._sent)
                    await self._peer(node, Network(random.Random(0))).deliver(docs)
            case "compact":
                await asyncio.wrap_future(node.database.compact())
            case "crash":
                node.crash()
            case "back up":
                node.back_up()
            case "restore":
                self.may_have_lost |= node.restore()
            case "recreate":
                node.recreate()
                self.may_have_lost = True
            case _:
                self._edit(kind, node.database, self._chance.choice(DOCS))

    # edits

    def _edit(self, kind: str, database: Database, doc_id: str) -> None:
        self._edits += 1
        value: dict[str, Any] = {"_id": doc_id, "n": self._edits}
        live = [rev for rev, deleted in leaves_of(database, doc_id) if not deleted]
        on_top = {"_rev": self._chance.choice(live)} if live else {}
        match kind:
            case "put":
                self._put(database, value | on_top)
            case "attach":
                stubs = database.get(doc_id, on_top["_rev"]).get("_attachments", {}) if on_top else {}
                data = f"{self._chance.randrange(4):04}" * 100
                new = {f"f{self._chance.randrange(3)}": {"content_type": "image/png", "data": data}}
                self._put(database, value | on_top | {"_attachments": {**stubs, **new}})
            case "delete" if live:
                self._acknowledge(doc_id, database.delete(doc_id, on_top["_rev"]))
            case "resolve":
                for rev in live[1:]:
                    self._acknowledge(doc_id, database.delete(doc_id, rev))
            case "branch":
                # A revision of another replica, on top of one that nobody here has seen.
                digests = [f"{self._edits:032x}", f"{self._chance.randrange(3):032x}"]
                edit = document.parse(value | {"_revisions": {"start": 2, "ids": digests}})
                database.submit_replicated([edit]).result()
                self._acknowledge(doc_id, f"2-{digests[0]}")

    def _put(self, database: Database, value: dict[str, Any]) -> None:
        edit = document.parse(value)
        if edit.attachments:
            database.stage_attachments([edit])
        with contextlib.suppress(Conflict):
            self._acknowledge(value["_id"], str(database.update([edit])[0]))

    def _acknowledge(self, doc_id: str, rev: str) -> None:
        self.acknowledged[doc_id].add(rev)

    # replications

    async def _replicate_somewhere(self, at: int) -> None:
        to = self._chance.choice([number for number in range(len(self.nodes)) if number != at])
        network = Network(self._chance)
        await self.replicate(at, to, network)
        self._keep(network)

    async def replicate(self, source: int, target: int, network: Network) -> None:
        ends = self._peer(self.nodes[source], network), self._peer(self.nodes[target], network)
        options = Options(
            Endpoint(f"http://node-{source}/{NAME}/"),
            Endpoint(f"http://node-{target}/{NAME}/"),
            worker_batch_size=BATCH,
            worker_processes=1,
            http_connections=1,
            retries_per_request=0,
        )
        infos = await ends[0].open(), await ends[1].open()
        checkpoints = await Checkpoints.read(*ends, infos, f"{source}-{target}", options)
        refused: list[Refusal] = []
        with contextlib.suppress(Lost):
            await Replication(*ends, options, checkpoints, refused=refused.append).run()
        assert refused == []

    def _peer(self, node: Node, network: Network) -> SimulatedPeer:
        peer = SimulatedPeer(node.server, self._functions, NAME, SYSTEM, "http://node/notes/")
        peer.network = network
        return peer

    def _keep(self, network: Network) -> None:
        """What was sent may be delivered again one day."""
        self._sent = [*self._sent, *network.sent][-MESSAGES_KEPT:]

    async def settle(self) -> None:
        """Let everything get everywhere: to one node, and from there to all."""
        quiet = random.Random(0)
        for ends in (
            *[(number, 0) for number in range(1, len(self.nodes))],
            *[(0, number) for number in range(1, len(self.nodes))],
        ):
            network = Network(quiet)
            network.lost_at = None
            await self.replicate(*ends, network)

    # what is to be true in the end

    def problems(self) -> list[str]:
        found = []
        states = [state(node.database) for node in self.nodes]
        for number, other in enumerate(states):
            found += [
                f"{doc_id!r}: node 0 has {states[0][doc_id]}, node {number} has {other[doc_id]}"
                for doc_id in DOCS
                if other[doc_id] != states[0][doc_id]
            ]
            found += [f"node {number}: {problem}" for problem in self.nodes[number].database.check(deep=True)]
        if not self.may_have_lost:
            found += self._lost()
        return found

    def _lost(self) -> list[str]:
        with self.nodes[0].database.snapshot() as snapshot:
            diffs = snapshot.revs_diffs({doc_id: sorted(revs) for doc_id, revs in self.acknowledged.items()})
        return [f"{doc_id!r}: {revs} are lost" for doc_id, (revs, _ancestors) in diffs.items()]


def leaves_of(database: Database, doc_id: str) -> list[tuple[str, bool]]:
    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
        return [(str(node.rev), node.info.deleted) for node in found.leaves()] if found else []


def state(database: Database) -> dict[str, Any]:
    """Every leaf with its history, body and attachments' digests, the winner first."""
    found: dict[str, Any] = {}
    for doc_id in DOCS:
        with database.snapshot() as snapshot:
            leaves = [Rev.parse(rev) for rev, _deleted in leaves_of(database, doc_id)]
            opened = snapshot.open_revs(snapshot.document(doc_id), leaves) if leaves else []
            found[doc_id] = [document.render(leaf, revs=True) for leaf in opened]  # type: ignore[arg-type]
    return found


async def simulate(seed: int, directory: Path, steps: int) -> None:
    """One run. :raises AssertionError: it did not end as it should, in words."""
    simulation = Simulation(seed, directory)
    try:
        await simulation.run(steps)
        await simulation.settle()
        problems = simulation.problems()
        assert not problems, "\n".join([*simulation.log, *problems])
    finally:
        simulation.close()
