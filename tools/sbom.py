"""Prints the software bill of materials of the environment that it runs in: CycloneDX 1.6 as JSON.

    python tools/sbom.py requirements/runtime.txt [--only]

Every distribution in the lock file must be installed in the locked version; its hashes are those that pip checked. With `--only`,
nothing else may be installed except the program itself. It uses only the standard library, because an image has nothing else.
"""

import argparse
import json
import re
import sys
from importlib.metadata import Distribution, distributions

PROGRAM = "webhook-sidecar"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)


def normalise(name: str) -> str:
    """A distribution's name, normalised by PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[str, tuple[str, list[str]]]:
    """{name: (version, SHA-256 of each artefact)} of a requirements file with hashes."""
    return {
        normalise(name): (version, re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))
        for name, version, rest in _PINNED.findall(text)
    }


def license_of(distribution: Distribution) -> list[dict[str, object]]:
    meta = distribution.metadata
    if expression := "".join(meta.get_all("License-Expression", [])):
        return [{"expression": expression}]
    classifiers = [
        value.rpartition(" :: ")[2] for value in meta.get_all("Classifier", []) if value.startswith("License ::")
    ]
    named = classifiers or [value for value in meta.get_all("License", []) if value and "\n" not in value]
    return [{"license": {"name": value}} for value in named]


def component(distribution: Distribution, hashes: list[str]) -> dict[str, object]:
    name, version = normalise(distribution.metadata["Name"]), distribution.version
    result: dict[str, object] = {
        "type": "application" if name == PROGRAM else "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": license_of(distribution),
    }
    if hashes:  # of every artefact that the lock file allows; the machine decides which one was installed
        result["properties"] = [{"name": "sidecar:allowed-sha256", "value": value} for value in hashes]
    return result


def bill(lock: str, *, only: bool) -> dict[str, object]:
    """Raises `SystemExit` that lists the differences."""
    wanted = read_lock(lock)
    found = {normalise(each.metadata["Name"]): each for each in distributions()}
    problems = [
        f"{name} {found[name].version if name in found else 'is not installed'}, but {version} is locked"
        for name, (version, _) in wanted.items()
        if name not in found or found[name].version != version
    ]
    if only:
        problems += [f"{name} is installed, but not locked" for name in found if name not in wanted and name != PROGRAM]
    if PROGRAM not in found or not wanted or problems:
        raise SystemExit("\n".join(problems) or f"{PROGRAM} is not installed, or nothing is locked")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(found[PROGRAM], [])},
        "components": [component(found[name], hashes) for name, (_, hashes) in sorted(wanted.items())],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description="Writes the bill of materials of this environment.")
    arguments.add_argument("lock")
    arguments.add_argument("--only", action="store_true", help="fail if anything else is installed")
    given = arguments.parse_args()
    with open(given.lock, encoding="utf-8") as file:
        json.dump(bill(file.read(), only=given.only), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
