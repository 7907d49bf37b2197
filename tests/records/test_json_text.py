"""JSON that people wrote: what could be read in two ways is refused."""

import pytest
from oatflow.components.records.json_text import parse_json


def test_values_are_read_as_json_says():
    assert parse_json('{"a": [1, {"a": null}], "b": {"a": 2}}') == {"a": [1, {"a": None}], "b": {"a": 2}}
    assert parse_json(b'"text"') == "text"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "c": 0, "a": 1}}]'])
def test_a_key_given_twice_is_named(text):
    with pytest.raises(ValueError, match="'a' is given twice; keep one of both"):
        parse_json(text)


def test_values_nested_too_deeply_are_refused():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000 + "]" * 100_000)
