"""Blobs that need a token, and tokens that end while the job runs."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest

import cubekit as ck
from cubekit.errors import SourceError
from cubekit.sources.signing import register_signer
from cubekit.testing.archive import SampleArchive
from tests.services.servers import Azurite, items_at

pytestmark = pytest.mark.services
SECONDS = 3.0


class Tokens:
    """Caches a token for its nominal life, as a clock that runs behind would: past its true end."""

    def __init__(self, service: Azurite) -> None:
        self.service, self.token, self.until, self.renewed = service, "", 0.0, 0

    def __call__(self, href: str, *, fresh: bool = False) -> str:
        if fresh or time.monotonic() > self.until:
            self.renewed += fresh
            self.token = self.service.sas("scenes", seconds=SECONDS)
            self.until = time.monotonic() + 600
        return f"{href}?{self.token}"


def test_tokens_that_end_during_the_job_are_renewed(
    azurite: Azurite,
    sample_archive: SampleArchive,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    tokens = Tokens(azurite)
    register_signer("azurite", tokens)
    azurite.make_container("scenes")
    features = items_at(sample_archive, "scenes")
    for feature in features:
        for asset in feature["assets"].values():
            name = asset["href"].removeprefix("scenes/")
            asset["href"] = azurite.put("scenes", name, (sample_archive.folder / name).read_bytes())
    items = replace(ck.open_items(features), signer="azurite")
    where = ck.grid(crs=sample_archive.crs, resolution=20, bbox=sample_archive.bbox)
    cube = ck.open_cube(items, where, bands=["red"], chunks={"time": 1})
    half = cube.sizes["time"] // 2
    first = cube["data"][:half].compute()
    time.sleep(SECONDS + 1.5)  # the signer's clock still holds the token for good, the service no longer does
    second = cube["data"][half:].compute()
    assert tokens.renewed >= 1
    local = ck.open_cube(ck.open_items(sample_archive.items), where, bands=["red"])["data"].compute()
    np.testing.assert_array_equal(first, local[:half])
    np.testing.assert_array_equal(second, local[half:])
    shown = f"{cube.attrs}{cube['data'].attrs}{pickle.dumps(cube)!r}{caplog.text}"
    assert "sig=" not in shown
    assert tokens.token.rsplit("sig=", maxsplit=1)[-1] not in shown


def test_without_a_token_the_error_says_so_and_shows_none(
    azurite: Azurite, sample_archive: SampleArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    register_signer("expired", lambda href, *, fresh=False: f"{href}?{azurite.sas('scenes', seconds=-5)}")
    items = replace(ck.open_items(items_at(sample_archive, f"{azurite.url}/scenes")), signer="expired")
    where = ck.grid(crs=sample_archive.crs, resolution=20, bbox=sample_archive.bbox)
    with pytest.raises(SourceError, match="403") as raised:
        ck.open_cube(items[:1], where, bands=["red"]).compute()
    assert "sig=" not in str(raised.value)
