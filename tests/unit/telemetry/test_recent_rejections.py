"""The ring of the last rejections: bounded in number and in size, and empty while all goes well."""

import json
from typing import Any

from sidecar.outcomes import Hint, Outcome, Reason
from sidecar.telemetry.recent_rejections import KEPT, MAX_FIELD, RecentRejection, RecentRejections, newest_first
from sidecar.telemetry.record import DeliveryRecord


def refused(**fields: Any) -> DeliveryRecord:
    record = DeliveryRecord(number=1, peer="192.0.2.1", started=0.0, method="POST", path=b"/hooks")
    record.reason, record.outcome = Reason.SIGNATURE_MISMATCH, Outcome.REJECTED
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_a_refusal_is_kept_with_what_the_log_says_of_it(make_route: Any) -> None:
    rejections = RecentRejections()
    route = make_route("/hooks", name="hooks")
    rejections.record(refused(route=route, hint=Hint.PREFIX_MISSING, request_bytes=3, client="203.0.113.1"), 5.0)
    (kept,) = rejections.since(0)
    assert kept[:7] == (5.0, "hooks", "rejected", "signature_mismatch", False, "prefix_missing", "203.0.113.1")
    assert kept[7:] == ("POST", "/hooks", 0, 3, 0, "")


def test_what_shadow_mode_let_through_is_kept_as_such() -> None:
    rejections = RecentRejections()
    rejections.record(
        refused(reason=None, outcome=Outcome.ACCEPTED, shadow_reason=Reason.IP_NOT_ALLOWED, status=200), 5.0
    )
    (kept,) = rejections.since(0)
    assert (kept.outcome, kept.reason, kept.shadow, kept.status) == ("accepted", "ip_not_allowed", True, 200)


def test_a_duplicate_is_not_kept_and_a_copy_that_came_too_early_is() -> None:
    rejections = RecentRejections()
    rejections.record(refused(reason=Reason.REPLAYED, outcome=Outcome.DUPLICATE, status=200), 5.0)
    rejections.record(refused(reason=Reason.REPLAYED, outcome=Outcome.REJECTED, status=409), 6.0)
    assert [(kept.outcome, kept.status) for kept in rejections.since(0)] == [("rejected", 409)]
    assert rejections.count == 1


def test_a_client_that_knows_some_gets_only_later_ones() -> None:
    rejections = RecentRejections()
    for second in range(5):
        rejections.record(refused(), float(second))
    assert [kept.time for kept in rejections.since(3)] == [3.0, 4.0]
    assert rejections.since(5) == []


def test_the_last_hundred_are_kept_and_long_values_are_cut() -> None:
    rejections = RecentRejections()
    for second in range(KEPT + 20):
        rejections.record(refused(path=b"/" + b"x" * 60_000, detail="y" * 60_000, method="Z" * 60_000), float(second))
    kept = rejections.since(0)
    assert [kept[0].time, kept[-1].time, len(kept), rejections.count] == [20.0, KEPT + 19.0, KEPT, KEPT + 20]
    assert {len(text) for text in (kept[0].path, kept[0].detail, kept[0].method)} == {MAX_FIELD}


def test_a_refusal_goes_through_json_unchanged() -> None:
    rejections = RecentRejections()
    rejections.record(refused(path=b"/\xff\x00<", hint=Hint.UNKNOWN), 1.5)
    kept = rejections.since(0)
    assert [RecentRejection(*values) for values in json.loads(json.dumps(kept))] == kept


def test_rings_are_joined_newest_first() -> None:
    first, second = RecentRejections(), RecentRejections()
    for second_ in range(KEPT):
        (first if second_ % 2 else second).record(refused(), float(second_))
    assert [kept.time for kept in newest_first([first.since(0), second.since(0)])] == [
        float(second_) for second_ in reversed(range(KEPT))
    ]
