"""Tenants: whose secrets a request is checked against, and what is the same for all of them."""

import os

import pytest

from sidecar.config.presets import load_preset, preset_names
from sidecar.http1.head import make_head
from sidecar.secret import Secret
from sidecar.verify.keys import key_problem
from sidecar.verify.sign import sign
from sidecar.verify.tenants import Store, Tenants, TenantSecrets, decoy_secrets, is_name
from sidecar.verify.verifier import Verifier

GITHUB = load_preset("github")
CURRENT, PREVIOUS = Secret("current", b"the-current-secret-of-acme"), Secret("previous", b"the-previous-secret-of-acme")


def tenants(store: Store, **options: bytes) -> Tenants:
    return Tenants(GITHUB, store, decoys=decoy_secrets(GITHUB, os.urandom(64)), **options)  # type: ignore[arg-type]


def matched(made: Tenants, tenant: str, secret: Secret) -> str | None:
    headers = sign(GITHUB, secret, body=b"{}", now=0.0)
    head = make_head("POST", b"/", [(name.encode(), value.encode()) for name, value in headers], None)
    verifier = Verifier(GITHUB, decoy_secrets(GITHUB, os.urandom(64)))
    verified = verifier.match(verifier.read_claim(head, 0.0), head, [b"{}"], made.matcher(tenant))
    return verified.secret_id if verified is not None else None


def test_a_tenants_own_secrets_match_and_no_others() -> None:
    made = tenants({"acme": TenantSecrets(CURRENT, PREVIOUS), "other": TenantSecrets(None, PREVIOUS)})
    assert [matched(made, "acme", CURRENT), matched(made, "acme", PREVIOUS)] == ["current", "previous"]
    assert [matched(made, "other", CURRENT), matched(made, "other", PREVIOUS)] == [None, "previous"]
    assert [matched(made, "nobody", CURRENT), matched(made, "", CURRENT)] == [None, None]


def test_a_changed_secret_is_used_at_once() -> None:
    store: Store = {"acme": TenantSecrets(PREVIOUS, None)}
    made = tenants(store)
    assert matched(made, "acme", PREVIOUS) == "previous"
    store["acme"] = TenantSecrets(CURRENT, None)
    assert [matched(made, "acme", CURRENT), matched(made, "acme", PREVIOUS)] == ["current", None]
    del store["acme"]
    assert matched(made, "acme", CURRENT) is None


def test_a_tenant_one_of_whose_secrets_is_not_in_the_form_verifies_with_the_other() -> None:
    scheme = load_preset("standard-webhooks")
    good, bad = Secret("current", b"whsec_c2VjcmV0c2VjcmV0c2VjcmV0"), Secret("previous", b"not base64!")
    made = Tenants(
        scheme,
        {"acme": TenantSecrets(good, bad), "bad": TenantSecrets(bad, None)},
        decoys=decoy_secrets(scheme, b"x" * 64),
    )
    assert made.problem("acme") == ""
    assert made.problem("bad") == "the tenant's secret is not in the scheme's form"
    assert made.problem("nobody").startswith("no secret of this tenant")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/hooks/acme/github", "acme"),
        (b"/hooks/a_B-9/github", "a_B-9"),
        (b"/hooks/%b/github" % (b"a" * 64), "a" * 64),
        (b"/hooks/%b/github" % (b"a" * 65), ""),
        (b"/hooks//github", ""),
        (b"/hooks/github", ""),
        (b"/hooks/../github", ""),
        (b"/hooks/a%2fb/github", ""),
        (b"/hooks/a/b/github", ""),
        (b"/hooks/acme/github/", ""),
        (b"/hooks/acme\n/github", ""),
    ],
)
def test_a_path_names_a_tenant_in_one_strict_segment(path: bytes, name: str) -> None:
    made = tenants({}, before=b"/hooks/", after=b"/github")
    assert made.takes(path) is bool(name)
    assert made.nearly_takes(path) or not name
    if name:
        assert made.name(make_head("POST", path + b"?a=/b", [], None)) == name


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (b"/hooks/acme.corp/github", True),
        (b"/hooks/a%2fb/github", True),
        (b"/hooks/a/b/github", False),
        (b"/hooks//github", False),
        (b"/hooks/github", False),
        (b"/other/acme/github", False),
    ],
)
def test_a_path_is_like_a_tenants_if_it_has_one_segment_in_that_place(path: bytes, near: bool) -> None:
    assert tenants({}, before=b"/hooks/", after=b"/github").nearly_takes(path) is near
    assert not tenants({}, header=b"x-account").nearly_takes(path)


def test_a_name_has_letters_digits_marks_and_a_bound() -> None:
    taken = [bytes([byte]) for byte in range(256) if is_name(bytes([byte]))]
    assert b"".join(taken) == b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
    assert [is_name(text) for text in (b"", b"a" * 64, b"a" * 65, b"a\n", b"_-", b"a\x00")] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("values", "name"),
    [([b"acme"], "acme"), ([], ""), ([b""], ""), ([b"a", b"a"], ""), ([b"a b"], ""), ([b"../a"], "")],
)
def test_a_header_names_a_tenant_once(values: list[bytes], name: str) -> None:
    made = tenants({}, header=b"x-account")
    assert made.name(make_head("POST", b"/", [(b"X-Account", value) for value in values], None)) == name


def test_every_scheme_with_a_shared_secret_has_decoys_in_its_form() -> None:
    for name in preset_names():
        scheme = load_preset(name)
        if scheme.signature.kind.read_private_key is None:
            for decoy in decoy_secrets(scheme, os.urandom(64)):
                assert not key_problem(scheme, decoy), name
