"""Credentials that go with a read: to the right hosts, at the right time, and nowhere else."""

import logging
import pickle
import threading
import traceback
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pystac
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio._env import get_gdal_config

import cubekit
from cubekit.catalog import open_catalog
from cubekit.cube.reader import Form, Source, read_onto, with_file
from cubekit.errors import SourceError
from cubekit.sources import buckets, signing
from cubekit.sources.access import Access, Secret
from cubekit.sources.items import Items
from cubekit.sources.signing import access
from cubekit.testing.servers import Fault, FileServer, file_server

BOX = GeoBox.from_bbox((500_000, 5_000_000, 501_280, 5_001_280), "EPSG:32631", resolution=10)
VALUES = np.arange(128 * 128, dtype="uint16").reshape(128, 128) + 1
CANARY = "SECRETTOKEN123456"
FORM = Form(geobox=BOX, dtype="uint16", nodata=0, drivers=("GTiff",))

pytestmark = pytest.mark.usefixtures("no_credentials")


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = (*buckets._AWS_SIGNS, *buckets._GOOGLE_SIGNS, *buckets._AZURE_SIGNS)  # noqa: SLF001  (all that count)
    for name in (*names, "AZURE_STORAGE_ACCOUNT", "AWS_REQUEST_PAYER", "AWS_REGION", "EARTHDATA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bucket")
    (root / "eodata").mkdir()
    for name in ("eodata/red.tif", "eodata/other.tif", "red.tif"):
        profile = {"driver": "GTiff", "count": 1, "height": 128, "width": 128, "dtype": "uint16", "nodata": 0}
        with rasterio.open(root / name, "w", crs=str(BOX.crs), transform=BOX.transform, **profile) as file:
            file.write(VALUES, 1)
    return root


def read(href: str, signer: str | None) -> Any:
    return read_onto(Source(href=href, form=FORM, item="a", asset="red", signer=signer), BOX).values


def test_a_bearer_reaches_its_host_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", CANARY)
    with file_server(folder) as store:
        there = store.url.replace("127.0.0.1", "localhost") + "/red.tif"
        with file_server(folder, faults=[Fault(path="/red.tif", status=303, location=there)]) as archive:
            monkeypatch.setattr(buckets, "EARTHDATA_HOSTS", (archive.url.removeprefix("http://"),))
            np.testing.assert_array_equal(read(f"{archive.url}/red.tif", "earthdata"), VALUES)
            first = archive.requests()
        second = store.requests()
        read(f"{store.url}/red.tif", "earthdata")
        assert {entry.get("authorization", "") for entry in store.requests()} == {""}
    assert {entry.get("authorization", "") for entry in first} == {f"Bearer {CANARY}"}
    assert second
    assert {entry.get("authorization", "") for entry in second} == {""}


def test_other_threads_see_no_credentials_while_one_reads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", CANARY)
    seen: list[Any] = []

    def use(file: Any) -> None:
        other = threading.Thread(target=lambda: seen.append(get_gdal_config("GDAL_HTTP_HEADERS")))
        other.start()
        other.join()

    with file_server(folder) as archive:
        monkeypatch.setattr(buckets, "EARTHDATA_HOSTS", (archive.url.removeprefix("http://"),))
        source = Source(href=f"{archive.url}/red.tif", form=FORM, item="a", asset="red", signer="earthdata")
        assert threading.current_thread() is threading.main_thread()  # whose options GDAL gives to all
        with_file(source, use)
        assert {entry.get("authorization") for entry in archive.requests()} == {f"Bearer {CANARY}"}
    assert seen == [None]
    assert get_gdal_config("GDAL_HTTP_HEADERS") is None


@pytest.mark.parametrize(
    ("href", "known"),
    [
        ("https://data.lpdaac.earthdatacloud.nasa.gov/x.tif", True),
        ("https://e4ftl01.cr.usgs.gov/x.hdf", True),
        ("https://earthdatacloud.nasa.gov.example.com/x.tif", False),
        ("https://notearthdata.nasa.gov/x.tif", False),
        ("http://data.lpdaac.earthdatacloud.nasa.gov/x.tif", False),  # in the clear
        ("https://example.com/?x=earthdata.nasa.gov", False),
    ],
)
def test_only_nasa_sees_the_token(monkeypatch: pytest.MonkeyPatch, href: str, *, known: bool) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", CANARY)
    granted = access("earthdata", href)
    assert (granted.address, bool(granted.settings)) == (href, known)


