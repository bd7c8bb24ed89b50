"""JSON text in and out, exactly as CouchDB's parser (jiffy) reads and writes it. Only this file knows orjson.

Laws of this file:

1. `loads` accepts what CouchDB accepts and gives what it would hash: of duplicate members the last one wins
   and takes the last place; integers beyond 64 bits are exact; `1`, `1.0` and `-0.0` stay apart.
2. `dumps` gives the bytes CouchDB would send. `dumps(loads(text))` read again gives the same value, but for
   `-0.0`, which CouchDB prints as `0.0`, and for numbers that are all but zero (below 2.3e-308).
3. Nothing here recurses, so no nesting, however deep, ends in a RecursionError.

orjson does the work and is many times faster than what we could write, but differs from jiffy in corners. So
each function asks it first, looks for signs of such a corner by means that cost nearly nothing, and only when
it finds one does the work again slowly. All is well when what orjson prints of what it has read is, blanks
apart, what it was given: then it dropped nothing and rounded nothing. Otherwise all is well when no colon was
lost (nor so a member) and no number has very many digits. In both cases a number that is all but zero, below
2.3e-308, needs a second look.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # CPython's own, in C; typeshed omits it
from operator import itemgetter
from typing import Any

import orjson

from .errors import BadRequest

# CouchDB sets no bound. This one keeps a body that is nothing but brackets from taking memory a hundred times
# its size; it is far beyond what other JSON parsers follow.
DEPTH_MAX = 100_000
# orjson follows 1,024 levels when reading.
_ORJSON_DEPTH_MAX = 1024


def loads(data: bytes | bytearray | str) -> Any:
    """The value of a JSON text. BadRequest with CouchDB's words where CouchDB would not have it."""
    if isinstance(data, str):
        data = _encoded(data)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        if _only_orjson_refuses(data):
            return _parse(data)
        raise _invalid() from None
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested too deep for its printer
        return _parse(data)
    is_same = text == data or text.translate(None, _BLANKS) == data.translate(None, _BLANKS)
    if (not is_same and _is_read_differently(data, text)) or (text.find(b"e-3") >= 0 and _TINY.search(text)):
        return _parse(data)
    return value


def loads_near(data: bytes) -> Any:
    """The value of a text that `dumps` has made, or of several of them put together, but for integers beyond
    64 bits, of which only the nearest double is given: a third of the work."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:  # nested too deep for it
        return loads(data)


def dumps(value: Any) -> bytes:
    """The compact text of a value that `loads` could have returned, as CouchDB prints it."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or nested too deep
        text = b"".join(_pieces(value))
    # First whether a sign or a backslash is there at all: looking for one byte is many times faster.
    if (text.find(b"-") >= 0 or text.find(b"+") >= 0) and (
        text.find(b"-0.0") >= 0 or _EXPONENT.search(text) is not None
    ):
        return _TOKEN_TO_RESPELL.sub(_respell, text)
    if text.find(b"\\") >= 0 and text.find(b"\\u00") >= 0:
        return _TOKEN_TO_RESPELL.sub(_respell, text)
    return text


