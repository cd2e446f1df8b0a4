"""What a person sees while text is prepared."""

import sys

import pytest

from core.corpus.progress import follow


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(follow(iter("abc"), "reading letters", 3)) == ["a", "b", "c"]
    first, last = capsys.readouterr().out.splitlines()
    assert first == "reading letters ..."
    assert last.startswith("reading letters: ") and last.endswith(" CPU seconds")


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(follow(iter("abc"), "reading letters", 3)) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert "reading letters" in printed.err and "100%" in printed.err
    assert "CPU seconds" not in printed.err and not printed.out
