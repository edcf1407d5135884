import sys

import pytest

import cubekit
from cubekit.cli import main
from cubekit.errors import MissingDependencyError

COMMANDS = [
    *("search", "plan", "build", "info", "rechunk", "verify"),
    *("train", "predict", "export", "run", "demo"),
]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search"]) == 2
    assert "collection" in capsys.readouterr().err.lower()


@pytest.mark.torch
def test_an_unknown_pipeline_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "cbers_bahai"]) == 2
    assert "cbers_bahia" in capsys.readouterr().err


def test_a_missing_store_is_one_paragraph_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nowhere.zarr"]) == 1
    shown = capsys.readouterr().err
    assert "nowhere.zarr" in shown
    assert "Traceback" not in shown


def test_a_bad_bbox_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "sentinel-2-l2a", "--bbox", "1,2,3"]) == 2
    assert "3 numbers" in capsys.readouterr().err


def test_the_learning_half_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[:2] == ["cubekit", "training"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(cubekit, "training", raising=False)  # back afterwards, for the tests to come
    monkeypatch.delitem(vars(cubekit), "fit", raising=False)  # where an earlier test has loaded it
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["info", "nowhere"]) != 0
    with pytest.raises(MissingDependencyError, match=r"pip install 'cubekit\[torch\]'"):
        _ = cubekit.fit
