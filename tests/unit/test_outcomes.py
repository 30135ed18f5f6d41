"""The closed list of reasons, and what each tells the sender and the metric."""

import pytest

from sidecar.outcomes import RESPONSES, VERIFICATION, Aborted, DeliveryEnd, Outcome, Reason, Rejected, outcome_of

#: The contract's list, word for word. A change here is a change of dashboards and alerts.
PUBLISHED = """
no_route method_not_allowed malformed_request ip_not_allowed client_ip_unreadable signature_missing signature_malformed
signature_mismatch timestamp_missing timestamp_malformed timestamp_too_old timestamp_in_future token_mismatch claim_mismatch
key_unknown replayed body_too_large body_timeout body_incomplete headers_too_large header_timeout overloaded draining rate_limited
replay_store_unavailable key_unavailable upstream_unreachable upstream_timeout upstream_broke client_disconnected internal_error
client_certificate_mismatch body_not_forwarded
"""


def test_the_reasons_are_those_of_the_contract_in_its_order() -> None:
    assert [str(reason) for reason in Reason] == PUBLISHED.split()


def test_every_reason_has_exactly_one_answer() -> None:
    assert VERIFICATION.isdisjoint(RESPONSES)
    assert set(RESPONSES) | VERIFICATION == set(Reason)


@pytest.mark.parametrize(
    ("reason", "status", "retry_after"),
    [
        (Reason.NO_ROUTE, 404, False),
        (Reason.METHOD_NOT_ALLOWED, 405, False),
        (Reason.MALFORMED_REQUEST, 400, False),
        (Reason.REPLAYED, 200, False),
        (Reason.BODY_TOO_LARGE, 413, False),
        (Reason.BODY_TIMEOUT, 408, False),
        (Reason.BODY_INCOMPLETE, 400, False),
        (Reason.HEADERS_TOO_LARGE, 431, False),
        (Reason.HEADER_TIMEOUT, 408, False),
        (Reason.OVERLOADED, 503, True),
        (Reason.DRAINING, 503, True),
        (Reason.RATE_LIMITED, 429, True),
        (Reason.REPLAY_STORE_UNAVAILABLE, 503, True),
        (Reason.KEY_UNAVAILABLE, 503, True),
        (Reason.UPSTREAM_UNREACHABLE, 502, False),
        (Reason.UPSTREAM_TIMEOUT, 504, False),
        (Reason.UPSTREAM_BROKE, 502, False),
        (Reason.INTERNAL_ERROR, 500, False),
    ],
)
def test_the_statuses_are_those_of_the_contract(reason: Reason, status: int, retry_after: bool) -> None:
    answer = RESPONSES[reason]
    assert answer.status == status
    assert (answer.retry_after is not None) is retry_after


@pytest.mark.parametrize("reason", Reason)
def test_a_delivery_failed_after_verification_is_a_duplicate_or_was_rejected_here(reason: Reason) -> None:
    failed = {"upstream_unreachable", "upstream_timeout", "upstream_broke", "client_disconnected", "internal_error"}
    if reason is Reason.REPLAYED:
        assert outcome_of(reason) is Outcome.DUPLICATE
    else:
        assert outcome_of(reason) is (Outcome.FAILED if reason in failed else Outcome.REJECTED)


@pytest.mark.parametrize("kind", [Rejected, Aborted])
def test_a_stop_carries_its_reason_and_the_operators_detail(kind: type[DeliveryEnd]) -> None:
    stop = kind(Reason.OVERLOADED, "full")
    assert (stop.reason, stop.detail) == (Reason.OVERLOADED, "full")
    assert kind(Reason.OVERLOADED).detail == ""
