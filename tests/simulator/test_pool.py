import numpy as np
import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.simulator.pool import Pool, pool_to_bytes, read_pool
from safetensors.numpy import save_file


def tensors(prompts=10, candidates=3, features=2):
    source = np.random.default_rng(0)
    return {
        "features": source.standard_normal((prompts, candidates, features)).astype(np.float32),
        "rewards": source.standard_normal((prompts, candidates)).astype(np.float32),
    }


@pytest.fixture
def refusal(tmp_path):
    """Why a pool of these tensors is refused."""

    def of(changed, source="reviews"):
        path = tmp_path / "pool.safetensors"
        given = {name: values for name, values in (tensors() | changed).items() if values is not None}
        save_file(given, path, {"source": source} if source else None)
        with pytest.raises(RefusedInput) as refused:
            read_pool(path)
        return str(refused.value)

    return of


def test_a_pool_is_read_as_it_was_written(tmp_path):
    written = Pool(**tensors(), source="SmolLM2 on reviews, VADER")
    path = tmp_path / "pool.safetensors"
    path.write_bytes(pool_to_bytes(written))
    read = read_pool(path)
    assert (read.features == written.features).all() and (read.rewards == written.rewards).all()
    assert read.source == written.source


def test_the_same_pool_has_the_same_bytes():
    assert pool_to_bytes(Pool(**tensors(), source="x")) == pool_to_bytes(Pool(**tensors(), source="x"))


def test_what_is_missing_is_named(refusal):
    assert "it has no rewards (found: features)" in refusal({"rewards": None})


@pytest.mark.parametrize(
    ("features", "rewards"),
    [((10, 3), (10, 3)), ((10, 3, 2), (10, 4)), ((10, 3, 2), (10, 3, 1)), ((10, 4, 2), (10, 3))],
)
def test_a_pool_of_wrong_shape_is_refused(refusal, features, rewards):
    changed = {"features": np.ones(features, np.float32), "rewards": np.ones(rewards, np.float32)}
    assert f"features have shape {features} and rewards {rewards}; a pool has" in refusal(changed)


@pytest.mark.parametrize("size", [(9, 3, 2), (10, 1, 2), (10, 3, 0)])
def test_a_pool_that_is_too_small_is_refused(refusal, size):
    prompts, candidates, features = size
    letter = refusal(tensors(*size))
    assert f"{prompts} prompts, {candidates} candidates, {features} features; a simulation needs at least" in letter


def test_other_numbers_than_float32_are_refused(refusal):
    assert "rewards are float64, expected float32" in refusal({"rewards": tensors()["rewards"].astype(np.float64)})


def test_a_number_that_is_none_is_refused_by_its_place(refusal):
    features = tensors()["features"]
    features[4, 1, 0] = np.nan
    assert "features[4, 1, 0] is nan, and 1 in all are not finite" in refusal({"features": features})


def test_rewards_that_teach_nothing_are_refused(refusal):
    assert "nothing to learn" in refusal({"rewards": np.ones((10, 3), np.float32)})


def test_a_pool_must_say_where_it_comes_from(refusal):
    assert "does not say where it comes from" in refusal({}, source=None)


def test_what_is_no_pool_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match="no such file"):
        read_pool(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(RefusedInput, match="not readable as safetensors"):
        read_pool(tmp_path / "text")
