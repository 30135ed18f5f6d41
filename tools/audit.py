"""Checks every locked dependency for known vulnerabilities: `python tools/audit.py PIP_AUDIT requirements/*.txt`.

A known vulnerability is a failure. An unavailable or incomplete vulnerability service is not, because builds without internet
must work; it is reported loudly, so that it can't be mistaken for a clean result.
"""

import json
import subprocess
import sys

RULE = "!" * 78


def warn(message: str) -> None:
    print(f"{RULE}\n!! {message}\n{RULE}", file=sys.stderr)


def audit(command: str, lock: str) -> bool:
    """Whether the dependencies that this file locks have no known vulnerability."""
    arguments = [
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
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        report = json.loads(done.stdout)["dependencies"]
    except FileNotFoundError:
        warn(f"{lock}: NOT AUDITED: pip-audit could not be installed")
        return True
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        warn(f"{lock}: NOT AUDITED: the vulnerability service is not available")
        return True
    skipped = [each["name"] for each in report if "skip_reason" in each]
    if skipped:
        warn(f"{lock}: {len(skipped)} of {len(report)} dependencies WERE NOT AUDITED: the service does not know them")
    known = [(each["name"], each["version"], each["vulns"]) for each in report if each.get("vulns")]
    for name, version, vulnerabilities in known:
        for each in vulnerabilities:
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            print(f"{lock}: {name} {version}: {each['id']}, fixed in {fixed}", file=sys.stderr)
    if not known and len(skipped) < len(report):
        print(f"{lock}: {len(report) - len(skipped)} dependencies audited, no known vulnerability")
    return not known


if __name__ == "__main__":
    results = [audit(sys.argv[1], lock) for lock in sys.argv[2:]]
    sys.exit(0 if all(results) else 1)
