"""The rule for commit subjects, by examples."""

import pytest
from commit_subjects import problem


@pytest.mark.parametrize(
    "subject",
    [
        "Add benchmark figures for unsigned deliveries",
        "Fix the test of recent rejections",
        "Pass `Host` on unchanged",
        "Bring X up to date",
    ],
)
def test_an_imperative_passes(subject: str) -> None:
    assert problem(subject) == ""


@pytest.mark.parametrize(
    "subject",
    [
        "The log line is put together of texts",
        "A delivery that no secret matches is refused",
        "What is returned is called the same",
        "Adds benchmark figures",
        "Added benchmark figures",
        "Adding benchmark figures",
        "add benchmark figures",
        "Add benchmark figures.",
        "Add " + 69 * "x",
    ],
)
def test_anything_else_is_a_problem(subject: str) -> None:
    assert problem(subject) != ""
