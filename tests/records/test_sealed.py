import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.errors import DamagedObject
from oatflow.components.records.sealed import seal_document, unseal_document

BODY = {"round": 3, "text": "größe", "nested": {"list": [1, 2.5, None, True]}}


def test_a_document_comes_back_as_it_was_written():
    assert unseal_document(seal_document(BODY), "k") == BODY


def test_the_same_body_gives_the_same_bytes_whatever_the_order_of_its_keys():
    assert seal_document(BODY) == seal_document(dict(reversed(BODY.items())))


@given(st.integers(0, len(seal_document(BODY)) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_noticed_by_name(position, flip):
    data = bytearray(seal_document(BODY))
    data[position] ^= flip
    with pytest.raises(DamagedObject, match=r"rounds/x\.json"):
        unseal_document(bytes(data), "rounds/x.json")


def test_a_document_without_its_seal_is_refused():
    with pytest.raises(DamagedObject):
        unseal_document(json.dumps(BODY).encode(), "k")


def test_what_is_not_a_number_is_never_written():
    with pytest.raises(ValueError):
        seal_document({"win_rate": float("nan")})
