"""The status page: what it tells, whom it obeys, and that nothing a sender wrote becomes a part of it."""

import json
import os
import signal

import pytest

HOSTILE = b"/<script>alert(1)</script>\"'&"


def about(sidecar):
    status, body = sidecar.admin("/", headers={"Accept": "application/json"})
    assert status == 200
    return json.loads(body)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_refusals_of_all_workers_are_told_newest_first(start, receiver, craft, wait_until, workers):
    sidecar = start({"workers": workers})
    assert about(sidecar)["refusals"] == []
    assert sidecar.ask(craft.begini()).status == 200
    for number in range(12):  # on connections of their own, which the system deals out to the workers
        assert sidecar.ask(craft.request(b"/nowhere/%d" % number)).status == 404
    assert sidecar.ask(craft.begini(secret="wrong" * 10)).status == 403
    assert sidecar.ask(craft.begini(path=b"/webhooks/shadow", secret="wrong" * 10)).status == 200
    sidecar.settled()
    shadowed, mismatch, *lost = about(sidecar)["refusals"]
    assert [refusal["path"] for refusal in lost] == [f"/nowhere/{number}" for number in reversed(range(12))]
    assert {(refusal["route"], refusal["reason"]) for refusal in lost} == {("", "no_route")}
    assert (mismatch["route"], mismatch["reason"], mismatch["hint"]) == ("begini", "signature_mismatch", "unknown")
    assert (mismatch["client"], mismatch["request_bytes"]) == ("127.0.0.1", len(craft.json_body))
    assert (shadowed["shadow"], shadowed["reason"], shadowed["status"]) == (True, "signature_mismatch", 200)


def test_refusals_outlive_the_worker_that_made_them(start, receiver, craft, wait_until):
    sidecar = start({"workers": 2})
    assert sidecar.ask(craft.request(b"/nowhere")).status == 404
    sidecar.settled()
    assert len(about(sidecar)["refusals"]) == 1
    children = f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children"
    with open(children) as listed:
        pids = [int(pid) for pid in listed.read().split()]

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: sidecar.metric("worker_exits_total") == 2 and sidecar.metric("workers") == 2, "new workers")
    assert [refusal["path"] for refusal in about(sidecar)["refusals"]] == ["/nowhere"]
    assert sidecar.ask(craft.request(b"/again")).status == 404
    sidecar.settled()
    assert [refusal["path"] for refusal in about(sidecar)["refusals"]] == ["/again", "/nowhere"]
