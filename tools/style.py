"""Checks the language of pages, messages and docstrings: turns of phrase that slow a reader down, and the width of prose.

    python tools/style.py [FILE ...]

Each finding has its file, line and remedy. The rules are a list here, because vale fetches its program at the first run and
would need the network. tests/docs/test_style.py shows that each rule finds something, tests/docs/test_links.py checks
links, and codespell checks spelling (`make check`).
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "helm/README.md", "docs/**/*.md")
OTHERS = (
    "helm/values.yaml",
    "helm/templates/NOTES.txt",
    "helm/rules/*.yaml",
    "tools/dashboards/*.py",
    "sidecar/**/*.py",
    "sidecar/presets/*.yaml",
    "sidecar/handshakes/*.yaml",
    "config/*.yaml",
)
WIDTH = 100
MOST_LINES = 250


class Rule(NamedTuple):
    """An unwanted phrase, the better one, and a sentence that contains it."""

    pattern: str
    instead: str
    example: str


RULES = (
    Rule(
        r"\b(stands?|stood)\b(?!-)", "is, appears, is present; 'means' for 'stands for'", "The id stands in the header."
    ),
    Rule(r"\bwho(ever|soever)\b", "anyone who; name the subject", "Whoever knows the token may reload."),
    Rule(r"\banew\b", "again, or re-", "The list is fetched anew."),
    Rule(r"\b(is|are|was|were|be|been) told\b(?! apart)", "gets, is reported, is shown", "The sender is told nothing."),
    Rule(r"\btells (more|which|why|what)\b", "says, reports, shows", "The log tells why."),
    Rule(r"\blook(s|ed|ing)? at\b", "check, read, inspect", "Files are looked at once a second."),
    Rule(r"(?<!['`])\bblanks?\b", "space", "A blank after the comma is removed."),
    Rule(r"\bmend(s|ed|ing)?\b", "fix", "Mend the file first."),
    Rule(
        r"\bbehind (the|its|an?) (\w+'s )?(response|answer|signature|delivery|request|fact|head|body|comma|colon|name)\b",
        "after",
        "It is diagnosed behind the response.",
    ),
    Rule(
        r"(?:^|(?<=[.;:!?*] ))(?-i:What|Who|Whose|Whom) (?:[^.?!:|\n]|\n(?!\s*\n)|\.(?=\w))+\.(?= |\n|$)",
        "put the subject first; no clause with 'what' or 'who' as the subject",
        "What the route rejects is counted.",
    ),
    Rule(r"\bmust not say together\b", "can't be combined", "What a and b must not say together."),
    Rule(
        r"\b(take|takes|taken|took) (\w+ ){1,2}for (an?|the) (?!(long|short)er|while|time)",
        "mistake for, treat as",
        "It takes it for a signature.",
    ),
    Rule(r"\bbecomes? (an? )?`?[1-5]\d\d\b", "gets a 404", "A host of no route becomes 404."),
    Rule(r"\banswer(ed|s|ing)? (with )?(an? )?`?[1-5]\d\d\b", "gets, responds with", "It is answered 503."),
    Rule(
        r"(?<!onnection )(?<!onnections )(?<!onnections are )(?<!onnection is )"
        r"\b(refuse|refuses|refused|refusing|refusals?)\b(?! (the |to |a |an |any )?(connections?|start)\b)",
        "reject",
        "A forged delivery is refused.",
    ),
    Rule(
        r"(?<!this )\b(is|are|was|were) no (?!(longer|more|less|need|way|use|such|reason|faster|other)\b)\w+",
        "isn't a",
        "A handshake is no delivery.",
    ),
    Rule(r"\bsome (?=\d)", "about", "It takes some 20 seconds."),
    Rule(
        r"\bh(old|olds|eld) (\w+ ){1,5}against\b",
        "compare with, check against",
        "It holds the request against a preset.",
    ),
    Rule(r"\b(go|goes|gone|going) a?round\b", "bypass", "The receiver can be gone around."),
    Rule(r"\bneed(n't)? be\b", "doesn't need to be", "Nobody need be trusted."),
    Rule(r"\b(there|where|here)(by|of|in|upon)\b", "plain words", "It thereby signs the body."),
    Rule(r"\bof one's own\b", "custom, or 'your own'", "Use a scheme of one's own."),
    Rule(r"\bif need be\b|\bas it (stands|stood)\b", "plain words", "Retry if need be."),
    Rule(r"\b(put|set) to work\b", "apply, use", "The list is put to work."),
    Rule(r"\bby itself is no\b|\bno one's\b", "plain words", "It is no one's route."),
    Rule(r"\b(makes|made|make) known\b", "publish, report", "It is made known."),
    Rule(r"\bin (the )?clear text\b", "in plain text", "It is sent in clear text."),
    Rule(r"\bfor (whoever|who)\b|\bto (whoever|who)\b", "for anyone who", "It is free for who asks."),
)
#: Without a verb after it the clause is a description ("What the stages found."), which is fine.
_IS_SUBJECT = re.compile(r"(What|Who)\w*\s[^,]*\s(is|are|was|were|can|gets?|goes|stays?|counts?)\s")
_COMPILED = [(re.compile(rule.pattern, re.MULTILINE | re.IGNORECASE), rule) for rule in RULES]


class Finding(NamedTuple):
    line: int
    text: str


def findings(name: str, text: str) -> list[Finding]:
    """All findings in a file; `name` decides how it is read."""
    prose = re.sub(r"\b[Tt]here\s+(is|are|was|were)\b", _blank, _prose(name, text))
    found = [
        Finding(prose.count("\n", 0, match.start()) + 1, f"{' '.join(match[0].split())!r}: write {rule.instead}")
        for pattern, rule in _COMPILED
        for match in pattern.finditer(prose)
        if not match[0].startswith(("What ", "Who ", "Whose ", "Whom ")) or _IS_SUBJECT.match(match[0])
    ]
    if name.endswith(".md"):
        found += _wide(text) if name != "docs/providers.md" else []  # generated lists of hundreds of names
        lines = text.count("\n")
        if name.startswith("docs/") and lines > MOST_LINES:
            found.append(Finding(lines, f"the page has {lines} lines; split it, {MOST_LINES} is the limit"))
    return sorted(found)


def _prose(name: str, text: str) -> str:
    """The sentences of a file, each still on its line; everything else is replaced by NULs."""
    if name.endswith(".md"):
        text = re.sub(r"^( *)```.*?^ *```", _blank, text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL)
        text = re.sub(r"(`+)(?:[^`\n]|\n(?!\n))+?\1", _blank, text)
        return re.sub(r"\]\([^)\s]*\)", _blank, text)
    if name.endswith(".py"):
        return _python_prose(text)
    if name.startswith(("sidecar/", "helm/rules/")):
        code = r"^ *-? *(docs|source|expr|runbook_url|alert): .*|.*: [{\[].*|`[^`\n]*`"
        return re.sub(code, _blank, text, flags=re.MULTILINE)
    if name.endswith(".yaml"):
        return "\n".join(re.sub(r"`[^`]*`", _blank, line.partition("#")[2]) for line in text.split("\n"))
    return text


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "\0", match[0])


def _python_prose(source: str) -> str:
    """Comments and strings with a space in them, at their lines."""
    lines = [""] * (source.count("\n") + 2)
    for row, text in _texts(source):
        if " " in text and not re.match(r"[bB]?[rR][bB]?['\"]", text):
            for offset, line in enumerate(text.split("\n")):
                bare = re.sub(r"^ *(# ?)?[fF]?(\"\"\"|['\"])?", "", line)
                lines[row - 1 + offset] += re.sub(r"`[^`]*`|<[^>]*>|\{[^}]*\}|\b\w+[._]\w+", _blank, bare)
    return "\n".join(lines)


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Comments and strings, with the line that each begins on. Pieces of f-strings (Python 3.12 and newer) are joined."""
    lines = source.splitlines(keepends=True)
    begins, ends = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)
    open_at: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == begins:
            open_at.append(token.start)
        elif token.type == ends:
            row, column = open_at.pop()
            if not open_at:
                last, end = token.end
                whole = "".join(lines[row - 1 : last])
                yield row, whole[column : len(whole) - len(lines[last - 1]) + end]
        elif not open_at and token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.start[0], token.string


def _wide(text: str) -> Iterator[Finding]:
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced or len(line) <= WIDTH or line.lstrip().startswith(("|", "#", "```", "<!--", "![", "[!", "- <a id=")):
            continue
        if " " in line[WIDTH - 20 : WIDTH].strip() or " " in re.sub(r"\]\([^)]*\)|`[^`]*`", "", line).strip():
            longest = max(len(word) for word in _unbreakable(line))
            if longest <= WIDTH - 20:
                yield Finding(number, f"has {len(line)} columns; wrap prose at {WIDTH}")


def _unbreakable(line: str) -> list[str]:
    return re.sub(r"`[^`]*`|\]\([^)]*\)", lambda match: match[0].replace(" ", "\0"), line).split(" ")


def files() -> list[Path]:
    return sorted({path for pattern in (*PAGES, *OTHERS) for path in ROOT.glob(pattern)})


def main(paths: list[str]) -> int:
    count = 0
    checked = [Path(path).resolve() for path in paths] or files()
    for path in checked:
        name = str(path.relative_to(ROOT))
        for finding in findings(name, path.read_text(encoding="utf-8")):
            print(f"{name}:{finding.line}: {finding.text}")
            count += 1
    print(f"{len(checked)} files are read, {count} findings.")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
