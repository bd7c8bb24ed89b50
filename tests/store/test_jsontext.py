"""JSON in and out: as CouchDB's parser has it in the corners where parsers differ, else as any parser."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite.errors import BadRequest
from couchlite.jsontext import DEPTH_MAX, canonical, dumps, loads
from tests.strategies import json_values

GOLDEN = Path(__file__).parents[1] / "web" / "golden"

# What is sent, and how CouchDB sends it back. Where both are the same one suffices.
ROUND_TRIPS = [
    # numbers
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    ("-0", "0"),
    ("-0.0", "0.0"),
    ("-0.0e-400", "0.0"),
    ("[-0.05,-0.0]", "[-0.05,0.0]"),
    "1.0",
    ("1e3", "1000.0"),
    ("1E+05", "100000.0"),
    ("1.10", "1.1"),
    "0.1",
    "0.30000000000000004",
    ("3.141592653589793238462643383279", "3.141592653589793"),
    ("12345678901234567890.5", "12345678901234567000.0"),
    ("1e20", "100000000000000000000.0"),
    ("123456789e12", "123456789000000000000.0"),
    ("1e21", "1e+21"),
    ("-1.5e300", "-1.5e+300"),
    "0.000001",
    ("1.5e-6", "0.0000015"),
    ("1e-6", "0.000001"),
    "1e-7",
    ("0.00000015", "1.5e-7"),
    "2.2250738585072014e-308",
    ("5e-324", "0.0"),
    ("4.9e-324", "5e-324"),
    ("1e-400", "0.0"),
    # jiffy multiplies where a number is long, or all but zero, and has no fraction
    ("401175730554156970582117087522300e-29", "4011.757305541569"),
    ("401175730554156970582117087522300.0e-29", "4011.7573055415696"),
    ("40e-310", "3.99999999999999e-309"),
    ("4.0e-309", "4e-309"),
    ("0e5000", "0.0"),
    # jiffy takes a missing exponent for none
    ("1e+", "1.0"),
    ("[1.5e-]", "[1.5]"),
    # strings
    '"/\\b\\f\\n\\r\\t\\"\\\\"',
    ('"\\/"', '"/"'),
    '"\\u0000"',
    '"\\u001F"',
    ('"\\u001f\\u000b"', '"\\u001F\\u000B"'),
    '"\\\\u001f"',
    '"\\\\\\u001F"',
    '"\x7f"',
    '"\u2028\u2029"',
    '"\ufeff"',
    '"\ufffe\uffff"',
    ('"\\uffff"', '"\uffff"'),
    '"😀"',
    ('"\\ud83d\\ude00"', '"😀"'),
    ('"\\u00e9"', '"é"'),
    # what looks like a number in a string is none
    '["1e+20,",1,"e-7]","-0.0","0.1e+16","\\\\1e+16"]',
    ('["1e+20,",1e16,"-0.0",-0.0]', '["1e+20,",10000000000000000.0,"-0.0",0.0]'),
    # objects
    "{}",
    '{"":1}',
    '{"\\u0000":1}',
    ('{"a":1,"b":2,"a":3}', '{"b":2,"a":3}'),
    ('{"o":{"k":1,"k":2}}', '{"o":{"k":2}}'),
    ('{"a":1,"\\u0061":2}', '{"a":2}'),
    ('{"a":{"x":":"},"b":"\\u003a","a":"\\u003A"}', '{"b":":","a":":"}'),
    ('{"a":":","b":1,"a":"\\u003a\\u003A"}', '{"b":1,"a":"::"}'),
    # blanks
    (' \n\r\t{ "a" :\t[ 1 , 2\n] } ', '{"a":[1,2]}'),
    ("[ ]", "[]"),
    # what is not an object is JSON too
    "null",
    "true",
    '"x"',
]


@pytest.mark.parametrize("sent", ROUND_TRIPS)
def test_text_comes_back_as_from_couchdb(sent: str | tuple[str, str]) -> None:
    text, expected = (sent, sent) if isinstance(sent, str) else sent
    assert dumps(loads(text)).decode() == expected
    assert dumps(loads(text.encode())).decode() == expected
    # Beside what orjson can't read, the whole text is read another way.
    assert dumps(loads(f"[{text},123456789012345678901]")).decode() == f"[{expected},123456789012345678901]"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-0.0", "-0.0"),
        ("-1e-400", "-0.0"),
        ("1", "1"),
        ("1.0", "1.0"),
        ("1e2", "100.0"),
        ("true", "True"),
        ("100000000000000000000", "100000000000000000000"),
        ("1e20", "1e+20"),
    ],
)
def test_a_value_keeps_what_its_revision_depends_on(text: str, value: str) -> None:
    assert repr(loads(text)) == value


REFUSED = [
    pytest.param(b"", id="nothing"),
    pytest.param(b" \n", id="blanks"),
    pytest.param(b"{", id="unfinished object"),
    pytest.param(b'{"a":1,}', id="comma before the end of an object"),
    pytest.param(b"[1,]", id="comma before the end of an array"),
    pytest.param(b"[1}", id="wrong bracket"),
    pytest.param(b"[1]]", id="one bracket too many"),
    pytest.param(b"{1:2}", id="number as a member's name"),
    pytest.param(b'{"a" 1}', id="no colon"),
    pytest.param(b"true false", id="two values"),
    pytest.param(b"nul", id="half a word"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"-Infinity", id="infinity"),
    pytest.param(b"'a'", id="single quotes"),
    pytest.param(b"[1]\0", id="NUL after the end"),
    pytest.param("\ufeff1".encode(), id="byte order mark"),
    pytest.param(b"01", id="leading zero"),
    pytest.param(b"1.", id="no digits after the point"),
    pytest.param(b".5", id="no digits before the point"),
    pytest.param(b"+1", id="plus sign"),
    pytest.param(b"1e", id="no exponent"),
    pytest.param(b"-", id="minus sign alone"),
    pytest.param(b"1e400", id="number out of range"),
    pytest.param(b"-1e400", id="negative number out of range"),
    pytest.param(b"1.0e400", id="number with a fraction out of range"),
    pytest.param(b"1" + b"0" * 400, id="integer no float comes near"),
    pytest.param(b"2" + b"0" * 308, id="integer just beyond the greatest float"),
    pytest.param(b"9" * 10_000, id="integer of very many digits"),
    pytest.param(b"1e" + b"9" * 10_000, id="exponent of very many digits"),
    pytest.param(b'"a', id="unfinished string"),
    pytest.param(b'"\n"', id="line break in a string"),
    pytest.param(b'"\x01"', id="control character in a string"),
    pytest.param(b'"\\x41"', id="unknown escape"),
    pytest.param(b'"\\u12G4"', id="bad digits in an escape"),
    pytest.param(b'"\\ud800"', id="first half of a surrogate pair"),
    pytest.param(b'"\\udc00"', id="second half of a surrogate pair"),
    pytest.param(b'"\\ude00\\ud83d"', id="surrogate pair the wrong way round"),
    pytest.param(b'"\\ud800x"', id="half a surrogate pair and text"),
    pytest.param(b'"\xff"', id="no UTF-8"),
    pytest.param(b'"\xc3"', id="unfinished UTF-8"),
    pytest.param(b'"\xc0\x80"', id="overlong UTF-8"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
    pytest.param(b'"\xf4\x90\x80\x80"', id="beyond Unicode"),
    pytest.param(b'{"\xff":1}', id="no UTF-8 in a member's name"),
    pytest.param(b"[" * 5000, id="deep and unfinished"),
    pytest.param(b"[" * 5000 + b"]" * 4999 + b"}", id="deep and wrong"),
    pytest.param(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), id="deeper than the bound"),
]


@pytest.mark.parametrize("data", REFUSED)
def test_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid UTF-8 JSON"):
        loads(data)
    # The same where orjson already leaves the text to the other parser.
    with pytest.raises(BadRequest, match="invalid UTF-8 JSON"):
        loads(b"[1e+," + data + b"]")


def test_refused_as_text() -> None:
    with pytest.raises(BadRequest):
        loads('"\ud800"')


@pytest.mark.parametrize("depth", [200, 254, 255, 1024, 1025, DEPTH_MAX])
def test_any_depth_comes_back(depth: int) -> None:
    arrays = b"[" * depth + b"]" * depth
    assert dumps(loads(arrays)) == arrays
    objects = b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)
    assert dumps(loads(objects)) == objects


# Properties. Values are compared by repr, for which 1, 1.0 and True differ.


def without_negative_zero(value: Any) -> Any:
    """What is left of a value once CouchDB has printed it."""
    if isinstance(value, list):
        return [without_negative_zero(element) for element in value]
    if isinstance(value, dict):
        return {name: without_negative_zero(member) for name, member in value.items()}
    return 0.0 if isinstance(value, float) and value == 0 else value


@given(json_values, st.sampled_from([None, (",", ":")]), st.booleans(), st.sampled_from([None, 2]))
def test_any_value_is_read_however_it_was_written(
    value: Any, separators: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only, indent=indent)
    assert repr(loads(text.encode())) == repr(value)


@given(json_values)
def test_any_value_is_written_so_that_others_read_it(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    assert repr(loads(dumps(value))) == repr(without_negative_zero(value))


@given(json_values)
def test_a_value_is_written_alike_beside_what_orjson_can_not_write(value: Any) -> None:
    assert dumps([value, 10**30]) == b"[" + dumps(value) + b",1" + b"0" * 30 + b"]"


@given(json_values)
def test_a_text_is_read_alike_beside_what_orjson_can_not_read(value: Any) -> None:
    text = dumps(value)
    assert repr(loads(b"[" + text + b",1e+]")) == f"[{loads(text)!r}, 1.0]"


@given(st.binary(max_size=30) | st.text('{}[]:,"\\u0d8e1-+. ', max_size=20).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except BadRequest:
        return
    if "e-3" not in repr(value):  # numbers that are all but zero change once more
        assert repr(loads(dumps(value))) == repr(without_negative_zero(value))


# Recorded from CouchDB.


def _recorded() -> list[Any]:
    """Documents as they were sent, with the text that a GET then answered; None where the PUT was refused."""
    found = []
    for name in ("bad-json-numbers", "bad-json-strings", "bad-duplicate-keys"):
        steps = json.loads((GOLDEN / "bad_input" / f"{name}.json").read_text())["steps"]
        sent: dict[str, bytes] = {}
        for step in steps:
            request, response = step["request"], step["response"]
            path = request["path"]
            if request["method"] == "PUT" and "body_text" in request:
                sent[path] = request["body_text"].encode()
            elif request["method"] == "PUT" and "body_base64" in request:
                sent[path] = base64.b64decode(request["body_base64"])
            elif request["method"] == "GET" and path in sent:
                answer = response.get("body_text") if response["status"] == 200 else None
                found.append(pytest.param(sent[path], answer, id=path[1:]))
    return found


@pytest.mark.parametrize(("sent", "answer"), _recorded())
def test_documents_come_back_as_recorded(sent: bytes, answer: str | None) -> None:
    if answer is None:
        with pytest.raises(BadRequest):
            loads(sent)
        return
    document = {name: value for name, value in loads(sent).items() if not name.startswith("_")}
    assert answer.split(",", 2)[2] == dumps(document).decode()[1:] + "\n"


# What means the same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('{"a":1,"b":{"c":1,"d":2}}', '{"b":{"d":2,"c":1},"a":1}', id="the order of members"),
        pytest.param("[2.0,-0.0,1e20]", "[2,0,100000000000000000000]", id="the spelling of numbers"),
        pytest.param("[" * 2000 + "2.0" + "]" * 2000, "[" * 2000 + "2" + "]" * 2000, id="however deep"),
        pytest.param(
            '{"b":18446744073709551616,"a":1.0}', '{"a":1,"b":18446744073709551616}', id="large integers"
        ),
    ],
)
def test_texts_that_mean_the_same(one: str, other: str) -> None:
    assert canonical(loads(one)) == canonical(loads(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('"2.0"', '"2"', id="numbers in strings"),
        pytest.param('["\\"2.0"]', '["\\"2"]', id="after an escaped quote"),
        pytest.param('{"2.0":1}', '{"2":1}', id="names"),
        pytest.param("1", "true", id="a number and a boolean"),
        pytest.param("[1,2]", "[2,1]", id="arrays in another order"),
        pytest.param("9007199254740993", "9007199254740992.0", id="a double that comes near"),
        pytest.param("0.1", "0.10000000000000002", id="doubles next to each other"),
    ],
)
def test_texts_that_mean_something_else(one: str, other: str) -> None:
    assert canonical(loads(one)) != canonical(loads(other))


@given(json_values)
def test_what_is_canonical_can_be_read_and_stays(value: Any) -> None:
    text = canonical(value)
    assert canonical(loads(text)) == text
    assert canonical(loads(dumps(value))) == text
