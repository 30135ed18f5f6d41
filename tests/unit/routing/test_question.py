"""What a gateway's question is about, in both forms, and whose word counts."""

import pytest

from sidecar.http1.head import Header, make_head
from sidecar.outcomes import Reason
from sidecar.routing.question import Question, QuestionForm, read_question

DESCRIBED: list[Header] = [
    (b"Host", b"authorizer"),
    (b"X-Forwarded-Method", b"POST"),
    (b"X-Forwarded-Uri", b"/hooks?a=1"),
    (b"X-Forwarded-Host", b"hooks.example"),
    (b"X-Signature", b"abc"),
]


def read(
    fields: list[Header],
    *,
    target: bytes = b"/question",
    form: QuestionForm = QuestionForm.ANY,
    prefix: bytes = b"",
    trusted: bool = True,
) -> Question:
    return read_question(make_head("GET", target, fields, "192.0.2.1"), form, prefix, trusted=trusted)


def test_forward_auth_is_read_as_the_delivery_that_it_describes() -> None:
    head = read(DESCRIBED).head
    assert (head.method, head.target, head.path, head.peer) == ("POST", b"/hooks?a=1", b"/hooks", "192.0.2.1")
    assert list(head.headers) == [
        (b"Host", b"hooks.example"),
        (b"X-Forwarded-Host", b"hooks.example"),
        (b"X-Signature", b"abc"),
    ]


def test_without_a_forwarded_host_the_questions_own_counts() -> None:
    head = read([field for field in DESCRIBED if field[0] != b"X-Forwarded-Host"]).head
    assert head.values(b"host") == (b"authorizer",)


@pytest.mark.parametrize("missing", [b"X-Forwarded-Method", b"X-Forwarded-Uri"])
def test_half_a_description_is_none(missing: bytes) -> None:
    question = read([field for field in DESCRIBED if field[0] != missing])
    assert (question.head.target, question.rejected, question.disbelieved) == (b"/question", None, False)


def test_nobody_is_believed_who_is_not_trusted() -> None:
    question = read(DESCRIBED, trusted=False)
    assert (question.head.target, question.rejected, question.disbelieved) == (b"/question", None, True)
    question = read(DESCRIBED, trusted=False, form=QuestionForm.FORWARD_AUTH)
    assert question.rejected is not None
    assert (question.rejected.reason, question.disbelieved) == (Reason.NO_ROUTE, True)


def test_envoys_question_with_a_description_is_ambiguous_unless_the_form_is_fixed() -> None:
    fields = [*DESCRIBED, (b"x-envoy-internal", b"true")]
    question = read(fields)
    assert question.rejected is not None
    assert question.rejected.reason is Reason.MALFORMED_REQUEST
    assert read(fields, form=QuestionForm.ENVOY).head.target == b"/question"
    assert read(fields, form=QuestionForm.FORWARD_AUTH).head.target == b"/hooks?a=1"


def test_a_prefix_is_taken_off_once_and_tells_the_forms_apart() -> None:
    fields = [*DESCRIBED, (b"x-envoy-internal", b"true")]
    assert read(fields, target=b"/a/hooks", prefix=b"/a").head.target == b"/hooks"
    assert read(fields, target=b"/a/a/hooks?x", prefix=b"/a").head.target == b"/a/hooks?x"
    assert read(fields, target=b"/question", prefix=b"/a").head.target == b"/hooks?a=1"
    for target in (b"/question", b"/ahooks", b"/a", b"/a?x"):
        rejected = read([(b"Host", b"h")], target=target, prefix=b"/a").rejected
        assert rejected is not None
        assert rejected.reason is Reason.NO_ROUTE


@pytest.mark.parametrize(
    "field",
    [
        (b"X-Forwarded-Method", b"GET"),
        (b"X-Forwarded-Uri", b"/other"),
        (b"X-Forwarded-Host", b"other.example"),
    ],
)
def test_a_repeated_description_is_rejected(field: Header) -> None:
    rejected = read([*DESCRIBED, field]).rejected
    assert rejected is not None
    assert rejected.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X-Forwarded-Method", b""),
        (b"X-Forwarded-Method", b"po st"),
        (b"X-Forwarded-Method", b"CONNECT"),
        (b"X-Forwarded-Uri", b""),
        (b"X-Forwarded-Uri", b"hooks"),
        (b"X-Forwarded-Uri", b"*"),
        (b"X-Forwarded-Uri", b"/a b"),
        (b"X-Forwarded-Uri", b"/\xc3\xa9"),
        (b"X-Forwarded-Uri", b"https://hooks.example/hooks"),
        (b"X-Forwarded-Host", b"user@hooks.example"),
    ],
)
def test_a_description_is_as_strict_as_a_request_line(name: bytes, value: bytes) -> None:
    fields = [(key, value if key == name else given) for key, given in DESCRIBED]
    question = read(fields)
    assert question.rejected is not None
    assert question.rejected.reason is Reason.MALFORMED_REQUEST
    assert question.head.target == b"/question"
