"""The documentation builds as a site: strictly, with no link that leads nowhere and nothing loaded from elsewhere."""

import shutil
from pathlib import Path

import pytest
import site_of_docs as site
from needs import needs
from pages import ROOT


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    zensical = needs(ROOT / ".venv/site/bin/zensical")
    for name in ("docs", "config", "helm", "kustomize", "plugins", "tests/chart/parent", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for name in ("zensical.toml", *site.OUTER):
        shutil.copy(ROOT / name, tmp_path)
    assert site.build(tmp_path, Path(zensical)) == 0, capfd.readouterr()
    made = site.Links((tmp_path / "build/site/reasons.html").read_text(encoding="utf-8"))
    assert {"reasons", "hints"} <= made.ids
    assert "troubleshooting.html#hints" in {link.removeprefix("./") for link in made.links}


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (
            '<script src="https://cdn.example/a.js"></script>',
            ["a.html loads https://cdn.example/a.js, which is external"],
        ),
        (
            '<link rel="stylesheet" href="//fonts.example/a.css">',
            ["a.html loads //fonts.example/a.css, which is external"],
        ),
        ('<a href="b.html">', ["a.html links to b.html, which does not exist"]),
        ('<a href="#b">', ["a.html links to #b, but the page has no such anchor"]),
        ('<p id="b"><a href="#b"><a href="https://example.com/"><img src="a.html">', []),
    ],
)
def test_a_page_with_a_fault_is_found(tmp_path: Path, page: str, found: list[str]) -> None:
    (tmp_path / "a.html").write_text(page)
    assert [*site.problems(tmp_path)][: len(found) or None] == found


def test_a_style_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face{src:url(https://fonts.example/a.woff)}")
    assert [*site.problems(tmp_path)] == ["a.css loads https://fonts.example/a.woff, which is external"]


def test_links_out_of_docs_become_pages(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "config").mkdir()
    (root / "config/a.yaml").write_text("a: 1\n")
    (root / "README.md").write_text("[d](docs/d.md#x) [all](config) `[code](config/no.yaml)`\n")
    (root / "docs/d.md").write_text("[up](../README.md) [file](../config/a.yaml)\n")
    site.lay_out(root, tmp_path / "pages")
    assert (tmp_path / "pages/index.md").read_text() == "[d](d.md#x) [all](files/config.md) `[code](config/no.yaml)`\n"
    assert (tmp_path / "pages/d.md").read_text() == "[up](index.md) [file](files/config/a.yaml.md)\n"
    assert "a: 1" in (tmp_path / "pages/files/config/a.yaml.md").read_text()
    assert "a: 1" in (tmp_path / "pages/files/config.md").read_text()


def test_a_page_that_the_navigation_does_not_have_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").touch()
    (tmp_path / "docs/b.md").touch()
    (tmp_path / "zensical.toml").write_text('nav = [{ "A" = "a.md" }]\n')
    assert site.missing_from_navigation(tmp_path) == {"b.md"}
