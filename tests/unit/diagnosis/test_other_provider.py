"""A delivery of another provider is recognized by its signature header."""

from unittest import mock

import pytest

from sidecar.config import presets
from sidecar.config.presets import load_preset, preset_names
from sidecar.diagnosis import other_provider
from sidecar.diagnosis.other_provider import Lookalike, find_other_provider
from sidecar.http1.head import make_head
from sidecar.verify.scheme import Scheme

GITHUB = load_preset("github")


def find(*headers: str, scheme: Scheme = GITHUB, value: str = "v") -> Lookalike | None:
    fields = [(name.encode(), value.encode()) for name in ("Host", "User-Agent", *headers)]
    return find_other_provider(scheme, make_head("POST", b"/", fields, None))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Stripe-Signature", "Stripe-Signature looks like Stripe, preset stripe"),
        ("stripe-SIGNATURE", "Stripe-Signature looks like Stripe, preset stripe"),
        ("X-Shopify-Hmac-Sha256", "X-Shopify-Hmac-Sha256 looks like Shopify, preset shopify"),
        ("X-Slack-Signature", "X-Slack-Signature looks like Slack, preset slack"),
        ("X-Anet-Signature", "X-ANET-Signature looks like Authorize.Net, preset authorize-net"),
    ],
)
def test_a_header_of_one_provider_alone_names_it(header: str, found: str) -> None:
    assert str(find(header)) == found


def test_all_presets_of_the_provider_are_named() -> None:
    found = find("X-Twilio-Signature")
    assert found is not None
    assert (found.title, found.presets) == ("Twilio", ("twilio", "twilio-json", "twilio-sha256"))
    assert str(found).endswith("looks like Twilio, presets twilio, twilio-json, twilio-sha256")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("X-Hub-Signature-256",),  # the route's own
        ("X-Hub-Signature",),  # of several providers
        ("Webhook-Signature",),  # Standard Webhooks, and those that use it
        ("Authorization",),
        ("X-Signature-SHA256",),  # only Wise among the presets, but anyone could use it
        ("X-Hmac-Signature",),
        ("X-GitLab-Event",),  # not a signature
        ("Stripe-Signature", "X-Slack-Signature"),  # two providers
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),),
    ],
)
def test_any_other_header_names_nobody(headers: tuple[str, ...]) -> None:
    assert find(*headers) is None


def test_a_header_without_a_value_names_nobody() -> None:
    assert find("Stripe-Signature", value="") is None


def test_a_header_that_the_route_reads_names_nobody() -> None:
    assert find("Stripe-Signature", scheme=load_preset("stripe")) is None


@pytest.mark.parametrize("preset", preset_names())
def test_no_preset_takes_its_own_delivery_for_another_providers(preset: str) -> None:
    scheme = load_preset(preset)
    assert find(*(name.decode() for name in scheme.headers if b"{" not in name), scheme=scheme) is None


def test_only_presets_that_mention_a_header_are_parsed() -> None:
    loaded: list[str] = []

    def load(name: str) -> Scheme:
        loaded.append(name)
        return presets.load_preset(name)

    with mock.patch.object(other_provider, "load_preset", load):
        assert find("Stripe-Signature", "X-Request-Id", "Content-Type") is not None
    assert "stripe" in loaded
    assert len(set(loaded)) < 20
