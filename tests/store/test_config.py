"""The configuration's layers, its readers, CouchDB's rules for ini files, and sharing between two readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from couchlite.catalog import Catalog
from couchlite.config import Config, read_ini
from couchlite.errors import BadRequest, DataDirectoryError


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def config(catalog: Catalog) -> Config:
    return Config(catalog.settings)


@pytest.mark.parametrize(
    ("section", "key", "in_force", "listed"),
    [
        pytest.param("chttpd", "port", "5984", "5984", id="a reported default is in force and listed"),
        pytest.param(
            "couchdb", "max_document_size", "8000000", None, id="a built-in default is in force, not listed"
        ),
        pytest.param("nope", "x", None, None, id="an unknown key has no value"),
    ],
)
def test_default(config: Config, section: str, key: str, in_force: str | None, listed: str | None) -> None:
    assert config.get(section, key) == in_force
    assert config.reported(section, key) == listed


def test_later_layers_win(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "local.ini"
    file.write_text("[chttpd]\nport = 2\nbind_address = ::1\n[a]\nb = file\n")
    config = Config(catalog.settings, started_with={"chttpd": {"port": "1"}, "a": {"b": "run"}}, file=file)
    assert config.section("chttpd") == {"bind_address": "::1", "port": "2"}
    config.set("a", "b", "live")
    assert config.get("a", "b") == "live"
    config.delete("a", "b")
    assert config.get("a", "b") == "file"


def test_a_deleted_default_comes_back(config: Config) -> None:
    config.delete("chttpd", "port")
    assert config.get("chttpd", "port") == "5984"


def test_an_empty_value_is_a_value(config: Config) -> None:
    config.set("couchdb", "max_document_size", "")
    assert config.reported("couchdb", "max_document_size") == ""
    assert config.integer("couchdb", "max_document_size") == 8_000_000


@pytest.mark.parametrize(
    ("value", "number"),
    [("5000", 5000), ("-1", -1), ("+7", 7), ("5k", 8_000_000), ("٣", 8_000_000), ("infinity", 8_000_000)],
)
def test_integer(config: Config, value: str, number: int) -> None:
    """A text that is no integer counts as not set."""
    config.set("couchdb", "max_document_size", value)
    assert config.integer("couchdb", "max_document_size") == number


def test_keys_count_where_they_stood_before_couchdb_3(config: Config) -> None:
    config.set("httpd", "enable_cors", "true")
    config.set("httpd", "WWW-Authenticate", "Basic")
    config.set("couch_httpd_auth", "timeout", "60")
    assert config.boolean("chttpd", "enable_cors") is True
    assert config.get("chttpd", "WWW-Authenticate") == "Basic"
    assert config.integer("chttpd_auth", "timeout") == 60
    config.set("chttpd_auth", "timeout", "70")
    assert config.integer("chttpd_auth", "timeout") == 70
    assert config.reported("chttpd", "enable_cors") is None


def test_some_keys_count_only_where_they_stand_now(config: Config) -> None:
    config.set("httpd", "require_valid_user", "true")
    assert config.boolean("chttpd", "require_valid_user") is False
    assert config.integer("chttpd", "port") == 5984


def test_integer_without_a_default_is_a_mistake_of_the_caller(config: Config) -> None:
    with pytest.raises(KeyError):
        config.integer("couchdb", "nope")


def test_limit(config: Config) -> None:
    assert config.limit("couchdb", "max_document_id_length") is None
    config.set("couchdb", "max_document_id_length", "100")
    assert config.limit("couchdb", "max_document_id_length") == 100


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("false", False), ("TRUE", True), ("", True)])
def test_boolean(config: Config, value: str, flag: bool) -> None:
    """Only true and false count; with anything else the default, which is true here, stays in force."""
    config.set("chttpd", "admin_only_all_dbs", value)
    assert config.boolean("chttpd", "admin_only_all_dbs") is flag


def test_words(config: Config) -> None:
    config.set("cors", "origins", " http://a ,http://b,, ")
    assert config.words("cors", "origins") == ["http://a", "http://b"]
    assert config.words("cors", "headers") == []


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("se[ction", "key", "value", "Invalid configuration section"),
        ("section\n", "key", "value", "Invalid configuration section"),
        ("section", "key]", "value", "Invalid configuration key"),
        ("section", "key\0", "value", "Invalid configuration key"),
        ("section", "k" * 201, "value", "Invalid configuration key"),
        ("section", "key", "two\nlines", "Invalid configuration value"),
    ],
)
def test_set_refuses(config: Config, section: str, key: str, value: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        config.set(section, key, value)
    assert config.section(section) == {}


def test_set_takes_brackets_and_tabs_in_a_value(config: Config) -> None:
    config.set("chttpd", "socket_options", "[{nodelay,\ttrue}]")
    assert config.get("chttpd", "socket_options") == "[{nodelay,\ttrue}]"


def test_volatile_values_go_when_the_server_starts(config: Config) -> None:
    config.set("log", "level", "warning")
    config.set("log", "level", "debug", persist=False)
    assert config.get("log", "level") == "debug"
    config.forget_volatile()
    assert config.get("log", "level") == "warning"


def test_a_volatile_delete_leaves_the_persistent_value(config: Config) -> None:
    config.set("log", "level", "warning")
    config.delete("log", "level", persist=False)
    assert config.get("log", "level") == "warning"


def test_nothing_is_merged_again_until_something_changes(config: Config) -> None:
    before = config.as_dict()
    assert config.as_dict() is before
    config.set("a", "b", "c")
    assert config.as_dict() is not before


def test_a_change_is_seen_by_another_reader_and_after_reopening(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    first, second = Config(catalog.settings), Config(catalog.settings)
    assert second.get("a", "b") is None
    first.set("a", "b", "ü")
    assert second.get("a", "b") == "ü"
    catalog.close()
    catalog = Catalog(tmp_path)
    assert Config(catalog.settings).get("a", "b") == "ü"
    catalog.close()


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        pytest.param("k = v", {}, id="a key before any section is skipped"),
        pytest.param("[s]\nk = v", {"s": {"k": "v"}}, id="a section with a key"),
        pytest.param("[s]\r\nk=v\r\n", {"s": {"k": "v"}}, id="line ends of Windows, no blanks"),
        pytest.param("[s]\na=b = c", {"s": {"a=b": "c"}}, id="a key with an equals sign"),
        pytest.param("[s]\nk = v ; why", {"s": {"k": "v"}}, id="a comment after a blank"),
        pytest.param("[s]\nk = v;w", {"s": {"k": "v;w"}}, id="a semicolon inside a value"),
        pytest.param(";[s]\nk = v", {}, id="a section in a comment"),
        pytest.param("[s\nk = v", {}, id="a section that isn't closed"),
        pytest.param("[s]\nk =\n= v\nw", {}, id="keys without a value and values without a key"),
        pytest.param("[s]\nk = #v", {"s": {"k": "#v"}}, id="a hash is no comment"),
        pytest.param("[s]\nk = %(x)s", {"s": {"k": "%(x)s"}}, id="nothing is substituted"),
        pytest.param(
            "[s]\nk = 1\n[t]\nk = 2\n[s]\nk = 3", {"s": {"k": "3"}, "t": {"k": "2"}}, id="the last wins"
        ),
    ],
)
def test_read_ini(tmp_path: Path, text: str, sections: dict[str, dict[str, str]]) -> None:
    file = tmp_path / "x.ini"
    file.write_bytes(text.encode())
    assert read_ini(file) == sections


def test_a_missing_file_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match=r"missing\.ini can't be read: No such file"):
        Config(catalog.settings, file=tmp_path / "missing.ini")


def test_reload_reads_the_file_again(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "local.ini"
    file.write_text("[a]\nb = 1\n")
    config = Config(catalog.settings, file=file)
    file.write_text("[a]\nb = 2\n")
    assert config.get("a", "b") == "1"
    other_process = Config(catalog.settings, file=file)
    file.write_text("[a]\nb = 3\n")
    config.reload()
    assert config.get("a", "b") == other_process.get("a", "b") == "3"


def test_reload_keeps_what_it_has_when_the_file_is_gone(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "local.ini"
    file.write_text("[a]\nb = 1\n")
    config = Config(catalog.settings, file=file)
    file.unlink()
    with pytest.raises(DataDirectoryError):
        config.reload()
    config.set("c", "d", "e")
    assert config.get("a", "b") == "1"
