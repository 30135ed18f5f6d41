"""Configurations, good and bad.

`invalid/` holds one file per mistake. Its first lines are the expected messages, one on each line and in their order, with
`{file}` for the file's path. The files in `valid/` must load. The paths in them are relative to this directory; the
environment is `ENV`.
"""

import os
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from published_store import brings_certificates, route_of, store_for

from sidecar.config.keys import json_schema
from sidecar.config.loader import load_config
from sidecar.config.machine import Machine
from sidecar.config.presets import load_preset, preset_aliases, preset_names
from sidecar.config.problems import ConfigError
from sidecar.config.secrets import MAX_SECRET_BYTES
from sidecar.config.settings import Account, Config, Limits
from sidecar.config.yaml_source import MAX_YAML_BYTES, read_yaml
from sidecar.http1.head import make_head
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import Timeouts, UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, RejectionResponse
from sidecar.routing.networks import Networks
from sidecar.routing.refusal_limit import Rate
from sidecar.routing.routes import Route
from sidecar.secret import Secret
from sidecar.telemetry.log import Level, LogFormat, LogSettings
from sidecar.telemetry.trace_context import TracingSettings
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.scheme import DeliveryFacts, Evidence, Scheme, Unit
from sidecar.verify.sign import SigningError, sign_delivery
from sidecar.verify.template import HeaderValue

HERE = Path(__file__).parent
INVALID = sorted(path.name for path in HERE.glob("invalid/*.yaml"))
VALID = sorted(path.name for path in HERE.glob("valid/*.yaml"))
SHIPPED = sorted((HERE.parents[1] / "config").glob("*.yaml"))

ENV = {
    "GOOD": "a secret of some thirty-two bytes",
    "OTHER": "another one of about thirty bytes",
    "WHSEC": "whsec_" + "c2VjcmV0" * 5,
    "NOT_BASE64": "whsec_this is no base64 at all, is it",
    "EMPTY": "",
    "BLANK": " \t\n",
}
#: A secret or password that was written into the files by mistake.
INLINE = "hunter2"

Load = Callable[..., Config]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this directory, with an environment that knows none of the secrets."""
    monkeypatch.chdir(HERE)
    for name in list(os.environ):
        if name in ENV or name == "NOBODY_SET_THIS":
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, env)`: the configuration that a file with this text makes."""

    def load(text: str | bytes, env: dict[str, str] = ENV, **options: Any) -> Config:
        file = tmp_path / "a.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(str(file), env, **options)

    return load


def with_secret(reference: str) -> str:
    return (
        "upstream: http://127.0.0.1:3000\n"
        f"routes:\n  - path: /hooks\n    verify: github\n    secrets:\n      - {reference}\n"
    )


def messages(error: ConfigError) -> list[str]:
    """Without the temporary file's name."""
    return [re.sub(r"^.*?/a\.yaml:", "", str(problem)) for problem in error.problems]


# -- one file per mistake --


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_file_is_reported_with_exactly_these_messages(name: str) -> None:
    file = f"invalid/{name}"
    expected = []
    for line in Path(file).read_text().splitlines():
        if not line.startswith("# "):
            break
        expected.append(line.removeprefix("# ").replace("{file}", file))
    assert expected
    with pytest.raises(ConfigError) as error:
        load_config(file, ENV)
    assert str(error.value).splitlines() == expected
    # A secret that was written into the file by mistake is not repeated.
    assert INLINE not in str(error.value)
    assert not [value for value in ENV.values() if value.strip() and value in str(error.value)]


# -- mistakes that no file can show --


def test_a_file_that_can_not_be_read_is_an_error_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^nowhere\.yaml:1: can't be read: No such file or directory; check its path and permissions$",
    ):
        load_config("nowhere.yaml", ENV)
    with pytest.raises(ConfigError, match=r"^/dev/zero:1: the file is larger than"):
        load_config("/dev/zero", {})  # read to its limit, not to its end
    with pytest.raises(ConfigError, match=r":1: can't be read: Is a directory; check its path and permissions$"):
        load_config(str(tmp_path), ENV)


def test_a_file_beyond_the_size_cap_is_not_parsed(load: Load) -> None:
    good = (HERE / "valid/minimal.yaml").read_bytes()
    assert load(good + b"#".ljust(MAX_YAML_BYTES - len(good), b"x"))
    with pytest.raises(ConfigError) as error:
        load(good + b"#".ljust(MAX_YAML_BYTES - len(good) + 1, b"x"))
    assert messages(error.value) == [
        f"1: the file is larger than {MAX_YAML_BYTES} bytes; check that it is the right file"
    ]


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\xfa", b"upstream: \xff\n", b"\x89PNG\r\n\x1a\n", b"\x7fELF\x02\x01\x01\x00"]
)
def test_a_file_that_is_not_text_is_an_error_like_any_other(load: Load, text: bytes) -> None:
    with pytest.raises(ConfigError) as error:
        load(text)
    assert messages(error.value)[0].startswith("1: is not valid YAML (")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(with_secret('{file: "secrets/a\\0b"}'), id="NUL in a file's name"),
        pytest.param(with_secret(f"{{file: /{'x' * 5000}}}"), id="a very long file's name"),
        pytest.param(with_secret("{env: GOOD}") + "    allow: ['host bits']\n", id="the parser's own words"),
        pytest.param(f"limits: {{body: {'9' * 400}}}\n" + with_secret("{env: GOOD}"), id="a size of 400 digits"),
        pytest.param(f"limits: {{body: {'9' * 5000}}}\n" + with_secret("{env: GOOD}"), id="a size of 5000 digits"),
        pytest.param(
            f"limits: {{body: '{'9' * 5000}'}}\n" + with_secret("{env: GOOD}"), id="a quoted size of 5000 digits"
        ),
        pytest.param(f"drain: {'9' * 400}\n" + with_secret("{env: GOOD}"), id="a duration of 400 digits"),
        pytest.param(f"listen: '0.0.0.0:{'9' * 5000}'\n" + with_secret("{env: GOOD}"), id="a port of 5000 digits"),
    ],
)
def test_a_hostile_value_is_an_error_and_never_a_crash(load: Load, text: str) -> None:
    with pytest.raises(ConfigError):
        load(text)


