"""A server of several processes resolves conflicts by itself, in one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..waiting import wait_until
from .running import served


@pytest.mark.parametrize("workers", ["1", "2"])
def test_conflicts_are_resolved_as_they_arise(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", workers) as server:
        assert server.request("PUT", "/db").status == 201
        settings = {"automatic": True, "resolvers": [{"resolver": "three-way"}]}
        assert server.request("PUT", "/db/_conflicts/_resolvers", settings).status == 200
        base = server.request("PUT", "/db/doc", {"a": 1, "b": 1}).json["rev"]
        leaves = [
            {"_id": "doc", "_revisions": {"start": 2, "ids": [digit * 32, base[2:]]}, **fields}
            for digit, fields in (("a", {"a": 2, "b": 1}), ("b", {"a": 1, "b": 2}))
        ]
        assert server.request("POST", "/db/_bulk_docs", {"docs": leaves, "new_edits": False}).status == 201
        wait_until(lambda: not server.request("GET", "/db/_conflicts").json["rows"])
        found = server.request("GET", "/db/doc").json
        assert (found["a"], found["b"]) == (2, 2)
        [record] = server.request("GET", "/db/_conflicts/_resolutions").json["rows"]
        assert (record["using"], record["by"]) == ("three-way", None)
        assert server.stop() == 0
        assert "Traceback" not in server.output
