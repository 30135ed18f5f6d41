"""Builds the documentation as a site: `make site`.

The pages are those of docs/, which can be read in the repository too. They link to files outside docs/, which a site does not
have, so each of these gets a page below files/. Each preset has a page below providers/, and there is a list of them to search.
(1) lay out the pages, (2) build the site, (3) check the result.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import provider_list_page
import provider_page

from sidecar.config.presets import preset_names

ROOT = Path(__file__).parents[1]
#: Pages in the repository's root, and their names on the site.
OUTER = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "docs/README.md": "contents.md",  # the generator takes a README.md for an index.md
}
_LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
_CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.M | re.S)
#: Text for the site only, and text for the repository only.
_ON_SITE = re.compile(r"<!-- on the site: (.*?) -->", re.S)
_IN_REPOSITORY = re.compile(r"<!-- in the repository -->\n.*?<!-- end -->\n", re.S)
#: Files of tools/ that pages load.
ASSETS = ("site.css", "provider-list.js")
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".py": "python"}


def lay_out(root: Path, to: Path) -> None:
    """Writes every page of the site below `to`."""
    shutil.rmtree(to, ignore_errors=True)
    pages = {root / name: to / there for name, there in OUTER.items() if (root / name).exists()}
    pages = {path: to / path.name for path in sorted((root / "docs").glob("*.md"))} | pages
    to.mkdir(parents=True)
    if (root / "docs/pictures").exists():
        shutil.copytree(root / "docs/pictures", to / "pictures")
    for name in ASSETS:
        if (root / "tools" / name).exists():
            shutil.copy(root / "tools" / name, to)
    waiting = list(pages)
    pages |= {root / f"sidecar/presets/{name}.yaml": to / f"providers/{name}.md" for name in preset_names()}
    while waiting:
        page = waiting.pop(0)
        there = pages[page]
        text = page.read_text(encoding="utf-8") if page.suffix == ".md" else _listing(page, root)
        if page.suffix == ".md":
            text = _ON_SITE.sub(r"\1", _IN_REPOSITORY.sub("", text))
            text = _CODE.sub(lambda match: match[0].replace("](", "]\0("), text)

            def moved(match: re.Match[str], page: Path = page, there: Path = there) -> str:
                target = Path(os.path.normpath(page.parent / match[2]))
                if not target.exists():
                    return match[0]  # the generator reports it
                if target.is_relative_to(root / "docs/pictures"):
                    place = to / "pictures" / target.name
                else:
                    if target not in pages:
                        name = target.relative_to(root)
                        pages[target] = to / "files" / (name if target.suffix == ".md" else f"{name}.md")
                        waiting.append(target)
                    place = pages[target]
                return f"{match[1]}{os.path.relpath(place, there.parent)}{match[3]}"

            text = _LINK.sub(moved, text).replace("]\0(", "](")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text, encoding="utf-8")


def lay_out_providers(to: Path) -> None:
    """Writes the pages that are generated from the presets."""
    (to / "providers").mkdir()
    for name in preset_names():
        (to / f"providers/{name}.md").write_text(provider_page.page(name), encoding="utf-8")
    (to / "provider-list.md").write_text(provider_list_page.page(), encoding="utf-8")


def _listing(path: Path, root: Path) -> str:
    """A page that shows a file, or the files of a folder."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    text = f"# {path.relative_to(root)}\n"
    for file in files:
        fence = "~~~~"
        title = f"\n## {file.relative_to(path)}\n" if path.is_dir() else ""
        text += f"{title}\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8').rstrip()}\n{fence}\n"
    return text


class Links(HTMLParser):
    """The resources that a page loads, the links that it has, and the ids that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(given["id"] or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href") or "")
        elif tag != "link" and given.get("src"):
            self.loads.append(given["src"] or "")


def problems(site: Path) -> Iterator[str]:
    """The faults of a built site: external resources and broken links."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.loads:
            if urlsplit(link).netloc:
                yield f"{path.relative_to(site)} loads {link}, which is external"
        for link in [] if path.name == "404.html" else [*page.loads, *page.links]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{path.relative_to(site)} links to {link}, which does not exist"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield f"{path.relative_to(site)} links to {link}, but the page has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for link in re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} loads {link}, which is external"


def missing_from_navigation(root: Path) -> set[str]:
    """Pages of docs/ that are not in the navigation."""
    nav = (root / "zensical.toml").read_text(encoding="utf-8")
    pages = {OUTER.get(f"docs/{path.name}", path.name) for path in (root / "docs").glob("*.md")}
    return pages - set(re.findall(r'= "([\w-]+\.md)"', nav))


def build(root: Path, generator: Path) -> int:
    settings = tomllib.loads((root / "zensical.toml").read_text(encoding="utf-8"))["project"]
    lay_out(root, root / settings["docs_dir"])
    lay_out_providers(root / settings["docs_dir"])
    command: list[str | Path] = [generator, "build", "--clean", "--strict", "--config-file", root / "zensical.toml"]
    result = subprocess.run(command, env=os.environ | {"NO_COLOR": "1"}, check=False)
    if result.returncode:
        return result.returncode
    found = [
        *problems(root / settings["site_dir"]),
        *(f"{name} is not in nav of zensical.toml" for name in missing_from_navigation(root)),
    ]
    print("\n".join(found) or f"{settings['site_dir']}/index.html")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(build(ROOT, Path(sys.argv[1])))
