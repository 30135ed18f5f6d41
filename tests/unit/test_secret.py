"""A secret shows itself to `reveal()` and to nothing else."""

import copy
import io
import json
import logging
import pickle
import traceback

import pytest

from sidecar.secret import Secret, mask_url

VALUE = b"hunter2-hunter2-hunter2"


@pytest.fixture
def secret() -> Secret:
    return Secret("current", VALUE)


def test_reveal_gives_the_raw_bytes(secret: Secret) -> None:
    assert secret.reveal() == VALUE


def test_an_empty_secret_can_not_be_made() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        Secret("current", b"")


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>80}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - the old way must not show it either
        lambda secret: repr([secret, {"a": secret}]),
        lambda secret: json.dumps({"secret": secret}, default=repr),
    ],
)
def test_no_way_to_text_shows_the_value(secret: Secret, show: object) -> None:
    assert callable(show)
    text = show(secret)
    assert "hunter2" not in text
    assert "current" in text


def test_a_log_record_and_a_traceback_show_the_id_only(secret: Secret) -> None:
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        raise RuntimeError(secret)
    except RuntimeError as error:
        logger.exception("with %s", secret)
        whole = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "current" in stream.getvalue()
    assert "hunter2" not in stream.getvalue() + whole


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(secret: Secret, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_secret_is_not_copied(secret: Secret, duplicate: object) -> None:
    assert callable(duplicate)
    with pytest.raises(TypeError):
        duplicate(secret)


def test_equality_and_hash_do_not_look_at_the_value(secret: Secret) -> None:
    assert secret != Secret("current", VALUE)
    assert len({secret, Secret("current", VALUE)}) == 2


def test_a_secret_has_no_dictionary_to_dump(secret: Secret) -> None:
    with pytest.raises(TypeError):
        vars(secret)


def test_it_matches_its_own_value_and_no_other(secret: Secret) -> None:
    assert secret.matches(VALUE)
    for other in (VALUE[:-1], VALUE + b"\0", VALUE.upper(), b""):
        assert not secret.matches(other)


def test_it_can_have_another_id() -> None:
    renamed = Secret("current", VALUE, retire_by=7.0).with_id("previous")
    assert (renamed.id, renamed.reveal(), renamed.retire_by) == ("previous", VALUE, 7.0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8080/hooks", "http://127.0.0.1:8080/hooks"),
        ("https://joe:s3cret@mirror.example/meta", "https://***@mirror.example/meta"),
        ("https://onlytoken@mirror.example:8443/", "https://***@mirror.example:8443/"),
        ("http://a:b%40c@d@h/", "http://***@h/"),
        ("http://user:pa/ss@host/x", "http://***@host/x"),
        ("https://h/x?token=abc&v=1", "https://h/x?token=***&v=***"),
        ("https://h/x?abc", "https://h/x?***"),
        ("https://h/x?a=b=c?d=e&f", "https://h/x?a=***&***"),
        ("https://h/x?a=b#c", "https://h/x?a=***"),
        ("http://u:p\n@h/?x=y", "http://***@h/?x=***"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert mask_url(url) == shown