def test_an_ipv4_mapped_network_is_rejected_or_means_the_ipv4_network(load: Load) -> None:
    """Addresses are unmapped when they are read; a mapped network that stays mapped would match nobody."""
    text = with_secret("{env: GOOD}") + "    allow: ['::ffff:192.0.2.0/120']\n"
    try:
        (route,) = load(text).routes.routes
    except ConfigError:
        return
    assert route.allow is not None
    assert ip_address("192.0.2.1") in route.allow


# -- what a valid file becomes --


@pytest.mark.parametrize("name", VALID)
def test_a_valid_file_loads(name: str) -> None:
    config = load_config(f"valid/{name}", ENV)
    assert config.file == f"valid/{name}"
    assert config.routes.routes


def test_a_minimal_file_has_the_published_defaults() -> None:
    config = load_config("valid/minimal.yaml", ENV)
    assert (str(config.listen), str(config.admin)) == ("[::]:8080", "[::]:9090")
    assert config.limits == Limits(5 * 1024**2, 64 * 1024**2, 1000, 10.0, 30.0)
    assert config.timeouts == Timeouts(5.0, 30.0, 60.0, 1.0, 620.0)
    assert config.drain == 20.0
    assert config.log == LogSettings(Level.INFO, True, LogFormat.JSON)
    assert (config.trusted_proxies.cidrs, config.trust_unix) == ((), False)
    assert (config.accounts, config.admin_token, config.warnings) == ((), None, ())
    (route,) = config.routes.routes
    assert (route.name, route.pattern, route.prefix) == ("hooks-github", "/hooks/github", False)
    assert route.methods == {"POST"}
    assert route.upstream == UpstreamAddress("http", "127.0.0.1", 3000, "")
    assert route.body_limit == config.limits.body
    assert route.rejection == DEFAULT_REJECTION == RejectionResponse(403, b'{"detail":"Validation Failure"}')
    assert (route.preset, route.secret_ids) == ("github", ["GOOD"])
    assert (route.open, route.shadow, route.allow) == (False, False, None)


def test_empty_sections_are_the_defaults_too() -> None:
    minimal, empty = (load_config(f"valid/{name}.yaml", ENV) for name in ("minimal", "defaults_in_every_section"))
    assert (empty.limits, empty.timeouts, empty.log) == (minimal.limits, minimal.timeouts, minimal.log)
    (route,) = empty.routes.routes
    assert route.verifier is not None
    assert route.preset == ""
    assert route.verifier.scheme.signature.algorithm is Algorithm.SHA256
    assert route.verifier.scheme.signature.encoding is Encoding.HEX
    assert route.verifier.scheme.timestamp is None


def test_every_key_reaches_its_place() -> None:
    config = load_config("valid/every_key.yaml", ENV)
    assert config.listen == ListenAddress("127.0.0.1", 8080)
    assert config.admin == ListenAddress("::1", 9090)
    assert (str(config.listen), str(config.admin)) == ("127.0.0.1:8080", "[::1]:9090")
    assert config.admin_token is not None
    assert config.admin_token.id == "operator"
    assert config.trusted_proxies.cidrs == ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32")
    assert config.trust_unix
    assert config.limits == Limits(10**9, 2 * 1024**3, 7, 0.5, 1.5, Rate(500, 3600.0, "500/h"))
    assert config.timeouts == Timeouts(1.0, 120.0, 3600.0, 0.25, 90.0)
    assert config.drain == 5.0
    assert config.log == LogSettings(Level.WARNING, False, LogFormat.TEXT)
    assert config.tracing == TracingSettings("https://collector.example:4318/otlp", 0.25)
    assert config.tracing.traces_url == "https://collector.example:4318/otlp/v1/traces"
    begini, acme, by_address, healthz, internal = config.routes.routes
    assert begini.name == "begini"
    assert begini.secret_ids == ["current", "previous"]
    assert begini.allow is not None
    assert begini.allow.cidrs == ("203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32")
    assert begini.methods == {"POST", "PUT", "VERSION-CONTROL"}
    assert begini.shadow
    assert begini.upstream == UpstreamAddress("unix", "localhost", 0, "/run/app.sock")
    assert begini.body_limit == 64 * 1024
    assert begini.rejection == RejectionResponse(401, '{"détail":"no"}'.encode())
    assert acme.name == "webhooks-acme"
    assert acme.upstream == UpstreamAddress("https", "receiver.example", 8443, "")
    assert acme.verifier is not None
    scheme = acme.verifier.scheme
    assert (scheme.title, scheme.evidence, scheme.notes) == ("Acme", Evidence.DOCUMENTATION, "none")
    assert scheme.source == "read on a Tuesday"
    assert (scheme.signature.algorithm, scheme.signature.encoding) == (Algorithm.SHA512, Encoding.BASE64URL)
    assert (scheme.signature.header, scheme.signature.prefix) == ("X-Acme-Signature", "v1=")
    assert scheme.timestamp is not None
    assert (scheme.timestamp.header, scheme.timestamp.unit, scheme.timestamp.tolerance) == (
        "X-Acme-Timestamp",
        Unit.MILLISECONDS,
        60.0,
    )
    assert scheme.parts[0] == HeaderValue(b"x-acme-id")
    assert scheme.delivery_id == "X-Acme-Id"
    assert (by_address.verifier, by_address.open, by_address.pattern) == (None, False, "/by-address/*")
    assert by_address.rejection == RejectionResponse(404, DEFAULT_REJECTION.body)
    assert (healthz.verifier, healthz.open) == (None, True)
    assert healthz.methods == {"GET", "HEAD", "POST"}
    assert (internal.open, internal.rejection.status) == (True, 404)
    assert [(account.id, account.api_key.id, account.webhook_url) for account in config.accounts] == [
        ("622056dce007dc805c741751", "GOOD", "http://127.0.0.1:8080/webhooks/begini"),
        ("without a URL", "key", ""),
    ]


