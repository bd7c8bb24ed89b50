"""What the tests of design documents' functions share."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from couchlite.javascript import Design, FunctionPool, Limits

LIMITS = Limits(time_s=0.3, memory_bytes=32 << 20, answer_bytes=1 << 20)
DOCS: list[bytes | dict[str, Any]] = [{"_id": "d0", "v": 0}, {"_id": "d1", "v": 1}, {"_id": "d2", "v": 2}]
USER = {"db": "db", "name": "ann", "roles": ["editor"]}


@pytest.fixture
async def pool() -> AsyncIterator[FunctionPool]:
    pool = FunctionPool(LIMITS)
    yield pool
    await pool.close()
    assert child_pids() == []


def child_pids() -> list[int]:
    """The children of this process that run JavaScript."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"javascript/child.py" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def filtering(source: Any, scope: str = "db", **more: Any) -> Design:
    return Design(scope, {"_id": "_design/d", "filters": {"f": source}, **more})


def validating(source: str, **more: Any) -> Design:
    return Design("db", {"_id": "_design/d", "validate_doc_update": source, **more})


async def passing(
    pool: FunctionPool, design: Design, docs: list[Any] = DOCS, request: Any = None
) -> list[str]:
    flags = await pool.filter_docs(design, "f", docs, request or {})
    return [doc["_id"] for doc, passed in zip(docs, flags, strict=True) if passed]
