"""Load and data: wrk for small requests, since no Python client is faster than the server it measures."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from .servers import Server

WORDS = [
    "amber",
    "birch",
    "copper",
    "delta",
    "ember",
    "fjord",
    "granite",
    "harbor",
    "indigo",
    "juniper",
    "kelp",
    "lumen",
    "maple",
    "nectar",
    "opal",
    "prairie",
]


def document(number: int, source: random.Random) -> dict[str, Any]:
    """A document of some 430 bytes, whose id is neither ascending nor random data."""
    return {
        "_id": f"item-{(number * 2654435761) % (1 << 32):08x}-{number:07d}",
        "kind": "article" if number % 3 else "comment",
        "number": number,
        "title": " ".join(source.choices(WORDS, k=5)),
        "tags": source.choices(WORDS, k=3),
        "author": {"name": source.choice(WORDS), "age": 20 + number % 50},
        "score": number * 0.37,
        "published": bool(number & 1),
        "text": " ".join(source.choices(WORDS, k=40)),
    }


def documents(count: int, start: int = 0, seed: int = 7) -> Iterator[dict[str, Any]]:
    source = random.Random(seed)
    return (document(number, source) for number in range(start, start + count))


def bulk_bodies(count: int, batch: int, start: int = 0) -> list[bytes]:
    """`_bulk_docs` bodies, made before any clock runs."""
    listed = list(documents(count, start))
    return [json.dumps({"docs": listed[at : at + batch]}).encode() for at in range(0, len(listed), batch)]


def load(server: Server, database: str, count: int, start: int = 0) -> None:
    connection = server.connect()
    for at in range(start, start + count, 10_000):
        for body in bulk_bodies(min(10_000, start + count - at), 1000, at):
            server.call("POST", f"/{database}/_bulk_docs", body, connection=connection)
    connection.close()


def wrk(server: Server, script: str, connections: int, seconds: int = 4) -> float:
    """Requests a second that wrk's single thread gets answered with `connections` connections.

    :raises RuntimeError: some answers were errors.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", file.name]
        command += ["-H", f"Authorization: {server.authorization}", server.base]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    wrong = [line.strip() for line in lines if "Non-2xx" in line or "Socket errors" in line]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return next(float(line.split()[1]) for line in lines if "Requests/sec" in line)


def get_script(paths: list[str]) -> str:
    """GETs of `paths` in an order that is not theirs."""
    listed = ",".join(f'"{path}"' for path in paths)
    return (
        f"local paths = {{{listed}}}\nlocal n = 0\n"
        'request = function() n = n + 1; return wrk.format("GET", paths[(n * 7919) % #paths + 1]) end\n'
    )


def put_script(database: str, body: str) -> str:
    """PUTs of new documents; the ids of two runs differ."""
    tag = f"{random.getrandbits(32):08x}"
    return (
        "local n = 0\n"
        "local headers = {}\n"
        'init = function() headers["Content-Type"] = "application/json";'
        ' headers["Authorization"] = wrk.headers["Authorization"] end\n'
        "request = function() n = n + 1; return wrk.format("
        f'"PUT", "/{database}/{tag}-" .. string.format("%08d", (n * 7919) % 100000000), headers, '
        f"'{body}') end\n"
    )


def post_script(path: str, bodies: Sequence[Any]) -> str:
    """POSTs of JSON to one path."""
    listed = ",".join(f"'{json.dumps(body)}'" for body in bodies)
    return (
        f"local bodies = {{{listed}}}\nlocal n = 0\n"
        "local headers = {}\n"
        'init = function() headers["Content-Type"] = "application/json";'
        ' headers["Authorization"] = wrk.headers["Authorization"] end\n'
        "request = function() n = n + 1; return wrk.format("
        f'"POST", "{path}", headers, bodies[n % #bodies + 1]) end\n'
    )
