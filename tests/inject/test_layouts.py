"""Whatever way a manifest is written: the same is put in, a second run changes nothing, and removing gives back every byte."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import CONFIG, layouts, pod, read, service, workload, written

from sidecar.inject.injection import inject
from sidecar.inject.options import Options
from sidecar.inject.workload import RECORD

OPTIONS = Options(config=CONFIG, secret=["stripe"], loopback=True)

TEXTS = pod(priorityClassName="last\nthing\n")
TEXTS["containers"][0]["lifecycle"] = {"postStart": {"exec": {"command": ["sh"], "note": "two\n\nlines"}}}
TEXTS["containers"][0]["env"] = [{"name": "A", "value": "kept\n\n"}]

SHAPES: dict[str, Any] = {
    "texts of several lines": workload(**TEXTS) | {"metadata": {"name": "shop", "annotations": {"note": "a\nb\n"}}},
    "a deployment": workload(),
    "one with volumes and init containers": workload(
        **pod(volumes=[{"name": "a", "emptyDir": {}}], initContainers=[{"name": "migrate", "image": "x"}])
    ),
    "one with empty ones": workload(**pod(volumes=[], initContainers=[], terminationGracePeriodSeconds=5)),
    "one with nulls": workload(**pod(volumes=None, initContainers=None, terminationGracePeriodSeconds=90)),
    "one with annotations": workload() | {"metadata": {"name": "shop", "annotations": {"a": "b"}}},
    "one with empty annotations": workload() | {"metadata": {"annotations": {}, "name": "shop"}},
    "one without annotations' values": workload() | {"metadata": {"annotations": None, "name": "shop"}},
    "a list": {"apiVersion": "v1", "kind": "List", "items": [workload(), service(), service("other")]},
}


def meant(text: str) -> list[Any]:
    """The objects, without inject's records, which quote texts as they were."""
    made = read(text)
    for each in made:
        for item in each.get("items", [each]):
            annotations = item["metadata"].get("annotations")
            if annotations and annotations.pop(RECORD, None) and not annotations:
                del item["metadata"]["annotations"]
    return made


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_in_every_layout_the_same_is_put_in_and_all_of_it_can_be_taken_out(shape: str, data: st.DataObject) -> None:
    value = SHAPES[shape]
    text = data.draw(layouts(value))
    made = inject(text, OPTIONS, "web.yaml").text
    assert meant(made) == meant(inject(written(value), OPTIONS, "web.yaml").text)
    assert inject(made, OPTIONS, "web.yaml").text == made
    assert inject(made, Options(remove=True), "web.yaml").text == text
    assert ("\r\n" in made) == ("\r\n" in text)
    assert made.count("\r\n") in (0, made.count("\n"))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_a_stream_of_documents_is_given_back_too(data: st.DataObject) -> None:
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    texts = [data.draw(layouts(value)).replace("\r\n", "\n") for value in (service(), workload(), {"kind": "Other"})]
    text = "".join(f"---\n{each}\n" if not each.startswith("---") else f"{each}\n" for each in texts).replace(
        "\n", newline
    )
    made = inject(text, OPTIONS, "web.yaml").text
    assert len(read(made)) == 5
    assert inject(made, OPTIONS, "web.yaml").text == made
    assert inject(made, Options(remove=True), "web.yaml").text == text


def test_other_options_take_the_place_of_those_before() -> None:
    first = inject(written(workload(), service()), OPTIONS, "web.yaml").text
    other = Options(
        config=CONFIG, secret=["stripe"], listen_port=8090, image="registry.example/sidecar:2", no_network_policy=True
    )
    assert inject(first, other, "web.yaml").text == inject(written(workload(), service()), other, "web.yaml").text


def test_what_was_changed_since_is_kept_when_the_sidecar_is_taken_out() -> None:
    made = inject(written(workload(), service()), OPTIONS, "web.yaml").text
    edited = made.replace("shop:1", "shop:2").replace("    spec:\n", "    spec:\n      priorityClassName: high\n", 1)
    assert edited != made
    left = inject(edited, Options(remove=True), "web.yaml").text
    expected = workload()
    expected["spec"]["template"]["spec"] = {"priorityClassName": "high", **expected["spec"]["template"]["spec"]}
    expected["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/shop:2"
    assert left == written(expected, service())
