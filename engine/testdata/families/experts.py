"""Mixtures of experts, and attention over latents."""

COMMITTED = []
FAMILIES = []


def variation(kind, r, c, how):
    return c, how
