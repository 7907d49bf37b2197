"""Where a starting model may come from."""

import pytest
from oatflow.components.errors import ModelError
from oatflow.components.model_folder import check_model_folder, model_digest, resolve_pretrain
from oatflow.components.store.store import open_store
from oatflow.components.store.transfer import upload_folder


@pytest.mark.slow
def test_a_model_in_a_store_is_fetched_once_and_is_the_same_model(s3_store_uri, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    model, uri = make_model(tmp_path / "model", 0, "float32"), s3_store_uri("model")
    upload_folder(open_store(uri), model, "")
    found = resolve_pretrain(uri)
    check_model_folder(found)
    assert model_digest(found) == model_digest(model)
    weights = found / "model.safetensors"
    before = weights.stat().st_mtime_ns
    weights.with_name("config.json").write_text("cut off")
    assert resolve_pretrain(uri) == found
    assert weights.stat().st_mtime_ns == before, "what is whole is not fetched again"
    assert model_digest(found) == model_digest(model), "what is not whole is"


@pytest.mark.slow
def test_a_place_in_a_store_without_a_model_is_refused(s3_store_uri):
    with pytest.raises(ModelError, match="no model lies there"):
        resolve_pretrain(s3_store_uri("nothing"))
