"""Plays a recorded scenario against a server and says where the answers differ.

A scenario is a list of steps: a request, and what CouchDB answered; `golden/README.md` describes the format.
How an answer is read follows from what is expected of it: a JSON body, text, bytes, parts, lines or metrics.
All differences of a step are told, each with a JSON pointer into the response.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .likeness import differences, lookup

TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.1
DURING_AFTER_MS = 400

Json = Any


@dataclass(frozen=True)
class Target:
    """Where the server listens and who its administrator is."""

    host: str
    port: int
    user: str
    password: str

    def variables(self) -> dict[str, Json]:
        host = f"{self.host}:{self.port}"
        return {
            "base": f"http://{host}",
            "host": host,
            "admin": f"{self.user}:{self.password}",
            "admin_user": self.user,
            "admin_password": self.password,
        }


@dataclass(frozen=True)
class Difference:
    """Where an answer is not as expected."""

    step: str
    method: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"step {self.step} {self.method} {self.path}: {self.what}"


@dataclass(frozen=True)
class Reply:
    """An answer as it came, but for a gzip encoding."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.header_values(name)
        return ", ".join(values) if values else None

    def header_values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Player:
    """One run of one scenario."""

    def __init__(self, scenario: dict[str, Json], target: Target) -> None:
        self.scenario = scenario
        self.target = target
        self.variables = target.variables()

    def differences(self) -> Iterator[Difference]:
        """Play all steps, and tell what differs as it is found; stop reading to stop playing."""
        self._clean_up()
        try:
            for number, step in enumerate(self.scenario["steps"]):
                yield from self._play(step, f"{number:02}")
        finally:
            self._clean_up()

    def _play(self, step: dict[str, Json], label: str) -> Iterator[Difference]:
        request = step["request"]
        time.sleep(step.get("wait_ms", 0) / 1000)
        exchange = Exchange(self.target)
        try:
            exchange.send(self._substituted_request(request))
            if "during" in step:
                time.sleep(step.get("during_after_ms", DURING_AFTER_MS) / 1000)
                for number, inner in enumerate(step["during"]):
                    yield from self._play(inner, f"{label}.{number}")
            reply = exchange.receive(step.get("read"))
            reply = self._poll(step, reply)
        except (OSError, http.client.HTTPException) as error:
            found = iter([f"no answer: {type(error).__name__} {error}"])
        else:
            self._save(step, reply)
            found = self._compare(step, reply)
        finally:
            exchange.close()
        for what in found:
            yield Difference(label, request["method"], request["path"], what)

    def _poll(self, step: dict[str, Json], reply: Reply) -> Reply:
        if "poll" not in step:
            return reply
        until = substitute(step["poll"]["until"], self.variables)
        deadline = time.monotonic() + step["poll"]["timeout_s"]
        while not _holds(until, reply) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
            reply = ask(self.target, self._substituted_request(step["request"]))
        return reply

    def _save(self, step: dict[str, Json], reply: Reply) -> None:
        """Remember what later steps refer to. What is not there is left out: the comparison will tell."""
        for name, source in step.get("save", {}).items():
            try:
                self.variables[name] = _saved(source, reply)
            except (LookupError, ValueError):
                continue

    def _compare(self, step: dict[str, Json], reply: Reply) -> Iterator[str]:
        if step.get("reference_crash") and reply.status >= 400:
            return
        if reply.status in step.get("also_ok", ()):
            return
        expected = substitute(step["response"], self.variables)
        try:
            actual = _model(expected, reply, step.get("options", {}))
        except ValueError as error:
            yield f"status {reply.status}, and an answer that can't be read: {error}"
            return
        yield from differences(
            expected, actual, unordered=step.get("unordered", ()), ignore=step.get("ignore", ())
        )

    def _substituted_request(self, request: dict[str, Json]) -> dict[str, Json]:
        substituted: dict[str, Json] = substitute(request, self.variables)
        quoted = {name: urllib.parse.quote(str(value), safe="") for name, value in self.variables.items()}
        return substituted | {"path": substitute(request["path"], quoted)}

    def _clean_up(self) -> None:
        """Remove what the scenario leaves behind, or an interrupted run of it did; nothing need be there."""
        left = self.scenario["cleanup"]
        for database in left.get("dbs", ()):
            self._ask("DELETE", f"/{urllib.parse.quote(database, safe='')}")
        for database, doc_ids in left.get("docs", {}).items():
            for doc_id in doc_ids:
                path = f"/{database}/{urllib.parse.quote(doc_id, safe='')}"
                revision = self._ask("HEAD", path).header("ETag")
                if revision is not None:
                    self._ask("DELETE", f"{path}?rev={revision.strip(chr(34))}")
        for method, path, body in left.get("requests", ()):
            self._ask(method, path, body)
        for section, key, value in left.get("config", ()):
            path = f"/_node/_local/_config/{section}/{key}"
            self._ask("DELETE" if value is None else "PUT", path, value)

    def _ask(self, method: str, path: str, body: Json = None) -> Reply:
        request = {"method": method, "path": path, "auth": "admin"}
        return ask(self.target, request if body is None else request | {"body": body})


