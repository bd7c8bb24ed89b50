"""What a replication may be asked for, and how what makes no sense is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from couchlite import Server
from replicator import Endpoint, InvalidReplication, parse, replication_id
from replicator.checkpoint import compare
from replicator.options import Options
from replicator.retries import retry_after_s

ENDS = {"source": "http://h/a", "target": "http://h/b"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("http://h/db", Endpoint("http://h/db/"), id="a slash is added"),
        pytest.param("https://h:1/db/", Endpoint("https://h:1/db/"), id="a slash is kept"),
        pytest.param("http://h/db?x=y", Endpoint("http://h/db?x=y"), id="none is added before a query"),
        pytest.param("http://u:p%40@h/db", Endpoint("http://h/db/", "u", "p@"), id="credentials of the URL"),
        pytest.param(
            {"url": "http://u:p@h/db", "auth": {"basic": {"username": "x", "password": "y"}}},
            Endpoint("http://h/db/", "x", "y"),
            id="auth wins over the URL",
        ),
        pytest.param(
            {"url": "http://h/db", "headers": {"authorization": "Basic dTpwOnE="}},
            Endpoint("http://h/db/", "u", "p:q"),
            id="credentials of a header",
        ),
        pytest.param(
            {"url": "http://h/db", "headers": {"Authorization": "Bearer abc", "A": "", "B": "c"}},
            Endpoint("http://h/db/", headers=(("Authorization", "Bearer abc"), ("B", "c"))),
            id="other headers are kept, empty ones dropped",
        ),
    ],
)
def test_an_endpoint_is_understood(store: Server, value: Any, expected: Endpoint) -> None:
    options = parse({"source": value, "target": "http://h/b"}, store.config).options
    assert options and options.source == expected


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        ({"source": "http://h/a"}, "error", "Missing replicator database"),
        ({"source": {}, "target": "http://h/b"}, "invalid_replication", "endpoint has an invalid url"),
        ({"source": {"url": "ftp://h/a"}}, "invalid_replication", "endpoint has an invalid url"),
        ({"source": {"url": "http://h:x/a"}}, "invalid_replication", "endpoint has an invalid url"),
        ({**ENDS, "proxy": "gopher://p"}, "invalid_replication", "proxy has an invalid url"),
        (
            {**ENDS, "proxy": "http://p", "source_proxy": "http://p"},
            "bad_request",
            "`proxy` is mutually exclusive with `source_proxy`",
        ),
        ({**ENDS, "continuous": "true"}, "bad_request", "parameter `continuous` must be a boolean"),
        ({**ENDS, "doc_ids": {}}, "bad_request", "parameter `doc_ids` must be an array"),
        ({**ENDS, "selector": []}, "bad_request", "parameter `selector` must be a JSON object"),
        ({**ENDS, "query_params": 1}, "bad_request", "parameter `query_params` must be an object"),
        (
            {**ENDS, "doc_ids": [], "filter": "a/b"},
            "bad_request",
            "`doc_ids`,`filter`,`selector` are mutually exclusive",
        ),
        ({**ENDS, "filter": "x"}, "error", "Invalid filter. Must match `ddocname/filtername`."),
        ({**ENDS, "filter": "_view"}, "bad_request", "Invalid `view` parameter."),
        (
            {**ENDS, "http_connections": "x"},
            "bad_request",
            "parameter `http_connections` must be a positive integer",
        ),
        (
            {"source": {"url": "http://h/a", "headers": {"a": "b\r\nc: d"}}, "target": "http://h/b"},
            "bad_request",
            "`headers` must not have line breaks",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    store: Server, body: Mapping[str, Any], error: str, reason: str
) -> None:
    with pytest.raises(InvalidReplication) as refusal:
        parse(body, store.config)
    assert (refusal.value.error, refusal.value.reason) == (error, reason)


def test_defaults_come_from_the_configuration(store: Server) -> None:
    store.config.set("replicator", "worker_batch_size", "7")
    options = parse(ENDS, store.config).options
    assert options and (options.worker_batch_size, options.http_connections) == (7, 20)
    options = parse({**ENDS, "worker_batch_size": "9"}, store.config).options
    assert options and options.worker_batch_size == 9


def test_a_cancellation_by_id_needs_no_endpoints(store: Server) -> None:
    asked = parse({"replication_id": "abc continuous", "cancel": True}, store.config)
    assert (asked.options, asked.cancel, asked.id) == (None, True, "abc+continuous")


def options(**changed: Any) -> Options:
    ends = {"source": Endpoint("http://h/a/"), "target": Endpoint("http://h/b/")}
    return Options(**(ends | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"target": Endpoint("http://h/c/")},
        {"source": Endpoint("http://h/a/", "somebody")},
        {"source": Endpoint("http://h/a/", headers=(("x", "y"),))},
        {"doc_ids": ("a",)},
        {"selector": {"a": 1}},
        {"filter": "_design"},
        {"filter": "a/b", "query_params": {"x": "y"}},
        {"winning_revs_only": True},
    ],
)
def test_what_is_replicated_makes_the_id(changed: dict[str, Any]) -> None:
    assert replication_id(options(**changed), "uuid").base != replication_id(options(), "uuid").base


@pytest.mark.parametrize(
    "changed",
    [
        {"source": Endpoint("http://h:5984/a/")},
        {"source": Endpoint("https://h/a/")},
        {"worker_processes": 1},
        {"continuous": True},
    ],
)
def test_how_it_is_done_does_not(changed: dict[str, Any]) -> None:
    assert replication_id(options(**changed), "uuid").base == replication_id(options(), "uuid").base


def test_passwords_and_the_order_of_a_selector_are_no_part_of_it() -> None:
    one = options(source=Endpoint("http://h/a/", "u", "p"), selector={"a": 1, "b": {"c": 1, "d": 2}})
    other = options(source=Endpoint("http://h/a/", "u", "q"), selector={"b": {"d": 2, "c": 1}, "a": 1})
    assert replication_id(one, "uuid") == replication_id(other, "uuid")


def log(*sessions: tuple[str, int]) -> dict[str, Any]:
    """A checkpoint with these sessions, the latest first."""
    history = [{"session_id": name, "recorded_seq": seq} for name, seq in sessions]
    if not sessions:
        return {"_id": "_local/x"}
    return {"session_id": sessions[0][0], "source_last_seq": sessions[0][1], "history": history}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        pytest.param(log(), log(), (0, []), id="neither has been replicated"),
        pytest.param(log(("a", 5)), log(), (0, []), id="the target was made anew"),
        pytest.param(log(), log(("a", 5)), (0, []), id="the source was made anew"),
        pytest.param(log(("a", 5)), log(("a", 5)), (5, ["a"]), id="both agree"),
        pytest.param(log(("b", 9), ("a", 5)), log(("a", 5)), (5, []), id="the target missed the last one"),
        pytest.param(log(("a", 5)), log(("b", 9), ("a", 5)), (5, []), id="the source was restored"),
        pytest.param(
            log(("c", 9), ("a", 5), ("z", 1)),
            log(("b", 8), ("a", 5), ("z", 1)),
            (5, ["z"]),
            id="each has one of its own",
        ),
        pytest.param(log(("a", 5)), log(("b", 5)), (0, []), id="they have nothing in common"),
    ],
)
def test_both_ends_must_vouch_for_a_sequence(
    source: dict[str, Any], target: dict[str, Any], expected: tuple[int, list[str]]
) -> None:
    seq, history = compare(source, target)
    assert (seq, [entry["session_id"] for entry in history]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("7", 7.0),
        ("nonsense", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, expected: float | None) -> None:
    assert retry_after_s(text) == expected
