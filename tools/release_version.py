"""Fails unless a tag, the package, the chart and the changelog have the same version: release_version.py vX.Y.Z"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = {
    "sidecar/__init__.py": r'^__version__ = "(.*)"$',
    "helm/Chart.yaml": r"^version: (.*)$",
    "CHANGELOG.md": r"^## \[(\d.*?)\]",
}


def problems(tag: str, root: Path = ROOT) -> list[str]:
    found = []
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text(), re.MULTILINE)
        version = match[1] if match else "no version"
        if f"v{version}" != tag:
            found.append(f"{name} has {version}, and the tag is {tag}")
    return found


if __name__ == "__main__":
    said = problems(sys.argv[1])
    sys.exit("\n".join(said) or None)