def test_a_loaded_configuration_can_not_be_changed() -> None:
    config = load_config("valid/minimal.yaml", ENV)
    with pytest.raises(FrozenInstanceError):
        config.drain = 0.0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.routes.routes[0].open = True  # type: ignore[misc]


def test_a_unix_socket_has_no_port_to_collide() -> None:
    config = load_config("valid/upstream_of_each_route.yaml", ENV)
    assert [str(config.listen), str(config.admin)] == ["unix:/run/sidecar/data.sock", "unix:/run/sidecar/admin.sock"]
    assert [str(route.upstream) for route in config.routes.routes] == [
        "unix:/run/app.sock",
        "https://[2001:db8::1]:443",
        "http://receiver_1.local:3000",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "root"),
        ("/*", "root"),
        ("/webhooks/acme", "webhooks-acme"),
        ("/webhooks/acme/*", "webhooks-acme"),
        ("/a/b.c_d-e/", "a-b.c_d-e"),
        ("/caf%C3%A9", "caf-C3-A9"),
        ("/.well-known/x", "well-known-x"),
        ("/" + "x" * 100, "x" * 63),
    ],
)
def test_a_route_without_a_name_is_named_after_its_path(load: Load, path: str, name: str) -> None:
    config = load(f"upstream: http://127.0.0.1:3000\nroutes:\n  - {{path: '{path}', open: true}}\n")
    assert config.routes.routes[0].name == name


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("64KiB", 65536),
        ("1KB", 1000),
        ("1.5MiB", 1572864),
        ("1MB", 10**6),
        ("0.5GiB", 2**29),
        ("1GB", 10**9),
        ("7 B", 7),
    ],
)
def test_a_size_is_bytes_with_or_without_a_unit(load: Load, text: str, size: int) -> None:
    limits = f"limits: {{body: {text}, buffer: 1GiB}}\n"
    assert load(limits + with_secret("{env: GOOD}")).limits.body == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1.0), ("0.5", 0.5), ("500ms", 0.5), ("30s", 30.0), ("1.5m", 90.0), ("1h", 3600.0), ("2 s", 2.0)],
)
def test_a_duration_is_seconds_with_or_without_a_unit(load: Load, text: str, seconds: float) -> None:
    assert load(f"drain: {text}\n" + with_secret("{env: GOOD}")).drain == pytest.approx(seconds)


# -- secrets --


def secret_of(config: Config) -> bytes:
    route: Route = config.routes.routes[0]
    assert route.verifier is not None
    return route.verifier.secrets[0].reveal()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"secret ", b"secret "),
        (b"\nsecret", b"\nsecret"),
        (b"\xff\x00\xfe", b"\xff\x00\xfe"),
        (b"x" * MAX_SECRET_BYTES, b"x" * MAX_SECRET_BYTES),
    ],
)
def test_of_a_secret_file_exactly_one_final_newline_is_left_out(
    load: Load, tmp_path: Path, written: bytes, value: bytes
) -> None:
    (tmp_path / "secret").write_bytes(written)
    assert secret_of(load(with_secret(f"{{file: {tmp_path}/secret}}"))) == value


def test_a_secret_file_beyond_its_cap_is_the_wrong_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(ConfigError) as error:
        load(with_secret(f"{{file: {tmp_path}/secret}}"))
    assert messages(error.value) == [
        f"6: routes[0].secrets[0]: the secret file {tmp_path}/secret is larger than 65536 bytes; check that it is the right file"
    ]


def test_a_secret_of_the_environment_is_its_bytes(load: Load) -> None:
    assert secret_of(load(with_secret("{env: A}"), {"A": "caf\u00e9-with-sixteen\n"})) == "café-with-sixteen\n".encode()
    assert secret_of(load(with_secret("{env: A}"), {"A": "\udcff" * 16})) == b"\xff" * 16


@pytest.mark.parametrize(
    ("reference", "id"),
    [
        ("{env: GOOD}", "GOOD"),
        ("{id: current, env: GOOD}", "current"),
        ("{file: secrets/good}", "good"),
        ("{file: secrets/../secrets/good, id: a.b_c-d}", "a.b_c-d"),
        ("{env: 'WITH BLANK'}", "WITH_BLANK"),
    ],
)
def test_a_secret_without_an_id_is_named_after_its_place(load: Load, reference: str, id: str) -> None:
    config = load(with_secret(reference), ENV | {"WITH BLANK": "a secret of some thirty-two bytes"})
    assert config.routes.routes[0].secret_ids == [id]


@pytest.mark.parametrize("resolve_secrets", [True, False])
def test_a_day_to_retire_a_secret_by_ends_at_midnight_utc(load: Load, resolve_secrets: bool) -> None:
    text = with_secret("{env: GOOD}") + "      - {env: OTHER, retire_by: 2026-12-31}\n"
    route = load(text, resolve_secrets=resolve_secrets).routes.routes[0]
    assert route.verifier is not None
    assert [secret.retire_by for secret in route.verifier.secrets] == [None, 1798761600.0]


def test_an_optional_secret_that_is_absent_is_left_out(load: Load) -> None:
    text = (
        with_secret("{env: GOOD}")
        + "      - {env: NOBODY_SET_THIS, optional: true}\n      - {file: /nowhere, optional: true}\n"
    )
    config = load(text)
    assert config.routes.routes[0].secret_ids == ["GOOD"]
    assert config.warnings == ()


def warnings(config: Config) -> list[str]:
    return [re.sub(r"^.*?/a\.yaml:", "", str(warning)) for warning in config.warnings]