class Connection(http.client.HTTPConnection):
    """Sends a target as it is written: scenarios hold what no well-behaved client would send."""

    def _validate_path(self, url: str) -> None:
        pass

    def _encode_request(self, request: str) -> bytes:
        return request.encode("utf-8", "surrogatepass")


class Exchange:
    """One request and its answer, on a connection of their own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = Connection(target.host, target.port, timeout=TIMEOUT_S)
        self._connection.connect()
        self._socket: socket.socket = self._connection.sock
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._connection.close()

    def send(self, request: dict[str, Json]) -> None:
        headers = dict(request.get("headers", {}))
        given = {name.lower() for name in headers}
        body = _request_body(request)
        chunked = "transfer-encoding" in given
        defaults = {"Host": f"{self._target.host}:{self._target.port}", "Accept": "application/json"}
        if "body" in request:
            defaults["Content-Type"] = "application/json"
        if not chunked and (body is not None or request["method"] in ("PUT", "POST")):
            defaults["Content-Length"] = str(len(body or b""))
        if (credentials := self._credentials(request.get("auth", "none"))) is not None:
            defaults["Authorization"] = credentials
        headers = {name: value for name, value in defaults.items() if name.lower() not in given} | headers
        self._connection.putrequest(
            request["method"], request["path"], skip_host=True, skip_accept_encoding=True
        )
        for name, value in headers.items():
            self._connection.putheader(name, str(value).encode())
        message = _halves(body) if chunked and body is not None else body
        # The server may have answered already, and said why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.endheaders(message, encode_chunked=chunked)

    def receive(self, read: dict[str, int] | None = None) -> Reply:
        """The answer; of an endless one what `read` says: so many lines, or what comes within so many ms."""
        response = self._connection.getresponse()
        body = response.read() if read is None else self._read_feed(response, read)
        if response.headers.get("Content-Encoding") == "gzip" and body:
            body = gzip.decompress(body)
        return Reply(response.status, response.getheaders(), body)

    def _credentials(self, auth: Json) -> str | None:
        if auth == "none":
            return None
        if auth == "admin":
            auth = {"user": self._target.user, "password": self._target.password}
        return "Basic " + base64.b64encode(f"{auth['user']}:{auth['password']}".encode()).decode()

    def _read_feed(self, response: http.client.HTTPResponse, read: dict[str, int]) -> bytes:
        deadline = time.monotonic() + read["ms"] / 1000
        wanted = read.get("lines")
        body = b""
        while wanted is None or sum(1 for line in body.split(b"\n")[:-1] if line.strip()) < wanted:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._socket.settimeout(left_s)
            try:
                piece = response.read1()
            except TimeoutError:
                break
            if not piece:
                break
            body += piece
        return _first_lines(body, wanted)


def ask(target: Target, request: dict[str, Json]) -> Reply:
    exchange = Exchange(target)
    try:
        exchange.send(request)
        return exchange.receive()
    finally:
        exchange.close()


def substitute(value: Json, variables: dict[str, Json]) -> Json:
    """`value` with every `{{name}}` replaced; where a string is nothing else, by the variable as it is."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\{\{(\w+)\}\}", value)
        if whole is not None and whole[1] in variables:
            return variables[whole[1]]
        return re.sub(r"\{\{(\w+)\}\}", lambda found: str(variables.get(found[1], found[0])), value)
    if isinstance(value, list):
        return [substitute(member, variables) for member in value]
    if isinstance(value, dict):
        return {substitute(name, variables): substitute(member, variables) for name, member in value.items()}
    return value


def _request_body(request: dict[str, Json]) -> bytes | None:
    if "body" in request:
        return json.dumps(request["body"], separators=(",", ":")).encode()
    if "body_text" in request:
        text: str = request["body_text"]
        return text.encode("utf-8", "surrogatepass")
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"])
    return None


def _halves(body: bytes) -> list[bytes]:
    middle = len(body) // 2
    return [half for half in (body[:middle], body[middle:]) if half]


def _first_lines(body: bytes, wanted: int | None) -> bytes:
    """Up to the last complete line, or the end of the wanted one."""
    kept: list[bytes] = []
    left = wanted
    for line in body.split(b"\n")[:-1]:
        if left == 0:
            break
        kept.append(line + b"\n")
        if left is not None and line.strip():
            left -= 1
    return b"".join(kept)


