"""The first generations of decoders: learned positions, ALiBi, parallel blocks."""

COMMITTED = []
FAMILIES = []


def variation(kind, r, c, how):
    return c, how
