"""The languages that the language reward knows."""

from r1jax.rewards.profiles.latin import CENTRAL, EASTERN, NORTHERN
from r1jax.rewards.profiles.profile import Profile
from r1jax.rewards.profiles.scripts import ARABIC, CYRILLIC, DEVANAGARI, SINGLE
from r1jax.rewards.profiles.western import WESTERN

PROFILES: tuple[Profile, ...] = (*WESTERN, *NORTHERN, *CENTRAL, *EASTERN, *CYRILLIC, *ARABIC, *DEVANAGARI, *SINGLE)
