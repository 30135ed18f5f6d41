"""Checks the subjects of commits: imperative, at most 72 characters, no full stop (CONTRIBUTING.md, "Commits").

    python tools/commit_subjects.py [REVISIONS]

Default: all commits since the rule was introduced. Older ones break it, and history is not rewritten.
"""

import re
import subprocess
import sys

SINCE = "6f943f55f42682b48763b336fd3311fff6a7789e"
MOST = 72
#: An imperative starts the subject: not an article, a pronoun, a gerund, a past tense or a third person.
NOT_IMPERATIVE = re.compile(
    r"(?!Bring|Embed|Exceed|Feed|Need|Proceed|Ring|Seed|Shed|Speed|Swing)(?:An?|The|This|That|It|What|Who|Where|When|Now|[A-Z][a-z]+(?:ing|ed|[^su]s))\b"
)


def problem(subject: str) -> str:
    """The fault of a subject; empty if there is none."""
    if len(subject) > MOST:
        return f"has {len(subject)} characters; {MOST} is the limit"
    if subject.endswith("."):
        return "ends with a full stop; remove it"
    if not subject[:1].isupper():
        return "doesn't begin with a capital letter"
    if NOT_IMPERATIVE.match(subject):
        return "isn't an imperative; write what the commit does, as in 'Add benchmark figures'"
    return ""


def main(revisions: str) -> int:
    command = ["git", "log", "--no-merges", "--format=%h %s", revisions]
    log = subprocess.run(command, capture_output=True, text=True, check=False)
    if log.returncode != 0:
        print(f"Commit subjects are not checked: {log.stderr.strip().splitlines()[0]}")  # a shallow or exported tree
        return 0
    wrong = []
    for line in log.stdout.splitlines():
        commit, _, subject = line.partition(" ")
        if found := problem(subject):
            wrong.append(f"{commit}: {subject!r} {found}")
    print("\n".join(wrong) or f"{len(log.stdout.splitlines())} commit subjects are fine.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else f"{SINCE}..HEAD"))
