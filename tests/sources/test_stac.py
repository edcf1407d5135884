"""Searches: real items through a real API, and an API whose answers are scripted."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from cubekit.errors import EmptySearchError, OptionError, SearchError, SecurityError, UnknownNameError
from cubekit.sources import paging, stac
from cubekit.sources.items import open_items
from cubekit.sources.stac import search
from cubekit.sources.web import retry_policy
from cubekit.testing.servers import stac_server

SITE2 = "planetary_computer/site2-2020_jun_jul-35MNM.geojson"

REAL = [
    (SITE2, "sentinel-2-l2a", 13),
    ("planetary_computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", "sentinel-2-l2a", 1),
    ("planetary_computer/sentinel-2-l2a-pc.json", "sentinel-2-l2a", 4),
    ("planetary_computer/landsat-c2-l2-pc.json", "landsat-c2-l2", 4),
    ("planetary_computer/100-landsat-items.parquet", "landsat-c2-l2", 100),
    ("planetary_computer/cop-dem-glo-30-pc.json", "cop-dem-glo-30", 4),
    ("planetary_computer/io-lulc-annual-v02-pc.json", "io-lulc-annual-v02", 4),
    ("earth_search_v0/S2A_28QCH_20200714_0_L2A.json", "sentinel-s2-l2a-cogs", 1),
    ("earth_search_v1/sentinel-2-l2a_item_collection.json", "sentinel-2-c1-l2a", 10),
    ("earth_search_v1/100-sentinel-2-items.parquet", "sentinel-2-l2a", 100),
    ("modis_13q1_061/MOD13Q1.A2022017.h12v11.061.json", "modis-13Q1-061", 1),
    ("modis_13q1_061/MYD13Q1.A2022009.h09v06.061.json", "modis-13Q1-061", 1),
    ("stactools_sentinel2/S2A_T07HFE_20190212T192646_L2A.json", "sentinel2-l2a-example", 1),
    ("usgs/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", "landsat-c2l2-sr", 1),
    ("usgs/LC08_L2SR_081119_20200101_20200823_02_T2.json", "landsat-c2l2-sr", 1),
    ("dea/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json", "items", 1),
]


@pytest.mark.shared
@pytest.mark.parametrize(("file", "collection", "count"), REAL, ids=[entry[0][-28:] for entry in REAL])
def test_every_file_of_items_can_be_searched(shared: Path, file: str, collection: str, count: int) -> None:
    pytest.importorskip("rustac")
    path = shared / "data/stac" / file
    direct = open_items(path)
    with stac_server(path) as url:
        items = search(collection, url=url)
        assert {s.id for s in items} == {s.id for s in direct}
        assert len(items) == count
        assert items.origin == url
        if collection != "items":  # the DEA item names no collection, so the server made one up
            assert items.collection == direct.collection
            assert items.bands == direct.bands
        assert items.signer == direct.signer
        assert (np.diff(items.datetimes).astype(int) >= 0).all()
        ids = {s.id for s in direct if s.datetime and s.datetime == direct[0].datetime}
        if ids:
            moment = direct[0].datetime
            assert {s.id for s in search(collection, url=url, datetime=moment)} == ids


@pytest.fixture(scope="module")
def site2(shared: Path) -> Iterator[str]:
    pytest.importorskip("rustac")
    stac_files = shared / "data/stac"
    with stac_server(
        stac_files / SITE2, stac_files / "planetary_computer/sentinel-2-l2a.collection.json"
    ) as url:
        yield url


@pytest.mark.shared
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 13),
        ({"datetime": "2020"}, 13),
        ({"datetime": "2020-07"}, 7),
        ({"datetime": "2020-06/2020-07"}, 13),
        ({"datetime": "2020-06-01/2020-06-11"}, 3),
        ({"datetime": "2020-07-15/.."}, 4),
        ({"datetime": (None, "2020-06-11")}, 3),
        ({"bbox": (27.1, -8, 27.2, -7.9)}, 13),
        ({"intersects": shapely.box(27.1, -8, 27.2, -7.9)}, 13),
        ({"intersects": {"type": "Point", "coordinates": [27.5, -7.5]}}, 13),
        ({"max_items": 4}, 4),
    ],
)
def test_time_and_place(site2: str, options: dict[str, Any], count: int) -> None:
    items = search("sentinel-2-l2a", url=site2, **options)
    assert len(items) == count
    days = items.datetimes.astype("datetime64[D]")
    assert (np.diff(days) > np.timedelta64(0, "D")).all()


@pytest.mark.shared
def test_small_pages_give_the_same_items(site2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac, "PAGE_SIZE", 3)
    assert len(search("sentinel-2-l2a", url=site2)) == 13
    assert len(search("sentinel-2-l2a", url=site2, max_items=5)) == 5


@pytest.mark.shared
def test_nothing_found_echoes_the_search(site2: str) -> None:
    with pytest.raises(
        EmptySearchError, match=r"sentinel-2-l2a at http.*bbox=\(0, 0, 1, 1\), datetime='2020'"
    ):
        search("sentinel-2-l2a", url=site2, bbox=(0, 0, 1, 1), datetime="2020")
    with pytest.raises(EmptySearchError, match=r"other at .* any place and time"):
        search("other", url=site2)


@pytest.mark.shared
def test_query_needs_an_api_that_has_it(site2: str) -> None:
    with pytest.raises(SearchError, match="does not offer the query extension"):
        search("sentinel-2-l2a", url=site2, query={"eo:cloud_cover": {"lt": 20}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bbox": (0, 0, 1)}, "four numbers"),
        ({"bbox": (0, 0, 1, float("nan"))}, "four numbers"),
        ({"bbox": (50, 170, 51, 171)}, r"swapped\? Try \(170.0, 50.0, 171.0, 51.0\)"),
        ({"bbox": (500_000, 5_000_000, 510_000, 5_010_000)}, "leaves the globe"),
        ({"bbox": (1, 5, 2, 4)}, "no area"),
        ({"bbox": (1, 4, 1, 5)}, "no area"),
        ({"bbox": (2, 4, 1, 5)}, r"around the globe. Try \(1.0, 4.0, 2.0, 5.0\)"),
        ({"bbox": (0, 0, 1, 1), "intersects": shapely.box(0, 0, 1, 1)}, "not both"),
        ({"intersects": shapely.box(5e5, 5e6, 6e5, 6e6)}, "reproject it to EPSG:4326"),
        ({"intersects": {"type": "Nothing"}}, "not a geometry"),
        ({"intersects": shapely.Polygon()}, "empty geometry"),
        ({"datetime": "2020-13"}, "not a period.*'2023-05/2023-09'"),
        ({"datetime": "last summer"}, "not a period"),
        ({"datetime": "../.."}, "not a period"),
        ({"datetime": "2020/2021/2022"}, "not a period"),
        ({"datetime": "2021/2020"}, "ends before it starts"),
        ({"max_items": 0}, "at least 1"),
        ({"url": "file:///etc"}, "http"),
    ],
)
def test_senseless_searches_are_refused_before_anything_is_asked(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        search("sentinel-2-l2a", **{"url": "http://127.0.0.1:9", **options})


def test_unknown_names_come_with_hints() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'sentinel-2-l2a'\? Any id .* url="):
        search("sentinel-2-l2b")
    with pytest.raises(UnknownNameError, match="provider='planetary-computer'"):
        search("modis-13q1-061", provider="earth-search")
    with pytest.raises(UnknownNameError, match="None of the known ones"):
        search("ga_ls8c_ard_3", provider="cdse")
    with pytest.raises(UnknownNameError, match="Did you mean 'cdse'"):
        search("sentinel-2-l2a", provider="cds")


class Api:
    """A STAC API whose search answers are functions of the number of the request."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[int], tuple[int, Any]] = lambda _: (200, page([]))
        self.headers: dict[str, str] = {}
        self.delay = 0.0
        self.conforms = ["core", "item-search", "item-search#query"]

    def root(self) -> dict[str, Any]:
        links = [
            {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "POST"}
        ]
        links += [{"rel": rel, "href": f"{self.url}/"} for rel in ("self", "root")]
        conforms = [f"https://api.stacspec.org/v1.0.0/{name}" for name in self.conforms]
        described = {"type": "Catalog", "stac_version": "1.0.0", "id": "scripted", "description": "scripted"}
        return {**described, "links": links, "conformsTo": conforms}


