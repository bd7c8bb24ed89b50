"""Ids that the server makes up."""

import itertools
import re

import pytest

from couchlite import Server


@pytest.mark.parametrize(
    ("algorithm", "form"),
    [("sequential", "[0-9a-f]{32}"), ("random", "[0-9a-f]{32}"), ("utc_random", "[0-9a-f]{32}")],
)
def test_ids_have_couchdbs_form_and_none_comes_twice(store: Server, algorithm: str, form: str) -> None:
    store.config.set("uuids", "algorithm", algorithm)
    ids = [store.uuids.new() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(form, made) for made in ids)


def test_sequential_ids_ascend_until_a_new_beginning(store: Server) -> None:
    ids = [store.uuids.new() for _ in range(20_000)]
    beginnings = [made[:26] for made in ids]
    assert 1 < len(set(beginnings)) < 10
    assert all(one < next_one or one[:26] != next_one[:26] for one, next_one in itertools.pairwise(ids))


def test_utc_ids_end_with_the_configured_text(store: Server) -> None:
    store.config.set("uuids", "algorithm", "utc_id")
    store.config.set("uuids", "utc_id_suffix", "@here")
    ids = [store.uuids.new() for _ in range(100)]
    assert ids == sorted(set(ids))
    assert all(made.endswith("@here") for made in ids)
