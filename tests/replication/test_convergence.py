"""Databases that are edited apart and replicated in any order, and interrupted at it, end up the same."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from couchlite import Conflict, Database, NotFound, Server, document
from couchlite.javascript import FunctionPool
from couchlite.security import SYSTEM
from replicator import Checkpoints, Endpoint, LocalPeer, Options, Peer, Replication, ReplicationError
from replicator.peer import ChangesPage, ChangesQuery, Doc, Missing, Refusal, Seq

NAMES = ("a", "b", "c")
DOCS = ("x", "y", "_design/z")
EDITS = st.tuples(
    st.sampled_from(["put", "delete", "resolve", "merge", "undo", "branch"]),
    st.sampled_from(NAMES),
    st.sampled_from(DOCS),
)
REPLICATIONS = st.tuples(st.just("replicate"), st.permutations(NAMES), st.none() | st.integers(0, 12))
COMPACTIONS = st.tuples(st.just("compact"), st.sampled_from(NAMES))
STEPS = st.lists(EDITS | REPLICATIONS | COMPACTIONS, max_size=25)


class Cut(ReplicationError):
    def __init__(self) -> None:
        super().__init__("cut", "the test has cut the connection")


class FragilePeer(LocalPeer):
    """A peer that is lost after some questions."""

    questions_left: int | None = None

    def _ask(self) -> None:
        if self.questions_left is not None:
            if self.questions_left <= 0:
                raise Cut()
            self.questions_left -= 1

    async def changes(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        self._ask()
        async for page in super().changes(since, query):
            yield page

    async def bulk_get(self, wanted: Sequence[Missing]) -> Any:
        self._ask()
        return await super().bulk_get(wanted)

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        self._ask()
        refused = await super().bulk_docs(docs)
        self._ask()  # what was written may not be known to be
        return refused

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        self._ask()
        return await super().write_local(doc_id, value)


class World:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._functions = FunctionPool()
        self.databases = {name: server.create(name) for name in NAMES}
        self._count = 0

    def edit(self, kind: str, name: str, doc_id: str) -> None:
        database = self.databases[name]
        self._count += 1
        leaves = leaves_of(database, doc_id)
        value: dict[str, Any] = {"_id": doc_id, "n": self._count}
        if kind == "branch":
            # A revision that another replica made of a document nobody here has seen like that.
            digest = f"{self._count:032x}"
            graft(database, value | {"_revisions": {"start": 1, "ids": [digest]}})
            return
        live = [rev for rev, deleted in leaves if not deleted]
        if kind == "put":
            with contextlib.suppress(Conflict):
                database.put(value | ({"_rev": live[0]} if live else {}))
        elif kind == "delete" and live:
            database.delete(doc_id, live[0])
        elif kind == "merge" and len(live) > 1:
            database.resolve(doc_id, live, {"merged": sorted(live)})
        elif kind == "undo":
            with contextlib.suppress(Conflict, NotFound, StopIteration):
                database.undo(next(database.resolutions(doc_id)).number)
        elif kind == "resolve":
            for rev in live[1:]:
                database.delete(doc_id, rev)

    async def replicate(self, source: str, target: str, cut_after: int | None) -> None:
        ends: list[Peer] = []
        for name in (source, target):
            peer = FragilePeer(self._server, self._functions, name, SYSTEM, f"http://x/{name}/")
            peer.questions_left = cut_after
            ends.append(peer)
        options = Options(
            Endpoint(ends[0].name), Endpoint(ends[1].name), worker_batch_size=2, worker_processes=2
        )
        infos = await ends[0].open(), await ends[1].open()
        checkpoints = await Checkpoints.read(*ends, infos, f"{source}{target}", options)
        refused: list[Refusal] = []
        with contextlib.suppress(Cut):
            await Replication(*ends, options, checkpoints, refused=refused.append).run()
        assert refused == []


def leaves_of(database: Database, doc_id: str) -> list[tuple[str, bool]]:
    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
        return [(str(node.rev), node.info.deleted) for node in found.leaves()] if found else []


def graft(database: Database, value: dict[str, Any]) -> None:
    database.submit_replicated([document.parse(value)]).result()


def state(database: Database) -> dict[str, Any]:
    """Every leaf with its body, the winner first."""
    found = {}
    for doc_id in DOCS:
        leaves = leaves_of(database, doc_id)
        found[doc_id] = [(rev, deleted, database.get(doc_id, rev)) for rev, deleted in leaves]
    return found


@given(steps=STEPS)
def test_whatever_happened_all_are_equal_in_the_end(steps: list[Any]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
            world = World(server)
            for step in steps:
                if step[0] == "replicate":
                    await world.replicate(step[1][0], step[1][1], step[2])
                elif step[0] == "compact":
                    await asyncio.wrap_future(world.databases[step[1]].compact())
                else:
                    world.edit(*step)
            for source, target in (("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")):
                await world.replicate(source, target, None)
            states = [state(database) for database in world.databases.values()]
            assert states[0] == states[1] == states[2]
            for database in world.databases.values():
                assert database.check() == []

    asyncio.run(run())
