"""Text values with a newline: each stays one text, or the chart does not render.

A text that a template writes without quotes would continue as YAML of the object: `priorityClassName: "x\\n      hostPID: true"`.
"""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart import CHART, VERSIONS, HelmError, helm, objects

#: A comment is valid at any indentation; so wherever it is written without quotes the text ends before it.
MARK = "CANARY"
NEWLINE = f"\n# {MARK}"
Place = tuple[str | int, ...]

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
#: What the values of helm/ci leave out.
MORE: dict[str, dict[str, Any]] = {
    "gateway-full": {
        "fullnameOverride": "hooks",
        "priorityClassName": "high",
        "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "x"},
        "topologySpread": {"keys": ["zone"]},
        "image": {"tag": "1"},
        "imagePullSecrets": [{"name": "pull"}],
        "ingress": {"enabled": True, "className": "nginx", "hosts": ["hooks.example"]},
        "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
        "extraEnv": [{"name": "A", "value": "b"}],
    },
    "sidecar": {"nameOverride": "hooks", "serviceAccount": {"create": False, "name": "me"}},
    "library": {"admissionPolicy": {"enabled": True}, "podMonitor": {"enabled": True}},
}


def merged(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def values_of(name: str) -> dict[str, Any]:
    """All values that this file and the chart's defaults make."""
    given = yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text())
    return dict(merged(merged(VALUES, given), MORE[name]))


def texts(value: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(value, str):
        yield place
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from texts(item, (*place, key))


def changed(values: dict[str, Any], place: Place, end: str = NEWLINE) -> dict[str, Any]:
    result = copy.deepcopy(values)
    at: Any = result
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = (at[place[-1]] or "x") + end
    return result


def render(values: dict[str, Any]) -> str:
    options = ["--namespace", "hooks", "--kube-version", VERSIONS[-1]]
    return str(helm("template", "release", CHART, "--values", "-", *options, stdin=json.dumps(values)))


def shapes(text: str) -> list[Any]:
    return [shape(each) for each in objects(text)]


def shape(value: Any) -> Any:
    """The value without its texts."""
    if isinstance(value, dict):
        return {key.partition("\n")[0]: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


def marks(value: Any) -> int:
    """How often the mark is in keys and texts."""
    if isinstance(value, dict):
        return sum(key.count(MARK) + marks(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(marks, value))
    return value.count(MARK) if isinstance(value, str) else 0


@pytest.mark.parametrize("name", MORE)
def test_a_newline_in_a_text_value_adds_nothing(name: str) -> None:
    values = values_of(name)
    calm = shapes(render(values))
    places = [place for place in texts(values) if place[0] != "extraObjects"]  # templates by design
    assert len(places) > 40

    def renders(some: list[Place], end: str = NEWLINE) -> str:
        given = values
        for place in some:
            given = changed(given, place, end)
        return render(given)

    refused, faults, taken = 0, [], 0
    groups = [places[at::12] for at in range(12)]
    while groups:
        some = groups.pop()
        one = ".".join(map(str, some[0]))
        halves = [some[::2], some[1::2]] if len(some) > 1 else []
        try:
            text = renders(some)
        except HelmError as error:  # it may refuse some of them
            told = [place for place in some if f"'/{'/'.join(map(str, place))}'" in str(error)]
            refused += len(told) or len(some) == 1
            rest = [place for place in some if place not in told]
            groups += ([rest] if told else halves) if rest else []
            continue
        if text.count(MARK) != marks(objects(text)):
            faults += [] if halves else [f"{one} is written without quotes"]
            groups += halves
        # A value that is empty by default may have fields of its own: compare with another text in its place.
        elif (made := shapes(text)) != calm and made != shapes(renders(some, "")):
            faults += [] if halves else [f"{one} changes what is rendered"]
            groups += halves
        else:
            taken += len(some)
    assert faults == []
    assert taken > 10
    assert taken + refused == len(places)


#: An output that ends so can't leave its place: a quoted text, a number, a block, or a choice between two words.
SAFE = re.compile(
    r'(\| *(quote|squote|toJson|int|sha256sum|n?indent [0-9]+)|^toJson \.|^ternary "[A-Za-z]+" "[A-Za-z]+" [$.\w]+)$'
)
STRUCTURE = re.compile(r"if|else|end|range|with|define|\$\w+ *:?=|\$_ :=")
#: Others, and why they are safe.
EXCEPTIONS = {
    'include "sidecar.cel" (include "sidecar.container" . | fromYaml)',  # JSON texts, on one line
    'include "sidecar.cel" .',
    'include "sidecar.terminationGracePeriodSeconds" .',  # whole numbers
    "$grace",
    "$preStop",  # CEL of a whole number
    *(
        f'include "sidecar.{name}Target" {root}' for name in ("data", "admin", "served") for root in (".", "$")
    ),  # a number, or a constant
    "$admin",
    'include "sidecar.authorizer.headers" $',  # JSON
    "$key",  # of a list in the template
    "$outcome",  # accepted or refused
    'join ", " $items',  # of CEL
    'include "sidecar.secretMounts" .',  # lines with their own indentation
    'include "sidecar.secretVolumes" .',
    'include "sidecar.selectorLabels" .',
    'include "sidecar.selectorLabels" . -',
    "toYaml .",  # in sidecar.labels, at the beginning of a line
    'tpl (kindIs "string" . | ternary . (toYaml .)) $',  # extraObjects: templates by design
    'printf "webhook-sidecar-secret-%s" . | replace "." "-" | trunc 63 | trimSuffix "-"',  # quoted where it is included
}


def test_every_template_quotes_the_texts_that_it_writes() -> None:
    """Also those that no values of these tests reach."""
    folder = CHART / "templates"
    files = [*folder.glob("*.yaml"), folder / "_container.tpl", folder / "_receiver.tpl"]
    assert len(files) > 10
    found = set()
    for file in files:
        text = re.sub(r"\{\{-? */\*.*?\*/ *-?\}\}", "", file.read_text(), flags=re.DOTALL)
        for output in re.findall(r"\{\{-? *(.*?) *-?\}\}", text):
            if not STRUCTURE.match(output) and not SAFE.search(output) and output not in EXCEPTIONS:
                pods = output.startswith('include "sidecar.tests.pod" ')  # whole objects
                found |= set() if pods else {f"{file.name}: {output}"}
    assert found == set()


@pytest.mark.parametrize("output", [".Values.priorityClassName", 'include "sidecar.fullname" .', ".x | trim"])
def test_an_output_without_quotes_would_be_found(output: str) -> None:
    assert not STRUCTURE.match(output)
    assert not SAFE.search(output)
    assert output not in EXCEPTIONS
