"""Trains a tiny Llama that adds two digits, so that there is a model on any machine whose answers are right.

Run by an interpreter that has torch and transformers: ``python tiny_adder.py TINY_MODEL OUT``. TINY_MODEL is
a folder of ``sweeper tiny-model``, whose tokenizer is taken; its shape is made smaller. It takes a minute.
"""

from __future__ import annotations

import sys

DIGITS = range(10)
STEPS = 1500
ENOUGH = 3e-3


def questions() -> list[tuple[str, str]]:
    """Return every sum of two digits with its answer."""
    return [(f"{one}+{other}=", str(one + other)) for one in DIGITS for other in DIGITS]


def train(source: str, out: str) -> float:
    """Train until the loss is small, write the model, and return the loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    # More threads wait for one another longer than they compute.
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)

    def encoded(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = [(encoded(ask), [*encoded(f"{tell}\n"), tokenizer.eos_token_id]) for ask, tell in questions()]
    width = max(len(ask) + len(tell) for ask, tell in rows)
    tokens = torch.full((len(rows), width), tokenizer.eos_token_id)
    wanted = torch.full((len(rows), width), -100)
    for row, (ask, tell) in enumerate(rows):
        end = len(ask) + len(tell)
        tokens[row, :end] = torch.tensor(ask + tell)
        wanted[row, len(ask) : end] = torch.tensor(tell)
    smaller = {
        **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True},
    }
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(source, **smaller)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=STEPS, pct_start=0.1)
    loss = float("inf")
    for _ in range(STEPS):
        found = model(input_ids=tokens, labels=wanted).loss
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        schedule.step()
        loss = float(found)
        if loss < ENOUGH:
            break
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return loss


if __name__ == "__main__":
    print(train(sys.argv[1], sys.argv[2]))
