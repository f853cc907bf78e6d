"""Workdirs in a bucket: an emulator of Google Cloud Storage on loopback, all else as it is in a run."""

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from r1jax import checkpoint
from r1jax.config import UserError, as_path, claim_workdir
from r1jax.data.tokenizer import load_tokenizer
from r1jax.metrics import JsonLines, read_json, read_json_lines, write_json
from r1jax.optimizer import OptimizerConfig
from r1jax.tasks import BASE_MODEL


def test_what_a_stage_writes_is_read_back_from_a_bucket(storage):
    config = OptimizerConfig(learning_rate=0.1)
    workdir = claim_workdir("gs://bucket/run", "a", config)
    assert str(claim_workdir("gs://bucket/run", "a", config)) == str(workdir) == "gs://bucket/run"
    with pytest.raises(UserError, match="learning_rate: 0.1 -> 0.2"):
        claim_workdir("gs://bucket/run", "a", OptimizerConfig(learning_rate=0.2))
    load_tokenizer(BASE_MODEL).save(workdir)
    assert load_tokenizer("gs://bucket/run").vocab_size == load_tokenizer(BASE_MODEL).vocab_size
    for value in (1, 2):
        write_json(workdir / "before.json", {"value": value})
    assert read_json("gs://bucket/run/before.json") == {"value": 2}


def test_records_in_a_bucket_are_dropped_and_appended_as_in_a_file(storage, tmp_path):
    for path in (tmp_path / "log.jsonl", "gs://bucket/log.jsonl"):
        log = JsonLines(path, resume_step=0)
        for step in (1, 2, 3):
            log.write({"step": step})
        JsonLines(path, resume_step=2).write({"step": 3, "again": True})
        assert read_json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_the_bucket_keeps_to_preconditions(storage):
    """Without which two hosts could not write one checkpoint."""
    store = tensorstore.KvStore.open("gs://bucket/conditions/").result()
    first = store.write("key", b"first").result().generation
    read = store.read("key").result()
    assert read.value == b"first" and read.stamp.generation == first
    second = store.write("key", b"second", if_equal=first).result().generation
    assert second not in (first, b"")
    store.write("key", b"third", if_equal=first).result()
    assert store.read("key").result().value == b"second"


def test_checkpoints_in_a_bucket(storage):
    manager = checkpoint.open_checkpoints("gs://bucket/stage")
    facts = {"model": {"a": 1}, "run": {"experiment": "e"}}
    for step in (1, 2, 3):
        arrays = {"params": {"w": jnp.arange(5.0) * step}, "router_bias": jnp.zeros((0, 2))}
        checkpoint.save(manager, step, arrays=arrays, facts=facts, wait=True)
    parent = checkpoint.open_parent("gs://bucket/stage")
    assert (parent.step, parent.model, parent.provenance["folder"]) == (3, {"a": 1}, "stage")
    params, bias = checkpoint.load_parent(parent, {"w": jnp.zeros(5)}, jnp.zeros((0, 2)))
    np.testing.assert_array_equal(params["w"], np.arange(5.0) * 3)
    assert bias.shape == (0, 2)
    assert sorted(path.name for path in as_path("gs://bucket/stage/checkpoints").iterdir()) == ["2", "3"], (
        "two are kept"
    )


def test_other_storage_and_what_is_missing_are_named(monkeypatch):
    with pytest.raises(UserError, match="only gs://BUCKET/PATH"):
        as_path("s3://bucket/run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs gcsfs; pip install gcsfs"):
        as_path("gs://bucket/run")
