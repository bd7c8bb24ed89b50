"""How a database's conflicts are to be resolved: settings, read and checked.

{"automatic": false, "resolvers": [
    {"selector": {"type": "note"}, "resolver": "three-way", "options": {"rules": {"/tags": "set"}}}
]}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadRequest
from ..mango.selector import Matcher, compile_selector
from .resolvers import JavaScript, LastWriteWins, Leaf, Manual, Resolver, ThreeWay, Union
from .rules import Rules

RESOLVERS_MAX = 1_000
"""They are asked one after the other about each conflict."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A resolver, and for which documents."""

    matches: Matcher
    resolver: Resolver


@dataclass(frozen=True, slots=True)
class Settings:
    """How a database's conflicts are resolved: the choices in order, and whether that happens by itself."""

    automatic: bool = False
    choices: tuple[Choice, ...] = ()

    @classmethod
    def parse(cls, value: object) -> Settings:
        """:raises BadRequest: it has another form than
        `{"automatic": false, "resolvers": [{"selector": {}, "resolver": NAME, "options": {}}]}`."""
        if not isinstance(value, Mapping):
            raise BadRequest("the settings must be an object")
        _only(value, ("automatic", "resolvers"), "the settings")
        automatic, listed = value.get("automatic", False), value.get("resolvers", [])
        if type(automatic) is not bool:
            raise BadRequest("automatic must be true or false")
        if not isinstance(listed, list):
            raise BadRequest("resolvers must be an array")
        if len(listed) > RESOLVERS_MAX:
            raise BadRequest(f"there may be {RESOLVERS_MAX} resolvers at most")
        return cls(automatic, tuple(_choice(at, entry) for at, entry in enumerate(listed)))

    def choose(self, doc_id: str, winner: Leaf) -> Resolver:
        """The first resolver whose selector matches the winner; `manual` if none does."""
        document = {"_id": doc_id, "_rev": winner.rev, **winner.document}
        for choice in self.choices:
            if choice.matches(document):
                return choice.resolver
        return Manual()


def _choice(at: int, entry: object) -> Choice:
    where = f"resolvers[{at}]"
    if not isinstance(entry, Mapping):
        raise BadRequest(f"{where} must be an object")
    _only(entry, ("selector", "resolver", "options"), where)
    try:
        matches = compile_selector(entry.get("selector", {}))
        return Choice(matches, parse_resolver(entry.get("resolver"), entry.get("options")))
    except BadRequest as refusal:
        raise BadRequest(f"{where}: {refusal.reason}") from None


def _only(value: Mapping[str, Any], names: Collection[str], what: str) -> None:
    for name in value:
        if name not in names:
            raise BadRequest(f"{what} can't have {name!r}, only {', '.join(names)}")


def parse_resolver(name: object, options: object = None) -> Resolver:
    """The resolver of that name with these options. :raises BadRequest:"""
    make = _MAKERS.get(name) if isinstance(name, str) else None
    if make is None:
        raise BadRequest(f"{name!r} is not a resolver; there are {', '.join(_MAKERS)}")
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise BadRequest(f"the options of {name} must be an object")
    kind, build = make
    for option in options:
        if option not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise BadRequest(f"{name} has no option {option!r}; it has {known}")
    return build(options)


_Options = Mapping[str, Any]


def _three_way(kind: Callable[[Rules, bool], Resolver]) -> Callable[[_Options], Resolver]:
    def build(options: _Options) -> Resolver:
        clashes = options.get("clashes", "leave")
        if clashes not in ("leave", "winner"):
            raise BadRequest(f'the option clashes is "leave" or "winner", not {clashes!r}')
        return kind(Rules.parse(options.get("rules", {})), clashes == "winner")

    return build


def _last_write_wins(options: _Options) -> Resolver:
    name = options.get("field")
    if not isinstance(name, str) or not name.startswith("/"):
        raise BadRequest('last-write-wins needs the option field, a JSON pointer like "/updated_at"')
    return LastWriteWins(name)


def _javascript(options: _Options) -> Resolver:
    design, slash, function = str(options.get("function", "")).removeprefix("_design/").partition("/")
    if not (design and slash and function):
        raise BadRequest('javascript needs the option function, as "design document/name"')
    return JavaScript(f"_design/{design}", function)


_MAKERS: dict[str, tuple[type[Resolver], Callable[[_Options], Resolver]]] = {
    Manual.name: (Manual, lambda _options: Manual()),
    ThreeWay.name: (ThreeWay, _three_way(ThreeWay)),
    LastWriteWins.name: (LastWriteWins, _last_write_wins),
    Union.name: (Union, _three_way(Union)),
    JavaScript.name: (JavaScript, _javascript),
}
NAMES = tuple(_MAKERS)
