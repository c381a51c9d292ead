"""Families of models by what they are built of, a module each.

A module has

    COMMITTED                         rows as in goldens.py
    FAMILIES                          what --fuzz varies, by model type
    variation(kind, r, c, how)        a random configuration of one of them and how it is stored, from
                                      what configurations have in common; c has all that any may choose
                                      from: a window, layer_types, and a list of rope_parameters

and where the common ways of goldens.py do not serve

    noise(kind, name, p, noise, config)  other random weights for a parameter, or None
    prepare(kind, model, folder)         changes a model before it is asked
    finish(kind, folder)                 changes a published checkpoint to what transformers does not read as we do
    as_v4(kind, c)                       changes a configuration to what transformers 4 wrote
    as_published(kind, tensors, config)  the same for names, keys and extra tensors on the hub; returns tensors
"""

SHAPE = dict(vocab_size=120, hidden_size=40, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=256)
LLAMA = dict(SHAPE, num_attention_heads=5, num_key_value_heads=1)


def rope(theta=10000.0, **scaling):
    return dict(dict(rope_type="default", rope_theta=theta), **scaling)
