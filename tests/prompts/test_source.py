import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oatflow.components.errors import PromptError
from oatflow.components.prompts.settings import PromptSettings
from oatflow.components.prompts.source import drop_too_long, load_prompts
from oatflow.components.prompts.template import WordTokenizer
from oatflow.components.records.records import Prompt

ROWS = [{"prompt": "How was the soup?", "gold": "Salty."}, {"prompt": "And the bread?", "gold": "Warm."}]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def load(source, split="train", **settings):
    return load_prompts(PromptSettings(prompt_data=str(source), **settings), split)


def texts(prompts):
    return [prompt.text for prompt in prompts]


def test_the_same_rows_give_the_same_prompts_from_every_kind_of_file(tmp_path):
    hashed = [hashlib.sha256(row["prompt"].encode()).hexdigest()[:8] for row in ROWS]
    expected = [
        Prompt(f"000000-{hashed[0]}", "How was the soup?", "Salty."),
        Prompt(f"000001-{hashed[1]}", "And the bread?", "Warm."),
    ]
    assert load(jsonl(tmp_path / "a.jsonl", ROWS), output_key="gold") == expected
    assert load(parquet(tmp_path / "a.parquet", ROWS), output_key="gold") == expected


def test_without_output_key_there_is_no_reference(tmp_path):
    assert [prompt.reference for prompt in load(jsonl(tmp_path / "a.jsonl", ROWS))] == [None, None]


def test_a_folder_is_read_by_split(tmp_path):
    jsonl(tmp_path / "train.jsonl", ROWS[:1])
    parquet(tmp_path / "test.parquet", ROWS[1:])
    assert texts(load(tmp_path)) == ["How was the soup?"]
    assert texts(load(tmp_path, "eval")) == ["And the bread?"]
    with pytest.raises(PromptError, match=r"has no valid.jsonl or valid.parquet; .* test.parquet, train.jsonl"):
        load(tmp_path, "eval", eval_split="valid")


def test_eval_data_stands_in_for_the_test_split(tmp_path):
    train, held_out = jsonl(tmp_path / "a.jsonl", ROWS[:1]), jsonl(tmp_path / "b.jsonl", ROWS[1:])
    assert texts(load(train, "eval", eval_data=str(held_out))) == ["And the bread?"]
    with pytest.raises(PromptError, match=r"eval_data=None: .*a.jsonl is one file"):
        load(train, "eval")


def test_a_set_saved_by_datasets_is_read(tmp_path):
    import datasets

    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS[1:])}
    )
    both.save_to_disk(tmp_path / "both")
    both["train"].save_to_disk(tmp_path / "one")
    assert texts(load(tmp_path / "both", "eval")) == ["And the bread?"]
    assert texts(load(tmp_path / "one")) == ["How was the soup?"]
    with pytest.raises(PromptError, match="has no split 'dev'; splits there: train, test"):
        load(tmp_path / "both", train_split="dev")


def test_a_preference_set_brings_the_better_and_the_worse_answer(tmp_path):
    rows = [
        {"prompt": "How was it?", "good": "Warm.", "bad": "Cold."},
        {"prompt": "And?", "good": "Yes.", "bad": "No."},
    ]
    keys = {"chosen_key": "good", "rejected_key": "bad"}
    for file in (jsonl(tmp_path / "a.jsonl", rows), parquet(tmp_path / "a.parquet", rows)):
        assert [(row.chosen, row.rejected) for row in load(file, **keys)] == [("Warm.", "Cold."), ("Yes.", "No.")]
        assert [(row.chosen, row.rejected) for row in load(file)] == [(None, None)] * 2
        assert [row.prompt_id for row in load(file, **keys)] == [row.prompt_id for row in load(file)]


def conversation(answer, question="How was it?"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_an_answer_may_be_a_conversation_whose_last_assistant_message_counts(tmp_path):
    import datasets

    longer = [*conversation("Before."), *conversation("Warm.", "Say it shorter.")]
    rows = [{"prompt": "How was it?", "chosen": longer, "rejected": conversation("Cold.")}]
    keys = {"chosen_key": "chosen", "rejected_key": "rejected"}
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for source in (jsonl(tmp_path / "a.jsonl", rows), parquet(tmp_path / "a.parquet", rows), tmp_path / "saved"):
        assert [(row.chosen, row.rejected) for row in load(source, **keys)] == [("Warm.", "Cold.")]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("", r"line 2, column 'chosen' is empty"),
        (" \n", r"line 2, column 'chosen' is empty"),
        (None, r"line 2, column 'chosen' is empty"),
        (3, r"line 2, column 'chosen' holds int"),
        ([], r"line 2, column 'chosen' holds a list without a message of the assistant"),
        (["Warm."], r"line 2, column 'chosen' holds a list without a message of the assistant"),
        ([{"role": "user", "content": "Why?"}], r"column 'chosen' holds a list without a message of the assistant"),
        (conversation(""), r"line 2, column 'chosen' is empty"),
        (conversation(["Warm."]), r"line 2, column 'chosen' holds list"),
        ([{"role": "assistant"}], r"line 2, column 'chosen' is empty"),
    ],
)
def test_an_answer_that_is_none_is_refused_naming_file_row_and_column(tmp_path, answer, complaint):
    rows = [{"prompt": "a", "chosen": "Yes.", "rejected": "No."}, {"prompt": "b", "chosen": answer, "rejected": "No."}]
    with pytest.raises(PromptError, match=complaint) as refused:
        load(jsonl(tmp_path / "bad.jsonl", rows), chosen_key="chosen", rejected_key="rejected")
    assert "bad.jsonl" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_preference_set_needs_its_columns_in_either_split(tmp_path, split):
    full = [{"prompt": "a", "chosen": "Yes.", "rejected": "No."}]
    for name in ("train", "test"):
        jsonl(tmp_path / f"{name}.jsonl", full)
    jsonl(tmp_path / ("train.jsonl" if split == "train" else "test.jsonl"), [{"prompt": "a", "chosen": "Yes."}])
    with pytest.raises(PromptError, match=r"prompts.rejected_key='rejected': .*line 1.* columns there: prompt, chosen"):
        load(tmp_path, split, chosen_key="chosen", rejected_key="rejected")


