"""A consumer of a database's changes that has its own picture of it, and outlives the server."""

from __future__ import annotations

from .client import Client


class Follower:
    """Knows of each document what its newest change said."""

    def __init__(self) -> None:
        self._since = "0"
        self._revs: dict[str, str] = {}
        self._deleted: set[str] = set()

    def catch_up(self, client: Client) -> None:
        answer = client.ask("GET", f"/a/_changes?since={self._since}")
        assert answer.status == 200, answer
        changes = answer.json
        numbers = [_number(self._since), *(_number(row["seq"]) for row in changes["results"])]
        assert numbers == sorted(set(numbers)), "a sequence was given twice"
        assert _number(changes["last_seq"]) == numbers[-1], "the update sequence went backwards"
        for row in changes["results"]:
            self._revs[row["id"]] = row["changes"][0]["rev"]
            if row.get("deleted"):
                self._deleted.add(row["id"])
            else:
                self._deleted.discard(row["id"])
        self._since = changes["last_seq"]

    def compare(self, client: Client) -> None:
        """The picture must be that of the database itself: no change was lost or taken back."""
        rows = client.ask("GET", "/a/_all_docs").json["rows"]
        living = {doc_id: rev for doc_id, rev in self._revs.items() if doc_id not in self._deleted}
        assert {row["id"]: row["value"]["rev"] for row in rows} == living
        info = client.ask("GET", "/a").json
        assert (info["doc_count"], info["doc_del_count"]) == (len(living), len(self._deleted))
        assert _number(info["update_seq"]) == _number(self._since)


def _number(seq: str) -> int:
    return int(seq.partition("-")[0])
