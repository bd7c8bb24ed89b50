"""Who somebody is: server administrators (section [admins]) and users (documents of `_users`), and their
credentials.

What must stay true here:
- A slow hash is never computed on the event loop, nor twice at once for the same credentials: fifty
  connections that arrive together with one password cost one hash. Whose turn it is says hashing.py.
- A password that was verified is remembered by a keyed hash together with the stored hash it matched.
  Whatever changes the stored hash (a new password, another administrator line) thereby ends the memory;
  nothing needs telling. What `recall` gives without that look holds until the beacon changes.
- The clear password is neither kept nor logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import cookies, passwords, totp
from .beacon import Beacon
from .config import Config
from .errors import Forbidden, Unauthorized
from .hashing import Hashing, Who
from .lockout import Failures
from .passwords import PasswordHash
from .security import Principal

WRONG = "Name or password is incorrect."
LOCKED = "Account is temporarily locked due to multiple authentication failures"
COUNTS = ("auth_cache_hits", "auth_cache_misses", "password_hashing_fast", "password_hashing_slow")
"""What `Accounts.counts` counts, under CouchDB's names."""
CONFLICTED = (
    "User document conflicts must be resolved before the document is used for authentication purposes."
)

RECENT_S = 60.0
"""How long a verified header is recalled without a look at the account."""
RECENT_MAX = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UserDocument:
    """The winning revision of a document of `_users`."""

    fields: Mapping[str, Any]
    conflicted: bool


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a name: its roles and how its password is stored."""

    name: str
    roles: tuple[str, ...]
    password: PasswordHash | None
    second_factor: Mapping[str, Any] | None = None
    in_document: bool = False

    @property
    def principal(self) -> Principal:
        return Principal(self.name, self.roles)

    @property
    def salt(self) -> str:
        return self.password.salt if self.password else ""


@dataclass(slots=True)
class _Verified:
    password: PasswordHash
    digest: bytes
    used_s: float


class Accounts:
    """All accounts of a server, as one of its processes sees them.

    :param find_user: reads a user's document by name; called on every authentication, so it must be quick.
    :param failures: shared by the processes of the server.
    :param outdated: called (in any thread) with the name and password of a user whose stored hash is of an
        older kind than the configuration asks for, after they were verified.
    :param beacon: changes with the configuration and the users; without it nothing is recalled.
    """

    def __init__(
        self,
        config: Config,
        find_user: Callable[[str], UserDocument | None],
        *,
        failures: Failures | None = None,
        outdated: Callable[[str, str], None] | None = None,
        beacon: Beacon | None = None,
    ) -> None:
        self._config = config
        self._find_user = find_user
        self._failures = failures or Failures()
        self._outdated = outdated
        self._beacon = beacon
        self._recent: tuple[int, dict[bytes, tuple[Principal, float]]] = (-1, {})
        self._verified: OrderedDict[str, _Verified] = OrderedDict()
        self._verifying: dict[tuple[Who, PasswordHash, bytes], asyncio.Future[bool]] = {}
        self._secret = secrets.token_bytes(32)
        self.counts = dict.fromkeys(COUNTS, 0)
        # One core stays free: hashing must not starve the requests of those who are already known.
        self.hashing = Hashing(max(1, (os.cpu_count() or 2) - 1))

    def close(self) -> None:
        self.hashing.close()

    def find(self, name: str) -> Account | None:
        """The account of that name; an administrator has the roles of the user document of the same name,
        too.

        :raises Unauthorized: its document has conflicts (and allow_conflicted_user_docs is off).
        """
        user = self._find_user(name)
        if user and user.conflicted and not self._config.boolean("chttpd_auth", "allow_conflicted_user_docs"):
            raise Unauthorized(CONFLICTED)
        fields = user.fields if user else {}
        admin_value = self._config.reported("admins", name)
        admin_password = passwords.from_admin_value(admin_value) if admin_value else None
        if admin_password:
            return Account(name, ("_admin", *_roles(fields)), admin_password)
        if user is None:
            return None
        second_factor = fields.get("totp")
        return Account(
            name,
            _roles(fields),
            passwords.from_fields(fields),
            second_factor if isinstance(second_factor, dict) else None,
            in_document=True,
        )

    async def authenticate_basic(self, name: str, password: str, address: str = "") -> Principal:
        """The principal of a name and a password that came with a request from `address`.

        :raises Unauthorized: no such account, or another password, or one that needs a second factor.
        :raises Forbidden: too many failures from that address.
        :raises TooManyRequests: too many others wait for their passwords to be checked.
        """
        account = self.find(name)
        if account is None or account.second_factor is not None:
            raise Unauthorized(WRONG)
        await self._verify(account, password, address)
        return account.principal

    async def log_in(self, name: str, password: str, address: str = "", token: str = "") -> Account:
        """As `authenticate_basic`, for a login form: with a second factor where the account has one."""
        account = self.find(name) or Account(name, (), None)
        await self._verify(account, password, address)
        if account.second_factor is not None and not totp.matches(token, account.second_factor, time.time()):
            raise Unauthorized(WRONG)
        return account

    # Session cookies

    def make_cookie(self, account: Account) -> str:
        """The value of a new AuthSession cookie."""
        algorithm = cookies.algorithms(self._config)[0]
        return cookies.seal(account.name, self._cookie_key(account), algorithm, int(time.time()))

    def authenticate_cookie(self, value: str) -> tuple[Account, bool] | None:
        """Whose AuthSession cookie this is, and whether it is due for renewal; None when it is not (or no
        longer) good.

        :raises BadRequest: it is none of ours at all.
        """
        cookie = cookies.unseal(value)
        account = self.find(cookie.name)
        if account is None or cookie.issued_s is None:
            return None
        lifetime_s = self._config.integer("chttpd_auth", "timeout")
        left_s = cookie.issued_s + lifetime_s - int(time.time())
        if left_s <= 0 or not cookie.is_signed(self._cookie_key(account), cookies.algorithms(self._config)):
            return None
        return account, left_s < lifetime_s * 0.9

    def _cookie_key(self, account: Account) -> bytes:
        # The salt is new with every password, which ends the sessions begun with the old one.
        return (self._config.text("chttpd_auth", "secret") + account.salt).encode()

    # Recall: most requests come with the same few headers, and only a change makes another look necessary

    def recall(self, credentials: str, address: str) -> Principal | None:
        """Whose `credentials` (an Authorization header from `address`) are, if they were verified a moment
        ago and neither the configuration nor any user nor a count of failures has changed since."""
        number, recent = self._recent
        if self._beacon is None or number != self._beacon.number():
            return None
        found = recent.get(self._digest(credentials, address))
        return found[0] if found is not None and time.monotonic() < found[1] else None

    def moment(self) -> int:
        """To be taken before credentials are verified that are noted afterwards."""
        return -1 if self._beacon is None else self._beacon.number()

    def note(
        self,
        credentials: str,
        address: str,
        principal: Principal,
        moment: int,
        *,
        lifetime_s: float = RECENT_S,
    ) -> None:
        """Keep for `recall` that `credentials` were found to be those of `principal`, for `lifetime_s` at
        most."""
        if self._beacon is None or not self._config.boolean("couch_passwords_cache", "enable"):
            return
        number, recent = self._recent
        if number != moment or len(recent) >= RECENT_MAX:
            recent = {}
            self._recent = moment, recent
        recent[self._digest(credentials, address)] = principal, time.monotonic() + min(lifetime_s, RECENT_S)

    def _digest(self, credentials: str, address: str) -> bytes:
        text = f"{address} {credentials}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()

    # Verification

    async def _verify(self, account: Account, password: str, address: str) -> None:
        who = Who(address, account.name)
        self._check_lock(account, who)
        if not await self._matches(account, password, who):
            logger.warning("user %r from %s: authentication failed", account.name, address or "?")
            raise Unauthorized(WRONG)

    def _check_lock(self, account: Account, who: Who) -> None:
        """:raises Forbidden: too many failures."""
        mode = self._lockout_mode()
        if mode is None:
            return
        self._failures.lifetime_s = self._config.integer("chttpd_auth_lockout", "max_lifetime") / 1000
        failures = self._count_failures(account, who)
        if failures >= self._config.integer("chttpd_auth_lockout", "threshold"):
            logger.warning("user %r from %s: %d failed logins", who.name, who.address or "?", failures)
            if mode == "enforce":
                raise Forbidden(LOCKED)

    def _lockout_mode(self) -> str | None:
        mode = self._config.text("chttpd_auth_lockout", "mode")
        return mode if mode in ("warn", "enforce") else None

    def _count_failures(self, account: Account, who: Who) -> int:
        return self._failures.count(who.address, who.name, account.salt)

    def _fail(self, account: Account, who: Who) -> None:
        if self._lockout_mode() is None:
            return
        self._failures.add(who.address, who.name, account.salt)
        threshold = self._config.integer("chttpd_auth_lockout", "threshold")
        if self._beacon is not None and self._count_failures(account, who) >= threshold:
            self._beacon.change()  # the right password is refused now as well

    async def _matches(self, account: Account, password: str, who: Who) -> bool:
        """Whether it is the account's password; if not, that is counted."""
        stored = account.password
        if stored is None:
            self._fail(account, who)
            return False
        digest = hashlib.blake2b(password.encode("utf-8", "surrogatepass"), key=self._secret).digest()
        remembered = self._remembered(account.name, stored)
        self.counts["password_hashing_fast"] += 1
        if remembered is not None:
            self.counts["auth_cache_hits"] += 1
            matches = hmac.compare_digest(remembered, digest)
            if not matches:
                self._fail(account, who)
            return matches
        self.counts["auth_cache_misses"] += 1
        key = (who, stored, digest)
        running = self._verifying.get(key)
        is_first = running is None
        if running is None:
            running = self._hash(account, stored, password, digest, who)
            self._verifying[key] = running
            running.add_done_callback(lambda _: self._verifying.pop(key, None))
        matches = await asyncio.shield(running)
        if not matches and not is_first:
            self._fail(account, who)
        return matches

    def _hash(
        self, account: Account, stored: PasswordHash, password: str, digest: bytes, who: Who
    ) -> asyncio.Future[bool]:
        """Whether the password matches, once its turn has come; what follows from it is done then, too."""

        def begins() -> None:
            self._check_lock(account, who)  # others were wrong meanwhile
            self.counts["password_hashing_slow"] += 1

        def ends(matches: bool) -> None:
            if matches:
                self._remember(account.name, stored, digest)
                self._upgrade(account, stored, password)
            else:
                self._fail(account, who)

        compute = partial(passwords.matches, password, stored, self._config)
        failures = self._count_failures(account, who)
        return self.hashing.check(who, failures, compute, begins=begins, ends=ends)

    def _remembered(self, name: str, stored: PasswordHash) -> bytes | None:
        verified = self._verified.get(name)
        if verified is None:
            return None
        now = time.monotonic()
        idle_s = self._config.integer("couch_passwords_cache", "max_idle") / 1000
        if verified.password != stored or now - verified.used_s > idle_s:
            del self._verified[name]
            return None
        verified.used_s = now
        self._verified.move_to_end(name)
        return verified.digest

    def _remember(self, name: str, stored: PasswordHash, digest: bytes) -> None:
        if not self._config.boolean("couch_passwords_cache", "enable"):
            return
        self._verified[name] = _Verified(stored, digest, time.monotonic())
        self._verified.move_to_end(name)
        while len(self._verified) > self._config.integer("couch_passwords_cache", "max_objects"):
            self._verified.popitem(last=False)

    def _upgrade(self, account: Account, stored: PasswordHash, password: str) -> None:
        if self._outdated is None or not account.in_document or passwords.is_current(stored, self._config):
            return
        if self._config.boolean("chttpd_auth", "upgrade_hash_on_auth"):
            self.hashing.submit(self._outdated, account.name, password)


def _roles(fields: Mapping[str, Any]) -> tuple[str, ...]:
    roles = fields.get("roles")
    return tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
