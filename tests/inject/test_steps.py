"""Rolling the sidecar out and taking it out again, while the application stays reachable, and what the user must do for it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import CONFIG, pod, read, service, workload, written

from sidecar.cli.main import main
from sidecar.inject.injection import inject
from sidecar.inject.options import Options

OPTIONS = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"])
NAME = "shop/shop-webhook-sidecar"
DELETE_POLICY = "kubectl delete -n shop networkpolicy/shop-webhook-sidecar"
FIRST = f"Delete it first: {DELETE_POLICY}"
DELETE_CONFIG = "kubectl delete -n shop configmap/shop-webhook-sidecar"


def with_options(**more: Any) -> Options:
    return Options(**vars(OPTIONS) | more)


def application() -> str:
    there, its = workload(), service()
    for each in (there, its):
        each["metadata"]["namespace"] = "shop"
    return written(there, its)


class State:
    """What a connection to the Service meets while manifests are applied to a cluster in any order, node by node."""

    def __init__(self, text: str) -> None:
        made = {each["kind"]: each for each in read(text)}
        spec = made["Deployment"]["spec"]["template"]["spec"]
        target = made["Service"]["spec"]["ports"][0]["targetPort"]
        self.target = {"http": 3000}.get(target, target)
        self.listening = {3000} | {
            port["containerPort"] for each in spec.get("initContainers", ()) for port in each["ports"]
        }
        policy = made.get("NetworkPolicy")  # without one, every port is open
        self.open: set[int] | None = None
        if policy is not None:
            self.open = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}

    def lets_in(self, port: int) -> bool:
        return self.open is None or port in self.open


def refusals(before: State, after: State) -> list[int]:
    """The ports at which a connection to the Service is refused or dropped, in any mix of the two states."""
    return [
        target
        for target in (before.target, after.target)
        for pods in (before, after)
        for policy in (before, after)
        if target not in pods.listening or not policy.lets_in(target)
    ]


def states(*steps: str) -> list[State]:
    return [State(each) for each in steps]


def test_the_steps_refuse_nothing_whatever_takes_effect_first() -> None:
    """While nodes, endpoints and policies are between two steps each of them may be in the state before or after."""
    text = application()
    whole = inject(text, OPTIONS, "web.yaml").text
    first, second = (inject(text, with_options(step=step), "web.yaml").text for step in ("pods", "traffic"))
    assert inject(first, with_options(step="traffic"), "web.yaml").text == second
    assert inject(second, OPTIONS, "web.yaml").text == whole
    plain, pods, traffic, all_of_it = states(text, first, second, whole)
    assert refusals(plain, pods) == []
    assert refusals(pods, traffic) == []
    assert refusals(traffic, all_of_it) == []
    assert refusals(plain, all_of_it) != []  # at once it is an outage
    assert traffic.lets_in(3000)
    assert not all_of_it.lets_in(3000)


def test_taking_it_out_in_steps_refuses_nothing_either() -> None:
    whole = inject(application(), OPTIONS, "web.yaml").text
    opened = "---\n".join(part for part in whole.split("---\n") if "kind: NetworkPolicy" not in part)  # deleted first
    services = inject(whole, Options(remove=True, step="traffic"), "web.yaml")
    rest = inject(services.text, Options(remove=True), "web.yaml")
    assert rest.text == application() == inject(whole, Options(remove=True), "web.yaml").text
    kinds = [each["kind"] for each in read(services.text)]
    assert kinds == ["Deployment", "Service", "ConfigMap"]
    all_of_it, no_policy, back, plain = states(whole, opened, services.text, rest.text)
    assert refusals(no_policy, back) == []
    assert refusals(back, plain) == []
    assert refusals(all_of_it, plain) != []
    assert services.notes == [
        f"NetworkPolicy {NAME}: kubectl apply leaves it in the cluster, where it blocks the receiver's port. {FIRST}"
    ]
    assert rest.notes == [
        f"ConfigMap {NAME}: kubectl apply leaves it in the cluster. Delete it after the rollout: {DELETE_CONFIG}"
    ]


def test_each_step_says_what_comes_next() -> None:
    pods, traffic = (inject(application(), with_options(step=step), "web.yaml").notes for step in ("pods", "traffic"))
    assert pods == [
        "Deployment shop/shop: the Services still point to the receiver; once the rollout is complete, use --step traffic"
    ]
    assert traffic == [
        "Deployment shop/shop: the receiver's port 3000 is still open; to close it, run this again without --step"
    ]
    assert inject(application(), OPTIONS, "web.yaml").notes == []


def test_what_an_other_run_leaves_out_is_said_too() -> None:
    whole = inject(application(), OPTIONS, "web.yaml").text
    notes = inject(whole, with_options(no_network_policy=True), "web.yaml").notes
    assert [note.rpartition(": ")[2] for note in notes] == [DELETE_POLICY]


def test_what_is_added_has_a_label_to_select_it() -> None:
    long = "a" * 62 + ".b"
    made = read(inject(written(workload(name=long), service(long)), OPTIONS, "web.yaml").text)
    marked = [each for each in made if "labels" in each["metadata"]]
    assert [each["kind"] for each in marked] == ["ConfigMap", "NetworkPolicy"]
    assert {each["metadata"]["labels"]["webhook-sidecar/injected"] for each in marked} == {"a" * 62}


@pytest.mark.parametrize("listed", [True, False])
def test_the_command_lists_what_to_delete_if_asked(
    listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web.yaml").write_text(inject(application(), OPTIONS, "web.yaml").text)
    assert main(["inject", "-f", "web.yaml", "--remove", *(["--deleted", "gone.yaml"] if listed else [])]) == 0
    out, err = capfd.readouterr()
    assert out == application()
    assert DELETE_POLICY in err
    assert DELETE_CONFIG in err
    metadata = {"name": "shop-webhook-sidecar", "namespace": "shop"}
    expected = [
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata},
    ]
    assert (list(yaml.safe_load_all(Path("gone.yaml").read_text())) if listed else expected) == expected
    assert Path("gone.yaml").exists() is listed


# -- paths from outside that no route takes --


def ingress(*paths: tuple[str, str], port: Any = None, name: str = "shop", **more: Any) -> dict[str, Any]:
    backend = {"service": {"name": name, "port": port or {"number": 80}}}
    rules = [{"host": "a", "http": {"paths": [{"path": p, "pathType": kind, "backend": backend} for p, kind in paths]}}]
    metadata = {"name": "web"} | more
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": {"rules": rules}}


def http_route(*paths: tuple[str, str], **more: Any) -> dict[str, Any]:
    matches = [{"path": {"value": p, "type": kind}} for p, kind in paths]
    rule = {"backendRefs": [{"name": "shop", "port": 80}]} | ({"matches": matches} if matches else {}) | more
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"rules": [rule]},
    }


def notes_of(found: dict[str, Any], **options: Any) -> list[str]:
    config = CONFIG + "  - {path: /hooks/*, verify: stripe, secrets: [{file: /run/secrets/stripe/secret}]}\n"
    text = written(workload(), service(name="shop"), found)
    result = inject(text, with_options(**{"config": config} | options), "web.yaml")
    return [note.removeprefix("Deployment shop: ") for note in result.notes]


SOME = "but only /webhooks/stripe, /healthz, /hooks/* are there, so everything else gets 404"
GONE = "but no route has this path, so it gets 404"


@pytest.mark.parametrize(
    ("found", "notes"),
    [
        (ingress(("/webhooks/stripe", "Exact"), ("/hooks", "Prefix"), ("/hooks/a", "Exact")), []),
        (ingress(("/admin", "Exact")), [f"Ingress web leads /admin to Service shop, {GONE}"]),
        (
            ingress(("/", "Prefix")),
            [f"Ingress web leads / and all below it to Service shop, {SOME}"],
        ),
        (
            ingress(("/shop", "Prefix")),
            [
                "Ingress web leads /shop and all below it to Service shop, but no route is there, so everything else gets 404"
            ],
        ),
        (
            ingress(("/a.*", "ImplementationSpecific")),
            ["Ingress web leads /a.* and all below it to Service shop, by a pattern; paths without a route get 404"],
        ),
        (ingress(("/admin", "Exact"), port={"name": "other"}), []),
        (ingress(("/admin", "Exact"), name="other"), []),
        (
            ingress(("/admin", "Exact"), namespace="elsewhere") | {},
            [f"Ingress elsewhere/web leads /admin to Service shop, {GONE}"],
        ),
        (ingress(("/admin", "Exact"), annotations={"nginx.ingress.kubernetes.io/rewrite-target": "/"}), []),
        (http_route(("/webhooks/stripe", "Exact"), ("/hooks/", "PathPrefix")), []),
        (http_route(("/admin", "Exact")), [f"HTTPRoute web leads /admin to Service shop, {GONE}"]),
        (
            http_route(),
            [f"HTTPRoute web leads / and all below it to Service shop, {SOME}"],
        ),
        (http_route(("/admin", "Exact"), filters=[{"type": "URLRewrite"}]), []),
        (http_route(("/admin", "Exact"), backendRefs=[{"name": "shop", "port": 81}]), []),
        ({"kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [None, {"http": None}, "x"]}}, []),
    ],
)
def test_paths_that_lead_to_no_route_are_named(found: dict[str, Any], notes: list[str]) -> None:
    assert notes_of(found) == notes


def test_a_default_backend_leads_everything_there() -> None:
    found = ingress()
    found["spec"] = {"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}}
    (note,) = notes_of(found)
    assert note.startswith("Ingress web leads / and all below it to Service shop, but only ")


def test_with_a_config_map_that_it_does_not_see_it_names_every_path() -> None:
    notes = notes_of(ingress(("/admin", "Exact")), config=None, config_map="hooks")
    assert notes[1:] == [
        "Ingress web leads /admin to Service shop, so the configuration needs a route for that; other paths get 404"
    ]


def test_a_service_that_is_not_injected_is_left_out() -> None:
    given = pod()
    given["containers"][0]["ports"].append({"name": "metrics", "containerPort": 9100})
    text = written(workload(**given), service(targetPort="metrics"), ingress(("/admin", "Exact")))
    notes = inject(text, with_options(port="http"), "web.yaml").notes
    assert not [note for note in notes if "Ingress" in note]
