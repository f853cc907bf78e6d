"""Distillation on a teacher's distributions: loss and gradient against torch, memory, and what is refused."""

import functools

import jax
import numpy as np
import pytest
import torch
from test_ops import largest_vocabulary_array

from experiments.distill import Config, imitate_teacher
from r1jax.config import UserError
from r1jax.data.packing import TrainingRows
from r1jax.objectives import distillation_sums, token_divergence, token_logprobs
from r1jax.policy import load_policy
from r1jax.sft_stage import sft_loss
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL, STUDENT_MODEL, WORLD_MODEL


def case(vocab=23):
    """Hidden states and heads of a student of width 5 and a teacher of width 8; targets and a mask."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    targets, mask = rng.integers(0, vocab, (3, 7)).astype(np.int32), rng.random((3, 7)) < 0.7
    return draw(3, 7, 5), draw(5, vocab), draw(3, 7, 8), draw(8, vocab), targets, mask


def ours(hidden, head, their_hidden, their_head, targets, mask, *, weight, temperature, chunk_size):
    logprobs, _ = token_logprobs(hidden, head, targets, chunk_size=chunk_size)
    options = {"temperature": temperature, "chunk_size": chunk_size}
    divergence = token_divergence(hidden, head, their_hidden, their_head, **options)
    loss, count = distillation_sums(logprobs, divergence, mask, weight=weight, temperature=temperature)
    return loss / count


@pytest.mark.parametrize("chunk_size", [4, 4096])
@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (3.0, 1.0)])
def test_loss_and_gradient_are_those_of_torch(chunk_size, weight, temperature):
    hidden, head, their_hidden, their_head, targets, mask = case()
    options = {"weight": weight, "temperature": temperature, "chunk_size": chunk_size}
    loss, slopes = jax.value_and_grad(functools.partial(ours, **options), argnums=(0, 1))(
        hidden, head, their_hidden, their_head, targets, mask
    )
    h, w, x, v = (torch.tensor(a, dtype=torch.float64) for a in (hidden, head, their_hidden, their_head))
    h.requires_grad_(), w.requires_grad_()
    chosen = torch.tensor(mask)
    log_p, log_q = (torch.log_softmax(z[chosen] / temperature, -1) for z in (h @ w, x @ v))
    divergence = torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
    imitation = torch.nn.functional.cross_entropy((h @ w)[chosen], torch.tensor(targets).long()[chosen])
    expected = imitation + weight * temperature**2 * divergence
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    for slope, leaf in zip(slopes, (h, w), strict=True):
        np.testing.assert_allclose(slope, leaf.grad, rtol=1e-5, atol=2e-6 * leaf.grad.abs().max())


def test_a_teacher_that_agrees_adds_nothing():
    hidden, head, *_, targets, mask = case()
    divergence = token_divergence(hidden, head, hidden, head, chunk_size=4)
    np.testing.assert_array_equal(divergence, 0.0)
    assert np.all(np.asarray(token_divergence(hidden, head, 2 * hidden, head)) > 0)
    masked = np.where(mask, 1.0, np.nan)
    loss, count = distillation_sums(-masked, masked, mask, weight=2.0, temperature=3.0)
    assert float(count) == mask.sum() and float(loss) == 19 * mask.sum()


def test_the_gradient_never_holds_all_logits():
    hidden, head, their_hidden, their_head, targets, mask = case(vocab := 101)
    step = lambda size: jax.grad(
        lambda h, w: token_divergence(h, w, their_hidden, their_head, chunk_size=size).sum(), argnums=(0, 1)
    )
    assert largest_vocabulary_array(step(8), vocab, hidden, head) == 6 * vocab  # 2 times of all 3 rows
    assert largest_vocabulary_array(step(4096), vocab, hidden, head) == targets.size * vocab


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


def test_a_teacher_with_another_tokenizer_is_refused(mesh):
    student = load_policy(STUDENT_MODEL, mesh)
    with pytest.raises(UserError, match="--teacher=.*different tokenizers .271 and 1024 tokens.*without --teacher"):
        imitate_teacher(Config(teacher=BASE_MODEL), student, mesh)


def test_the_loss_of_models_is_next_token_prediction_plus_the_teacher(mesh):
    """On packed rows, with a teacher that is another kind of decoder."""
    student, rng = load_policy(STUDENT_MODEL, mesh), np.random.default_rng(1)
    config = Config(teacher=WORLD_MODEL, teacher_weight=0.7, teacher_temperature=2.0)
    lesson = imitate_teacher(config, student, mesh)
    tokens, targets = rng.integers(4, student.model.vocab_size, (2, 2, 12)).astype(np.int32)
    positions = np.tile(np.r_[0:5, 0:5, -1, -1], (2, 1)).astype(np.int32)
    segments = np.tile(np.repeat([1, 2, 0], [5, 5, 2]), (2, 1)).astype(np.int32)
    batch = TrainingRows(tokens, targets, positions, segments, (positions > 1).astype(np.float32))
    both = lambda params: (
        lesson.loss(params, student.router_bias, batch, lesson.scalars),
        sft_loss(student.model, params, student.router_bias, batch, {}),
    )
    output, plain = jax.jit(both)(student.params)
    teacher = output.metric_sums["teacher_kl"]
    assert float(output.count) == float(plain.count) == 12 and float(teacher) > 0.1
    np.testing.assert_allclose(output.loss_sum, plain.loss_sum + 0.7 * 2**2 * teacher, rtol=1e-5)
    np.testing.assert_allclose(output.metric_sums["nll"], plain.loss_sum, rtol=1e-5)
    assert lesson.run["teacher"]["folder"] == "world"