def canonical(value: Any) -> bytes:
    """A text that two values share when, and only when, they mean the same: the order of members doesn't
    matter, nor how a number is spelled (2.0 is 2, and -0.0 is 0)."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        text = b"".join(_pieces(value, sort=True))
    if text.find(b".0") >= 0 or text.find(b"e") >= 0 or text.find(b"-0") >= 0:
        return _TOKEN_TO_UNIFY.sub(_unify, text)
    return text


def escape_all(texts: Sequence[bytes]) -> Sequence[bytes]:
    """UTF-8 texts as they stand between the quotes of JSON strings. They are looked at together: ids and
    revisions of thousands of documents rarely have a character to escape."""
    if not _TO_ESCAPE.search(b"".join(texts)):
        return texts
    return [dumps(text.decode())[1:-1] for text in texts]


_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_BLANKS = b" \n\r\t"
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
# These may find an exponent in a string: a hint, not a verdict. (And `find` is faster than `in`.)
_EXPONENT = re.compile(rb"e[+-][0-9]{1,3}(?:[,\]}]|\Z)")
_TINY = re.compile(rb"e-3[0-9]{2}(?:[,\]}]|\Z)")
_ESCAPED_COLON = re.compile(rb"\\u003a", re.IGNORECASE)
# Once every digit is made a zero: an integer of more than 64 bits has at least 19 of them, and a number that
# has an exponent and is too long for strtod at least 15 in one of its parts.
_LONG_NUMBER = re.compile(rb"0{19}|0{15}[eE]|[eE][+-]?0{15}")
_DANGLING_EXPONENT = re.compile(rb"[0-9][eE][+-](?![0-9])")


def _invalid() -> BadRequest:
    return BadRequest("invalid UTF-8 JSON")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise _invalid() from None


def _is_read_differently(data: bytes | bytearray, text: bytes) -> bool:
    """Whether orjson may have read `data` otherwise than jiffy would, given the `text` it prints of it."""
    if data.count(b":") != text.count(b":"):  # it dropped a duplicate member, or there are escaped colons
        return True
    if data.find(b"\\u003") >= 0 and _ESCAPED_COLON.search(data):
        return True
    digits = data.translate(_DIGITS_TO_ZERO)
    return digits.find(b"0" * 15) >= 0 and _LONG_NUMBER.search(digits) is not None


def _only_orjson_refuses(data: bytes | bytearray) -> bool:
    """Whether a text that orjson refuses may be good enough for jiffy; most bad texts are refused fast."""
    deep = data.count(b"[") + data.count(b"{") > _ORJSON_DEPTH_MAX
    return deep or _DANGLING_EXPONENT.search(data) is not None


# Reading slowly.

_TOKEN = re.compile(
    r"""[ \n\r\t]*(?:
        (?P<string>") |
        (?P<mark>[{}\[\]:,]) |
        (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE](?:[+-][0-9]*|[0-9]+))?) |
        (?P<literal>true|false|null) |
        (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_LITERALS = {"true": True, "false": False, "null": None}
_CLOSING = {"]": list, "}": dict}
# What may come next. After an opening bracket its closing one may, after a comma it may not.
_VALUE, _VALUE_OR_CLOSE, _KEY, _KEY_OR_CLOSE, _COLON, _COMMA_OR_CLOSE, _END = range(7)


def _parse(data: bytes | bytearray) -> Any:
    """jiffy's grammar, without recursion: `outer` holds the containers around the one being filled."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _invalid() from None
    container: Any = []  # holds the one value of the text
    key = ""
    outer: list[tuple[Any, str]] = []
    due = _VALUE
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _invalid()
        kind, position = match.lastgroup, match.end()
        token = text[match.start(kind) : position] if kind else ""
        value: Any
        if kind == "string":
            value, position = _scan_string(text, position)
            if due in (_KEY, _KEY_OR_CLOSE):
                key, due = value, _COLON
                continue
        elif kind == "number":
            value = _number(token)
        elif kind == "literal":
            value = _LITERALS[token]
        elif token == "[" or token == "{":
            if due > _VALUE_OR_CLOSE or len(outer) == DEPTH_MAX:
                raise _invalid()
            outer.append((container, key))
            container, due = ([], _VALUE_OR_CLOSE) if token == "[" else ({}, _KEY_OR_CLOSE)
            continue
        elif token == "]" or token == "}":
            if (
                due not in (_COMMA_OR_CLOSE, _VALUE_OR_CLOSE, _KEY_OR_CLOSE)
                or type(container) is not _CLOSING[token]
            ):
                raise _invalid()
            value = container
            container, key = outer.pop()
            due = _VALUE
        elif token == ":" and due == _COLON:
            due = _VALUE
            continue
        elif token == "," and due == _COMMA_OR_CLOSE:
            due = _VALUE if type(container) is list else _KEY
            continue
        elif kind == "end" and due == _END:
            return container[0]
        else:
            raise _invalid()
        if due > _VALUE_OR_CLOSE:
            raise _invalid()
        if type(container) is list:
            container.append(value)
        else:
            container.pop(key, None)  # the last of its name takes the last place
            container[key] = value
        due = _COMMA_OR_CLOSE if outer else _END


def _scan_string(text: str, position: int) -> tuple[str, int]:
    try:
        value, end = scanstring(text, position, True)
    except JSONDecodeError:
        raise _invalid() from None
    if "\\u" in text[position:end]:
        _encoded(value)  # refuses what is half a surrogate pair
    return value, end


# jiffy reads a number of fewer characters than this with strtod and a longer one by other means.
_JIFFY_NUMBER_BUFFER_SIZE = 32


def _number(token: str) -> int | float:
    """A number as jiffy reads it; that is odd where there is an exponent but no fraction (see below)."""
    try:
        if "." in token:
            return _finite(float(_without_dangling_exponent(token)))
        mantissa, mark, exponent = token.replace("E", "e").partition("e")
        if not mark:
            return _integer(token)
        number = float(_without_dangling_exponent(token))
        if len(token) < _JIFFY_NUMBER_BUFFER_SIZE and (
            sys.float_info.min <= abs(number) <= sys.float_info.max or not mantissa.strip("-0")
        ):
            return number
        # Out of strtod's range or too long for it: jiffy multiplies, which rounds twice, turns 5e-324 into
        # zero and overflows where the product would not.
        return _finite(int(mantissa) * math.pow(10, int(exponent)))
    except (ValueError, OverflowError):
        raise _invalid() from None


def _integer(token: str) -> int:
    """An integer that a float can come near; beyond, CouchDB fails when it computes the document's size."""
    if len(token) > sys.float_info.max_10_exp + 2:
        raise OverflowError
    number = int(token)
    float(number)
    return number


def _finite(number: float) -> float:
    if math.isinf(number):
        raise OverflowError
    return number


def _without_dangling_exponent(token: str) -> str:
    """jiffy takes `1e+` for 1.0, though only while it leaves the number to strtod."""
    if token[-1] in "+-" and len(token) < _JIFFY_NUMBER_BUFFER_SIZE:
        return token[:-2]
    return token


# Writing slowly.

# A whole string, so that nothing inside one is taken for a number, or a number jiffy spells in its own way.
_TOKEN_TO_RESPELL = re.compile(
    rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+(?:\.[0-9]+)?e[+-][0-9]+|-0\.0(?![0-9])', re.DOTALL
)
_ESCAPE = re.compile(rb"\\(?:u00[0-9a-f]{2}|.)")


def _respell(match: re.Match[bytes]) -> bytes:
    token = match[0]
    if token[:1] != b'"':
        return float_text(float(token)).encode()
    return _ESCAPE.sub(_uppercase_escape, token) if b"\\u00" in token else token


def _uppercase_escape(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    return escape if len(escape) == 2 else b"\\u" + escape[2:].upper()


def float_text(number: float) -> str:
    """The shortest digits that read back as `number`, laid out as JavaScript does, but always with a fraction
    or an exponent, and without a negative zero."""
    sign, digits, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int)
    figures = "".join(map(str, digits)).strip("0")
    if not figures:
        return "0.0"
    point = len("".join(map(str, digits)).lstrip("0")) + exponent  # places before the decimal point
    if point > 21 or point < -5:
        fraction = f".{figures[1:]}" if len(figures) > 1 else ""
        text = f"{figures[0]}{fraction}e{point - 1:+d}"
    elif point <= 0:
        text = f"0.{'0' * -point}{figures}"
    else:
        text = f"{figures[:point].ljust(point, '0')}.{figures[point:] or '0'}"
    return f"-{text}" if sign else text


_TOKEN_TO_UNIFY = re.compile(
    rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+(?:\.[0-9]+(?:e[+-]?[0-9]+)?|e[+-]?[0-9]+)', re.DOTALL
)


def _unify(match: re.Match[bytes]) -> bytes:
    """A float without a fraction is spelled as the integer it equals."""
    token = match[0]
    if token[:1] == b'"':
        return token
    number = float(token)
    return b"%d" % int(number) if number.is_integer() else token


_name: Callable[[tuple[str, Any]], str] = itemgetter(0)


def _pieces(value: Any, *, sort: bool = False) -> Iterator[bytes]:
    """The text of any value in pieces, floats as orjson spells them; `dumps` sees to jiffy's spelling."""
    members: Iterator[tuple[str | None, Any]] = iter([(None, value)])
    outer: list[tuple[Iterator[tuple[str | None, Any]], bytes]] = []
    closing = b""
    first = True
    while True:
        for key, member in members:
            if not first:
                yield b","
            first = False
            if key is not None:
                yield orjson.dumps(key)
                yield b":"
            if type(member) is dict or type(member) is list:
                outer.append((members, closing))
                if type(member) is dict:
                    yield b"{"
                    members, closing = (
                        iter(sorted(member.items(), key=_name) if sort else member.items()),
                        b"}",
                    )
                else:
                    yield b"["
                    members, closing = ((None, element) for element in member), b"]"
                first = True
                break
            yield b"%d" % member if type(member) is int else orjson.dumps(member)
        else:
            if not outer:
                return
            yield closing
            members, closing = outer.pop()
            first = False
