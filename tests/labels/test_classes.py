import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cubekit.errors import LabelError, OptionError, UnknownNameError
from cubekit.labels import ClassTable, class_table
from cubekit.labels.classes import PALETTE, default_colours


def test_known_covers_get_fitting_colours_and_the_rest_the_palette() -> None:
    table = ClassTable.of(["open water", "Forests", "Zeta"])
    assert table.colours == ("#0072b2", "#117733", PALETTE[0])
    assert table.codes == (0, 1, 2)


def test_only_whole_words_count_as_a_known_cover() -> None:
    assert default_colours(["rice"])[0] != default_colours(["ice"])[0]


def test_given_colours_win_and_are_not_reused() -> None:
    table = ClassTable.of(["water", "crop"], colours={"crop": "#0072B2"})
    assert table.colours[1] == "#0072b2"
    assert table.colours[0] != "#0072b2"


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60))
def test_every_class_has_its_own_colour(names: list[str]) -> None:
    table = ClassTable.of(names)
    assert len(set(table.colours)) == len(names)


def test_index_names_the_nearest_class() -> None:
    with pytest.raises(UnknownNameError, match="'forest'"):
        ClassTable.of(["forest", "water"]).index("forrest")


@pytest.mark.parametrize(
    ("names", "colours", "codes", "message"),
    [
        (["a", "a"], None, None, "names repeat: a"),
        (["a", "b"], None, [1, 1], "codes repeat: 1"),
        (["a"], ["red"], None, "'red'"),
        (["a", "b"], ["#000000"], None, "1 colours"),
    ],
)
def test_malformed_tables_are_refused(
    names: list[str], colours: list[str] | None, codes: list[int] | None, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        ClassTable.of(names, colours=colours, codes=codes)


def test_a_colour_for_no_class_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'water'"):
        ClassTable.of(["water"], colours={"watre": "#000000"})


@pytest.mark.parametrize("count", [1, 3])
def test_table_survives_netcdf(tmp_path: object, count: int) -> None:
    table = ClassTable.of(["a", "b", "c"][:count], codes=[7, 5, 9][:count])
    labels = xr.Dataset({"label": ("x", [0], table.attrs())})
    labels.to_netcdf(f"{tmp_path}/labels.nc")
    with xr.open_dataset(f"{tmp_path}/labels.nc") as opened:
        assert class_table(opened) == table
        assert class_table(opened["label"]) == table


def test_labels_without_a_table_are_refused() -> None:
    with pytest.raises(LabelError, match="'classes'"):
        class_table(xr.DataArray([0]))
    with pytest.raises(LabelError, match="'elevation'"):
        class_table(xr.Dataset({"elevation": 1}))


def test_colours_do_not_run_out() -> None:
    """A single brightness has fewer colours than this; looking for one more never ended."""
    assert len(set(default_colours([str(number) for number in range(3000)]))) == 3000
