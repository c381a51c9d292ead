"""Recurrent decoders, and those with attention beside."""

COMMITTED = []
FAMILIES = []


def variation(kind, r, c, how):
    return c, how
