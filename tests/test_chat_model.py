"""R1-Zero from a chat model in the form of Hugging Face: its tokenizer, template and end tokens go all the way."""

import json

import pytest
import torch
from test_json_tokenizer import write_folder
from transformers import LlamaConfig, LlamaForCausalLM

from r1jax.data.tokenizer import load_tokenizer
from r1jax.metrics import read_json_lines

SETTINGS = (
    "--grpo.iterations 1 --grpo.sampling.prompts 2 --grpo.sampling.group-size 2 --grpo.mini-batches 1 "
    "--grpo.sampling.prompt-slots 80 --grpo.sampling.max-new-tokens 2 --evaluation-problems 2 --training-problems 2"
).split()


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """A run of one iteration, from a random Llama that transformers wrote."""
    folder, workdir = tmp_path_factory.mktemp("llama"), tmp_path_factory.mktemp("run") / "run"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=272, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    write_folder(folder, generation={"eos_token_id": [266, 264]})
    start = lambda *more: experiment("r1_zero", "--preset", "chat_model", "--workdir", workdir, *SETTINGS, *more)
    process = start("--init", folder)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, output + errors
    return folder, workdir


def test_the_models_own_template_is_the_prompt(run):
    samples = read_json_lines(run[1] / "samples.jsonl")
    assert {sample["phase"] for sample in samples} >= {"before", "train", "after"}
    for sample in samples:
        assert sample["prompt"].startswith("<|im_start|>user\nCompute ")
        assert sample["prompt"].endswith(". Write only the result.<|im_end|>\n<|im_start|>assistant\n")
    assert json.loads((run[1] / "summary.json").read_text())["before"]["problems"] == 2


def test_the_workdir_is_a_parent_with_the_same_tokenizer(run):
    folder, workdir = run
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (workdir / name).read_bytes() == (folder / name).read_bytes()
    assert load_tokenizer(workdir).eos_ids == (266, 264)


def test_without_a_template_it_is_refused(run, experiment, tmp_path):
    process = experiment("r1_zero", "--preset", "chat_model", "--workdir", tmp_path / "run")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and "no chat template, which --prompt template needs" in errors
    assert not (tmp_path / "run" / "summary.json").exists()
