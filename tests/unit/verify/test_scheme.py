"""Templates: the text of `signed:` to the pieces that are signed."""

import pytest

from sidecar.config.presets import load_preset
from sidecar.verify.template import BODY, TIMESTAMP, HeaderValue, JsonValue, Part, Piece, TemplateError, parse_template


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{body}", (BODY,)),
        ("v0:{timestamp}:{body}", (b"v0:", TIMESTAMP, b":", BODY)),
        ("{timestamp}.{body}", (TIMESTAMP, b".", BODY)),
        ("{header:X-Id}{body}", (HeaderValue(b"x-id"), BODY)),
        ("{body}\n{timestamp}{timestamp}", (BODY, b"\n", TIMESTAMP, TIMESTAMP)),
        ("café {body}", ("café ".encode(), BODY)),
        ("{json:a.b_c}{json:d}", (JsonValue("a.b_c"), JsonValue("d"))),
        ("{method}{url}{form_sorted}", (Piece.METHOD, Piece.URL, Piece.FORM_SORTED)),
        ("{header:!#$%&'*+.^_`|~9a}-{body}", (HeaderValue(b"!#$%&'*+.^_`|~9a"), b"-", BODY)),
    ],
)
def test_a_template_becomes_its_pieces_in_order(text: str, parts: tuple[Part, ...]) -> None:
    assert parse_template(text) == parts


@pytest.mark.parametrize("text", ["{body}{body}", "{body}.{timestamp}.{body}"])
def test_a_template_signs_the_body_once(text: str) -> None:
    with pytest.raises(TemplateError, match=r"has \{body\} 2 times; use it once"):
        parse_template(text)


def test_an_empty_template_signs_nothing() -> None:
    with pytest.raises(TemplateError, match="is empty"):
        parse_template("")


def test_the_id_is_the_header_that_holds_it() -> None:
    assert parse_template("{id}.{body}", "X-Id") == (HeaderValue(b"x-id"), b".", BODY)
    with pytest.raises(TemplateError, match="no delivery_id: section"):
        parse_template("{id}.{body}")


@pytest.mark.parametrize("text", ["{body", "body}", "{body}}", "{{body}}", "{body}{", "} {body}"])
def test_a_stray_brace_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError, match="has a brace outside a placeholder"):
        parse_template(text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Body",
        " body",
        "uri",
        "header",
        "json:",
        "json:a[]",
        "json:a..b",
        "header:",
        "header:a b",
        "header:a:b",
        "header:é",
        "header:a\n",
    ],
)
def test_an_unknown_placeholder_is_named(name: str) -> None:
    with pytest.raises(TemplateError) as error:
        parse_template(f"{{{name}}}{{body}}")
    assert str(error.value) == (
        f"has the unknown placeholder {{{name}}}; known are {{body}}, {{timestamp}}, {{method}}, {{url}}, "
        "{url_without_query}, {path_query}, {path_query_escaped}, {path_query_other_slash}, {query_sorted}, {host}, "
        "{form_sorted}, {form_sorted_all}, {body_sha256_hex}, {body_sha256_b64}, {body_sha256_b64url}, {body_sha512_hex}, "
        "{body_sha512_b64}, {body_sha512_b64url}, {body_sha1_hex}, {body_crc32}, {secret}, {id}, {header:NAME}, "
        "{json:PATH}, {query:NAME}, {query_lower:NAME}, {form:NAME}, {form_joined:WITHOUT,...}, "
        "{listed_headers:HEADER} and {listed:MEMBER}"
    )


@pytest.mark.parametrize(
    ("preset", "read"),
    [
        ("begini", {b"x-signature"}),
        ("slack", {b"x-slack-signature", b"x-slack-request-timestamp"}),
        ("standard-webhooks", {b"webhook-id", b"webhook-timestamp", b"webhook-signature"}),
        ("docusign", {b"x-docusign-signature-{n}"}),
        ("github", {b"x-hub-signature-256", b"x-github-delivery"}),
    ],
)
def test_a_scheme_knows_the_headers_that_it_reads(preset: str, read: set[bytes]) -> None:
    assert set(load_preset(preset).headers) == read
