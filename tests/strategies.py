"""Hypothesis strategies shared by the tests, and the profiles (HYPOTHESIS_PROFILE) they run under."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from couchlite.revision import Rev

settings.register_profile("default", max_examples=50, derandomize=True, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# JSON

json_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | json_text
    # what numbers and escapes look like inside of strings
    | st.sampled_from(["e-3", "1e+20,", "-0.0", ":", '","', "\\u003a", "\x1f", "\\", "5e-324]"])
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(json_text, inner, max_size=5),
    max_leaves=20,
)
json_objects = st.dictionaries(json_text, json_values, max_size=6)


# Revision trees

Path = tuple[Rev, ...]
"""Newest first, as couchlite takes it."""


class Arrival(NamedTuple):
    """A revision as it comes in: its path and what it carries."""

    path: Path
    info: Any


@st.composite
def histories(draw: st.DrawFn, max_revisions: int = 14) -> list[Arrival]:
    """Revisions of one true history, each known with some of its ancestors, in any order."""
    parents: list[int | None] = [None]
    for at in range(1, draw(st.integers(1, max_revisions))):
        # Mostly onwards, so that chains grow long enough to be cut and joined.
        parents.append(draw(st.one_of(st.just(at - 1), st.none(), st.integers(0, at - 1))))
    paths: list[Path] = []
    for at, parent in enumerate(parents):
        ancestors = () if parent is None else paths[parent]
        # Digests out of order, so that siblings come before and after each other.
        paths.append((Rev(len(ancestors) + 1, bytes([at * 37 % 256])), *ancestors))
    arrivals = draw(st.lists(st.tuples(st.sampled_from(paths), st.integers(1, max_revisions)), max_size=12))
    return [Arrival(path[:length], str(path[0])) for path, length in arrivals]


@st.composite
def forged_histories(draw: st.DrawFn) -> list[Arrival]:
    """Paths that need not agree with each other: the same revision comes with this and with that parent, the
    same digest in different generations."""
    digests = st.sampled_from([b"a", b"b", b"c"])
    arrivals = []
    for number in range(draw(st.integers(0, 9))):
        generation = draw(st.integers(1, 5))
        path = [Rev(generation - at, draw(digests)) for at in range(draw(st.integers(1, generation)))]
        arrivals.append(Arrival(tuple(path), number))
    return arrivals
