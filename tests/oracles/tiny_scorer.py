"""Tiny reward models with random weights: a Llama whose head reads the last token."""

WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()
TEMPLATE = (
    "<bos> {% for turn in messages %}{{ '<user> ' if turn['role'] == 'user' else '<answer> ' }}"
    "{{ turn['content'] }} <eos> {% endfor %}"
)


def write_tokenizer(folder, template, begins=False, **named):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<eos>", "<unk>", "<user>", "<answer>", "<bos>", "<pad>", *WORDS]
    plain = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins:
        plain.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 4)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>", **named)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return len(names)


def write_reward_model(folder, template=TEMPLATE, named=None, **options):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    size = write_tokenizer(folder, template, begins=True, bos_token="<bos>", **named or {})
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5,
        **{"num_labels": 1, "bos_token_id": 4, "eos_token_id": 0, "pad_token_id": None, **options},
    )  # fmt: skip
    torch.manual_seed(3)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder
