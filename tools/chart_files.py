"""Generates files in helm/, for `make docs`. Don't edit them by hand.

values.schema.json  its `$defs.config`, from `sidecar schema`
files/presets.json  what the chart's checks need to know about presets, from sidecar/presets/
files/ranges.json   the names of the published networks, from sidecar/ranges/
README.md           its table of values, from the comments in values.yaml
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.keys import json_schema
from sidecar.config.presets import preset_names
from sidecar.config.ranges import range_names

ROOT = Path(__file__).parent.parent
HELM = ROOT / "helm"
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)
#: Keys, and keys below them, whose patterns are left out because templates/_check.tpl has a better message.
CHECKED_BY_TEMPLATES: dict[str, tuple[str, ...]] = {
    "listen": (), "admin": (), "upstream": (), "public_url": (), "path": (), "name": (), "drain": (), "replay": (),
    "allow": (), "trusted_proxies": (),
    "limits": ("body", "buffer", "header_timeout", "body_timeout", "refusals"),
    "timeouts": ("connect", "response", "total", "idle"),
    "ip_ranges": ("refresh",),
}  # fmt: skip
#: Keys that decide whether a scheme is valid, and those that a test delivery needs.
PRESET_KEYS = (
    "signature", "timestamp", "signed", "key", "binds_body", "body_hash", "any_port", "url_unescaped", "delivery_id", "handshake",
    "reject",
)  # fmt: skip


def generate() -> dict[Path, str]:
    """Every generated file with its text."""
    schema = HELM / "values.schema.json"
    values = json.loads(schema.read_text())
    values["$defs"]["config"] = config_schema()
    readme = HELM / "README.md"
    table = values_table((HELM / "values.yaml").read_text())
    return {
        schema: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        HELM / "files/presets.json": one_per_line(presets()),
        HELM / "files/ranges.json": json.dumps(range_names()) + "\n",
        readme: TABLE.sub(lambda _: table, readme.read_text()),
    }


def config_schema() -> dict[str, Any]:
    """The configuration's schema, without the parts for which templates/_check.tpl has better messages."""
    schema = {key: value for key, value in json_schema().items() if key not in ("$schema", "title", "required")}
    route = schema["properties"]["routes"]["items"]
    schema["properties"]["routes"].pop("minItems", None)
    for keys in (schema["properties"], route["properties"]):
        for key, inner in CHECKED_BY_TEMPLATES.items():
            checked = keys.get(key, {})
            below = (checked.get("properties", {}).get(name, {}) for name in inner)
            for each in (checked, checked.get("items", {}), *below):
                each.pop("pattern", None)
                each.pop("not", None)
    schema["properties"]["replay_store"] = {"description": schema["properties"]["replay_store"]["description"]}
    _open_secrets(schema)
    # One alternative instead of three (a preset's name, a scheme, a preset with changes), so that errors name the wrong key.
    *_, changed = route["properties"]["verify"]["anyOf"]
    changed["properties"]["preset"].pop("enum")
    route["properties"]["verify"] = changed | {"type": ["string", "object"], "required": []}
    return schema


def _open_secrets(schema: Any) -> None:
    """Lets references to secrets be anything: the templates check them, without repeating what may be the secret itself."""
    for key, below in list(schema.items() if isinstance(schema, dict) else enumerate(schema)):
        if isinstance(below, dict) and {"env", "file"} <= set(below.get("properties", ())):
            schema[key] = {"description": "a reference to a secret: {file: ...} or {env: ...}"}
        elif isinstance(below, dict | list):
            _open_secrets(below)


def presets() -> dict[str, Any]:
    result = {}
    for name in preset_names():
        text = yaml.safe_load((ROOT / f"sidecar/presets/{name}.yaml").read_text())
        result[name] = {key: text[key] for key in PRESET_KEYS if key in text}
        if (status := text.get("delivery", {}).get("resend_status")) is not None:
            result[name]["delivery"] = {"resend_status": status}
        if "handshake" in result[name]:
            result[name]["handshake"] = [{"compare": True} if "compare" in item else {} for item in text["handshake"]]
    return result


def one_per_line(mapping: dict[str, Any]) -> str:
    lines = (f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in mapping.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def values_table(text: str) -> str:
    lines = ["| value | default | |\n", "|---|---|---|\n"]
    values = yaml.safe_load(text)
    for path, about in documented_keys(text):
        default: Any = values
        for key in path:
            default = default[key]
        shown = json.dumps(default, ensure_ascii=False)
        lines.append(f"| `{'.'.join(path)}` | `{shown}` | {about} |\n")
    return "".join(lines)


def documented_keys(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each key that has a comment beginning with `# --`, and the comment."""
    path: list[tuple[int, str]] = []
    about = ""
    for line in text.splitlines():
        if match := re.fullmatch(r" *# -- (.*)", line):
            about = match[1]
        elif about and (match := re.fullmatch(r" *# ?(.*)", line)):
            about += " " + match[1]
        elif match := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [step for step in path if step[0] < len(match[1])]
            path.append((len(match[1]), match[2]))
            if about:
                yield tuple(name for _, name in path), about
            about = ""
        else:
            about = ""


if __name__ == "__main__":
    for file, text in generate().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
