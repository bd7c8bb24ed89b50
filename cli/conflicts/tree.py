"""A revision tree, drawn: the oldest revision first, the winner's path straight, other branches beside it.

● 1-967a00d0  available  base
├─● 2-5b1e6e11  available
│ ● 3-7c11ab90  conflict
● 2-88ab01cd  winner
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from ..options import bytes_text
from .case import AVAILABLE, DELETED, MISSING, UNKNOWN, Case
from .screen import CONFLICT, FAINT, WINNER, plural
from .screen import DELETED as DELETED_STYLE

BRANCHES_MAX = 8
"""So many branches are shown that begin at one revision, where not all are asked for."""
RUN_MAX = 3
"""A longer run of revisions of which there is nothing to tell is shown as one line."""
DEPTH_MAX = 24
"""Of branches of branches; there is no room for more."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """A leaf's own part of its path, oldest first."""

    revs: Sequence[str]
    parent: str | None

    @property
    def leaf(self) -> str:
        return self.revs[-1]


def draw(case: Case, names: Mapping[str, str], *, whole: bool = False) -> Iterator[Text]:
    """The lines of the tree. :param names: how revisions are shown."""
    return _Drawing(case, names, whole).lines()


class _Drawing:
    def __init__(self, case: Case, names: Mapping[str, str], whole: bool) -> None:
        self._case = case
        self._names = names
        self._whole = whole
        self._statuses = {
            revision.rev: revision.status for branch in case.branches for revision in branch.revs
        }
        self._sizes = {leaf.rev: leaf.size for leaf in case.leaves}
        self._winner = case.revs[0] if case.leaves else next(iter(case.deleted_leaves), None)
        self._deleted = set(case.deleted_leaves)
        self._chains = _chains(case)
        self._beside: defaultdict[str | None, list[_Chain]] = defaultdict(list)
        for chain in self._chains:
            self._beside[chain.parent].append(chain)

    def lines(self) -> Iterator[Text]:
        yield from self._several(self._beside[None], "", "", 0)

    def _several(self, chains: Sequence[_Chain], first: str, rest: str, depth: int) -> Iterator[Text]:
        """Chains beside each other."""
        most = len(chains) if self._whole else BRANCHES_MAX
        if depth >= DEPTH_MAX:
            most = 0
        for chain in chains[:most]:
            if depth == 0 and not chain.revs[0].startswith("1-"):
                yield Text("⋮ older revisions are forgotten", style=FAINT)
            yield from self._chain(chain, first, rest, depth)
        hidden = chains[most:]
        if hidden:
            deleted = sum(chain.leaf in self._deleted for chain in hidden)
            kinds = (plural(len(hidden) - deleted, "conflict"), f"{deleted:,} deleted")
            what = ", ".join(text for text in kinds if not text.startswith("0 "))
            yield Text(f"{first}⋮ {len(hidden):,} more: {what} (--all shows them)", FAINT)

    def _chain(self, chain: _Chain, first: str, rest: str, depth: int) -> Iterator[Text]:
        prefix = first
        for run in self._runs(chain):
            if len(run) > RUN_MAX and not self._whole:
                bodies = sum(self._statuses.get(rev) == AVAILABLE for rev in run)
                kept = f"{plural(bodies, 'body')} here" if bodies else "bodies gone"
                told = f"⋮ {plural(len(run), 'revision')}, {kept}"
                yield Text(prefix + told, FAINT)
                prefix = rest
                continue
            for rev in run:
                yield self._line(prefix, rev)
                prefix = rest
                yield from self._several(self._beside[rev], f"{rest}├─", f"{rest}│ ", depth + 1)

    def _runs(self, chain: _Chain) -> Iterator[list[str]]:
        """The revisions, those together of which there is nothing to tell."""
        run: list[str] = []
        for at, rev in enumerate(chain.revs):
            is_plain = at > 0 and rev != chain.leaf and rev != self._case.common_ancestor
            if is_plain and rev not in self._beside:
                run.append(rev)
                continue
            if run:
                yield run
                run = []
            yield [rev]

    def _line(self, prefix: str, rev: str) -> Text:
        status = self._statuses.get(rev, UNKNOWN)
        style, word = self._word(rev, status)
        mark = "●" if status == AVAILABLE else "✕" if rev in self._deleted else "○"
        line = (
            Text()
            .append(prefix, FAINT)
            .append(f"{mark} {self._names[rev]}", style or ("" if status == AVAILABLE else FAINT))
        )
        line.append(f"  {word}", style or FAINT)
        if rev in self._sizes:
            line.append(f"  {bytes_text(self._sizes[rev])}", FAINT)
        if rev == self._case.common_ancestor:
            has_base = self._case.base is not None
            line.append("  base of the merge" if has_base else "  common ancestor", "cyan")
        return line

    def _word(self, rev: str, status: str) -> tuple[str, str]:
        """Its style, and what there is to say of it."""
        if rev == self._winner:
            return (DELETED_STYLE, "deleted, winner") if rev in self._deleted else (WINNER, "winner")
        if rev in self._deleted:
            return DELETED_STYLE, "deleted"
        if rev in self._sizes:
            return CONFLICT, "conflict"
        words = {AVAILABLE: "body here", DELETED: "deletion", MISSING: "body gone", UNKNOWN: "not asked for"}
        return "", words[status]


def _chains(case: Case) -> list[_Chain]:
    """One for each leaf, the winner's first: the part of its path that is in none before."""
    parents: dict[str, str | None] = {}
    for branch in case.branches:
        older: list[str | None] = [revision.rev for revision in branch.revs[1:]]
        for revision, parent in zip(branch.revs, [*older, branch.parent], strict=True):
            parents[revision.rev] = parent
    chains = []
    seen: set[str] = set()
    for leaf in (*case.revs, *case.deleted_leaves):
        revs = []
        at: str | None = leaf
        while at is not None and at not in seen:
            seen.add(at)
            revs.append(at)
            at = parents[at]
        chains.append(_Chain(revs[::-1], at))
    return chains
