"""Templates: the text of `signed:` to the pieces that are signed."""

import pytest

from sidecar.scheme import BODY, TIMESTAMP, HeaderValue, Part, TemplateError, parse_template


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{body}", (BODY,)),
        ("v0:{timestamp}:{body}", (b"v0:", TIMESTAMP, b":", BODY)),
        ("{timestamp}.{body}", (TIMESTAMP, b".", BODY)),
        ("{header:X-Id}{body}", (HeaderValue(b"x-id"), BODY)),
        ("{body}\n{timestamp}{timestamp}", (BODY, b"\n", TIMESTAMP, TIMESTAMP)),
        ("café {body}", ("café ".encode(), BODY)),
        ("{header:!#$%&'*+.^_`|~9a}-{body}", (HeaderValue(b"!#$%&'*+.^_`|~9a"), b"-", BODY)),
    ],
)
def test_a_template_becomes_its_pieces_in_order(text: str, parts: tuple[Part, ...]) -> None:
    assert parse_template(text) == parts


@pytest.mark.parametrize("text", ["", "{timestamp}", "literal", "{body}{body}", "{body}.{timestamp}.{body}"])
def test_a_template_signs_the_body_exactly_once(text: str) -> None:
    with pytest.raises(TemplateError, match=r"must contain \{body\} exactly once"):
        parse_template(text)


@pytest.mark.parametrize("text", ["{body", "body}", "{body}}", "{{body}}", "{body}{", "} {body}"])
def test_a_stray_brace_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError, match="has a brace that belongs to no placeholder"):
        parse_template(text)


@pytest.mark.parametrize(
    "name", ["", "Body", " body", "url", "header", "header:", "header:a b", "header:a:b", "header:é", "header:a\n"]
)
def test_an_unknown_placeholder_is_named(name: str) -> None:
    with pytest.raises(TemplateError) as error:
        parse_template(f"{{{name}}}{{body}}")
    assert str(error.value) == (
        f"has the unknown placeholder {{{name}}}; known are {{body}}, {{timestamp}} and {{header:NAME}}"
    )
