"""Who is taken for the sender where X-Forwarded-For is not what counts, and a proxy that nobody named.

X-Forwarded-For itself: test_routing.py and tests/hostile; the PROXY protocol: test_proxy_protocol.py.
"""

ALLOWED = b"/webhooks/allowed"  # 203.0.113.0/24 and 2001:db8::/32


def test_the_client_is_read_from_the_forwarded_header_where_that_is_configured(start, receiver, craft):
    running = start({"client_ip_header": "Forwarded"})

    def status(*fields, source=craft.trusted):
        return running.ask(craft.begini(path=ALLOWED, headers=fields), source=source).status

    named = (b"Forwarded", b'for=198.51.100.66, for="[2001:db8::9]:443";proto=https')
    assert status(named) == 200
    assert receiver.requests[-1].values(b"forwarded") == [named[1]]
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"2001:db8::9, 127.0.0.9"]
    assert status(named, source="127.0.0.1") == 403
    assert status((b"Forwarded", b"for=203.0.113.9"), (b"X-Forwarded-For", b"198.51.100.66")) == 200
    # Nobody vouches for what came in the other header.
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.9"]
    assert len(receiver.requests) == 2

    assert status((b"X-Forwarded-For", b"203.0.113.9")) == 403
    assert status((b"Forwarded", b"for=203.0.113.9"), (b"Forwarded", b"for=198.51.100.66")) == 403
    for unreadable in (b"for=unknown", b"for=_hidden", b"203.0.113.9", b'for="203.0.113.9', b"for=203.0.113.9,", b""):
        mark = running.mark()
        assert status((b"Forwarded", unreadable)) == 403
        assert running.delivery(mark)["reason"] == "client_ip_unreadable"
    assert len(receiver.requests) == 2


def test_the_client_is_read_from_a_header_that_holds_one_address(start, receiver, craft):
    running = start({"client_ip_header": "X-Real-IP"})

    def reason(*fields, source=craft.trusted):
        mark = running.mark()
        running.ask(craft.begini(path=ALLOWED, headers=fields), source=source)
        return running.delivery(mark)["reason"]

    assert reason((b"x-real-ip", b"203.0.113.9"), (b"X-Forwarded-For", b"198.51.100.66")) == ""
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.9"]
    assert reason((b"X-Real-IP", b"198.51.100.66"), (b"X-Forwarded-For", b"203.0.113.9")) == "ip_not_allowed"
    assert reason((b"X-Real-IP", b"203.0.113.9"), source="127.0.0.1") == "ip_not_allowed"
    assert reason((b"X_Real_IP", b"203.0.113.9")) == "ip_not_allowed"
    assert reason((b"X-Real-IP", b"203.0.113.9"), (b"X-Real-IP", b"203.0.113.9")) == "client_ip_unreadable"
    assert reason((b"X-Real-IP", b"203.0.113.9, 127.0.0.9")) == "client_ip_unreadable"
    assert len(receiver.requests) == 1


def test_an_allowlist_behind_a_proxy_that_nobody_named_is_warned_of_once_for_each_route(start, receiver, craft):
    running = start({"trusted_proxies": None})

    def warnings():
        return [line for line in running.lines if line.get("event") == "forwarding_header_ignored"]

    running.ask(craft.begini(path=ALLOWED))
    running.ask(craft.begini(headers=[(b"X-Forwarded-For", b"203.0.113.9")]))  # no allowlist
    assert not warnings()
    for header in (b"X-Forwarded-For", b"Forwarded", b"CF-Connecting-IP"):
        running.ask(craft.begini(path=ALLOWED, headers=[(header, b"203.0.113.9")]))
    running.ask(craft.request(b"/network", [(b"Forwarded", b"for=203.0.113.9")]))
    first, second = warnings()
    assert (first["route"], first["header"], first["peer"], first["level"]) == (
        "allowed",
        "x-forwarded-for",
        "127.0.0.1",
        "warning",
    )
    assert "trusted_proxies" in first["detail"]
    assert (second["route"], second["header"]) == ("network", "forwarded")


def test_with_trusted_proxies_there_is_nothing_to_warn_of(start, receiver, craft):
    running = start({"trusted_proxies": ["10.0.0.0/8"]})
    running.ask(craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.9")]))
    assert not any(line.get("event") == "forwarding_header_ignored" for line in running.lines)
