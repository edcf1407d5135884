import pytest

from cubekit.errors import CubekitError, OptionError, SourceError, check_kind, check_option, did_you_mean


def test_nearest_option_is_named() -> None:
    assert did_you_mean("redd", ["red", "green"]) == "Did you mean 'red'?"


def test_far_names_list_the_known_ones() -> None:
    assert did_you_mean("zzz", ["red", "green"]) == "Known are: green, red."


def test_check_option_names_argument_value_and_hint() -> None:
    with pytest.raises(OptionError, match=r"how='medain'.*'median'"):
        check_option("how", "medain", ["median", "mean"])


def test_errors_are_also_the_builtin_a_caller_expects() -> None:
    assert issubclass(OptionError, ValueError)
    assert issubclass(SourceError, OSError)
    assert issubclass(SourceError, CubekitError)


def test_a_value_of_another_kind_is_shown_with_the_remedy() -> None:
    check_kind("number", 3, (int, float), "count")
    with pytest.raises(OptionError, match="number is '3', expected int or float: count"):
        check_kind("number", "3", (int, float), "count")
    with pytest.raises(OptionError, match="number is a list, expected int: count"):
        check_kind("number", [3], int, "count")
