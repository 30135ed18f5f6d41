"""The record of one request."""

from typing import Any

from sidecar.outcomes import Outcome
from sidecar.telemetry.record import DeliveryRecord


def test_a_new_record_claims_nothing() -> None:
    record = DeliveryRecord(number=7, peer="192.0.2.1", started=1.5)
    assert (record.number, record.peer, record.started) == (7, "192.0.2.1", 1.5)
    assert (record.route_name, record.reason, record.status) == ("", None, 0)
    assert record.outcome is Outcome.ACCEPTED


def test_records_share_no_values(make_route: Any) -> None:
    first, second = (DeliveryRecord(number=number, peer=None, started=0.0) for number in (1, 2))
    first.route = make_route("/hooks/acme", name="acme")
    first.delivery_id = b"id"
    assert (first.route_name, second.route_name, second.delivery_id) == ("acme", "", b"")


def test_a_record_has_no_place_for_a_secret_a_signature_or_a_body() -> None:
    fields = {name for name in vars(DeliveryRecord) | DeliveryRecord.__annotations__ if not name.startswith("__")}
    assert not [name for name in fields if "signature" in name or "body" in name or name in ("secret", "mac")]
