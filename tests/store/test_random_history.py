"""Random histories on the store, against a model that keeps every path ever written in a dictionary."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from couchlite import Conflict, NotFound, Resolution, Rev, Server
from couchlite.compact import Retention

from .helpers import attachment, graft, leaves

IDS = st.sampled_from(["p:a", "p:b", "_design/x", "q:" + "ü" * 260])
DIGESTS = st.sampled_from(["a" * 32, "b" * 32, "c" * 32, "0" * 31 + "1"])


class RandomHistory(RuleBasedStateMachine):
    """The model: for each document its leaves, with what each one says and whether it is deleted."""

    @initialize()
    def open(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.server = Server(self.path / "data")
        self.database = self.server.create("db", partitioned=True)
        self.leaves: dict[str, dict[str, tuple[int | None, bool]]] = {}
        self.parents: dict[str, dict[str, str | None]] = {}
        self.said: dict[str, dict[str, int | None]] = {}
        self.resolved: list[tuple[Resolution, list[int | None]]] = []
        self.count = 0

    def winner(self, doc_id: str) -> str | None:
        known = self.leaves.get(doc_id)
        if not known:
            return None
        return max(known, key=lambda text: (not known[text][1], Rev.parse(text)))

    def wrote(self, doc_id: str, rev: str, parent: str | None, n: int | None, deleted: bool) -> None:
        self.leaves.setdefault(doc_id, {}).pop(parent or "", None)
        self.leaves[doc_id][rev] = (n, deleted)
        self.parents.setdefault(doc_id, {})[rev] = parent
        self.said.setdefault(doc_id, {})[rev] = n

    @rule(doc_id=IDS, with_data=st.booleans())
    def edit_or_create(self, doc_id: str, with_data: bool) -> None:
        self.count += 1
        winner = self.winner(doc_id)
        deleted = winner is not None and self.leaves[doc_id][winner][1]
        doc: dict[str, Any] = {"_id": doc_id, "n": self.count}
        if with_data:
            doc["_attachments"] = {"x": attachment(b"%d" % self.count * 9000)}
        if winner and not deleted:
            doc["_rev"] = winner
        self.wrote(doc_id, self.database.put(doc), winner, self.count, False)

    @rule(doc_id=IDS)
    def delete_the_winner(self, doc_id: str) -> None:
        winner = self.winner(doc_id)
        if winner is None or self.leaves[doc_id][winner][1]:
            return
        self.wrote(doc_id, self.database.delete(doc_id, winner), winner, None, True)

    @rule(doc_id=IDS, digest=DIGESTS, deleted=st.booleans(), data=st.data())
    def graft_a_branch(self, doc_id: str, digest: str, deleted: bool, data: st.DataObject) -> None:
        known = self.parents.get(doc_id, {})
        parent = data.draw(st.sampled_from([None, *known]))
        generation = 1 if parent is None else Rev.parse(parent).generation + 1
        rev = f"{generation}-{digest}"
        if rev in known:
            return
        path, at = [rev], parent
        while at is not None:
            path.append(at)
            at = known[at]
        self.count += 1
        graft(self.database, doc_id, path, n=self.count, _deleted=deleted)
        self.wrote(doc_id, rev, parent, self.count, deleted)

    @rule(doc_id=IDS)
    def fork(self, doc_id: str) -> None:
        """Two peers edit the winner."""
        winner = self.winner(doc_id)
        path, at = [], winner
        while at is not None:
            path.append(at)
            at = self.parents[doc_id][at]
        generation = 1 if winner is None else Rev.parse(winner).generation + 1
        for _ in range(2):
            self.count += 1
            rev = f"{generation}-{self.count:032x}"
            graft(self.database, doc_id, [rev, *path], n=self.count)
            self.wrote(doc_id, rev, winner, self.count, False)

    def living(self, doc_id: str) -> list[str]:
        return [rev for rev, (_n, deleted) in self.leaves.get(doc_id, {}).items() if not deleted]

    def conflicted(self) -> list[str]:
        return [doc_id for doc_id in self.leaves if len(self.living(doc_id)) > 1]

    @precondition(conflicted)
    @rule(data=st.data())
    def resolve_a_conflict(self, data: st.DataObject) -> None:
        doc_id = data.draw(st.sampled_from(self.conflicted()))
        living = self.living(doc_id)
        chosen = data.draw(st.lists(st.sampled_from(living), min_size=2, unique=True))
        self.count += 1
        content = data.draw(st.sampled_from([None, {"n": self.count}, chosen[0]]))
        n = self.leaves[doc_id][chosen[0]][0] if isinstance(content, str) else content and self.count
        done = self.database.resolve(doc_id, living, content, chosen=chosen)
        assert {str(rev) for rev in done.leaves} == set(chosen)
        self.wrote(doc_id, str(done.into), str(done.leaves[0]), n, content is None)
        for leaf, closed in zip(done.leaves[1:], done.closed, strict=True):
            self.wrote(doc_id, str(closed), str(leaf), None, True)
        self.resolved.append((done, [self.said[doc_id][str(leaf)] for leaf in done.leaves]))

    @precondition(lambda self: self.resolved)
    @rule(data=st.data())
    def undo_a_resolution(self, data: st.DataObject) -> None:
        done, said = data.draw(st.sampled_from(self.resolved))
        closing = [str(rev) for rev in (done.into, *done.closed)]
        known = self.leaves[done.id]
        if not all(rev in known for rev in closing):
            with pytest.raises((Conflict, NotFound)):
                self.database.undo(done.number)
            return
        undone = self.database.undo(done.number)
        self.resolved.remove((done, said))
        with self.database.snapshot() as snapshot:
            found = snapshot.document(done.id)
            assert found is not None
            paths = [[str(rev) for rev in found.tree.path(leaf)] for leaf in found.leaves()]
        restored = []
        for rev, n in zip(closing, said, strict=True):
            path = next(path for path in paths if rev in path[1:])
            restored.append(path[0])
            for at in range(path.index(rev) - 1, -1, -1):
                self.wrote(done.id, path[at], path[at + 1], n, False)
        assert restored[0] == str(undone.into) == max(restored, key=Rev.parse)

    @rule(doc_id=IDS)
    def edit_without_a_parent_on_a_living_document(self, doc_id: str) -> None:
        winner = self.winner(doc_id)
        if winner is not None and not self.leaves[doc_id][winner][1]:
            with pytest.raises(Conflict):
                self.database.put({"_id": doc_id})

    @rule(doc_id=IDS, data=st.data())
    def purge_a_leaf(self, doc_id: str, data: st.DataObject) -> None:
        known = self.leaves.get(doc_id)
        if not known:
            return
        rev = data.draw(st.sampled_from(sorted(known)))
        assert self.database.purge({doc_id: [Rev.parse(rev)]}).result() == {doc_id: [Rev.parse(rev)]}
        # Ancestors that no other leaf has are gone, too.
        del known[rev]
        kept: set[str] = set()
        parents = self.parents[doc_id]
        for leaf in known:
            at: str | None = leaf
            while at is not None:
                kept.add(at)
                at = parents[at]
        self.parents[doc_id] = {name: parent for name, parent in parents.items() if name in kept}

    @rule(revisions=st.integers(1, 3))
    def compact(self, revisions: int) -> None:
        self.database.compact(Retention(revisions)).result()

    @rule()
    def reopen(self) -> None:
        self.server.close()
        del self.database
        self.server = Server(self.path / "data")
        self.database = self.server.open("db")

    @invariant()
    def the_store_fits_together(self) -> None:
        assert self.database.check(deep=True) == []

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        living = {
            doc_id
            for doc_id in self.leaves
            if (winner := self.winner(doc_id)) and not self.gone(winner, doc_id)
        }
        assert self.database.info().doc_count == len(living)
        for doc_id, known in self.leaves.items():
            if not known:
                with pytest.raises(NotFound, match="missing"):
                    self.database.get(doc_id)
                continue
            assert set(leaves(self.database, doc_id)) == set(known)
            assert leaves(self.database, doc_id)[0] == self.winner(doc_id)
            if doc_id in living:
                assert self.database.get(doc_id)["n"] == known[self.winner(doc_id) or ""][0]
        living_leaves = {
            doc_id: sum(not deleted for _n, deleted in known.values())
            for doc_id, known in self.leaves.items()
        }
        assert {row.id: row.leaves for row in self.database.conflicts()} == {
            doc_id: count for doc_id, count in living_leaves.items() if count > 1
        }
        with self.database.snapshot() as snapshot:
            listed = {doc_id.decode() for doc_id in snapshot.docs().ids}
            changed = {row.id.decode() for row in snapshot.changes(0)}
        assert listed == living
        assert changed == {doc_id for doc_id, known in self.leaves.items() if known}

    def gone(self, winner: str, doc_id: str) -> bool:
        return self.leaves[doc_id][winner][1]

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.close()
            shutil.rmtree(self.path)


RandomHistory.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRandomHistory = RandomHistory.TestCase
