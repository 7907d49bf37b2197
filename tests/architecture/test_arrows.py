"""The law of the house (components on the left know nothing of those on the right), read from the source."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The order of the rooms: each imports only from rooms before it, but for the ways between the stations below.
LEFT = [
    "errors",
    "settings",
    "former_settings",
    "images",
    "seeds",
    "statistics",
    "progress",
    "step_ending",
    "number_format",
    "records",
    "store",
    "model_folder",
    "ledger",
    "jobs",
    "oracles",
    "people",
    "reward_server",
]
STATIONS = [
    "prompts",
    "reward_model",
    "exploration",
    "sampling",
    "labeling",
    "policy",
    "evaluation",
    "reporting",
    "simulator",
    "rounds",
]
SIDEWAYS = {
    "reward_model": {"prompts"},
    "exploration": {"reward_model"},
    "sampling": {"prompts", "exploration", "reward_model"},
    "labeling": {"prompts"},
    "policy": {"prompts"},
    "evaluation": {"prompts", "sampling", "labeling", "reward_model", "exploration"},
    "reporting": {"labeling", "evaluation"},
    "simulator": {"reward_model", "exploration", "evaluation", "reporting"},
    "rounds": {"prompts", "sampling", "exploration", "labeling", "policy", "reward_model", "evaluation"},
}
# Where a heavy library may be imported: one library, one door.
DOORS = {
    "vllm": {"components/sampling/vllm_engine.py"},
    "deepspeed": {"components/policy/learner.py"},
    "peft": {"components/policy/adapter.py"},
    "minio": {"components/store/s3.py"},
    "kubernetes": {"components/jobs/cluster.py"},
    "kfp_server_api": {"pipelines/cluster/kubeflow_client.py"},
    "croniter": {"pipelines/cluster/cron.py"},
    "cron_descriptor": {"pipelines/cluster/cron.py"},
    "rich": {"pipelines/laptop/display.py"},
    "wandb": {"components/reporting/tracking.py"},
    "mlflow": {"components/reporting/mlflow_tracking.py"},
    "matplotlib": {"components/reporting/svg.py"},
    "scipy": {"components/statistics/exact.py"},
    "datasets": {"components/prompts/source.py"},
    "vaderSentiment": {"components/oracles/known_reward.py"},
    "openai": {"components/oracles/judge_endpoint.py"},
    "httpx2": {"components/oracles/web.py", "components/model_folder.py"},
    "httpcore2": {"components/oracles/web.py"},
    "llm_blender": {"components/oracles/pairrm_network.py"},
    "krippendorff": {"components/people/agreement.py"},
    "mosec": {"components/reward_server/score_worker.py"},
    "prometheus_client": {"components/reward_server/metrics.py"},
    "msgspec": {"components/oracles/wire.py"},
    "multiprocessing": {"components/sampling/warm_engine.py", "components/simulator/workers.py"},
}
SOURCES = sorted(
    path.relative_to(ROOT) for folder in ("components", "pipelines") for path in (ROOT / folder).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    """Absolute names of everything a module imports, wherever in the module it does."""
    package = ["oatflow", *path.with_suffix("").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


# Who may know the ledger; the stations take values and return values.
KNOW_THE_LEDGER = {"ledger", "rounds", "reporting"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[0] == "components" and p.name != "component.py"], ids=str
)
def test_no_station_imports_the_ledger(path):
    names = {name for name in imports(path) if name.startswith("oatflow.components.ledger")}
    assert not names or room(path) in KNOW_THE_LEDGER, f"{path} imports {sorted(names)}"


def room(path: Path) -> str:
    return path.with_suffix("").parts[1]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "components"], ids=str)
def test_a_room_imports_only_from_its_left(path):
    here = room(path)
    for name in imports(path):
        if name.startswith("oatflow.pipelines"):
            pytest.fail(f"{path} imports {name}: pipelines stand to the right of everything")
        there = re.match(r"oatflow\.components\.(\w+)", name)
        if there is None or there[1] == here or here == "__init__":
            continue
        known = LEFT[: LEFT.index(here)] if here in LEFT else [*LEFT, *SIDEWAYS.get(here, ())]
        is_section = here == "rounds" and ".settings." in name
        is_page = path.name == "component.py" and here == "rounds" and there[1] == "reporting"
        is_step = path.name == "component.py" and there[1] == "rounds"
        assert there[1] in known or is_section or is_page or is_step, f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_doors_are_imported_by_pipelines_alone(path):
    doors = {name for name in imports(path) if ".component." in f"{name}."}
    assert not doors or path.parts[0] == "pipelines", f"{path} imports {doors}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_each_heavy_library_has_one_door(path):
    for name in imports(path):
        library = name.split(".")[0]
        allowed = DOORS.get(library)
        assert allowed is None or str(path) in allowed, f"{path} imports {name}"
        if library == "kfp":
            assert path.name == "component.py" or path.parts[0] == "pipelines", f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "component.py"], ids=str)
def test_a_door_imports_its_work_inside_the_function(path):
    tree = ast.parse((ROOT / path).read_text())
    top = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert all(re.match(r"(from typing|from kfp|from oatflow\.components\.images) ", line) for line in top), top


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "component.py"], ids=str)
def test_every_component_does_all_of_its_work_where_a_failure_is_explained(path):
    functions = [node for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        work = function.body[-1]
        assert isinstance(work, ast.With) and ast.unparse(work.items[0]).startswith("explain_failure("), function.name
        before = [ast.unparse(node) for node in function.body[1:-1]]
        allowed = {"fields = dict(locals())", "from oatflow.components.step_ending import explain_failure"}
        assert set(before) <= allowed, function.name


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[0] == "components" and p.name == "__init__.py"], ids=str
)
def test_a_rooms_init_is_a_docstring_only(path):
    assert all(isinstance(node, ast.Expr) for node in ast.parse((ROOT / path).read_text()).body)


def test_the_package_list_names_every_room():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(["oatflow", *path.parts[:-1]]) for path in SOURCES}
    assert sorted(listed) == sorted(there)


def test_nothing_is_unpickled_and_no_remote_code_is_trusted():
    forbidden = re.compile(r"pickle\.|torch\.load\(|trust_remote_code=True|shell=True|\beval\(|\bexec\(")
    for path in SOURCES:
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            if ".eval()" not in line:
                assert not forbidden.search(line), f"{path}:{number}: {line}"
