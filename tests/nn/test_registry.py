import subprocess
import sys
from collections.abc import Iterator

import pytest

from cubekit.errors import OptionError, UnknownNameError

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from cubekit.nn import create, describe, names, register  # noqa: E402
from cubekit.nn.registry import _REGISTERED, _SHIPPED  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Leave no test network behind."""
    before = set(_REGISTERED)
    yield
    for name in set(_REGISTERED) - set(_SHIPPED) - before:
        del _REGISTERED[name]


def test_a_class_becomes_a_network_by_name() -> None:
    @register("mine", task="classify", form="series", paper="none")
    class Mine(nn.Module):
        """One linear layer."""

        def __init__(self, *, bands: int, classes: int, dropout: float = 0.1) -> None:
            super().__init__()
            self.head = nn.Linear(bands, classes)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mean(1))  # type: ignore[no-any-return]

    built = create("mine", bands=3, classes=2)
    assert isinstance(built, Mine)
    info = describe("mine")
    assert (info.required, dict(info.defaults)) == (("bands", "classes"), {"dropout": 0.1})
    assert (info.summary, info.paper, info.task, info.form) == (
        "One linear layer.",
        "none",
        "classify",
        "series",
    )
    assert "mine" in names()
    assert "mine" in names("classify")
    assert "mine" not in names("fuse")


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tempcnn'"):
        create("tempcn", bands=1, steps=2, classes=3)


def test_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no argument 'band'.*Did you mean 'bands'"):
        create("tempcnn", band=1)


def test_missing_arguments_are_listed() -> None:
    with pytest.raises(OptionError, match="needs steps, classes"):
        create("tempcnn", bands=1)


def test_a_taken_name_is_refused() -> None:
    class Other(nn.Module):
        pass

    with pytest.raises(OptionError, match=r"'tempcnn' belongs to cubekit\.nn\.tempcnn"):
        register("tempcnn", task="classify", form="series")(Other)


def test_arguments_without_names_are_refused() -> None:
    class Loose(nn.Module):
        def __init__(self, **settings: int) -> None:
            super().__init__()

    with pytest.raises(OptionError, match=r"\*\*kwargs"):
        register("loose", task="classify", form="series")(Loose)


def test_wrong_task_and_form_are_refused() -> None:
    with pytest.raises(OptionError, match="'classify'"):
        register("x", task="classif", form="series")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'series'"):
        register("x", task="classify", form="serie")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'fuse'"):
        names("fus")  # type: ignore[arg-type]


def test_the_registry_itself_needs_no_torch() -> None:
    code = (
        "import sys, cubekit.nn as nn; assert 'tempcnn' in nn.names(); "
        "assert not {'torch', 'cubekit.nn.tempcnn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_shipped_network_says_where_it_is_from() -> None:
    for name in _SHIPPED:
        assert "https://doi.org/" in (describe(name).paper or ""), name
