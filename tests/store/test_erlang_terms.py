"""Erlang terms, as far as they stand in CouchDB's configuration."""

from __future__ import annotations

import pytest

from couchlite.erlang_terms import Atom, Term, parse


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("[]", []),
        ("{}", ()),
        (" [ ] ", []),
        ("atom", Atom("atom")),
        ("'an atom'", Atom("an atom")),
        ("-5", -5),
        ('"a\\"b\\\\d+"', 'a"b\\d+'),
        ('"\\x41\\x{263a}\\101\\n"', "A\u263aA\n"),
        ('["a", {"b", "c"}].', ["a", ("b", "c")]),
        ("[{a, b},{c,d}]", [(Atom("a"), Atom("b")), (Atom("c"), Atom("d"))]),
        ("[[[1]]]", [[[1]]]),
    ],
)
def test_a_term(text: str, term: Term) -> None:
    assert parse(text) == term


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "]",
        "[1",
        "[1,]",
        "[,1]",
        "{1]",
        "1 2",
        '"open',
        "Variable",
        "[" * 500 + "]" * 500,
        "9" * 40,
        ".",
    ],
)
def test_what_is_no_term(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