def _holds(until: dict[str, Json], reply: Reply) -> bool:
    actual = {"status": reply.status, "body": _json_or_none(reply.body)}
    try:
        return all(
            not list(differences(wanted, lookup(actual, pointer))) for pointer, wanted in until.items()
        )
    except LookupError:
        return False


def _saved(source: str, reply: Reply) -> Json:
    if source.startswith("cookie:"):
        name = source.removeprefix("cookie:")
        cookies = [cookie.partition(";")[0].partition("=") for cookie in reply.header_values("Set-Cookie")]
        return {key.strip(): value for key, _, value in cookies}[name]
    if source.startswith("header:"):
        value = reply.header(source.removeprefix("header:"))
        if value is None:
            raise LookupError(source)
        return value.strip('"') if source.lower() == "header:etag" else value
    if source.startswith("lines:"):
        return lookup(_lines(reply), source.removeprefix("lines:"))
    return lookup(json.loads(reply.body), source)


# An answer, in the form in which it is expected.


def _model(expected: dict[str, Json], reply: Reply, options: dict[str, Json]) -> dict[str, Json]:
    actual: dict[str, Json] = {"status": reply.status, "headers": _headers(expected["headers"], reply)}
    actual |= _body(expected, reply)
    if "heartbeats" in expected:
        actual["heartbeats"] = _has_heartbeat(reply)
    if "metrics" in expected:
        actual["metrics"] = _metrics(reply.body.decode(), options["metrics"])
    return actual


def _headers(expected: dict[str, Json], reply: Reply) -> dict[str, Json]:
    """The headers asked about; None is "absent", several cookies are a list."""
    actual: dict[str, Json] = {}
    for name, value in expected.items():
        actual[name] = reply.header_values(name) if isinstance(value, list) else reply.header(name)
    return actual


def _body(expected: dict[str, Json], reply: Reply) -> dict[str, Json]:
    if "lines" in expected:
        return {"lines": _lines(reply)}
    if "parts" in expected:
        return {"parts": _parts(expected["parts"], reply.body, reply.header("Content-Type") or "")}
    return _plain_body(expected, reply.body)


def _plain_body(expected: dict[str, Json], body: bytes) -> dict[str, Json]:
    if "body" in expected:
        try:
            return {"body": json.loads(body)}
        except ValueError:
            return {"body_text": body.decode("utf-8", "replace")}
    if "body_text" in expected:
        return {"body_text": body.decode("utf-8", "replace")}
    if "body_base64" in expected:
        return {"body_base64": base64.b64encode(body).decode()}
    return {}


def _json_or_none(body: bytes) -> Json:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _lines(reply: Reply) -> list[Json]:
    if (reply.header("Content-Type") or "").startswith("text/event-stream"):
        return [event for event in _events(reply.body.decode()) if event.get("event") != "heartbeat"]
    return [json.loads(line) for line in reply.body.splitlines() if line.strip()]


def _events(text: str) -> Iterator[dict[str, Json]]:
    for block in text.split("\n\n"):
        fields = [line.partition(":") for line in block.split("\n") if line]
        if fields:
            yield {name: _event_value(name, value.removeprefix(" ")) for name, _, value in fields}


def _event_value(name: str, value: str) -> Json:
    if name in ("data", "id") and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _has_heartbeat(reply: Reply) -> bool:
    if (reply.header("Content-Type") or "").startswith("text/event-stream"):
        return any(event.get("event") == "heartbeat" for event in _events(reply.body.decode()))
    return b"" in reply.body.split(b"\n")[:-1]


def _parts(expected: list[Json], body: bytes, content_type: str) -> list[Json]:
    """The parts of a multipart body; each is read in the form in which its counterpart is expected."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        return [f"no boundary in {content_type}"]
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    parts: list[Json] = []
    for number, piece in enumerate(pieces[1:-1]):
        part = expected[number] if number < len(expected) else {"body_text": ""}
        parts.append(_part(part, piece))
    if not pieces[-1].startswith(b"--"):
        parts.append("the closing delimiter is missing")
    return parts


def _part(expected: dict[str, Json], piece: bytes) -> dict[str, Json]:
    head, _, body = piece.partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name] = value.strip()
    if "parts" in expected:
        return {"headers": headers, "parts": _parts(expected["parts"], body, headers.get("Content-Type", ""))}
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return {"headers": headers} | _plain_body(expected, body)


_SAMPLE = re.compile(r"[a-zA-Z_:][\w:]*(\{[^}]*\})? \S+( \d+)?")


def _metrics(text: str, names: list[str]) -> dict[str, Json]:
    """Whether the text is in Prometheus' format, and which of the named series it has."""
    samples = [line for line in text.split("\n") if line and not line.startswith("#")]
    series = {re.split(r"[{ ]", sample)[0] for sample in samples}
    return {
        "well_formed": all(_SAMPLE.fullmatch(sample) for sample in samples),
        "series": {name: name in series for name in names},
    }