@pytest.mark.parametrize("value", [" {}", "{} ", "{}\n", "\t{}", "{}\r\n"])
def test_spaces_around_a_secret_are_kept_and_warned_about(load: Load, value: str) -> None:
    config = load(with_secret("{env: A}"), {"A": value.format(ENV["GOOD"])})
    problem = (
        "begins or ends with spaces or newlines, which are part of it; remove them if the provider's secret has none"
    )
    assert warnings(config) == [f"6: routes[0].secrets[0]: the secret in env:A {problem}"]
    assert secret_of(config) == value.format(ENV["GOOD"]).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'"%b"', "is in quotes, which are part of it; store it without them"),
        (b"'%b'\n", "is in quotes, which are part of it; store it without them"),
        (
            b"\xef\xbb\xbf%b",
            "begins with a byte order mark (EF BB BF), which is part of it; save it as UTF-8 without one",
        ),
        (b'%b"', None),
        (b"it's %b", None),
    ],
)
def test_what_an_editor_or_a_shell_put_around_a_secret_is_warned_about(
    load: Load, tmp_path: Path, value: bytes, said: str | None
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(value % ENV["GOOD"].encode())
    expected = [f"6: routes[0].secrets[0]: the secret in file:{file} {said}"] if said else []
    assert warnings(load(with_secret(f"{{file: {file}}}"))) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_secret_in_utf_16_is_warned_about(load: Load, tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(ENV["GOOD"].encode(encoding))
    (warning,) = warnings(load(with_secret(f"{{file: {file}}}")))
    assert "is UTF-16 text, as Windows writes it" in warning


@pytest.mark.parametrize(
    ("path", "segment"),
    [
        ("/hooks/:id", ":id"), ("/hooks/{id}/github", "{id}"), ("/hooks/<id>", "<id>"), ("/hooks/a:b", ""),
        ("/hooks/:8080", ""), ("/hooks/x{id}", ""), ("/hooks/*", ""),
    ],
)  # fmt: skip
def test_a_place_that_a_path_does_not_have_is_warned_about(load: Load, path: str, segment: str) -> None:
    text = f"upstream: http://127.0.0.1:3000\nroutes:\n  - {{path: '{path}', open: true}}\n"
    found = warnings(load(text))
    assert found == (
        [
            f"3: routes[0].path: has {segment}, which is taken literally and matches nothing else; a final /* matches everything "  # noqa: ISC004
            "below, and {tenant} one segment that names a tenant"
        ]
        if segment
        else []
    )


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(memory=0, files=0), []),
        (Machine(memory=200 * 1024**2, files=4096), []),
        (Machine(memory=100 * 1024**2, files=4096), ["1: limits.buffer: can't hold: with 64 MiB of bodies"]),
        (Machine(memory=0, files=1024), ["1: limits.connections: can't hold: 1000 deliveries at a time need 2064"]),
    ],
)
def test_limits_that_this_machine_can_not_hold_are_warned_about(
    load: Load, monkeypatch: pytest.MonkeyPatch, machine: Machine, said: list[str]
) -> None:
    monkeypatch.setattr("sidecar.config.loader.this_machine", lambda: machine)
    found = warnings(load("limits: {connections: 1000, buffer: 64MiB}\n" + with_secret("{env: GOOD}")))
    assert [warning[: len(start)] for warning, start in zip(found, said, strict=True)] == said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "one secret of a file\nanother secret of it",
            "has several lines, which are all part of it; store one secret alone, on one line",
        ),
        ("ACME_SECRET=the secret itself", "begins with a name and '=', which are part of it; store the value alone"),
        ("export ACME_SECRET=the secret", "begins with a name and '=', which are part of it; store the value alone"),
    ],
)
def test_a_file_that_holds_more_than_a_secret_is_warned_about(
    load: Load, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "secret").write_text(text + "\n")
    config = load(with_secret(f"{{file: {tmp_path}/secret}}"))
    assert warnings(config) == [f"6: routes[0].secrets[0]: the secret in file:{tmp_path}/secret {problem}"]


@pytest.mark.parametrize("text", ["c2VjcmV0IG9mIGJhc2U2NA==", "SECRET_IN_UPPER_CASE=", "a=b in lower case letters"])
def test_a_secret_with_an_equals_sign_is_not_mistaken_for_a_line_with_a_name(load: Load, text: str) -> None:
    assert load(with_secret("{env: A}"), {"A": text}).warnings == ()


@pytest.mark.parametrize(("size", "warned"), [(1, True), (15, True), (16, False)])
def test_a_short_secret_is_warned_about(load: Load, size: int, warned: bool) -> None:
    config = load(with_secret("{env: A}"), {"A": "x" * size})
    expected = (
        f"6: routes[0].secrets[0]: the secret in env:A has only {size} bytes; use at least 16, which can't be guessed"
    )
    assert warnings(config) == ([expected] if warned else [])


