"""Supervised fine-tuning: what is learned, and that a killed run ends with the bits of one that was not."""

import json
import time

import jax
import numpy as np
import pytest

from r1jax.checkpoint import open_parent
from r1jax.collect import conversation
from r1jax.config import UserError
from r1jax.data.sources import write_json_lines
from r1jax.policy import load_policy
from r1jax.sft_stage import SftConfig, SftStageConfig, read_documents, run_sft_stage
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import WORLD_MODEL
from r1jax.tasks.families import draw_records, read_parts
from r1jax.tasks.solutions import SOLVERS, Author

SMALL = (
    "--sft.epochs 2 --sft.batch-size 4 --sft.sequence-length 128 --sft.save-every 2 "
    "--sft.optimizer.learning-rate 1e-3 --sft.optimizer.warmup-updates 0"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty requests and chains, answered by careful authors."""
    rng = np.random.default_rng(0)
    records = draw_records(read_parts(["requests:2", "chains:2"]), "train", 60, rng)
    author = Author(rng, careful=True, mixes=False, slip=0.0)
    conversations = [conversation(r, f"{n}", *SOLVERS[r["family"]](author, r)) for n, r in enumerate(records)]
    path = tmp_path_factory.mktemp("data") / "sft.jsonl"
    write_json_lines(conversations, path)
    return path


def final_state(workdir):
    parent = open_parent(workdir)
    shapes = load_policy(workdir, make_mesh(MeshConfig()))
    return parent.step, jax.tree.map(np.asarray, shapes.params)


def test_only_the_response_is_learned(data):
    policy = load_policy(WORLD_MODEL, make_mesh(MeshConfig()))
    for document in read_documents([str(data)], policy.tokenizer)[:10]:
        text = lambda mask: policy.tokenizer.decode(document.ids[mask])
        assert text(~document.learned).startswith("User: ") and text(~document.learned).endswith("Assistant:")
        assert text(document.learned).startswith("<think>") and document.ids[-1] == policy.tokenizer.eos_id
        assert document.learned[-1]


def test_a_killed_run_ends_with_the_same_bits(experiment, data, tmp_path):
    def start(name):
        return experiment("sft", "--workdir", tmp_path / name, "--data", data, *SMALL)

    process = start("whole")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    process = start("killed")
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("checkpoints/[0-9]*/_CHECKPOINT_METADATA")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    process = start("killed")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    (step, params), (other_step, others) = (final_state(tmp_path / name) for name in ("whole", "killed"))
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, params, others)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    losses = [[json.loads(line)["loss"] for line in some] for some in lines]
    assert losses[0][-1] == losses[1][-1] and losses[0][-1] < 0.9 * losses[0][0]


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
