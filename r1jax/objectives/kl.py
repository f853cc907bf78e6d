"""Estimators of KL(policy || reference) from the tokens that the policy sampled (J. Schulman, "Approximating KL").

Each takes `log_ratio` = log pi - log pi_ref of the sampled tokens, [B, T], or [B, 1] of whole completions, and returns
the estimate at each. All have expectation or leading term KL as *values*; what their *gradients* are, in a loss, is
another matter, and docs/objectives.md has the table.
"""

import jax.numpy as jnp


def k1(log_ratio):
    """log pi - log pi_ref: the unbiased value. In a loss its expected gradient is zero; it belongs into the reward."""
    return log_ratio


def k2(log_ratio):
    """(log pi - log pi_ref)^2 / 2: a biased value, whose gradient on policy is that of KL(pi || pi_ref)."""
    return 0.5 * jnp.square(log_ratio)


def k3(log_ratio):
    """pi_ref / pi - log(pi_ref / pi) - 1: unbiased and never negative (DeepSeekMath, arXiv 2402.03300, eq. 4).

    On policy its gradient is that of KL(pi_ref || pi), the other direction. 1 - pi_ref / pi has no bound where the
    policy has become far less likely than the reference.
    """
    return jnp.exp(-log_ratio) + log_ratio - 1.0


def unbiased_kl(log_ratio, ratio):
    """(pi / pi_old) k3: value and gradient are those of KL(pi || pi_ref), off policy too (DeepSeek-V3.2, section 3.1).

    Args:
      log_ratio: log pi - log pi_ref.
      ratio: pi / pi_old, of the policy that sampled; its gradient is what mends k3's, also where it is 1.
    """
    return ratio * k3(log_ratio)
