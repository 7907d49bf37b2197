"""One optimisation step of TRL's DPOTrainer on exported preferences, as a user would write it: model, file, folder."""

import json
import sys

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main(model: str, file: str, out: str) -> None:
    rows = load_dataset("parquet", data_files=file, split="train")
    columns = rows.column_names
    rows = rows.select_columns(["prompt", "chosen", "rejected"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=DPOConfig(
            output_dir=out, max_steps=1, per_device_train_batch_size=4, logging_steps=1, report_to="none", use_cpu=True,
            bf16=False, save_strategy="no",
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    done = trainer.train()
    print(json.dumps({"steps": done.global_step, "loss": done.training_loss, "columns": columns}))


if __name__ == "__main__":
    main(*sys.argv[1:])
