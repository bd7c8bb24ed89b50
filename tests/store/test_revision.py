"""Revision ids: parsed, printed and ordered as CouchDB does, and computed to the same bits."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from hashlib import md5
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite import jsontext
from couchlite.errors import BadRequest
from couchlite.revision import Rev, digest_text, new_rev, parse_digest
from tests.strategies import json_objects

GOLDEN = Path(__file__).parents[1] / "web" / "golden"
HEX = "967a00dff5e02add41819138abb3284d"


@pytest.mark.parametrize(
    ("text", "rev", "printed"),
    [
        pytest.param(f"1-{HEX}", Rev(1, bytes.fromhex(HEX)), f"1-{HEX}", id="32 hex digits"),
        pytest.param(f"1-{HEX.upper()}", Rev(1, bytes.fromhex(HEX)), f"1-{HEX}", id="capital hex digits"),
        pytest.param("1-a", Rev(1, b"a"), "1-a", id="a short digest"),
        pytest.param("1-", Rev(1, b""), "1-", id="no digest"),
        pytest.param("0-1", Rev(0, b"1"), "0-1", id="generation zero"),
        pytest.param("1-abc-def", Rev(1, b"abc-def"), "1-abc-def", id="a digest with a dash"),
        pytest.param("1--abc", Rev(1, b"-abc"), "1--abc", id="a digest that begins with a dash"),
        pytest.param("1-abc ", Rev(1, b"abc "), "1-abc ", id="a digest with a blank"),
        pytest.param("1-é", Rev(1, "é".encode()), "1-é", id="a digest beyond ASCII"),
        pytest.param("+1-a", Rev(1, b"a"), "1-a", id="a generation with a plus sign"),
        pytest.param("007-a", Rev(7, b"a"), "7-a", id="a generation with zeros"),
        pytest.param("9" * 20 + "-a", Rev(int("9" * 20), b"a"), "9" * 20 + "-a", id="a huge generation"),
        pytest.param("1-" + "x" * 16, Rev(1, b"x" * 16), "1-" + "78" * 16, id="16 bytes print as hex"),
        pytest.param("1-+" + "f" * 31, Rev(1, b"\x0f" + b"\xff" * 15), "1-0" + "f" * 31, id="a plus sign"),
        pytest.param("1--" + "0" * 30 + "1", Rev(1, b"\xff" * 16), "1-" + "f" * 32, id="a minus sign wraps"),
    ],
)
def test_parsing_and_printing(text: str, rev: Rev, printed: str) -> None:
    assert Rev.parse(text) == rev
    assert str(rev) == rev.text == printed
    assert digest_text(rev.digest) == printed.partition("-")[2]


@pytest.mark.parametrize(
    "text",
    [
        *["", "1", "x", "-", "-1", "-a", "a-b", "1.5-a", " 1-a", "1 -a", "1_0-a", "--1-a", "+-a"],
        *["²-a", "\u0661-a", "9" * 10_000 + "-a"],
        *["1-" + "g" * 32, "1-0x" + "a" * 30, "1-" + "a" * 15 + "_" + "b" * 16, "1-" + "ab " * 10 + "ab"],
        *["1-" + "é" * 16, "1-" + "\u0661" * 16, "1-\ud800"],
        *[None, 1, True, {}, ["1-abc"], b"1-a"],
    ],
)
def test_what_is_no_revision_is_refused(text: Any) -> None:
    with pytest.raises(BadRequest, match="Invalid rev format"):
        Rev.parse(text)


def test_order_is_by_generation_then_by_the_bytes_of_the_digest() -> None:
    ordered = [Rev(1, b""), Rev(1, b"\x7f"), Rev(1, b"\x80"), Rev(1, b"\x80\0"), Rev(2, b""), Rev(10, b"")]
    assert all(lesser < greater for lesser, greater in pairwise(ordered))


@given(st.integers(0, 2**70), st.binary(min_size=16, max_size=16))
def test_a_printed_revision_is_parsed_again(generation: int, digest: bytes) -> None:
    rev = Rev(generation, digest)
    assert Rev.parse(rev.text) == rev
    assert parse_digest(digest_text(digest)) == digest


# New revisions, recorded from CouchDB 3.5.0.


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("{}", "967a00dff5e02add41819138abb3284d"),
        ('{"a":1}', "23202479633c2b380f79507a776743d5"),
        ('{"a":1.0}', "8a159b695bf2bd957f1a435bfd6e1739"),
        ('{"a":-1}', "36263f269caa4db3b190ba9d68b9bdf8"),
        ('{"a":255}', "0fbe827385026714fdd09b847ebde3ac"),
        ('{"a":256}', "6528e394d3c2502a646ee64043be6186"),
        ('{"a":2147483648}', "b4f640a52110ec1afa2f52256780e40e"),
        ('{"a":-2147483649}', "6d036e2911065ed899639be9adb508c3"),
        ('{"a":9007199254740993}', "a452b3a5be475a73593895c798a3a609"),
        ('{"a":9223372036854775808}', "fc8391bb28fd252fac64877575057bed"),
        ('{"a":18446744073709551616}', "02621d7913faebde4c9d1efebd8500b4"),
        ('{"a":1e300}', "63ff1d01b64ef5759f9c15ac5ed862d0"),
        ('{"a":-0.0}', "79e62e17829588afea5328e32c7e34af"),
        ('{"a":"\\u00e9"}', "a84b195a8ccf4e92812a4f2bb2272b90"),
        ('{"a":null}', "958951ed47ccad041978591c92245914"),
        ('{"a":true}', "db4b9d6334adba89803cb4b34a70eba5"),
        ('{"a":false}', "00b74237bbc89a34b1c93f5544e97578"),
        ('{"a":[]}', "d49a64a623a0fcc15fb2a4e9edf20834"),
        ('{"a":{}}', "3a998deb00874a1aa37c51ab7d1665df"),
        ('{"a":[1,2]}', "590fab3aafbc44c5af1819053a3f10ae"),
        ('{"a":["x"]}', "10e8cb619cb87e1aea8fb22c864e5385"),
        ('{"a":{"b":{"c":1}}}', "9944b762ea46963397f75ab82a19124c"),
        ('{"a":1,"b":2}', "25f9b97d75a648d1fcd23f0a73d2776e"),
        ('{"b":2,"a":1}', "caca8b193c5fc9720d024664e9310ed2"),
        ('{"a":[1,"x",null,{"y":[]}]}', "ddd846e20d0a366f998c64c44bc9419a"),
        ('{"a":[0.1,1e5,123456789012345678.0]}', "0ad01428a58c30438713f9aca91b5381"),
    ],
)
def test_a_first_edit_makes_the_revision_it_makes_in_couchdb(text: str, digest: str) -> None:
    assert str(new_rev(deleted=False, parent=None, body=jsontext.loads(text))) == f"1-{digest}"


def test_a_later_edit_and_a_deletion_depend_on_their_parent() -> None:
    parent = Rev.parse("1-23202479633c2b380f79507a776743d5")
    update = new_rev(deleted=False, parent=parent, body={"a": 1})
    assert str(update) == "2-28b0871b96782f88a644f93a6afa52bf"
    assert str(new_rev(deleted=True, parent=update, body={})) == "3-b6650f48779e3dc2e2f2b3cae94444ad"
    with_body = new_rev(deleted=True, parent=parent, body={"a": 1})
    assert str(with_body) == "2-59880ecd931e058a6ef8615c32fb600e"


BINARY = "application/octet-stream"


@pytest.mark.parametrize(
    ("attachments", "digest"),
    [
        ([("f", BINARY, b"\0")], "75294db7a60ec0a4fa4cb39825ec1cd2"),
        ([("g", BINARY, b"\0")], "3d1d426d9919fa19d49d57d6cb87d4ec"),
        ([("f", "image/png", b"\0")], "5e01a48c287ba567f0db717732e2bb75"),
        ([("f", BINARY, b"\0"), ("g", BINARY, b"\1")], "47e76661d318a24c48d2a1fdf62237a5"),
        ([("g", BINARY, b"\1"), ("f", BINARY, b"\0")], "bbbf17d37b7b1c21ac62abf39dcbea83"),
    ],
)
def test_attachments_count_in_their_order(attachments: list[tuple[str, str, bytes]], digest: str) -> None:
    digested = [(name, content_type, md5(data).digest()) for name, content_type, data in attachments]
    assert str(new_rev(deleted=False, parent=None, body={}, attachments=digested)) == f"1-{digest}"


# What no transcript has: terms by their bytes, from Erlang's description of the format.


@pytest.mark.parametrize(
    ("value", "term"),
    [
        pytest.param(-(2**31), b"b\x80\0\0\0", id="the least 32-bit integer"),
        pytest.param(2**31 - 1, b"b\x7f\xff\xff\xff", id="the greatest 32-bit integer"),
        pytest.param(2**31, b"n\4\0\0\0\0\x80", id="the next one"),
        pytest.param(-(2**64), b"n\x09\1" + b"\0" * 8 + b"\1", id="a negative big one"),
        pytest.param(256**254, b"n\xff\0" + b"\0" * 254 + b"\1", id="one of 255 bytes"),
        pytest.param(256**255, b"o\0\0\1\0\0" + b"\0" * 255 + b"\1", id="one of 256 bytes"),
        pytest.param([0, 255], b"k\0\2\0\xff", id="a list of bytes is a string"),
        pytest.param([0, 256], b"l\0\0\0\2a\0b\0\0\1\0j", id="not so a list with a greater integer"),
        pytest.param([1, -1], b"l\0\0\0\2a\1b\xff\xff\xff\xffj", id="nor with a negative one"),
        pytest.param([1, True], b"l\0\0\0\2a\1d\0\4truej", id="nor with a boolean"),
        pytest.param([1, 2.0], b"l\0\0\0\2a\1F\x40\0\0\0\0\0\0\0j", id="nor with a float"),
        pytest.param([7] * 65535, b"k\xff\xff" + b"\7" * 65535, id="the longest string"),
        pytest.param([7] * 65536, b"l\0\1\0\0" + b"a\7" * 65536 + b"j", id="a longer one is a list"),
        pytest.param([[]], b"l\0\0\0\1jj", id="an empty list in a list"),
        pytest.param([{}, {"b": None}], b"l\0\0\0\2h\1jh\1l\0\0\0\1h\2m\0\0\0\1bd\0\4nulljj", id="objects"),
        pytest.param("x" * 2000, b"m\0\0\7\xd0" + b"x" * 2000, id="a long string"),
    ],
)
def test_a_value_is_hashed_as_its_term(value: Any, term: bytes) -> None:
    head = b"\x83l\0\0\0\5d\0\5falsea\0a\0"
    body = b"h\1l\0\0\0\1h\2m\0\0\0\1v" + term + b"j"
    assert new_rev(deleted=False, parent=None, body={"v": value}) == Rev(1, md5(head + body + b"jj").digest())


@given(json_objects)
def test_the_revision_does_not_depend_on_how_the_body_was_sent(body: dict[str, Any]) -> None:
    rev = new_rev(deleted=False, parent=None, body=body)
    for text in (json.dumps(body), json.dumps(body, ensure_ascii=False, separators=(",", ":"))):
        assert new_rev(deleted=False, parent=None, body=jsontext.loads(text)) == rev


def test_any_depth_is_hashed() -> None:
    body = jsontext.loads('{"a":[' * 10_000 + "]}" * 10_000)
    assert new_rev(deleted=False, parent=None, body=body).generation == 1


def test_more_names_than_are_remembered() -> None:
    for at in range(0, 30_000, 100):
        body = {f"name {at + offset}": at for offset in range(100)}
        assert new_rev(deleted=False, parent=None, body=body) == new_rev(
            deleted=False, parent=None, body=body
        )


def _recorded_edits() -> Iterator[tuple[str, str, str, str]]:
    """Every PUT of the transcripts that sent a whole document and got a revision CouchDB computed."""
    for file in sorted(GOLDEN.glob("*/*.json")):
        for at, step in enumerate(json.loads(file.read_text())["steps"]):
            request, response = step["request"], step.get("response", {})
            answer = response.get("body")
            if request["method"] != "PUT" or not isinstance(answer, dict) or "<" in answer.get("rev", "<"):
                continue
            if "new_edits" in request["path"] or "rev=" in request["path"] or answer["rev"].startswith("0-"):
                continue
            if "body" in request:
                text = json.dumps(request["body"])
            elif request["path"].endswith(answer["id"]):
                text = request.get("body_text") or base64.b64decode(request.get("body_base64", "")).decode()
            else:
                continue
            yield file.stem, str(at), text, answer["rev"]


def test_recorded_edits_make_the_recorded_revisions() -> None:
    checked = 0
    for name, step, text, expected in _recorded_edits():
        try:
            document = jsontext.loads(text)
        except BadRequest:
            continue
        if not isinstance(document, dict) or "{{" in text:
            continue
        special = {member for member in document if member.startswith("_")}
        parent = Rev.parse(document["_rev"]) if "_rev" in document else None
        if special - {"_id", "_rev", "_deleted"} or (parent is None and not expected.startswith("1-")):
            continue  # attachments, and a deleted document written again
        body = {member: value for member, value in document.items() if member not in special}
        rev = new_rev(deleted=document.get("_deleted") is True, parent=parent, body=body)
        assert str(rev) == expected, f"{name} step {step}: {text}"
        checked += 1
    assert checked > 200
