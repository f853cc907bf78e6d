"""Supervised fine-tuning: what is learned, and that a killed run ends with the bits of one that was not."""

import numpy as np
import pytest
from test_resume import final_arrays, wait_for

from r1jax.checkpoint import open_parent
from r1jax.config import UserError
from r1jax.metrics import read_json_lines
from r1jax.policy import load_policy
from r1jax.sft_stage import SftConfig, SftStageConfig, read_documents, run_sft_stage
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import WORLD_MODEL

SMALL = (
    "--sft.epochs 2 --sft.batch-size 4 --sft.sequence-length 128 --sft.save-every 2 "
    "--sft.optimizer.learning-rate 1e-3 --sft.optimizer.warmup-updates 0"
).split()
STATE = ("params", "router_bias", "opt_state", "update")


def test_only_the_response_is_learned(conversations):
    policy = load_policy(WORLD_MODEL, make_mesh(MeshConfig()))
    for document in read_documents([str(conversations)], policy.tokenizer)[:10]:
        text = lambda mask: policy.tokenizer.decode(document.ids[mask])
        assert text(~document.learned).startswith("User: ") and text(~document.learned).endswith("Assistant:")
        assert text(document.learned).startswith("<think>") and document.ids[-1] == policy.tokenizer.eos_id
        assert document.learned[-1]


def test_a_killed_run_ends_with_the_same_bits(experiment, conversations, tmp_path):
    """Distillation with a teacher, which does all that fine-tuning does, and more."""

    def start(name):
        options = ["--teacher", WORLD_MODEL, "--teacher-weight", 0.5, "--teacher-temperature", 2]
        return experiment("distill", "--workdir", tmp_path / name, "--data", conversations, *SMALL, *options)

    def finish(process):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors

    finish(start("whole"))
    process, saved = start("killed"), tmp_path / "killed" / "checkpoints" / "2"
    wait_for(saved.exists, process)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "summary.json").exists()
    finish(start("killed"))
    whole, killed = (final_arrays(tmp_path / name, STATE) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and any("opt_state" in name for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value, err_msg=name)
    timeless = lambda name: [
        {k: v for k, v in line.items() if k != "seconds"} for line in read_json_lines(tmp_path / name / "metrics.jsonl")
    ]
    lines = timeless("whole")
    assert lines == timeless("killed") and lines[-1]["nll"] < 0.9 * lines[0]["nll"]
    assert lines[-1]["teacher_kl"] < lines[0]["teacher_kl"]
    np.testing.assert_allclose([r["loss"] for r in lines], [r["nll"] + 2 * r["teacher_kl"] for r in lines], rtol=1e-5)
    run = open_parent(tmp_path / "whole").provenance["run"]
    assert run["teacher"]["folder"] == "world" and run["parent"]["folder"] == "student"


def test_data_without_an_answer_and_no_data_are_refused(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"family": "math", "id": "1", "question": "1 + 1", "answer": "2"}\n')
    config = SftStageConfig(workdir=str(tmp_path / "run"), sft=SftConfig(), init=WORLD_MODEL, data=(str(path),))
    with pytest.raises(UserError, match="record '1'.* neither response nor solution"):
        run_sft_stage(config, "sft")
    with pytest.raises(UserError, match="missing.jsonl"):
        run_sft_stage(
            SftStageConfig(workdir=str(tmp_path / "run"), sft=SftConfig(), init=WORLD_MODEL, data=("missing.jsonl",)),
            "sft",
        )
    assert not (tmp_path / "run").exists(), "nothing is made before the data are read"
