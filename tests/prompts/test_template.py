import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.prompts.template import WordTokenizer, encode_answer, encode_prompt, load_tokenizer


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


# Answers that are given as text.


class Merging(WordTokenizer):
    """Merges a comma into the word before it, knows the end when it sees it, and begins every text with a mark."""

    def __call__(self, text, add_special_tokens=True):
        words = text.replace(" ,", ",").replace("<end>", " <end> ").split()
        ids = [
            self.eos_token_id if word == "<end>" else super(Merging, self).__call__(word)["input_ids"][0]
            for word in words
        ]
        return {"input_ids": [1] * add_special_tokens + ids}


def words(*texts):
    return tuple(WordTokenizer()(" ".join(texts))["input_ids"])


def test_an_answer_is_encoded_apart_from_its_prompt_and_ends_with_the_end():
    tokenizer = Merging()
    assert encode_answer(tokenizer, ", nice", 9) == ((*words(",", "nice"), 0), "stop")
    assert tokenizer("so , nice", add_special_tokens=False)["input_ids"][0] == words("so,")[0]


def test_an_answer_that_has_its_end_already_gets_no_second_one():
    assert encode_answer(Merging(), "nice<end>", 9) == ((*words("nice"), 0), "stop")


@pytest.mark.parametrize(("longest", "tokens", "reason"), [(4, 4, "stop"), (3, 3, "length"), (1, 1, "length")])
def test_an_answer_that_is_cut_has_no_end_invented(longest, tokens, reason):
    encoded, why = encode_answer(Merging(), "one two three", longest)
    assert (encoded, why) == (((*words("one", "two", "three"), 0))[:tokens], reason)
    assert (encoded[-1] == 0) == (reason == "stop")


def test_a_tokenizer_that_knows_no_end_gives_none():
    tokenizer = Merging()
    tokenizer.eos_token_id = None
    assert encode_answer(tokenizer, "nice", 9) == (words("nice"), "stop")