def test_s3_requests_are_signed_with_the_keys_of_the_provider(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "KEYOFMINE")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", CANARY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-account")
    with file_server(folder) as store:
        monkeypatch.setenv("CDSE_S3_ENDPOINT", store.url)
        np.testing.assert_array_equal(read("s3://eodata/red.tif", "cdse"), VALUES)
        asked = store.requests()
    assert {entry["path"] for entry in asked} == {"/eodata/red.tif"}
    assert all(
        entry.get("authorization", "").startswith("AWS4-HMAC-SHA256 Credential=KEYOFMINE/") for entry in asked
    )
    assert not any("x-amz-security-token" in entry.get("authorization", "") for entry in asked)
    assert rasterio.env.local._env is None or "AWS_SECRET_ACCESS_KEY" not in rasterio.env.getenv()  # noqa: SLF001


def local_s3(monkeypatch: pytest.MonkeyPatch, store: FileServer) -> None:
    monkeypatch.setenv("AWS_S3_ENDPOINT", store.url.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")


def test_a_bucket_is_read_unsigned_without_keys_and_signed_with_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file_server(folder) as store:
        local_s3(monkeypatch, store)
        np.testing.assert_array_equal(read("s3://eodata/red.tif", None), VALUES)
        assert {entry.get("authorization", "") for entry in store.requests()} == {""}
        count = len(store.requests())
        profile = folder / "credentials"
        profile.write_text(f"[work]\naws_access_key_id=KEYOFWORK\naws_secret_access_key={CANARY}\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
        monkeypatch.setenv("AWS_PROFILE", "work")
        read("s3://eodata/other.tif", None)
        later = store.requests()[count:]
    assert later
    assert all("Credential=KEYOFWORK/" in entry.get("authorization", "") for entry in later)


def test_who_pays_must_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = "https://landsatlook.usgs.gov/data/collection02/x.TIF"
    with pytest.raises(SourceError, match=r"set AWS_REQUEST_PAYER .*bills its readers"):
        access("usgs-landsat", web)
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    granted = access("usgs-landsat", web)
    assert granted.address == "/vsis3/usgs-landsat/collection02/x.TIF"
    assert access("usgs-landsat", "https://example.com/x.TIF").address == "https://example.com/x.TIF"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYOFMINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setattr(buckets, "_LANDSAT_BUCKET", "s3://eodata/")
    with file_server(folder) as store:
        local_s3(monkeypatch, store)
        read("s3://eodata/red.tif", "usgs-landsat")
        assert {entry.get("payer") for entry in store.requests()} == {"requester"}


def test_google_and_azure_names(monkeypatch: pytest.MonkeyPatch) -> None:
    google = access(None, "gs://b/k%20x.tif")
    assert (google.address, google.settings) == ("/vsigs/b/k x.tif", {"GS_NO_SIGN_REQUEST": "YES"})
    lake = access(None, "abfss://c@acc.dfs.core.windows.net/k.tif")
    assert lake.address == "/vsiaz/c/k.tif"
    assert lake.settings == {"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_NO_SIGN_REQUEST": "YES"}
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=x")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "x.json")
    assert access(None, "az://c/k.tif").settings == {}
    assert access(None, "gs://b/k.tif").settings == {}


def test_a_shared_access_signature_signs_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    href = "https://acc.blob.core.windows.net/c/x.tif"
    with pytest.raises(SourceError, match="set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_SAS_TOKEN"):
        access("azure-sas", href)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acc")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"?sv=1&sig={CANARY}")
    assert access("azure-sas", href).address == f"{href}?sv=1&sig={CANARY}"
    other = href.replace("acc.", "other.")
    assert access("azure-sas", other).address == other


@pytest.mark.parametrize("name", ["cdse", "earthdata"])
def test_missing_credentials_say_what_to_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("CDSE_S3_ACCESS_KEY", raising=False)
    href = {"cdse": "s3://eodata/x.tif", "earthdata": "https://data.earthdatacloud.nasa.gov/x.tif?sig=1"}[
        name
    ]
    with pytest.raises(SourceError, match=r"CDSE_S3_ACCESS_KEY|EARTHDATA_TOKEN") as raised:
        access(name, href)
    assert "sig" not in str(raised.value)


class Rotating:
    """A signer whose first token has ended."""

    def __init__(self) -> None:
        self.fresh: list[bool] = []

    def __call__(self, href: str, *, fresh: bool = False) -> str:
        self.fresh.append(fresh)
        return f"{href}?token={CANARY if fresh else 'ended'}"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("good", [True, False])
def test_a_refusal_is_answered_by_signing_once_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, *, good: bool
) -> None:
    sign = Rotating()
    monkeypatch.setitem(signing._SIGNERS, "rotating", sign)  # noqa: SLF001  (to undo it afterwards)
    fault = Fault(path="/red.tif", status=status, unless=CANARY if good else "never")
    with file_server(folder, faults=[fault]) as store:
        if good:
            np.testing.assert_array_equal(read(f"{store.url}/red.tif", "rotating"), VALUES)
        else:
            with pytest.raises(SourceError, match=f"code: {status}") as raised:
                read(f"{store.url}/red.tif", "rotating")
            assert CANARY not in "".join(traceback.format_exception(raised.value))
    assert sign.fresh == [False, True]


@pytest.fixture
def secrets(no_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", CANARY)
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "KEYOFMINE")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", CANARY)


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("name", ["earthdata", "cdse"])
@pytest.mark.parametrize("status", [0, 403])
def test_no_secret_in_graph_attributes_logs_or_exceptions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, status: int
) -> None:
    faults = [Fault(path="*", status=status)] if status else []
    with file_server(folder, faults=faults) as store, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv("CDSE_S3_ENDPOINT", store.url)
        monkeypatch.setattr(buckets, "EARTHDATA_HOSTS", (store.url.removeprefix("http://"),))
        item = pystac.Item("scene", None, None, pystac.utils.str_to_datetime("2023-05-01T10:00:00Z"), {})
        grid = {
            "proj:code": "EPSG:32631",
            "proj:shape": [128, 128],
            "proj:transform": list(BOX.transform)[:6],
        }
        coding = {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}
        href = "s3://eodata/red.tif" if name == "cdse" else f"{store.url}/red.tif"
        item.add_asset("red", pystac.Asset(href, media_type="image/tiff", extra_fields=grid | coding))
        items = Items((item,), open_catalog().match("none"), origin=store.url, signer=name)
        cube = cubekit.open_cube(items, bands=["red"])
        texts = [cloudpickle.dumps(cube).decode("latin1"), repr(cube), str(cube.attrs), repr(items)]
        texts.append(str(dict(cube["data"].data.dask)))
        if status:
            with pytest.raises(SourceError) as raised:
                cube["data"].compute(scheduler="threads")
            texts.append("".join(traceback.format_exception(raised.value)))
        else:
            np.testing.assert_array_equal(cube["data"].compute(scheduler="threads").values[0, 0], VALUES)
        assert any(entry.get("authorization", "") for entry in store.requests())
    texts.append(caplog.text)
    assert not [text for text in texts if CANARY in text]


def test_secrets_are_not_shown_and_do_not_travel() -> None:
    granted = Access(
        "https://e.com/x?sig=1", {"GDAL_HTTP_HEADERS": Secret(f"Authorization: Bearer {CANARY}")}
    )
    assert CANARY not in repr(granted) + repr(granted.settings) + granted.scrub(f"denied {CANARY}")
    for thing in (granted, granted.settings["GDAL_HTTP_HEADERS"]):
        with pytest.raises(TypeError, match="stays in the process"):
            pickle.dumps(thing)