def test_an_accounts_key_is_warned_about_too(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short \n")
    text = (
        with_secret("{env: GOOD}")
        + f"delivery_test:\n  accounts:\n    - {{id: a, api_key: {{file: {tmp_path}/key}}}}\n"
    )
    place = f"9: delivery_test.accounts[0].api_key: the secret in file:{tmp_path}/key"
    assert warnings(load(text)) == [
        f"{place} begins or ends with spaces or newlines, which are part of it; remove them if the provider's secret has none",
        f"{place} has only 6 bytes; use at least 16, which can't be guessed",
    ]


#: Some presets, and the parts of their messages that have no text between them.
ADJACENT = {
    "framer": "body and header framer-webhook-submission-id",
    "klaviyo": "body and header klaviyo-timestamp",
    "plivo-v2": "url_without_query and header x-plivo-signature-v2-nonce",
}


def test_presets_that_sign_a_header_next_to_something_else_are_warned_about(load: Load) -> None:
    for preset in preset_names():
        text = "upstream: http://127.0.0.1:1\npublic_url: https://a.test\nroutes:\n"
        text += route_of(preset, path="/a/*")
        found = [warning for warning in warnings(load(text, {}, resolve_secrets=False)) if "no text between" in warning]
        assert len(found) == (load_preset(preset).adjacent is not None), preset
        if preset in ADJACENT:
            assert f" with no text between {ADJACENT[preset]}, so a recording verifies " in found[0]


def test_what_gateways_can_not_pass_on_is_warned_about(load: Load) -> None:
    text = (
        "authorize: {listen: '[::]:8081'}\nroutes:\n"
        "  - {path: /zoom, verify: zoom, secrets: [{env: GOOD}]}\n"
        "  - {path: /passed, verify: zoom, secrets: [{env: GOOD}], handshake: pass}\n"
        "  - {path: /again, verify: github, secrets: [{env: GOOD}], reject: resend}\n"
        "  - {path: /plain, verify: stripe, secrets: [{env: GOOD}], reject: resend}\n"
        "  - {path: /published, verify: mailersend, secrets: [{env: GOOD}]}\n"
        "  - {path: /published/passed, verify: mailersend, secrets: [{env: GOOD}], handshake: pass}\n"
        "  - {path: /ping, verify: woocommerce, secrets: [{env: GOOD}], handshake: pass}\n"
        "  - {path: /here, verify: github, secrets: [{env: GOOD}], handshake: [websub]}\n"
        "  - {path: /left, verify: slack, secrets: [{env: GOOD}]}\n"
        "  - {path: /answered, verify: slack, secrets: [{env: GOOD}], handshake: answer}\n"
    )
    found = [each for each in warnings(load(text)) if "handshake through" in each or "failure_mode_allow" in each]
    assert [each.partition(":")[0] for each in found] == ["3", "5", "6", "7", "8", "9", "10", "12"]
    passes = [each for each in found if "handshake through" in each and "set `handshake: pass`" in each]
    assert [each.partition(":")[0] for each in passes] == ["3", "12"]
    without_effect = [each for each in found if "`handshake: pass` does not apply" in each]
    assert [each.partition(":")[0] for each in without_effect] == ["8", "9"]
    without = text.replace("authorize: {listen: '[::]:8081'}", "upstream: http://127.0.0.1:3000")
    assert [each for each in warnings(load(without)) if "through `authorize`" in each or "failure_mode" in each] == []


def test_an_open_route_on_another_host_of_the_same_receiver_is_warned_about(load: Load) -> None:
    """Senders choose the Host, so it must be the receiver that tells the hosts apart."""
    text = (
        "upstream: http://127.0.0.1:3000\nroutes:\n"
        "  - {name: a, path: /hooks/acme, hosts: [a.example], verify: github, secrets: [{env: GOOD}]}\n"
        "  - {name: b, path: /hooks/*, hosts: [b.example], open: true%s}\n"
    )
    expected = (
        "4: routes[1].open: forwards 'b.example/hooks/*' unverified to the receiver that gets 'a.example/hooks/acme' of "
        "routes[0] verified, and senders choose the host; have the receiver check the host, or use different paths"
    )
    assert warnings(load(text % "")) == [expected]
    elsewhere = warnings(load(text % ", upstream: 'http://127.0.0.1:3001'"))
    assert elsewhere == []


@pytest.mark.parametrize(
    ("preset", "mode", "warned"),
    [("asana", "pass", True), ("meta", "pass", True), ("slack", "pass", False), ("meta", "answer", False)],
)
def test_to_pass_unsigned_handshakes_on_is_warned_about(load: Load, preset: str, mode: str, warned: bool) -> None:
    text = "upstream: http://127.0.0.1:1\nroutes:\n  - path: /a\n    secrets: [{env: GOOD}]\n    verify_token: {env: GOOD}\n"
    text = text if preset == "meta" else text.replace("    verify_token: {env: GOOD}\n", "")
    found = warnings(load(text + f"    verify: {preset}\n    handshake: {mode}\n"))
    assert ["forwards the provider's handshake unverified" in warning for warning in found] == [True] * warned


@pytest.mark.parametrize("name", VALID)
def test_without_resolving_no_secret_is_read(name: str) -> None:
    config = load_config(f"valid/{name}", {}, resolve_secrets=False)
    keys = [secret for route in config.routes.routes if route.verifier for secret in route.verifier.secrets]
    keys += [account.api_key for account in config.accounts]
    assert {key.reveal() for key in keys} <= {b"not resolved"}
    assert config.warnings == ()


def test_without_resolving_everything_else_is_checked_all_the_same(load: Load) -> None:
    text = with_secret("{env: NOBODY_SET_THIS}") + "      - {id: NOBODY_SET_THIS, file: /nowhere}\n      - hunter2\n"
    with pytest.raises(ConfigError) as error:
        load(text, {}, resolve_secrets=False)
    assert [message.partition(": ")[0] for message in messages(error.value)] == ["8"]
    with pytest.raises(ConfigError) as error:
        load(text.replace("      - hunter2\n", ""), {}, resolve_secrets=False)
    assert messages(error.value) == [
        "5: routes[0].secrets: two secrets have the id 'NOBODY_SET_THIS'; set `id:` so that each is unique"
    ]


def test_the_environment_of_the_process_is_never_read(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOBODY_SET_THIS", ENV["GOOD"])
    with pytest.raises(ConfigError, match="NOBODY_SET_THIS is not set"):
        load(with_secret("{env: NOBODY_SET_THIS}"))


def test_no_dump_of_a_configuration_shows_a_secret() -> None:
    config = load_config("valid/every_key.yaml", ENV)
    shown = repr(config) + repr(config.accounts) + str([repr(route) for route in config.routes.routes])
    for route in config.routes.routes:
        if route.verifier is not None:
            shown += repr(route.verifier.secrets)
    assert "<secret>" in shown
    assert not [value for value in ENV.values() if value.strip() and value in shown]
    assert isinstance(config.accounts[0], Account)
    assert isinstance(config.trusted_proxies, Networks)


SIGNABLE = [name for name in preset_names() if not brings_certificates(load_preset(name))]


@pytest.mark.parametrize("name", sorted(set(preset_names()) - set(SIGNABLE)))
def test_a_delivery_that_comes_with_a_certificate_can_not_be_signed_here(name: str) -> None:
    with pytest.raises(SigningError, match="a certificate that only the sender has"):
        sign_delivery(load_preset(name), Secret("s", b"k"), body=b"{}", now=0, url="https://hooks.example.com/")


@pytest.mark.parametrize("preset", SIGNABLE)
def test_a_preset_verifies_with_the_configured_secret(
    load: Load, preset: str, key_pair: Callable[[Scheme], tuple[bytes, bytes]]
) -> None:
    private, public = key_pair(load_preset(preset))
    text = "upstream: http://127.0.0.1:1\npublic_url: https://hooks.example.com\nroutes:\n"
    scheme = load_preset(preset)
    store = store_for(scheme, private)
    config = load(text + route_of(preset, path="/hooks/*", secret="KEY"), {"KEY": public.decode()}, published=store)
    verifier = config.routes.routes[0].verifier
    assert verifier is not None
    assert bool(verifier.key_sources) == (config.key_sources != ())
    form = verifier.scheme.reads_form
    kind = ("Content-Type", "application/x-www-form-urlencoded" if form else "application/json")
    signed = sign_delivery(
        verifier.scheme,
        Secret("KEY", private),
        body=b"b=2&a=1" if form else b'{"channelId":"msteams"}',
        now=1_700_000_000,
        url="https://hooks.example.com/hooks",
        headers=[kind, ("Host", "hooks.example.com")],
    )
    headers = [(name.encode(), value.encode()) for name, value in [kind, *signed.headers]]
    target = signed.url.removeprefix("https://hooks.example.com").encode()
    head = make_head("POST", target, headers, None)
    claim = verifier.read_claim(head, 1_700_000_000)
    assert verifier.verify(claim, head, [signed.body]).secret_id == ("published" if scheme.published else "KEY")


@pytest.mark.parametrize("name", ["", "nobody", "GitHub", "../github", "github.yaml", "__init__"])
def test_an_unknown_preset_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        load_preset(name)


def test_aliases_lead_to_one_preset_each_and_are_no_presets() -> None:
    aliases = [alias for name in preset_names() for alias in load_preset(name).aliases]
    assert len(set(aliases)) == len(aliases) == len(preset_aliases())
    assert all(alias == alias.lower() for alias in aliases)
    assert not set(aliases) & set(preset_names())
    expected = {"facebook": "meta", "instagram": "meta", "messenger": "meta", "whatsapp": "meta", "forgejo": "gitea"}
    assert preset_aliases().items() >= expected.items()


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_is_and_where_that_is_written(name: str) -> None:
    scheme = load_preset(name)
    assert scheme.name == name
    assert scheme.title
    assert scheme.docs.startswith("https://")
    assert scheme.evidence in list(Evidence)
    assert scheme.source
    assert "\n" not in scheme.source
    assert scheme.notes


@pytest.mark.parametrize(
    ("verify", "same"),
    [
        ("moov", "{timestamp}|{header:X-Nonce}|{header:X-Webhook-ID}"),
        (
            "{signature: {header: X-S}, signed: '{header:X-N}|{id}', delivery_id: {header: X-Id}, binds_body: false}",
            "{id}",
        ),
        ("github", ""),
    ],
)
def test_replay_says_which_deliveries_are_copies_if_the_body_is_not_signed(load: Load, verify: str, same: str) -> None:
    text = "upstream: http://127.0.0.1:1\nroutes:\n  - path: /a\n    secrets: [{env: GOOD}]\n    replay: 1h\n"
    found = [warning for warning in warnings(load(text + f"    verify: {verify}\n")) if "as copies" in warning]
    assert found == [
        f"5: routes[0].replay: treats deliveries with the same {same} as copies, because the provider does not sign "  # noqa: ISC004
        "the body; remove it if they can be different events"
    ] * bool(same)


@pytest.mark.parametrize(
    ("verify", "mode", "warned"),
    [
        ("lob", "enforce", True),
        ("{preset: lob, signature: {encoding: base64}}", "enforce", True),
        ("lob", "shadow", False),
        ("github", "enforce", False),
        ("{evidence: second-hand, signature: {header: X-S}}", "enforce", False),
    ],
)
def test_a_second_hand_preset_is_warned_about_unless_it_only_watches(
    load: Load, verify: str, mode: str, warned: bool
) -> None:
    text = f"upstream: http://127.0.0.1:1\nroutes:\n  - path: /a\n    secrets: [{{env: GOOD}}]\n    verify: {verify}\n"
    found = [warning for warning in warnings(load(text + f"    mode: {mode}\n")) if "second-hand" in warning]
    expected = (
        "5: routes[0].verify: lob is second-hand: nobody has verified all of it against the provider's own documentation; "
        "use `mode: shadow` until real deliveries verify"
    )
    assert found == [expected] * warned


@pytest.mark.parametrize(
    ("verify", "file", "warned"),
    [
        ("ebay", "", True),
        ("{preset: ebay, client_id: acme, client_secret: {env: GOOD}}", "", False),
        ("ebay", "keys: {mirrors: {'https://api.ebay.com/': 'https://mirror.test/'}}\n", False),
    ],
)
def test_a_preset_without_the_credentials_for_its_keys_is_warned_about(
    load: Load, verify: str, file: str, warned: bool
) -> None:
    text = (
        f"{file}upstream: http://127.0.0.1:1\npublic_url: https://a.test\nroutes:\n  - path: /a\n    verify: {verify}\n"
    )
    found = [warning for warning in warnings(load(text)) if "known applications" in warning]
    assert len(found) == warned
    assert all("`client_id` (the App ID" in each and "`client_secret` (the Cert ID" in each for each in found)


def test_which_presets_are_warned_about_follows_from_their_evidence(load: Load) -> None:
    for preset in preset_names():
        text = "upstream: http://127.0.0.1:1\npublic_url: https://a.test\nroutes:\n"
        text += route_of(preset, path="/a/*")
        found = [warning for warning in warnings(load(text, {}, resolve_secrets=False)) if "is second-hand" in warning]
        assert len(found) == (load_preset(preset).evidence == Evidence.SECOND_HAND), preset


# -- rejections and what providers do after them --


def rejection_of(load: Load, verify: str, more: str = "", file: str = "") -> RejectionResponse:
    text = f"{file}upstream: http://127.0.0.1:1\npublic_url: https://a.test\nroutes:\n  - path: /a/*\n    verify: {verify}\n"
    secrets = "" if verify == "none" else "    secrets: [{env: GOOD}]\n"
    return load(text + secrets + more, {}, resolve_secrets=False).routes.routes[0].rejection


OURS = DEFAULT_REJECTION.body
OWN = "{signature: {header: X-S}, delivery: {resend_status: 429}, reject: {status: 401, body: '{}'}}"


@pytest.mark.parametrize(
    ("verify", "reject", "expected"),
    [
        ("xero", "", (401, b"")),
        ("shopify", "", (401, OURS)),
        ("discord", "", (401, OURS)),
        ("xero", "{status: 400}", (400, b"")),
        ("xero", "{body: no}", (401, b"no")),
        ("shopify", "{status: 403, body: ''}", (403, b"")),
        ("xero", "resend", (401, b"")),
        ("begini", "resend", (503, OURS)),
        ("postmark", "resend", (503, OURS)),
        ("highlevel", "resend", (429, OURS)),
        ("{preset: highlevel, delivery: {resend_status: 423}}", "resend", (423, OURS)),
        ("{preset: xero, reject: {status: 403}}", "", (403, OURS)),
        (OWN, "", (401, b"{}")),
        (OWN, "resend", (429, b"{}")),
        ("none", "resend", (503, OURS)),
    ],
)
def test_a_rejection_is_the_routes_else_the_presets_else_the_common_one(
    load: Load, verify: str, reject: str, expected: tuple[int, bytes]
) -> None:
    more = f"    reject: {reject}\n" if reject else ""
    more += "    allow: [192.0.2.0/24]\n" if verify == "none" else ""
    assert rejection_of(load, verify, more) == expected


#: Presets whose providers require a certain response to a wrong signature.
REQUIRED = {"xero": RejectionResponse(401, b"")} | dict.fromkeys(
    ("shopify", "discord", "google-chat", "google-chat-endpoint"), (401, OURS)
)


@pytest.mark.parametrize("name", preset_names())
def test_every_other_preset_has_the_common_rejection(load: Load, name: str) -> None:
    text = "upstream: http://127.0.0.1:1\npublic_url: https://a.test\nroutes:\n" + route_of(name, path="/a/*")
    found = load(text, {}, resolve_secrets=False).routes.routes[0].rejection
    assert found == REQUIRED.get(name, DEFAULT_REJECTION)


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_says_about_failed_deliveries_has_a_source(name: str) -> None:
    facts = load_preset(name).delivery
    assert (facts == DeliveryFacts()) == (not facts.source)
    assert bool(facts.retries) == bool(facts.source)
    assert "\n" not in facts.retries + facts.source
    assert facts.resends or facts.resend_status is None


def test_what_presets_say_about_failed_deliveries_is_what_providers_document() -> None:
    facts = {name: load_preset(name).delivery for name in preset_names()}
    assert not facts["github"].resends
    assert facts["github"].timeout == 10.0
    assert facts["postmark"].timeout == 120.0
    statuses = {name: fact.resend_status for name, fact in facts.items() if fact.resend_status is not None}
    final_at_403 = ("bitbucket", "brevo", "hubspot-v3", "jira", "pagerduty", "postmark", "postsyncer", "sx-digital-pay")
    assert statuses == dict.fromkeys(final_at_403, 503) | dict.fromkeys(("highlevel", "highlevel-rsa", "intercom"), 429)


TWO_ROUTES = """\
upstream: http://127.0.0.1:1
routes:
  - {path: /g, verify: github, secrets: [{env: GOOD}]}
  - {path: /s, verify: slack, secrets: [{env: GOOD}]}
  - {path: /b, verify: begini, secrets: [{env: GOOD}]}
  - {path: /c, verify: {signature: {header: X-S}, delivery: {timeout: 4s}}, secrets: [{env: GOOD}]}
"""
ALL = "github after 10 s, routes[3] after 4 s, slack after 3 s"


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [
        ("", ""),
        ("{connect: 20s, idle: 1s}", ""),
        ("{response: 3s}", ""),
        ("{total: 3s}", ""),
        ("{response: 20s, total: 3s}", ""),
        (
            "{response: 30s}",
            f"response: gives the receiver 30 s, but the provider gives up sooner: {ALL}; use at most 3s",
        ),
        ("{total: 60s}", f"total: gives the receiver 60 s, but the provider gives up sooner: {ALL}; use at most 3s"),
        (
            "{response: 2s, total: 3500ms}",
            "total: gives the receiver 3.5 s, but the provider gives up sooner: slack after 3 s; use at most 3s",
        ),
    ],
)
def test_times_that_the_file_sets_are_compared_with_how_long_providers_wait(
    load: Load, timeouts: str, expected: str
) -> None:
    text = TWO_ROUTES + (f"timeouts: {timeouts}\n" if timeouts else "")
    assert warnings(load(text)) == ([f"7: timeouts.{expected}"] if expected else [])


@pytest.mark.parametrize(
    ("verify", "more", "lost"),
    [
        ("github", "", "github never resends"),
        ("highlevel", "", "highlevel is only known to resend after 429"),
        ("{signature: {header: X-S}, delivery: {resends: false}}", "", "the provider never resends"),
        ("github", "    replay_fail_open: true\n", ""),
        ("begini", "", ""),
        ("postmark", "", ""),
        ("shopify", "", ""),
        ("jira", "", ""),
    ],
)
@pytest.mark.parametrize("store", ["redis://127.0.0.1:6379/0", "memory"])
def test_replay_that_fails_closed_needs_a_provider_that_resends(
    load: Load, verify: str, more: str, lost: str, store: str
) -> None:
    text = f"upstream: http://127.0.0.1:1\nreplay_store: {store}\nroutes:\n  - path: /a\n    verify: {verify}\n"
    text += "    secrets: [{env: GOOD}]\n" + ("" if verify == "postmark" else "    replay: 10m\n")
    expected = (
        f"7: routes[0].replay: responds 503 while the replay store is unavailable, and {lost}, so these deliveries are lost; "
        "add `replay_fail_open: true` to forward them unchecked"
    )
    assert warnings(load(text + more, {}, resolve_secrets=False)) == [expected] * (bool(lost) and store != "memory")


def test_replay_that_fails_open_for_all_routes_loses_nothing(load: Load) -> None:
    text = "upstream: http://127.0.0.1:1\nreplay_store: redis://127.0.0.1\nreplay_fail_open: true\nroutes:\n"
    route = "  - {path: /a, verify: github, secrets: [{env: GOOD}], replay: 10m%s}\n"
    assert warnings(load(text + route % "")) == []
    assert len(warnings(load(text + route % ", replay_fail_open: false"))) == 1


ADVICE = (
    "6: routes[0].secrets: are in rotation, and jira is only known to resend after 503, not 403, so a wrong secret loses "
    "deliveries; add `reject: resend` meanwhile, at the cost of repeated rejections (forgers are not affected)"
)


@pytest.mark.parametrize(
    ("verify", "more", "expected"),
    [
        ("jira", "", ADVICE),
        ("jira", "    reject: resend\n", ""),
        ("jira", "    reject: {status: 401}\n", ""),
        ("jira", "    mode: shadow\n", ""),
        ("begini", "", ""),
        ("xero", "", ""),
        (
            "github",
            "    reject: resend\n",
            "7: routes[0].reject: has no effect, because github never resends; remove it",
        ),
        ("begini", "    reject: resend\n", ""),
    ],
)
def test_a_rotation_is_advised_to_let_rejected_deliveries_come_again(
    load: Load, verify: str, more: str, expected: str
) -> None:
    text = f"upstream: http://127.0.0.1:1\nroutes:\n  - path: /a\n    methods: [POST]\n    verify: {verify}\n"
    found = warnings(load(text + "    secrets: [{env: GOOD}, {env: OTHER}]\n" + more))
    assert found == ([expected] if expected else [])
    assert not warnings(load(text + "    secrets: [{env: GOOD}]\n")), "one secret is no rotation"
    absent = "    secrets: [{env: GOOD}, {env: NOBODY_SET_THIS, optional: true}]\n"
    assert not warnings(load(text + absent)), "nor is one that is absent"


# -- the JSON Schema --


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def value_of(path: Path) -> Any:
    source = read_yaml(path.read_bytes(), str(path))
    assert source.problems == []
    return source.value


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", [*(HERE / "valid" / name for name in VALID), *SHIPPED], ids=lambda path: path.name)
def test_the_schema_accepts_every_valid_file(schema: Draft202012Validator, path: Path) -> None:
    assert [error.message for error in schema.iter_errors(value_of(path))] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_example_loads(path: Path) -> None:
    assert load_config(str(path), {}, resolve_secrets=False)


#: How the names of files begin whose mistakes JSON Schema can't know: what several keys say together, host bits, and the
#: secrets themselves.
BEYOND_THE_SCHEMA = (
    "access_token_", "handshake_confirm",
    "listed_binds", "listed_contradictions",
    "published_keys", "setting_in", "token_binds", "token_keys", "token_mixed", "token_without",
    "account_key_missing", "admin_token_absent", "authorize_ports", "body_over_buffer",
    "cidr_host_bits", "headers_fixed", "keys_ca", "tenants.yaml", "name_twice", "open_with_", "overlap_",
    "ports_twice", "replay_on_",
    "preset_changed_to_nonsense", "proxies_untrusted", "replay_store_sentinel_password",
    "replay_without_a_signature", "replay_workers",
    "scheme_body_",
    "places_", "scheme_brace", "scheme_hash_without_secret", "scheme_id_without_a_place", "scheme_key_of_", "scheme_placeholder",
    "scheme_port_without_url", "scheme_secret_without_hash", "scheme_signature_in_the_body_and_more",
    "scheme_timestamp_field_", "scheme_timestamp_in_no_list", "scheme_timestamp_of_a_token",
    "scheme_timestamp_that_is_not_signed", "scheme_timestamp_without_a_place", "scheme_token_", "scheme_unescaped_",
    "scheme_without_body", "secret_env_", "secret_file_", "secret_ids_twice", "secret_no_", "secret_not_",
    "secret_without_colon", "secrets_all_optional_and_absent", "secrets_missing", "sign.yaml", "upstream_default_port_is_",
    "upstream_is_", "upstream_missing", "upstream_of_a_route_is_ourselves", "url_without_public_url", "verify_missing",
    "verify_none_",
)  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_the_schema_rejects_every_invalid_file_that_it_can(schema: Draft202012Validator, name: str) -> None:
    source = read_yaml((HERE / "invalid" / name).read_bytes(), name)
    if not source.problems:
        assert schema.is_valid(source.value) == name.startswith(BEYOND_THE_SCHEMA)


@pytest.mark.parametrize(
    "at",
    [
        (),
        ("limits",),
        ("timeouts",),
        ("log",),
        ("routes", 0),
        ("routes", 0, "secrets", 0),
        ("routes", 0, "limits"),
        ("routes", 0, "reject"),
        ("routes", 1, "verify"),
        ("routes", 1, "verify", "signature"),
        ("routes", 1, "verify", "timestamp"),
        ("routes", 1, "verify", "delivery_id"),
        ("delivery_test",),
        ("delivery_test", "accounts", 0),
        ("delivery_test", "accounts", 0, "api_key"),
    ],
)
def test_the_schema_rejects_an_unknown_key_at_every_level(
    schema: Draft202012Validator, at: tuple[str | int, ...]
) -> None:
    whole = value_of(HERE / "valid/every_key.yaml")
    inner = whole
    for step in at:
        inner = inner[step]
    inner["banana"] = 1
    assert not schema.is_valid(whole)
    del inner["banana"]
    assert schema.is_valid(whole)


def test_every_key_of_the_schema_says_what_it_is_about() -> None:
    def undescribed(part: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, below in part.get("properties", {}).items():
            if "description" not in below and below.get("type") not in ("object", "array") and "const" not in below:
                found.append(f"{path}.{name}")
            found += undescribed(below, f"{path}.{name}")
            found += undescribed(below.get("items", {}), f"{path}.{name}[]")
        return found

    assert [
        path
        for path in undescribed(json_schema(), "")
        if not any(reference in path for reference in (".secrets[]", ".api_key.", ".verify_token.", ".admin_token."))
    ] == []
