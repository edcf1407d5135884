import pytest

from cubekit import progress as module
from cubekit.progress import progress


def test_quick_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("write", 10, unit="blocks") as advance:
        for _ in range(10):
            advance()
    assert capsys.readouterr().err == ""


def test_long_work_says_a_line_at_each_tenth(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    with progress("write", 40, unit="blocks") as advance:
        for _ in range(40):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("write: 4/40 blocks")
    assert lines[-1].startswith("write: 40/40 blocks")


def test_it_can_be_switched_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    with progress("write", 2, enabled=False) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


def test_a_bar_names_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("predict", 3, unit="tiles", enabled=True) as advance:
        advance(3)
    assert "predict" in capsys.readouterr().err
