import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.prompts.template import WordTokenizer, encode_prompt, load_tokenizer


class Spelling(WordTokenizer):
    """Shows in letters what a chat template was given."""

    def apply_chat_template(self, conversation, add_generation_prompt, return_dict):
        assert return_dict
        turns = " ".join(f"[{turn['role']}] {turn['content']}" for turn in conversation)
        return self(turns + (" [assistant]" if add_generation_prompt else ""))


def test_a_chat_prompt_is_one_user_turn_and_leaves_the_answer_open():
    tokenizer = Spelling()
    expected = tokenizer("[user] How was it? [assistant]")["input_ids"]
    assert encode_prompt(tokenizer, "How was it?", apply_chat_template=True) == expected


def test_a_plain_prompt_is_the_text_alone():
    tokenizer = Spelling()
    assert encode_prompt(tokenizer, "How was it?", apply_chat_template=False) == tokenizer("How was it?")["input_ids"]


def test_a_tokenizer_without_chat_template_is_refused_where_one_is_asked_for():
    tokenizer = Spelling()
    tokenizer.chat_template = None
    with pytest.raises(SettingsError, match=r"apply_chat_template=True: .* has no chat template"):
        encode_prompt(tokenizer, "How was it?", apply_chat_template=True)
    assert encode_prompt(tokenizer, "How was it?", apply_chat_template=False)


def test_a_scripted_policy_counts_words():
    tokenizer = load_tokenizer(None)
    assert len(encode_prompt(tokenizer, "one two  three\nfour", apply_chat_template=True)) == 4
    assert encode_prompt(tokenizer, "so so", apply_chat_template=True)[0] == tokenizer("so")["input_ids"][0]
