"""How often a source may be refused before it waits."""

from ipaddress import ip_address

import pytest

from sidecar.routing.refusal_limit import Rate, RefusalLimit

ONE = ip_address("192.0.2.1")
OTHER = ip_address("192.0.2.2")


def per_minute(count: int, limit: int = 100) -> RefusalLimit:
    return RefusalLimit(Rate(count, 60.0, f"{count}/m"), limit)


@pytest.mark.parametrize("count", [1, 3, 7, 60, 999])
@pytest.mark.parametrize("start", [0.0, 1.1, 123456789.3])
def test_so_many_may_be_refused_at_once_and_then_one_for_each_interval(count: int, start: float) -> None:
    limit = per_minute(count)
    interval = 60 / count
    for _ in range(count):
        assert limit.wait("r", ONE, start) == 0
        limit.count_rejection("r", ONE, start)
    assert limit.wait("r", ONE, start) == max(1, -(-60 // count))
    assert limit.wait("r", ONE, start + 0.99 * interval) == 1
    for passed in (1, 2):
        assert limit.wait("r", ONE, start + passed * interval) == 0
        limit.count_rejection("r", ONE, start + passed * interval)
        assert limit.wait("r", ONE, start + passed * interval) > 0
    assert limit.wait("r", ONE, start + 3 * 60) == 0


def test_addresses_and_routes_are_counted_apart() -> None:
    limit = per_minute(1)
    limit.count_rejection("r", ONE, 0)
    assert limit.wait("r", ONE, 0) == 60
    assert limit.wait("r", OTHER, 0) == 0
    assert limit.wait("s", ONE, 0) == 0
    assert limit.wait("r", ip_address(int(ONE)), 0) == 60
    assert limit.wait("r", ip_address(f"::{ONE}"), 0) == 0


def test_of_ipv6_the_network_of_64_bits_counts() -> None:
    limit = per_minute(1)
    limit.count_rejection("r", ip_address("2001:db8:0:1::1"), 0)
    assert limit.wait("r", ip_address("2001:db8:0:1:ffff:ffff:ffff:ffff"), 0) == 60
    assert limit.wait("r", ip_address("2001:db8:0:2::1"), 0) == 0


def test_who_has_no_address_is_not_counted_and_without_a_rate_nobody_is() -> None:
    limit = per_minute(1)
    limit.count_rejection("r", None, 0)
    assert limit.wait("r", None, 0) == 0
    limit.rate = None
    limit.count_rejection("r", ONE, 0)
    assert len(limit) == 0


def test_what_is_over_does_not_stay_and_the_table_is_bounded_by_forgetting_who_was_refused_longest_ago() -> None:
    limit = per_minute(60, limit=50)
    sources = [ip_address(f"10.0.0.{number}") for number in range(100)]
    for source in sources:
        limit.count_rejection("r", source, 0)
    assert len(limit) == 50
    limit = per_minute(1, limit=50)
    for source in sources:
        limit.count_rejection("r", source, 0)
        assert limit.wait("r", source, 0) > 0
        assert len(limit) <= 50
    assert limit.wait("r", sources[0], 0) == 0
    for number in range(100):
        limit.count_rejection("r", OTHER, 100.0 + number)
    assert len(limit) == 1


def test_a_reload_forgets_all() -> None:
    limit = per_minute(1)
    limit.count_rejection("r", ONE, 0)
    limit.forget()
    assert limit.wait("r", ONE, 0) == 0