@pytest.mark.slow
def test_a_set_of_an_object_store_is_read(tmp_path, s3_store_uri):
    from oatflow.components.store.store import open_store

    uri = s3_store_uri("prompts")
    open_store(uri).upload("set/train.jsonl", jsonl(tmp_path / "a.jsonl", ROWS))
    prefix, question, query = uri.partition("?")
    assert texts(load(f"{prefix}/set/train.jsonl{question}{query}")) == ["How was the soup?", "And the bread?"]
    assert texts(load(f"{prefix}/set{question}{query}")) == ["How was the soup?", "And the bread?"]
    with pytest.raises(PromptError, match=r"there is no object test.jsonl or test.parquet"):
        load(f"{prefix}/set{question}{query}", "eval")
    with pytest.raises(PromptError, match=r"there is no object nope.jsonl"):
        load(f"{prefix}/nope.jsonl{question}{query}")


def test_a_hub_set_that_cannot_be_had_is_refused_in_one_line(monkeypatch):
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(PromptError, match=r"prompt_data='default@someone/reviews': .*'train'.* hub") as refused:
        load("default@someone/reviews")
    assert "\n" not in str(refused.value)


def test_a_set_that_ships_with_the_package_is_found_by_name():
    assert len(load("oatflow:reviews")) >= 400
    assert len(load("oatflow:reviews", "eval")) >= 100
    assert len(load("oatflow:review-preferences", chosen_key="chosen", rejected_key="rejected")) == 256
    with pytest.raises(PromptError, match="oatflow:reviews, oatflow:review-preferences"):
        load("oatflow:views")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", r"holds no prompt"),
        ("\n\n", r"holds no prompt"),
        ('{"prompt": "a"}\n{"prompt" "b"}\n', r"line 2 is not JSON"),
        ('{"prompt": "a"}\n["b"]\n', r"line 2 holds no JSON object"),
        ('{"prompt": "a"}\n\n{"prompt": ""}\n', r"line 3, column 'prompt' is empty"),
        ('{"prompt": "a"}\n{"prompt": " \\n"}\n', r"line 2, column 'prompt' is empty"),
        ('{"prompt": null}\n', r"line 1, column 'prompt' is empty"),
        ('{"prompt": ["a"]}\n', r"line 1, column 'prompt' holds list"),
        ('{"question": "a", "id": 3}\n', r"prompts.input_key='prompt': .*line 1.* columns there: question, id"),
    ],
)
def test_a_bad_file_is_refused_naming_file_and_line(tmp_path, content, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(PromptError, match=complaint) as refused:
        load(path)
    assert "bad.jsonl" in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_reference_column_lists_those_there_are(tmp_path):
    with pytest.raises(PromptError, match=r"prompts.output_key='answer': .*row 0.* columns there: prompt, gold"):
        load(parquet(tmp_path / "a.parquet", ROWS), output_key="answer")


def test_what_is_not_there_or_not_readable_is_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(PromptError, match="not a readable Parquet"):
        load(tmp_path / "broken.parquet")
    for missing in (tmp_path / "gone.jsonl", tmp_path / "gone", "./gone"):
        with pytest.raises(PromptError, match="there is no such file or folder"):
            load(missing)
    with pytest.raises(PromptError, match="no prompt set is given"):
        load("")


def test_prompts_over_the_limit_are_dropped_and_counted():
    prompts = [Prompt(str(length), "word " * length) for length in (1, 5, 3, 4)]
    settings = PromptSettings(prompt_max_length=3)
    kept, dropped = drop_too_long(prompts, WordTokenizer(), settings)
    assert ([prompt.prompt_id for prompt in kept], dropped) == (["1", "3"], 2)


def test_a_set_whose_every_prompt_is_too_long_is_refused_with_the_shortest():
    prompts = [Prompt("a", "one two three four"), Prompt("b", "one two three")]
    with pytest.raises(PromptError, match=r"prompt_max_length=2: .* the shortest of 2 has 3 tokens"):
        drop_too_long(prompts, WordTokenizer(), PromptSettings(prompt_max_length=2))
