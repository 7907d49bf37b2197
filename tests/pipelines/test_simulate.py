import numpy as np
import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.simulator.pool import Pool, pool_to_bytes
from oatflow.pipelines.command_table import run_command as run

SMALL = ["--queries", "20", "--prompts", "10", "--seeds", "2", "--candidates", "4", "--features", "3", "--jobs", "1"]


@pytest.fixture
def pool_file(tmp_path):
    source = np.random.default_rng(0)
    features = source.standard_normal((20, 3, 5)).astype(np.float32)
    path = tmp_path / "pool.safetensors"
    path.write_bytes(pool_to_bytes(Pool(features, features.sum(axis=2), "made up")))
    return path


def simulate(folder, *flags):
    return run(["simulate", *flags, "--out", str(folder)])


def test_a_simulation_prints_a_table_and_writes_a_page_and_its_numbers(tmp_path, capsys):
    assert simulate(tmp_path / "out", *SMALL, "--strategies", "EnnEETS,EnnBAITS", "--reward", "neural") == 0
    printed = capsys.readouterr().out
    assert "a neural reward" in printed
    for name in ("random", "EnnEETS", "EnnBAITS"):
        assert any(line.startswith(name) and "[" in line for line in printed.splitlines())
    csv = (tmp_path / "out" / "simulation.csv").read_text().splitlines()
    assert len(csv) >= 1 + 3 * 2 * 3
    assert "2 strategies and random, 2 seeds, 20 queries each" in (tmp_path / "out" / "simulation.html").read_text()


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_with_any_number_of_processes(tmp_path):
    for folder, jobs in (("one", "1"), ("two", "2")):
        simulate(tmp_path / folder, *SMALL[:-1], jobs, "--strategies", "EnnBAITS")
    for name in ("simulation.csv", "simulation.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("law", ["paper", pytest.param("oat", marks=pytest.mark.slow)])
def test_everybody_plays_on_a_pool_of_real_candidates(tmp_path, capsys, pool_file, law):
    flags = ["--queries", "20", "--prompts", "10", "--seeds", "1", "--jobs", "1", "--temperature", "0", "--law", law]
    assert simulate(tmp_path / "out", "--pool", str(pool_file), *flags) == 0
    printed = capsys.readouterr().out
    assert "20 prompts with 3 candidates of 5 features: made up." in printed
    for name in ("random", "EnnPassive", "EnnEETS", "EnnBAITS", "EnnUncertainty", "DRTS", "DeltaUCB"):
        assert any(line.startswith(f"{name} ") for line in printed.splitlines())
    assert str(pool_file.parent) not in (tmp_path / "out" / "simulation.html").read_text()


@pytest.mark.parametrize(
    ("flags", "letter"),
    [
        (["--strategies", "EnnBAIT"], "strategies='EnnBAIT': unknown; did you mean 'EnnBAITS'"),
        (["--strategies", "APL"], "strategies='APL': unknown; known: DRTS, DeltaUCB"),
        (["--queries", "0"], "queries=0: expected at least 1"),
        (["--candidates", "1"], "candidates=1: expected at least 2"),
        (["--temperature", "-1"], "temperature=-1.0: expected at least 0"),
        (["--temperature", "nan"], "temperature=nan: expected at least 0"),
        (["--pool", "nowhere.safetensors"], "pool='nowhere.safetensors': no such file"),
        (["--pool", "nowhere.safetensors", "--features", "3"], "features=3: a pool has its own"),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name_and_nothing_is_written(tmp_path, flags, letter):
    with pytest.raises(RefusedInput) as refused:
        simulate(tmp_path / "out", *flags)
    assert letter in str(refused.value) and not (tmp_path / "out").exists()
