"""PyTorch's side of the comparisons: transformers' models, and TRL's GRPOTrainer."""

from experiments.benchmarks.sides.protocol import FirstToken, Run, in_turns, reset_peak, resident, serve

THREADS = 2


def load(folder: str):
    """The model of a folder in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def load_tokenizer(folder: str):
    """The tokenizer of a folder as its file has it; the class that goes with Qwen2 would cut numbers into digits."""
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "unk_token": "<pad>", "eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", padding_side="left", **special)


def grpo_trainer(settings: dict, reward, *, rows: int, group_size: int, callbacks=()):
    """TRL's trainer of DeepSeekMath's objective with k3, as ours, in float32 and without gradient checkpointing."""
    import os

    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(THREADS)
    config = GRPOConfig(
        output_dir=os.getcwd(), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_steps=1 << 20, disable_tqdm=True, max_steps=1 << 20, learning_rate=1e-6,
        lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.1, max_grad_norm=1.0,
        per_device_train_batch_size=rows, gradient_accumulation_steps=1, steps_per_generation=1,
        num_generations=group_size, max_completion_length=settings["new_tokens"], temperature=1.0, top_p=1.0, top_k=0,
        loss_type="grpo", scale_rewards="group", beta=settings["kl_coef"], epsilon=settings["clip_epsilon"],
        use_bias_correction_kl=False,
        generation_kwargs={} if settings["mean_tokens"] else {"min_new_tokens": settings["new_tokens"]},
        model_init_kwargs={"dtype": "float32"}, shuffle_dataset=False,
    )  # fmt: skip
    return GRPOTrainer(
        settings["folder"], reward, args=config, train_dataset=Dataset.from_dict({"prompt": settings["texts"]}),
        processing_class=load_tokenizer(settings["folder"]),
        callbacks=list(callbacks),
    )  # fmt: skip


def update(settings: dict) -> tuple[Run, dict]:
    """Loss and gradients of TRL's trainer; memory is the peak of the resident set beyond what was there before, less
    the gradients."""
    import numpy as np
    import torch

    with np.load(settings["rollouts"]) as saved:
        given = {name: torch.from_numpy(saved[name]) for name in saved.files}
    rows, width = given["tokens"].shape
    settings |= {"new_tokens": width, "mean_tokens": 0, "texts": ["2"] * rows}
    trainer = grpo_trainer(settings, FirstToken(settings), rows=rows, group_size=rows)
    model = trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = {
        "prompt_ids": given["prompts"].long(), "prompt_mask": torch.ones_like(given["prompts"]).long(),
        "completion_ids": given["tokens"].long(), "completion_mask": given["mask"].long(),
        "advantages": given["advantages"], "num_items_in_batch": given["mask"].sum(),
        "old_per_token_logps": given["old_logprobs"], "ref_per_token_logps": given["ref_logprobs"],
    }  # fmt: skip
    gradients = sum(parameter.nbytes for parameter in model.parameters())

    def run() -> dict:
        model.zero_grad(set_to_none=True)
        reset_peak()
        before = resident("VmRSS")
        loss = trainer.compute_loss(model, inputs)
        loss.backward()
        return {"loss": loss.item(), "temporary_bytes": max(resident("VmHWM") - before - gradients, 0)}

    return run, {}


def sampling(settings: dict) -> tuple[Run, dict]:
    """`generate` with its cache; a batch runs until its last row is done."""
    import numpy as np
    import torch

    model = load(settings["folder"]).eval()
    prompts, rows = torch.from_numpy(np.load(settings["prompts"])).long(), settings["rows"]
    ends = [token for token in settings["eos_ids"] if token >= 0]
    model.generation_config.eos_token_id = ends or None
    seeds = iter(range(1 << 30))

    def run() -> dict:
        torch.manual_seed(next(seeds))
        tokens = 0
        for part in prompts.split(rows):
            output = model.generate(
                part, attention_mask=torch.ones_like(part), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=settings["new_tokens"], pad_token_id=settings["pad_id"],
            )[:, part.shape[1] :]  # fmt: skip
            ended = torch.isin(output, torch.tensor(ends)).int() if ends else torch.zeros_like(output)
            tokens += int((ended.cumsum(1) - ended == 0).sum())  # up to the first end, itself included
        return {"tokens": tokens}

    return run, {}


def step(settings: dict) -> tuple[Run, dict]:
    """`GRPOTrainer.train`, one step a turn."""
    import numpy as np
    from transformers import TrainerCallback

    prompts, group = np.load(settings["prompts"]), settings["group_size"]
    texts, reward = [" ".join(map(str, row)) for row in prompts], FirstToken(settings)

    def loop(wait) -> None:
        class Turn(TrainerCallback):
            def on_step_begin(self, *_, **__):
                wait()

        rows = len(prompts) * group
        grpo_trainer(settings | {"texts": texts}, reward, rows=rows, group_size=group, callbacks=[Turn()]).train()

    turn = in_turns(loop)
    return lambda: turn() or {"tokens": reward.take_count()}, {}


def train(settings: dict) -> tuple[Run, dict]:
    """Loss, gradients, clipping, AdamW of a model of transformers."""
    import numpy as np
    import torch

    model = load(settings["folder"]).train()
    tokens = torch.from_numpy(np.load(settings["tokens"])).long()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True
    )

    def run() -> dict:
        optimizer.zero_grad(set_to_none=True)
        loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"tokens": tokens.numel(), "loss": loss.item()}

    return run, {"parameters": sum(parameter.numel() for parameter in model.parameters())}


if __name__ == "__main__":
    serve({"update": update, "sampling": sampling, "step": step, "train": train})
