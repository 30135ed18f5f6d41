"""Nothing that is shown can become a part of the page."""

import pytest

from sidecar.admin.markup import Markup, join, markup


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\"' onload=x", "&quot;&#x27; onload=x"),
        ("a&amp;b", "a&amp;amp;b"),
        ("{name} %s", "{name} %s"),
        ("line\nfeed\x00\x1b[31m", "line\ufffdfeed\ufffd\ufffd[31m"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        (7, "7"),
    ],
)
def test_every_value_is_escaped_and_shown_as_it_is(value: object, shown: str) -> None:
    assert markup('<i title="{value}">{value}</i>', value=value) == f'<i title="{shown}">{shown}</i>'


def test_only_what_was_made_as_markup_stays_markup() -> None:
    part = markup("<b>{text}</b>", text="<")
    assert markup("<p>{part}{text}</p>", part=part, text=str(part)) == "<p><b>&lt;</b>&lt;b&gt;&amp;lt;&lt;/b&gt;</p>"
    assert markup("<p>{both}</p>", both=join([part, part])) == "<p><b>&lt;</b><b>&lt;</b></p>"
    assert type(part + "<i>") is not Markup
