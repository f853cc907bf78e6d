"""Packed rows: the same log-probabilities, losses and gradients as padded ones, in float64."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.objectives import gspo_sums
from r1jax.rl import (
    GrpoRows,
    Rows,
    count_routing_differences,
    grpo_batch_loss,
    padded_places,
    routed_logprobs,
    sorted_by_length,
)
from r1jax.rl_packing import make_packed_score, over_filled_rows, pack_rows, packed_logprobs, packed_places
from r1jax.train import gradient_sums

PROMPTS, GROUP, SLOTS, WIDTH, VOCAB = 2, 4, 6, 7, 48
BATCH = PROMPTS * GROUP
MODEL = dataclasses.replace(
    miniature(VOCAB), num_layers=1, num_dense_layers=0, embed_dim=32, mlp_dim=32, num_heads=2, dtype="float64",
    num_mtp_layers=0,
)  # fmt: skip
SCALARS = {"temperature": 0.7, "clip_epsilon": 0.2, "kl_coef": 0.1}
LENGTHS = (3, WIDTH)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module", autouse=True)
def double():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def weights(double):
    boxed, bias = quick(partial(init_params, MODEL))(jax.random.key(0))
    draw = np.random.default_rng(0)  # larger than a fresh model's, so that tokens matter to each other
    return jax.tree.map(lambda x: x + draw.normal(0, 0.2, x.shape), nn.meta.unbox(boxed)), bias


def make_batch(seed: int, prompt_lengths, lengths) -> GrpoRows:
    """Random rows of given lengths, whose old and reference policies are near what fresh weights say."""
    draw = np.random.default_rng(seed)
    prompts = draw.integers(1, VOCAB, (PROMPTS, SLOTS)).astype(np.int32).repeat(GROUP, 0)
    rows = Rows(
        prompts,
        np.repeat(prompt_lengths, GROUP).astype(np.int32),
        draw.integers(1, VOCAB, (BATCH, WIDTH)).astype(np.int32),
        np.arange(WIDTH)[None] < np.asarray(lengths)[:, None],
    )
    near = lambda: draw.normal(-4.0, 1.0, (BATCH, WIDTH))
    return GrpoRows(rows, near(), near(), draw.normal(size=BATCH).astype(np.float32))


PADDED = gradient_sums(partial(grpo_batch_loss, MODEL))
PACKED = gradient_sums(partial(grpo_batch_loss, MODEL, logprobs_of=packed_logprobs))
whole = quick(PADDED)
padded_logprobs = quick(partial(routed_logprobs, MODEL))
PROGRAMS = {
    "padded": quick(sorted_by_length(PADDED, 2, LENGTHS)),
    "packed": quick(over_filled_rows(PACKED, 2)),
    "shared": quick(over_filled_rows(PACKED, 1)),
}
"""Micro-batches of two rows, of two packed rows, of one row with shared prompts."""
SHARING = {"packed": 1, "shared": GROUP}


def arranged(name: str, batch: GrpoRows) -> GrpoRows:
    return batch if name == "padded" else batch._replace(rows=pack_rows(batch.rows, sharing=SHARING[name]))


def assert_same(ours, theirs, *, load: bool):
    """Loss, count, metrics and gradients agree to 1e-6; gradients relative to the largest entry of any."""
    (our_grads, ours), (their_grads, theirs) = jax.tree.map(np.asarray, (ours, theirs))
    assert ours.count == theirs.count
    np.testing.assert_allclose(ours.loss_sum, theirs.loss_sum, rtol=1e-6, atol=1e-12)
    for name, value in theirs.metric_sums.items():
        np.testing.assert_allclose(ours.metric_sums[name], value, rtol=1e-6, atol=1e-12, err_msg=name)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(their_grads))
    for our, their in zip(jax.tree.leaves(our_grads), jax.tree.leaves(their_grads), strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-6, atol=1e-6 * scale)
    if load:
        np.testing.assert_array_equal(ours.load, theirs.load)


sizes = st.tuples(
    st.lists(st.integers(1, SLOTS), min_size=PROMPTS, max_size=PROMPTS),
    st.lists(st.integers(0, WIDTH), min_size=BATCH, max_size=BATCH).filter(any),
)


@given(st.integers(0, 2**32 - 1), sizes, st.permutations(range(BATCH)), st.permutations(range(PROMPTS)))
@settings(max_examples=25, deadline=None)
def test_no_layout_changes_the_loss(weights, seed, sizes, order, prompt_order):
    """Padded, in micro-batches, packed, with shared prompts, in any order of rows: one loss and one gradient."""
    batch = make_batch(seed, *sizes)
    expected = whole(*weights, batch, SCALARS)
    within = [index for index in order if index < GROUP]
    by_group = [GROUP * prompt + index for prompt in prompt_order for index in within]
    for name, program in PROGRAMS.items():
        shuffled = jax.tree.map(lambda x: x[by_group if name == "shared" else list(order)], batch)
        assert_same(program(*weights, arranged(name, shuffled), SCALARS), expected, load=name != "shared")


def reference_loss(params, bias, tokens, prompt_length, old, ref, advantage):
    """GRPO of one sequence without padding, by the formula: minus 1/|o| sum_t [min(r A, clip(r) A) - beta k3]."""
    hidden, _, load = forward(MODEL, params, bias, tokens[None, :-1], jnp.arange(len(tokens) - 1)[None])
    logits = hidden[0, prompt_length - 1 :] @ output_head(MODEL, params) / SCALARS["temperature"]
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[prompt_length:, None], -1)[:, 0]
    ratio, epsilon = jnp.exp(logprobs - old), SCALARS["clip_epsilon"]
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage)
    k3 = jnp.exp(ref - logprobs) - (ref - logprobs) - 1
    return -jnp.mean(gain - SCALARS["kl_coef"] * k3), load


def test_loss_of_packed_rows_is_that_of_each_sequence_alone(weights):
    prompt_lengths, lengths = [2, 5], [1, 7, 7, 1, 4, 4, 4, 4]
    batch = make_batch(3, prompt_lengths, lengths)
    alone = quick(jax.value_and_grad(reference_loss, has_aux=True), static_argnums=3)
    total, gradient, loads = 0.0, None, 0.0
    for index, size in enumerate(lengths):
        prompt = prompt_lengths[index // GROUP]
        tokens = np.concatenate([batch.rows.prompts[index, SLOTS - prompt :], batch.rows.tokens[index, :size]])
        old, ref = (x[index, :size] for x in (batch.old_logprobs, batch.ref_logprobs))
        (loss, load), slope = alone(*weights, tokens, prompt, old, ref, batch.advantages[index])
        total, loads = total + loss, loads + np.asarray(load)
        gradient = slope if gradient is None else jax.tree.map(jnp.add, gradient, slope)
    for name, program in PROGRAMS.items():
        grads, output = program(*weights, arranged(name, batch), SCALARS)
        np.testing.assert_allclose(output.loss_sum, total, rtol=1e-6, err_msg=name)
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
        for our, their in zip(jax.tree.leaves(grads), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(our, their, rtol=1e-6, atol=1e-6 * scale, err_msg=name)
        repeated = (GROUP - 1) * sum(prompt_lengths) if name == "shared" else 0
        assert output.load.sum() == loads.sum() - repeated * MODEL.num_experts_per_token


@pytest.mark.parametrize("sharing", [1, GROUP])
def test_log_probabilities_and_objectives_of_sequences(weights, sharing):
    """What comes back is one completion a row, so GSPO, which reduces over a sequence first, is the same too."""
    batch = make_batch(5, [6, 1], [7, 2, 0, 3, 1, 1, 6, 4])
    mask, temperature = batch.rows.mask, SCALARS["temperature"]
    expected = np.asarray(padded_logprobs(*weights, batch.rows, temperature=temperature)[0])
    score = make_packed_score(MODEL, rows_at_a_time=2)
    ours = np.asarray(score(*weights, pack_rows(batch.rows, sharing=sharing), temperature))
    np.testing.assert_allclose(ours[mask], expected[mask], rtol=1e-9)
    gspo = lambda values: gspo_sums(values, batch.old_logprobs, batch.advantages, mask, clip_low=0.1, clip_high=0.1)
    np.testing.assert_allclose(gspo(ours)[0], gspo(expected)[0], rtol=1e-9)


@given(st.integers(0, 2**32 - 1), sizes, st.sampled_from([1, 2, GROUP]))
@settings(max_examples=100, deadline=None)
def test_every_token_has_one_place(seed, sizes, sharing):
    """Read back from the packed arrays, place by place: each completion with its prompt, in order and alone."""
    rows = make_batch(seed, *sizes).rows
    packed = pack_rows(rows, sharing=sharing)
    count, prompts = 0, set()
    for index, size in enumerate(rows.mask.sum(-1)):
        if not size:
            assert packed.row[index] == -1
            continue
        row = packed.row[index]
        made = slice(packed.start[index], packed.start[index] + size)
        np.testing.assert_array_equal(packed.targets[row, made], rows.tokens[index, :size])
        sources, prompt = packed.sources[row, made], rows.prompts[index, SLOTS - rows.prompt_lengths[index] :]
        first = sources[0] - len(prompt) + 1
        np.testing.assert_array_equal(packed.tokens[row, first : sources[0] + 1], prompt)
        np.testing.assert_array_equal(packed.tokens[row, sources[1:]], rows.tokens[index, : size - 1])
        np.testing.assert_array_equal(packed.positions[row, sources], len(prompt) - 1 + np.arange(size))
        segment = packed.segments[row, first]
        assert (packed.segments[row, first : sources[0] + 1] == segment).all()
        if size > 1:
            mine = packed.segments[row] == packed.segments[row, sources[1]]
            assert mine.sum() == size - 1 + (sharing == 1) * len(prompt)
            assert sharing == 1 or (packed.parents[row, sources[1:]] == segment).all()
        count, prompts = count + size - 1, prompts | {(row, first, len(prompt))}
    assert np.count_nonzero(packed.segments) == count + sum(size for *_, size in prompts)
    filled = (packed.segments > 0).any(-1).sum()
    assert filled == packed.row.max() + 1 <= BATCH // sharing
    tokens, places = packed_places(packed, 1)
    assert tokens == np.count_nonzero(packed.segments) and places == filled * packed.tokens.shape[1]


def test_short_rows_fill_few_packed_rows():
    """Best fit: rows of 2 + 1 tokens and of 6 + 7 tokens; the long ones fill their rows, the short share."""
    batch = make_batch(0, [1, 6], [2, 2, 2, 1, 7, 7, 7, 7])
    packed = pack_rows(batch.rows)
    assert packed.row[4:].tolist() == [0, 1, 2, 3] and packed.row[:4].tolist() == [4] * 4
    shared = pack_rows(batch.rows, sharing=GROUP)
    assert shared.row.tolist() == [1] * 4 + [0] * 4
    assert packed_places(shared, 2) == (1 + 3 + 6 + 24, 2 * (6 + 4 * 6))


def test_places_of_padded_rows():
    """By a loop: rows sorted by length, two at a time, each pair at the least width that holds it."""
    rows = make_batch(0, [4, 2], [7, 2, 0, 3, 1, 1, 6, 4]).rows
    places = sum(2 * (SLOTS + (3 if longest <= 3 else WIDTH) - 1) for longest in (1, 2, 4, 7))
    assert padded_places(rows, 2, LENGTHS) == (3 * 4 + 4 * 2 + 24 - 7, places)


def test_rows_that_cannot_be_packed_are_refused():
    rows = make_batch(0, [4, 2], [2] * BATCH).rows
    gap, holes = rows.mask.copy(), rows.prompt_lengths.copy()
    gap[3, 1], gap[3, 4], holes[2] = False, True, SLOTS + 1
    with pytest.raises(ValueError, match="mask of row 3"):
        pack_rows(rows._replace(mask=gap))
    with pytest.raises(ValueError, match="2 to 7 tokens.*6 slots"):
        pack_rows(rows._replace(prompt_lengths=holes))
    with pytest.raises(ValueError, match="shared by 3"):
        pack_rows(rows, sharing=3)
    with pytest.raises(ValueError, match="prompts differ"):
        pack_rows(rows, sharing=BATCH)


@pytest.mark.parametrize("sharing", [1, GROUP])
def test_packed_rows_replay_the_experts_of_padded_ones(weights, sharing):
    """Random experts, far from the router's choice; and the differences are counted, those of a shared prompt once."""
    draw, lengths = np.random.default_rng(5), [7, 1, 4, 0, 3, 7, 2, 5]
    rows = make_batch(5, [6, 3], lengths).rows
    shape = (MODEL.num_moe_layers, MODEL.num_experts_per_token)
    experts = draw.permuted(np.tile(np.arange(8), (BATCH, SLOTS + WIDTH, shape[0], 1)), axis=-1)[..., : shape[1]]
    experts[:, :SLOTS] = experts[::GROUP, :SLOTS].repeat(GROUP, 0)
    fed = np.arange(WIDTH) < np.asarray(lengths)[:, None] - 1
    experts[:, SLOTS:][~fed] = -1
    for row, size in enumerate(rows.prompt_lengths):
        experts[row, : SLOTS - size if lengths[row] else SLOTS] = -1
    experts = experts.astype(np.int16)
    *padded, routing = quick(partial(routed_logprobs, MODEL))(*weights, rows._replace(replay=experts))
    packed = pack_rows(rows._replace(replay=experts, recorded=experts), sharing=sharing)
    logprobs, counts = make_packed_score(MODEL, rows_at_a_time=1)(*weights, packed, 1.0)
    np.testing.assert_allclose(np.asarray(logprobs)[rows.mask], np.asarray(padded[0])[rows.mask], atol=1e-9)
    alone = quick(partial(routed_logprobs, MODEL))(*weights, rows)[0]
    assert np.abs(np.asarray(alone) - padded[0])[rows.mask].max() > 1e-3
    once = experts.copy()
    once[np.arange(BATCH) % sharing > 0, :SLOTS] = -1
    expected = np.asarray(count_routing_differences(routing.experts, once[:, :-1])).sum(0)
    np.testing.assert_array_equal(np.asarray(counts).sum(0), expected)
    assert 0 < expected[0] <= expected[1]