def page(features: list[dict[str, Any]], following: dict[str, Any] | None = None) -> dict[str, Any]:
    links = [{"rel": "next", "type": "application/geo+json", **following}] if following else []
    return {"type": "FeatureCollection", "features": features, "links": links}


def scene(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Point", "coordinates": [5, 45]},
        "bbox": [5, 45, 5, 45],
        "properties": {"datetime": "2023-05-01T10:00:00Z", **properties},
        "links": [],
        "assets": {"B04": {"href": "b04.tif", "type": "image/tiff"}},
    }


@contextmanager
def serve(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/search"):
                self.respond(*self.search(None))
            else:
                self.respond(200, api.root())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.respond(*self.search(json.loads(body)))

        def search(self, body: Any) -> tuple[int, Any]:
            api.asked.append({"path": self.path, "body": body})
            time.sleep(api.delay)
            return api.answer(len(api.asked))

        def respond(self, status: int, content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (api.headers if status >= 400 else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up on purpose
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield api.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "retry_policy", lambda total: retry_policy(total=total, backoff=0.01))


@pytest.fixture
def api(impatient: None) -> Iterator[Api]:
    scripted = Api()
    with serve(scripted):
        yield scripted


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_answers_that_pass_are_asked_for_again(api: Api, status: int) -> None:
    api.answer = lambda n: (status, b"busy") if n < 4 else (200, page([scene("a")]))
    assert len(search("sentinel-2-l2a", url=api.url)) == 1
    assert len(api.asked) == 4


def test_retry_after_is_honoured_and_capped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    api.headers = {"Retry-After": "5"}
    api.answer = lambda n: (429, b"") if n == 1 else (200, page([scene("a")]))
    search("sentinel-2-l2a", url=api.url)
    api.headers = {"Retry-After": "99999"}
    api.asked.clear()
    search("sentinel-2-l2a", url=api.url)
    assert [wait for wait in waits if wait] == [5, 60]


def test_retries_end(api: Api) -> None:
    api.answer = lambda _: (503, b"<html>down for maintenance</html>")
    with pytest.raises(SearchError, match=r"could not be searched: status 503: .*down for maintenance"):
        search("sentinel-2-l2a", url=api.url)
    assert len(api.asked) == 5


@pytest.mark.parametrize("status", [400, 403, 404])
def test_other_answers_are_not_asked_for_again(api: Api, status: int) -> None:
    api.answer = lambda _: (status, b"no such collection")
    with pytest.raises(SearchError, match=f"status {status}: no such collection"):
        search("sentinel-2-l2a", url=api.url)
    assert len(api.asked) == 1


def test_time_limits_act_and_a_late_answer_is_asked_for_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac, "TIMEOUT", (1.0, 0.2))
    api.delay = 0.6
    start = time.monotonic()
    with pytest.raises(SearchError, match="timed out"):
        search("sentinel-2-l2a", url=api.url)
    assert time.monotonic() - start < 5
    assert len(api.asked) == 5


def test_nobody_there(impatient: None) -> None:
    with pytest.raises(SearchError, match=r"could not be searched.*refused"):
        search("sentinel-2-l2a", url="http://127.0.0.1:9")


def test_pages_are_followed_by_post_and_get(api: Api) -> None:
    def answer(n: int) -> tuple[int, Any]:
        post = {"href": f"{api.url}/search", "method": "POST", "body": {"token": "t1"}, "merge": True}
        hrefs = {2: f"{api.url}/search?token=t2", 3: "/search?token=t3"}
        following = post if n == 1 else {"href": hrefs[n]} if n in hrefs else None
        return 200, page([scene(f"s{n}")], following)

    api.answer = answer
    assert len(search("sentinel-2-l2a", url=api.url)) == 4
    assert api.asked[1]["body"] == {**api.asked[0]["body"], "token": "t1"}
    assert [entry["path"] for entry in api.asked[2:]] == ["/search?token=t2", "/search?token=t3"]


def test_an_empty_page_in_the_middle_is_not_the_end(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.answer = lambda n: (
        200,
        page([] if n in {1, 3} else [scene(f"s{n}")], {"href": f"{api.url}/search?n={n}"} if n < 4 else None),
    )
    assert [s.id for s in search("sentinel-2-l2a", url=api.url)] == ["s2", "s4"]
    assert "page 3 holds no item" in caplog.text


def test_empty_pages_without_end_are_given_up(api: Api) -> None:
    api.answer = lambda n: (200, page([], {"href": f"{api.url}/search?n={n}"}))
    with pytest.raises(SearchError, match="20 empty pages in a row"):
        search("sentinel-2-l2a", url=api.url)


def test_a_loop_of_pages_is_noticed(api: Api) -> None:
    api.answer = lambda n: (200, page([scene(f"s{n}")], {"href": f"{api.url}/search?token={n % 3}"}))
    with pytest.raises(SearchError, match="pages repeat after 3"):
        search("sentinel-2-l2a", url=api.url)
    assert len(api.asked) == 4


def test_pages_and_items_are_capped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answer = lambda n: (200, page([scene(f"s{n}")], {"href": f"{api.url}/search?token={n}"}))
    monkeypatch.setattr(paging, "MAX_PAGES", 7)
    with pytest.raises(SearchError, match="more than 7 pages"):
        search("sentinel-2-l2a", url=api.url)
    monkeypatch.setattr(stac, "MAX_ITEMS", 5)
    with pytest.raises(SearchError, match="more than 5 items"):
        search("sentinel-2-l2a", url=api.url)
    monkeypatch.setattr(paging, "MAX_SECONDS", -1)
    with pytest.raises(SearchError, match="no end of pages"):
        search("sentinel-2-l2a", url=api.url)


def test_a_next_page_on_another_host_is_refused(api: Api) -> None:
    api.answer = lambda _: (200, page([scene("a")], {"href": "http://evil.example/search?token=SECRET"}))
    with pytest.raises(SecurityError, match=r"another host, 'evil\.example'") as raised:
        search("sentinel-2-l2a", url=api.url)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("content", [b"<html>login</html>", b"5", {"type": "FeatureCollection"}, b"[]", b""])
def test_answers_that_are_no_items_are_named(api: Api, content: Any) -> None:
    api.answer = lambda _: (200, content)
    with pytest.raises(SearchError, match=r"no list of features|does not answer as a STAC API"):
        search("sentinel-2-l2a", url=api.url)


def test_a_root_that_is_no_api_is_named(api: Api) -> None:
    api.conforms = ["core"]
    with pytest.raises(SearchError, match="offers no item search"):
        search("sentinel-2-l2a", url=api.url)
    api.root = lambda: {"hello": "world"}  # type: ignore[method-assign]
    with pytest.raises(SearchError, match="does not answer as a STAC API"):
        search("sentinel-2-l2a", url=api.url)


def test_a_box_across_the_antimeridian_is_asked_in_two_parts(api: Api) -> None:
    api.answer = lambda _: (200, page([scene("a")]))
    items = search("sentinel-2-l2a", url=api.url, bbox=(179, -20, -179, -10))
    assert [entry["body"]["bbox"] for entry in api.asked] == [[179, -20, 180, -10], [-180, -20, -179, -10]]
    assert len(items) == 1


def test_query_is_sent(api: Api) -> None:
    api.answer = lambda _: (200, page([scene("a")]))
    search("sentinel-2-l2a", url=api.url, query={"eo:cloud_cover": {"lt": 20}}, datetime="2023-05")
    body = api.asked[0]["body"]
    assert body["query"] == {"eo:cloud_cover": {"lt": 20}}
    assert body["datetime"] == "2023-05-01T00:00:00Z/2023-05-31T23:59:59.999999Z"


def test_relative_addresses_start_at_the_api_and_may_be_read(api: Api) -> None:
    api.answer = lambda _: (200, page([scene("a")]))
    items = search("sentinel-2-l2a", url=api.url)
    assert items.href(items[0].assets["B04"]) == f"{api.url}/b04.tif"


STRIP = "S2A_OPER_MSI_L2A_DS_VGS2_{generated}_S{start}_N{baseline}"


def sentinel(
    baseline: str, generated: str, *, start: str = "20190629T212530", tile: str = "06VVN"
) -> dict[str, Any]:
    return scene(
        f"S2A_MSIL2A_20190629T212529_N{baseline.replace('.', '')}_R043_T{tile}_{generated}",
        platform="Sentinel-2A",
        **{
            "s2:datastrip_id": STRIP.format(generated=generated, start=start, baseline=baseline),
            "s2:processing_baseline": baseline,
            "s2:generation_time": f"{generated[:4]}-{generated[4:6]}-{generated[6:8]}T00:00:00Z",
        },
    )


def test_of_reprocessed_scenes_the_newest_stays(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    old, new = sentinel("02.12", "20190629T231500"), sentinel("05.00", "20230501T000000")
    newest = sentinel("05.00", "20240501T000000")
    half = sentinel("05.00", "20230501T000001", start="20190629T212800")  # the other half of the tile
    neighbour = sentinel("02.12", "20190629T231500", tile="06VWN")
    api.answer = lambda _: (200, page([new, old, newest, half, neighbour, new]))
    items = search("sentinel-2-l2a", url=api.url)
    assert {s.id for s in items} == {newest["id"], half["id"], neighbour["id"]}
    assert "3 repeated or superseded" in caplog.text
    assert old["id"] in caplog.text


def test_of_items_listed_twice_the_last_updated_stays(api: Api) -> None:
    old = scene("a", updated="2023-01-01T00:00:00Z", version=1)
    new = scene("a", updated="2024-01-01T00:00:00Z", version=2)
    api.answer = lambda n: (200, page([old, new] if n % 2 else [new, old]))
    for _ in range(2):
        items = search("sentinel-2-l2a", url=api.url)
        assert [s.properties["version"] for s in items] == [2]


def test_a_broken_item_is_named(api: Api) -> None:
    api.answer = lambda _: (200, page([scene("a"), {**scene("b"), "assets": None}]))
    with pytest.raises(OSError, match="id 'b'"):
        search("sentinel-2-l2a", url=api.url)
