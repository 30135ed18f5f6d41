"""The diagnosis raises nothing, whatever is refused, stays within its effort, and never says a hint of what nobody signed."""

import time
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.presets import load_preset, preset_names
from sidecar.diagnosis.diagnose import LIVE, MAX_LIVE_BODY, diagnose
from sidecar.http1.head import make_head
from sidecar.outcomes import Hint, Rejected
from sidecar.secret import Secret
from sidecar.verify.verifier import Verifier

NOW = 1795579411.0
URL = "https://hooks.example.com"
texts = st.one_of(
    st.binary(max_size=80),
    st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: text.encode()),
    st.just(b"t=1795579411,v1=" + b"0" * 64),
    st.just(b"v1," + b"A" * 43 + b"="),
    st.sampled_from([b"1795579411", b"1795579411000", b"2026-11-25T03:00:00Z", b""]),
)
bodies = st.one_of(
    st.binary(max_size=300), st.sampled_from([b'{"a":[1,{"b":null}]}', b"[" * 5000, b'{"a":"\\ud800"}', b"{}\n"])
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(preset_names()), st.data())
def test_whatever_is_refused_is_diagnosed_without_a_fault(
    key_pair: Callable[..., tuple[bytes, bytes]], preset: str, data: st.DataObject
) -> None:
    scheme = load_preset(preset)
    verifier = Verifier(scheme, [Secret("s", key_pair(scheme)[1])], URL)
    names = [
        scheme.signature.header.replace("{n}", "1") or "x-none",
        *scheme.signature.also,
        scheme.delivery_id or "x-id",
    ]
    if scheme.timestamp is not None and scheme.timestamp.header:
        names.append(scheme.timestamp.header)
    headers = [(name.encode(), data.draw(texts)) for name in [*names, *(name for name, _ in scheme.require)]]
    head = make_head("POST", data.draw(st.sampled_from([b"/a", b"/a/?b=c", b"/?", b"/a?bodySHA256=0"])), headers, None)
    body = data.draw(bodies)
    try:
        verifier.verify(verifier.read_claim(head, NOW), head, [body])
    except Rejected as refused:
        others = [("other", Secret("o", b"the secret of another route"))]
        found = diagnose(refused.reason, verifier, head, body, now=NOW, effort=LIVE, others=others)
        by_form = {Hint.UNKNOWN, Hint.WRONG_ALGORITHM, Hint.WRONG_ENCODING, Hint.PREFIX_MISSING, Hint.TIMESTAMP_UNIT}
        assert found is None or found.hint in by_form or (found.hint is Hint.BODY_EMPTY and not body)


def test_the_largest_body_that_is_looked_into_costs_milliseconds(key_pair: Callable[..., tuple[bytes, bytes]]) -> None:
    scheme = load_preset("begini")
    verifier = Verifier(scheme, [Secret(str(n), b"one of ten secrets, number %d" % n) for n in range(10)])
    head = make_head("POST", b"/", [(b"X-Signature", b"0" * 128)], None)
    others = [("other", Secret(str(n), b"of another route %d" % n)) for n in range(1000)]
    for body in (b"x" * MAX_LIVE_BODY, b'{"a":"' + b"x" * (LIVE.json - 10) + b'"}', b'{"a":1}'):
        spent = time.process_time()
        try:
            verifier.verify(verifier.read_claim(head, NOW), head, [body])
        except Rejected as refused:
            found = diagnose(refused.reason, verifier, head, body, now=NOW, effort=LIVE, others=others)
            assert found is not None
            assert found.hint is Hint.UNKNOWN
        assert time.process_time() - spent < 0.1
