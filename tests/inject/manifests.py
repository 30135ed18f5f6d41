"""Manifests to inject into, and the same ones in any layout."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

CONFIG = """# who sends
routes:
  - {path: /webhooks/stripe, verify: stripe, secrets: [{file: /run/secrets/stripe/secret}]}
  - {path: /healthz, open: true}
"""


def pod(**more: Any) -> dict[str, Any]:
    return {
        "containers": [
            {
                "name": "shop",
                "image": "registry.example/shop:1",
                "ports": [{"name": "http", "containerPort": 3000}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            }
        ],
        **more,
    }


def workload(kind: str = "Deployment", name: str = "shop", **spec: Any) -> dict[str, Any]:
    """A workload whose pods have the label `app: NAME`."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec or pod()}
    metadata = {"name": name}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata | {"labels": labels}, "spec": template["spec"]}
    if kind in ("Job", "CronJob"):
        template["spec"] = template["spec"] | {"restartPolicy": "Never"}
        job: dict[str, Any] = {"template": template}
        of_cron = {"schedule": "* * * * *", "jobTemplate": {"spec": job}}
        return {
            "apiVersion": "batch/v1",
            "kind": kind,
            "metadata": metadata,
            "spec": of_cron if kind == "CronJob" else job,
        }
    made: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if kind == "StatefulSet":
        made["serviceName"] = name
    api = "argoproj.io/v1alpha1" if kind == "Rollout" else "apps/v1"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": made}


def service(name: str = "shop", **port: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": "http"} | port]
    spec = {"selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def written(*objects: Any) -> str:
    """As people write it: each value written out wherever it is used."""
    return yaml.dump_all(json.loads(json.dumps(objects)), Dumper=yaml.CSafeDumper, sort_keys=False)


def read(text: str) -> list[Any]:
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


@st.composite
def layouts(draw: st.DrawFn, value: Any) -> str:
    """Any of the ways in which people and tools write `value` as YAML."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    comments = draw(st.booleans())
    indented = draw(st.booleans())

    def remark(column: int) -> list[str]:
        return [" " * column + "# ünïcode: {remark"] if comments and draw(st.integers(0, 3)) == 0 else []

    def block(value: Any, column: int) -> list[str]:
        """Lines; the first without its indentation."""
        lines: list[str] = []
        if isinstance(value, dict):
            for key, item in value.items():
                inner = column + (2 if isinstance(item, dict) or indented else 0)
                if lines:
                    lines += remark(column)
                head = " " * column + str(key) + ":"
                if isinstance(item, str) and "\n" in item and draw(st.booleans()):
                    lines += [
                        f"{head} {'|+' if item.endswith(chr(10) * 2) else '|' if item.endswith(chr(10)) else '|-'}"
                    ]
                    lines += [" " * (column + 2) + line if line else "" for line in item.splitlines()]
                elif is_block(item):
                    nested = block(item, inner)
                    lines += [
                        head + (" # here" if comments else ""),
                        *remark(inner),
                        " " * inner + nested[0],
                        *nested[1:],
                    ]
                else:
                    lines.append(f"{head} {flow(item)}" + ("  # a remark" if comments else ""))
        else:
            for item in value:
                if lines:
                    lines += remark(column)
                if is_block(item):
                    nested = block(item, column + 2)
                    lines += [" " * column + "- " + nested[0], *nested[1:]]
                else:
                    lines.append(" " * column + f"- {flow(item)}")
        return [lines[0].lstrip(" "), *lines[1:]]

    def is_block(value: Any) -> bool:
        return isinstance(value, dict | list) and bool(value) and draw(st.integers(0, 7)) != 0

    def flow(value: Any) -> str:
        return json.dumps(value, indent=draw(st.sampled_from([None, 2])) if isinstance(value, dict | list) else None)

    lines = block(value, 0)
    start = draw(st.sampled_from(["", "---\n", "# first\n---\n", "--- # first\n", "\n"]))
    end = draw(st.sampled_from(["\n", "", "\n# last\n", "\n\n", "\n# last", "\n---\n"]))
    return (start + "\n".join(lines) + end).replace("\n", newline)
