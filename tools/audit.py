"""Asks the vulnerability service about every locked dependency: `python tools/audit.py PIP_AUDIT requirements/*.txt`.

A known vulnerability fails. That nobody could be asked, or only about a part, does not, because builds without internet must go
on; but it is said so loudly that nobody takes silence for a clean bill.
"""

import json
import subprocess
import sys

RULE = "!" * 78


def loudly(message: str) -> None:
    print(f"{RULE}\n!! {message}\n{RULE}", file=sys.stderr)


def audit(command: str, lock: str) -> bool:
    """Whether nothing is known against what this file locks."""
    asked = [
        command,
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
        "-f",
        "json",
        "-r",
        lock,
    ]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
        report = json.loads(done.stdout)["dependencies"]
    except FileNotFoundError:
        loudly(f"{lock}: THE AUDIT WAS NOT MADE: pip-audit could not be installed")
        return True
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        loudly(f"{lock}: THE AUDIT WAS NOT MADE: the vulnerability service could not be asked")
        return True
    skipped = [each["name"] for each in report if "skip_reason" in each]
    if skipped:
        loudly(
            f"{lock}: {len(skipped)} of {len(report)} dependencies WERE NOT AUDITED: the service knows nothing of them"
        )
    known = [(each["name"], each["version"], each["vulns"]) for each in report if each.get("vulns")]
    for name, version, vulnerabilities in known:
        for each in vulnerabilities:
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            print(f"{lock}: {name} {version}: {each['id']}, mended in {fixed}", file=sys.stderr)
    if not known and len(skipped) < len(report):
        print(f"{lock}: {len(report) - len(skipped)} dependencies audited, nothing known against them")
    return not known


if __name__ == "__main__":
    results = [audit(sys.argv[1], lock) for lock in sys.argv[2:]]
    sys.exit(0 if all(results) else 1)
