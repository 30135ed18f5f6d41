"""The configuration as the admin listener shows it."""

import json
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path

import pytest

from sidecar.config import masked
from sidecar.config.loader import load_config
from sidecar.config.masked import MASK, mask, masked_config
from sidecar.config.settings import Config
from sidecar.routing.routes import Route
from sidecar.secret import Secret

FULL = Path(__file__).parents[3] / "config/full.yaml"
SECRET = Secret("current", b"nobody may see this")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(str(FULL), {}, resolve_secrets=False)


@dataclass(frozen=True, slots=True)
class Settings:
    endpoint: str
    token: Secret | None


def test_a_secret_is_masked_wherever_it_is() -> None:
    value = {"a": ("x", SECRET), "b": Settings("http://a", SECRET), "c": Settings("http://b", None)}
    assert mask(value) == {
        "a": ["x", MASK],
        "b": {"endpoint": "http://a", "token": MASK},
        "c": {"endpoint": "http://b", "token": None},
    }


def test_a_new_setting_appears_and_a_new_secret_is_masked(config: Config) -> None:
    grown = make_dataclass(
        "Grown", [("new_key", int), ("new_secret", Secret)], bases=(Config,), kw_only=True, frozen=True
    )
    values = {each.name: getattr(config, each.name) for each in fields(config)}
    shown = masked_config(grown(**values, new_key=7, new_secret=SECRET))
    assert (shown["new_key"], shown["new_secret"]) == (7, MASK)
    assert {**shown, "new_key": None, "new_secret": None} == {
        **masked_config(config),
        "new_key": None,
        "new_secret": None,
    }


def test_a_kind_of_value_without_a_masked_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="bytes has no masked form"):
        mask(b"raw")


def test_no_list_of_fields_names_one_that_is_gone() -> None:
    assert {each.name for each in fields(Config)} >= masked._FILE_REST
    assert {each.name for each in fields(Route)} >= masked._ROUTE_REST


def test_the_view_is_json_of_a_fixed_shape(config: Config) -> None:
    shown = json.loads(json.dumps(masked_config(replace(config, admin_token=SECRET))))
    assert "nobody may see this" not in json.dumps(shown)
    assert shown["admin_token"] == MASK
    assert sorted(shown) == [
        "admin", "admin_hosts", "admin_token", "authorize", "client_ip_header", "delivery_test", "drain", "file", "ip_ranges",
        "keys", "limits", "listen", "log", "proxy_protocol", "replay_store", "routes", "timeouts", "tracing", "trusted_proxies",
        "warnings", "workers",
    ]  # fmt: skip
    assert sorted(shown["routes"][0]) == [
        "allow", "body", "capture", "client_certificate", "headers", "hosts", "methods", "mode", "name", "path", "reject",
        "replay", "secrets", "sign", "timeouts", "upstream", "verify",
    ]  # fmt: skip
    assert shown["limits"]["refusals"] == "60/m"
    assert shown["routes"][0]["secrets"] == [{"id": "current", "value": MASK}, {"id": "previous", "value": MASK}]
    assert shown["delivery_test"]["accounts"][0]["api_key"] == MASK
