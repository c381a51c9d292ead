"""Dense decoders with rotary positions, from 2023 on."""

COMMITTED = []
FAMILIES = []


def variation(kind, r, c, how):
    return c, how
