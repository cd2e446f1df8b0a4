"""What a person sees while text is prepared."""

import sys

import pytest

from core.corpus.progress import follow


@pytest.mark.parametrize(
    ("seconds", "line"), [(0.4, ""), (2.5, "reading letters: 2.5 CPU seconds\n")]
)
def test_a_plain_line_for_what_took_its_time_where_there_is_no_terminal(
    seconds: float,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.process_time", iter([10.0, 10.0 + seconds]).__next__)
    assert list(follow(iter("abc"), "reading letters", 3)) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", line)


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(follow(iter("abc"), "reading letters", 3)) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert "reading letters" in printed.err and "100%" in printed.err
    assert "CPU seconds" not in printed.err and not printed.out
