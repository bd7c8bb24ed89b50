"""In which order passwords are checked, how many may wait, and what guessing them costs others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from couchlite import users
from couchlite.accounts import Accounts, UserDocument
from couchlite.catalog import Catalog
from couchlite.config import Config
from couchlite.errors import CouchliteError, Forbidden, TooManyRequests, Unauthorized
from couchlite.hashing import WAITING_MAX, WAITING_OF_ONE_MAX, Hashing, Who


class Desk:
    """One thread that checks passwords, held until `open`; what it has done, in order."""

    def __init__(self) -> None:
        self.hashing = Hashing(1)
        self.done: list[str] = []
        self.at_once: list[int] = []
        self._gate = threading.Event()
        self._working: list[str] = []

    def check(
        self, label: str, who: Who, failures: int = 0, *, begins: Callable[[], None] = lambda: None
    ) -> asyncio.Future[bool]:
        def matches() -> bool:
            self._working.append(label)
            self.at_once.append(len(self._working))
            self._gate.wait(60)
            self._working.remove(label)
            self.done.append(label)
            return True

        return self.hashing.check(who, failures, matches, begins=begins, ends=lambda _: None)

    def open(self) -> None:
        self._gate.set()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.open()
    desk.hashing.close()


ANN, BOB, EVE = Who("1.1.1.1", "ann"), Who("2.2.2.2", "bob"), Who("6.6.6.6", "ann")


async def test_who_guesses_comes_last(desk: Desk) -> None:
    waiting = [
        desk.check("first", EVE),
        desk.check("eve guesses", EVE),
        desk.check("eve guesses again", EVE),
        desk.check("bob", BOB),
        desk.check("ann, who mistyped", ANN, failures=1),
        desk.check("carol", Who("6.6.6.6", "carol")),
        desk.check("dave", Who("7.7.7.7", "dave")),
    ]
    desk.open()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert desk.done == [
        "first",
        "bob",
        "dave",
        "carol",
        "ann, who mistyped",
        "eve guesses",
        "eve guesses again",
    ]
    assert max(desk.at_once) == 1


async def test_of_one_account_one_password_at_a_time() -> None:
    desk = Desk()
    desk.hashing = Hashing(4)
    waiting = [desk.check(str(number), EVE) for number in range(5)]
    desk.open()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    desk.hashing.close()
    assert (desk.done, max(desk.at_once)) == (["0", "1", "2", "3", "4"], 1)


async def test_what_became_known_meanwhile_spares_the_rest(desk: Desk) -> None:
    def locked() -> None:
        raise Forbidden("locked")

    waiting = [desk.check("first", EVE)]
    waiting += [desk.check("never", EVE, begins=locked) for _ in range(5)]
    waiting.append(desk.check("bob", BOB))
    desk.open()
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert desk.done == ["first", "bob"]
    assert [type(outcome) for outcome in found] == [bool, *[Forbidden] * 5, bool]


async def test_one_may_not_have_many_waiting(desk: Desk) -> None:
    waiting = [desk.check("eve", EVE) for _ in range(WAITING_OF_ONE_MAX)]
    with pytest.raises(TooManyRequests) as refused:
        desk.check("eve", EVE)
    assert refused.value.headers == {"Retry-After": "1"}
    waiting.append(desk.check("bob", BOB))
    desk.open()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    waiting = [desk.check("eve", EVE)]
    await asyncio.wait_for(waiting[0], 60)


async def test_who_comes_last_makes_room_when_all_is_full(desk: Desk) -> None:
    running = desk.check("running", EVE)
    waiting = [desk.check(f"{number}", Who("6.6.6.6", f"{number}")) for number in range(WAITING_MAX)]
    bob = desk.check("bob", BOB)
    assert not bob.done()
    with pytest.raises(TooManyRequests):
        await waiting[-1]
    with pytest.raises(TooManyRequests):
        await desk.check("one more", Who("6.6.6.6", "one more"), failures=3)
    desk.open()
    await asyncio.wait_for(asyncio.gather(running, bob, *waiting[:-1]), 60)
    assert desk.done[:2] == ["running", "bob"]


async def test_a_check_that_fails_is_not_the_last(desk: Desk) -> None:
    def broken() -> bool:
        raise Forbidden("PRF is invalid")

    failing = desk.hashing.check(EVE, 0, broken, begins=lambda: None, ends=lambda _: None)
    after = desk.check("bob", BOB)
    desk.open()
    with pytest.raises(Forbidden):
        await asyncio.wait_for(failing, 60)
    assert await asyncio.wait_for(after, 60)


# Accounts


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    catalog = Catalog(tmp_path / "data")
    config = Config(catalog.settings)
    config.set("chttpd_auth", "iterations", "10")
    yield config
    catalog.close()


@pytest.fixture
def accounts(config: Config) -> Iterator[Accounts]:
    documents = {
        name: UserDocument(
            users.hash_password({"type": "user", "name": name, "roles": [], "password": "right"}, config),
            False,
        )
        for name in ("ann", "bob")
    }
    opened = Accounts(config, documents.get)
    yield opened
    opened.close()


async def test_a_hundred_guesses_at_once_cost_five_hashes(accounts: Accounts) -> None:
    guesses = (accounts.authenticate_basic("ann", f"guess {number}", "6.6.6.6") for number in range(100))
    bob = accounts.authenticate_basic("bob", "right", "6.6.6.6")
    *found, principal = await asyncio.gather(*guesses, bob, return_exceptions=True)
    assert {type(outcome) for outcome in found} <= {Unauthorized, Forbidden, TooManyRequests}
    assert sum(type(outcome) is Unauthorized for outcome in found) == 5
    assert not isinstance(principal, BaseException) and principal.name == "bob"
    assert accounts.counts["password_hashing_slow"] == 6
    with pytest.raises(Forbidden):
        await accounts.authenticate_basic("ann", "right", "6.6.6.6")
    assert (await accounts.authenticate_basic("ann", "right", "1.1.1.1")).name == "ann"


async def test_one_wrong_password_of_many_connections_counts_for_each(accounts: Accounts) -> None:
    found = await asyncio.gather(
        *(accounts.authenticate_basic("ann", "wrong", "1.1.1.1") for _ in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in found] == [Unauthorized] * 5
    assert accounts.counts["password_hashing_slow"] == 1
    with pytest.raises(Forbidden):
        await accounts.authenticate_basic("ann", "right", "1.1.1.1")


@pytest.mark.parametrize("mode", ["off", "warn"])
async def test_guesses_are_bounded_without_a_lockout_too(
    accounts: Accounts, config: Config, mode: str
) -> None:
    config.set("chttpd_auth_lockout", "mode", mode)
    guesses = [accounts.authenticate_basic("ann", f"guess {number}", "6.6.6.6") for number in range(100)]
    found = await asyncio.gather(*guesses, return_exceptions=True)
    assert all(isinstance(outcome, CouchliteError) for outcome in found)
    assert accounts.counts["password_hashing_slow"] <= WAITING_OF_ONE_MAX + 5
    assert (await accounts.authenticate_basic("ann", "right", "6.6.6.6")).name == "ann"
