"""Links between pages lead somewhere: the file is there, and so is the heading."""

import re
from pathlib import Path

import pytest
from pages import NAMES, ROOT, prose, read

PAGES = (*NAMES, "CONTRIBUTING.md", "SECURITY.md")


def anchors(page: str) -> set[str]:
    """What a heading can be linked by: lower case, blanks as hyphens, without other signs; a second one has -1."""
    found = set(re.findall(r'<a id="([^"]+)"></a>', page))
    for title in re.findall(r"^#+ +(.*?) *$", prose(page), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        while slug in found:
            slug = f"{slug}-1"
        found.add(slug)
    return found


def dead_links(name: str, page: str) -> set[str]:
    """Links of the page `name`, relative to it, that lead nowhere."""
    dead = set()
    text = re.sub(r"(`+)(.+?)\1|<!-- on the site: .+? -->", "", prose(page), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (
            anchor
            and target.suffix == ".md"
            and anchor not in anchors(target.read_text(encoding="utf-8") if path else page)
        ):
            dead.add(link)
    return dead


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert dead_links(name, read(name)) == set()


def test_every_page_is_linked_from_the_readme_or_a_page_of_docs() -> None:
    linked = set()
    for name in PAGES:
        for link in re.findall(r"\]\(([^)\s#]+)", read(name)):
            linked.add((Path(ROOT / name).parent / link).resolve())
    assert [path.name for path in ROOT.glob("docs/*.md") if path.resolve() not in linked] == []


def test_the_index_has_every_page() -> None:
    index = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", read("docs/README.md"))}
    assert {path.name for path in ROOT.glob("docs/*.md")} - index == {"README.md"}


def test_a_dead_link_is_found() -> None:
    page = "# A title\n[a](#a-title) [b](#b) [c](nowhere.md) [d](reasons.md#reasons) [e](reasons.md#nothing) `[f](g)`\n"
    assert dead_links("docs/log.md", page) == {"#b", "nowhere.md", "reasons.md#nothing"}
