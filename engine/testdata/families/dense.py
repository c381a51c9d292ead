"""Dense decoders with rotary positions, from 2023 on."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Mistral3Config, Mistral3ForConditionalGeneration

from families import LLAMA, SHAPE, rope

WIDE = dict(SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=16)  # than the heads are
GRANITE = dict(LLAMA, embedding_multiplier=2.5, attention_multiplier=0.5, residual_multiplier=0.7, logits_scaling=1.6)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
GLM = dict(WIDE, attention_bias=True, pad_token_id=0)
OLMO = dict(SHAPE, num_attention_heads=5, pad_token_id=0, eos_token_id=1)
PIXTRAL = dict(model_type="pixtral", hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=16, image_size=8, patch_size=4)
GEMMA4 = dict(vocab_size=120, hidden_size=32, intermediate_size=40, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=16, max_position_embeddings=256)
GEMMA4.update(sliding_window=11, layer_types=["sliding_attention", "full_attention"] * 2, final_logit_softcapping=8.0)
PER_LAYER = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=120)
KEY_IS_VALUE = dict(attention_k_eq_v=True, num_global_key_value_heads=1, hidden_size_per_layer_input=0)
GEMMA3N = dict({k: v for k, v in GEMMA4.items() if k != "global_head_dim"}, laurel_rank=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=110, num_kv_shared_layers=2)
LLAMA4 = dict(vocab_size=120, hidden_size=32, intermediate_size=16, intermediate_size_mlp=24, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=4)
LLAMA4.update(num_experts_per_tok=1, max_position_embeddings=4096, attention_chunk_size=16, floor_scale=10, attn_scale=0.4, eos_token_id=1)
ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

COMMITTED = [
    ("granite", "granite", dict(GRANITE, attention_bias=True, mlp_bias=True), dict(v4=True)),
    ("granite-swa", "granite_swa", dict(GRANITE, num_hidden_layers=4, sliding_window=9, layer_rope_theta=[10000.0, 500.0, 0, 500.0], eos_token_id=1, bos_token_id=1), dict(dtype=torch.bfloat16)),
    ("smollm3", "smollm3", dict(LLAMA, num_hidden_layers=4, no_rope_layer_interval=2, attention_bias=True, pad_token_id=0), dict(dtype=torch.bfloat16)),
    ("smollm3-window-v4", "smollm3", dict(LLAMA, num_hidden_layers=3, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=13, mlp_bias=True, tie_word_embeddings=False, pad_token_id=0), dict(v4=True, dtype=torch.bfloat16)),
    ("olmo", "olmo", dict(OLMO, num_key_value_heads=1), {}),
    ("olmo2-v4", "olmo2", dict(OLMO, num_key_value_heads=5, attention_bias=True), dict(v4=True)),
    ("olmo3", "olmo3", dict(OLMO, num_hidden_layers=4, num_key_value_heads=1, sliding_window=11, rope_parameters=dict(full_attention=rope(5e5, **YARN), sliding_attention=rope(5e5))), dict(v4=True, dtype=torch.bfloat16)),
    ("exaone4", "exaone4", dict(LLAMA, num_hidden_layers=3, sliding_window=10, sliding_window_pattern=2), dict(dtype=torch.bfloat16, salt="a")),
    ("exaone4-full-v4", "exaone4", dict(LLAMA, sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True), dict(v4=True)),
    ("cohere", "cohere", dict(LLAMA, use_qk_norm=True, attention_bias=True, logit_scale=0.4, layer_norm_eps=1e-3, pad_token_id=0, eos_token_id=1), dict(v4=True)),
    ("cohere2-hub-v4", "cohere2", dict(LLAMA, num_hidden_layers=4, sliding_window=12, sliding_window_pattern=4, logit_scale=0.5, pad_token_id=0, eos_token_id=1), dict(v4=True, published=True, dtype=torch.bfloat16)),
    ("glm-v4", "glm", GLM, dict(v4=True)),
    ("glm4", "glm4", dict(GLM, attention_bias=False, rope_parameters=rope(10000.0, partial_rotary_factor=0.75)), {}),
    ("ernie4_5-v4", "ernie4_5", dict(WIDE, use_bias=True), dict(v4=True)),
    ("seed-oss", "seed_oss", dict(WIDE, attention_out_bias=True), dict(dtype=torch.bfloat16)),
    ("helium", "helium", dict(SHAPE, num_attention_heads=5, num_key_value_heads=1, head_dim=8, mlp_bias=True, attention_bias=True), dict(v4=True)),
    ("arcee", "arcee", dict(LLAMA, attention_bias=True, mlp_bias=True, rope_parameters=rope(10000.0, **YARN)), {}),
    ("hunyuan-hub-v4", "hunyuan_v1_dense", dict(WIDE, tie_word_embeddings=True, rope_parameters=rope(10000.0, rope_type="dynamic", alpha=1000.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.0)), dict(v4=True, published=True)),
    ("internlm3-hub-v4", "internlm3", dict(LLAMA, head_dim=16, qkv_bias=True, bias=True), dict(v4=True, published=True, dtype=torch.bfloat16)),
    ("ministral", "ministral", dict(WIDE, num_hidden_layers=3, sliding_window=14, layer_types=ALTERNATING), dict(dtype=torch.bfloat16)),
    ("mistral3", "mistral3", dict(text_config=dict(WIDE, model_type="mistral", sliding_window=None), vision_config=PIXTRAL, tie_word_embeddings=False), dict(dtype=torch.bfloat16, salt="a")),
    ("mistral3-hub", "mistral3", dict(text_config=dict(LLAMA, model_type="mistral", sliding_window=15), vision_config=PIXTRAL, tie_word_embeddings=True), dict(dtype=torch.bfloat16, published=True)),
    ("olmo-clip-v4", "olmo", dict(OLMO, clip_qkv=0.8, num_key_value_heads=1), dict(v4=True, dtype=torch.bfloat16)),
    ("apertus-v4", "apertus", dict(LLAMA, attention_bias=True, rope_parameters=None), dict(v4=True, dtype=torch.bfloat16)),
    ("ministral3", "ministral3", dict(WIDE, pad_token_id=0, rope_parameters=rope(10000.0, **YARN, llama_4_scaling_beta=0.4)), dict(dtype=torch.bfloat16)),
    ("mistral3-ministral3", "mistral3", dict(text_config=dict(WIDE, model_type="ministral3", pad_token_id=0, rope_parameters=rope(10000.0, **YARN, llama_4_scaling_beta=0.4)), vision_config=PIXTRAL), dict(dtype=torch.bfloat16)),
    ("llama4", "llama4_text", dict(LLAMA4, interleave_moe_layer_step=2), dict(dtype=torch.bfloat16)),
    ("llama4-hub-v4", "llama4_text", dict(LLAMA4, num_hidden_layers=2, no_rope_layer_interval=2, num_experts_per_tok=2, rope_parameters=rope(5e5, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=1.0, original_max_position_embeddings=64)), dict(published=True, dtype=torch.bfloat16)),
    ("gemma3n", "gemma3n_text", dict(GEMMA3N, activation_sparsity_pattern=[0.8, 0.5, 0.0, 0.9], intermediate_size=[40, 40, 24, 40]), dict(dtype=torch.bfloat16)),
    ("gemma4", "gemma4_text", dict(GEMMA4, **PER_LAYER, num_kv_shared_layers=2, use_double_wide_mlp=True), dict(dtype=torch.bfloat16)),
    ("gemma4-experts-hub", "gemma4_text", dict(GEMMA4, **KEY_IS_VALUE, enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16), dict(published=True, dtype=torch.bfloat16)),
    ("gemma4-wrapped", "gemma4", dict(text_config=dict(GEMMA4, **PER_LAYER), vision_config=None, audio_config=None), dict(dtype=torch.bfloat16)),
    ("gemma4-unified", "gemma4_unified", dict(text_config=dict(GEMMA4, num_kv_shared_layers=1, attention_k_eq_v=True, num_global_key_value_heads=4), vision_config=None, audio_config=None), dict(dtype=torch.bfloat16)),
    ("vaultgemma", "vaultgemma", dict(WIDE, sliding_window=12, query_pre_attn_scalar=24, attn_logit_softcapping=2.5, final_logit_softcapping=6.0), dict(v4=True)),
]

FAMILIES = ["granite", "granite_swa", "smollm3", "olmo", "olmo2", "olmo3", "exaone4", "cohere", "cohere2", "glm", "glm4"]
FAMILIES += ["ernie4_5", "seed_oss", "helium", "arcee", "hunyuan_v1_dense", "internlm3", "ministral", "mistral3", "vaultgemma"]
FAMILIES += ["apertus", "ministral3", "llama4_text", "gemma3n_text", "gemma4_text", "gemma4", "gemma4_unified_text", "gemma4_unified"]


# transformers does not call these language models, though they answer text alone.
AutoModelForCausalLM.register(Mistral3Config, Mistral3ForConditionalGeneration, exist_ok=True)


def noise(kind, name, p, noise, config):
    if kind == "vaultgemma" and name.endswith("norm.weight"):
        return noise * 0.3
    if name.endswith("layer_scalar"):
        return noise * 0.1 + 0.9
    if kind.startswith("gemma") and name.endswith(("norm.weight", "norm_1.weight", "norm_2.weight", "router.scale", "per_expert_scale")):
        return noise * 0.3 + 1.0
    if name.endswith("router.proj.weight"):
        return noise * 2.0 / config.hidden_size**0.5
    if "act_fn.alpha" in name:
        return noise
    if config.tie_word_embeddings and "embed_tokens" in name:
        return noise * (0.7 if kind == "vaultgemma" else 1.2) / config.hidden_size**0.5
    if kind.startswith("cohere") and name.endswith(("q_norm.weight", "k_norm.weight")):
        return noise * 0.3 + 1.0
    return None


def as_v4(kind, c):
    parameters = c.get("rope_parameters")
    if kind == "olmo3":
        if parameters["sliding_attention"] != rope(5e5):
            return c  # it had no words for others
        parameters = parameters["full_attention"]
    if kind != "exaone4" or c["sliding_window"]:  # without, transformers needs layer_types
        default = AutoConfig.for_model(**{k: v for k, v in c.items() if k != "layer_types"})
        if getattr(default, "layer_types", None) == c.get("layer_types"):
            c.pop("layer_types", None)
    if parameters is None:
        return c
    c.pop("rope_parameters")
    parameters = dict(parameters)
    c["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        c["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    c["rope_scaling"] = None
    if parameters["rope_type"] != "default":
        if kind == "hunyuan_v1_dense":
            parameters["type"] = parameters.pop("rope_type")
        c["rope_scaling"] = parameters
    return c


def as_published(kind, tensors, config):
    if kind == "llama4_text":
        tensors = {"language_model." + n: t for n, t in tensors.items()}
        some = tensors["language_model.model.norm.weight"]
        tensors["vision_model.class_embedding"] = some.clone()
        tensors["multi_modal_projector.linear_1.weight"] = some.clone()
        config.update(no_rope_layers=[0 if n == 0 else n for n in config["no_rope_layers"]], for_llm_compressor=False)
        wrapper = dict(model_type="llama4", architectures=["Llama4ForConditionalGeneration"], text_config=dict(config), vision_config=dict(model_type="llama4_vision_model"))
        config.clear()
        config.update(wrapper, boi_token_index=200080, eoi_token_index=200081, image_token_index=200092, dtype="bfloat16")
    elif kind == "gemma4_text":
        layers = config.pop("per_layer_config", {})
        last = layers.get(str(config["num_hidden_layers"] - 1), {})
        config.update(global_head_dim=last.get("head_dim", config["head_dim"]))
        config.update(num_global_key_value_heads=last.get("num_key_value_heads", config["num_key_value_heads"]))
    elif kind == "cohere2":
        config.update(layer_switch=4, order_of_interleaved_layers="local_attn_first", position_embedding_type="rope_gptj", rotary_pct=1.0)
        config.update(use_embedding_sharing=True, use_gated_activation=True, use_parallel_block=True, use_parallel_embedding=False, use_qk_norm=False)
    elif kind == "hunyuan_v1_dense":
        config.update(attention_head_dim=config["head_dim"], cla_share_factor=2, use_cla=False, use_qk_norm=True, use_rotary_pos_emb=True)
        config.update(dense_list=[config["hidden_size"], 0], norm_type="rms", org_vocab_size=config["vocab_size"], pool_type="last", mlp_bias=False)
    elif kind == "internlm3":
        config.update(qkv_bias=config.pop("attention_bias"), bias=config.pop("mlp_bias"))
    elif kind == "mistral3":
        names = {n: n.replace("model.language_model.", "language_model.model.").removeprefix("model.") for n in tensors}
        tensors = {"language_model." + n if n.startswith("lm_head") else n: tensors[old] for old, n in names.items()}
    return tensors, config


def variation(kind, r, c, how):
    layer_types, window, ropes = c.pop("layer_types"), c.pop("sliding_window"), c.pop("rope_parameters")
    c["rope_parameters"] = r.choice(ropes + ropes[:1] * 2)
    c.update(pad_token_id=0, eos_token_id=1, bos_token_id=2)
    layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
    biases = {k: r.random() < 0.4 for k in ("attention_bias", "mlp_bias")}
    windows = dict(sliding_window=window)
    if r.random() < 0.6:
        windows["layer_types"] = layer_types
    if kind in ("granite", "granite_swa"):
        c.update(biases, embedding_multiplier=r.choice([1.0, 12.0]), attention_multiplier=r.choice([1.0, 0.0625, 0.3]))
        c.update(residual_multiplier=r.choice([1.0, 0.22]), logits_scaling=r.choice([1.0, 8.0]))
        if kind == "granite_swa":
            c.update(windows)
            if r.random() < 0.6:
                c["layer_rope_theta"] = [r.choice([0, 0, 500.0, 10000.0, 1e6]) for _ in range(layers)]
    elif kind == "smollm3":
        c.update(biases, no_rope_layer_interval=r.choice([1, 2, 3, 4]))
        if r.random() < 0.5:
            c["no_rope_layers"] = [r.choice([0, 1]) for _ in range(layers)]
        if r.random() < 0.6:
            c.update(windows, use_sliding_window=True)
    elif kind.startswith("olmo"):
        c["attention_bias"] = biases["attention_bias"]
        if kind == "olmo":
            c["clip_qkv"] = r.choice([None, 0.3, 1.0])
        if kind == "olmo3":
            c.update(windows)
            sliding = rope(5e5) if how["v4"] else r.choice(ropes)
            c["rope_parameters"] = dict(full_attention=r.choice(ropes), sliding_attention=sliding)
    elif kind == "exaone4":
        if r.random() < 0.4:
            c.update(sliding_window=None, layer_types=["full_attention"] * layers)
        else:
            c.update(windows, sliding_window_pattern=r.choice([1, 2, 3, 4]))
    elif kind.startswith("cohere"):
        c["layer_norm_eps"] = c.pop("rms_norm_eps")
        c.update(attention_bias=biases["attention_bias"], logit_scale=r.choice([0.0625, 0.25, 1.0]))
        if kind == "cohere":
            c["use_qk_norm"] = r.random() < 0.5
        else:
            how["published"] = r.random() < 0.5
            c.update(windows)
            if "layer_types" not in c:
                c["sliding_window_pattern"] = r.choice([1, 2, 3, 4])
    elif kind.startswith("glm"):
        c.update(head_dim=r.choice([8, 16, 32, 64]), attention_bias=r.random() < 0.6)
        c["rope_parameters"] = dict(c["rope_parameters"], partial_rotary_factor=r.choice([0.25, 0.5, 0.5, 1.0]))
    elif kind in ("ernie4_5", "seed_oss", "internlm3", "arcee", "ministral"):
        if kind == "ministral" or r.random() < 0.6:
            c["head_dim"] = r.choice([8, 16, 24, 64, 128])
        if kind == "ernie4_5":
            c["use_bias"] = r.random() < 0.4
        elif kind == "internlm3":
            c.update(dict.fromkeys(("qkv_bias", "bias"), biases["mlp_bias"]))
            how["published"] = r.random() < 0.5
        elif kind == "ministral":
            c.update(windows)
        else:
            c.update(biases)
        if kind == "seed_oss":
            c["attention_out_bias"] = r.random() < 0.4
        if kind == "arcee":
            c["hidden_act"] = r.choice(["relu2", "relu2", "silu"])
    elif kind == "helium":
        c.update(biases, head_dim=c["hidden_size"] // heads)
    elif kind == "hunyuan_v1_dense":
        c.update(attention_bias=biases["attention_bias"], head_dim=r.choice([8, 16, 24, 64]))
        how["published"] = r.random() < 0.5
        if r.random() < 0.5:
            c["rope_parameters"] = rope(r.choice([10000.0, 500.0]), rope_type="dynamic", alpha=r.choice([1000.0, 50.0]), factor=1.0, mscale=1.0)
    elif kind == "mistral3":
        c["head_dim"] = r.choice([8, 16, 24, 64])
        c.update(model_type="mistral", sliding_window=r.choice([None, window]))
        how.update(v4=False, short=False, published=r.random() < 0.5)
        c = dict(text_config=c, vision_config=PIXTRAL, tie_word_embeddings=c["tie_word_embeddings"])
    elif kind == "vaultgemma":
        c.update(windows, head_dim=r.choice([8, 16, 32, 64]), attention_bias=biases["attention_bias"], query_pre_attn_scalar=r.choice([16, 100, 256]))
        c.update(attn_logit_softcapping=r.choice([None, 1.5, 50.0]), final_logit_softcapping=r.choice([None, 4.0, 30.0]))
    elif kind == "apertus":
        c.update(attention_bias=biases["attention_bias"], hidden_act=r.choice(["xielu", "xielu", "xielu", "silu"]))
    elif kind == "ministral3":
        c.update(head_dim=r.choice([8, 16, 24, 64]), sliding_window=r.choice([None, window]))
        growth = dict(llama_4_scaling_beta=r.choice([0.1, 0.7]), original_max_position_embeddings=r.choice([8, 32, 4096]))
        c["rope_parameters"] = rope(1e6, **dict(YARN, **growth, factor=r.choice([1.0, 4.0, 16.0])))
    elif kind == "llama4_text":
        experts = r.choice([1, 2, 4, 7])
        c.update(head_dim=r.choice([8, 16, 32]), intermediate_size=r.choice([8, 24, 37]), intermediate_size_mlp=r.choice([16, 50]), use_qk_norm=r.random() < 0.6)
        c.update(num_local_experts=experts, num_experts_per_tok=r.randint(1, experts), interleave_moe_layer_step=r.choice([1, 1, 2, 3]))
        c.update(attention_chunk_size=r.choice([1, 7, 16, 50, 8192]), floor_scale=r.choice([1, 9, 8192]), attn_scale=r.choice([0.1, 0.5]), attn_temperature_tuning=r.random() < 0.7)
        c.update(attention_bias=biases["attention_bias"], no_rope_layer_interval=r.choice([1, 2, 4]))
        if r.random() < 0.4:
            c["no_rope_layers"] = [r.choice([0, 1]) for _ in range(layers)]
        if r.random() < 0.3:
            c["moe_layers"] = [i for i in range(layers) if r.random() < 0.5]
        if r.random() < 0.3:
            c["layer_types"] = [t.replace("sliding", "chunked") for t in layer_types]
        how["published"] = r.random() < 0.3
    elif kind.startswith(("gemma3n", "gemma4")):
        how["v4"] = False
        c.update(windows, head_dim=r.choice([8, 16, 32]), attention_bias=biases["attention_bias"], final_logit_softcapping=r.choice([4.0, 30.0]))
        c["tie_word_embeddings"] = r.random() < 0.8
        local = r.choice(ropes)
        c["rope_parameters"] = dict(full_attention=r.choice(ropes), sliding_attention=local)
        if kind.startswith("gemma4"):
            share = rope(1e6, rope_type="proportional", partial_rotary_factor=r.choice([0.25, 0.25, 0.4, 1.0]))
            c["rope_parameters"]["full_attention"] = r.choice([share, share, dict(share, factor=2.0), c["rope_parameters"]["full_attention"]])
            c.update(global_head_dim=r.choice([8, 16, 64]), attention_k_eq_v=r.random() < 0.5, use_double_wide_mlp=r.random() < 0.5)
            c["num_global_key_value_heads"] = r.choice([None, r.choice([k for k in range(1, heads + 1) if heads % k == 0])])
            if "layer_types" in c:
                c["layer_types"][-1] = "full_attention"
        types = c.get("layer_types") or ["full_attention" if (i + 1) % (6 if "4" in kind else 5) == 0 or "4" in kind and i == layers - 1 else "sliding_attention" for i in range(layers)]
        c["layer_types"] = types
        c["num_kv_shared_layers"] = r.choice([0] + [n for n in range(1, layers) if set(types[: layers - n]) == set(types)])
        if "unified" not in kind:
            c.update(hidden_size_per_layer_input=r.choice([4, 8, 16]), vocab_size_per_layer_input=c["vocab_size"])
        if kind == "gemma3n_text":
            streams = r.choice([2, 3, 4])
            c.update(altup_num_inputs=streams, altup_active_idx=r.randrange(streams), altup_correct_scale=r.random() < 0.5, laurel_rank=r.choice([3, 8]))
            c["activation_sparsity_pattern"] = [r.choice([0.0, 0.3, 0.5, 0.95]) for _ in range(layers)]
            c["vocab_size_per_layer_input"] -= r.choice([0, 20])
            if r.random() < 0.4:
                c["intermediate_size"] = [r.choice([24, 50, 96]) for _ in range(layers)]
        elif kind in ("gemma4_text", "gemma4"):
            if r.random() < 0.3:  # where transformers cannot share keys and values
                c.update(hidden_size_per_layer_input=0, num_kv_shared_layers=0)
            if r.random() < 0.4:
                experts = r.choice([2, 4, 7])
                c.update(enable_moe_block=True, num_experts=experts, top_k_experts=r.randint(1, experts), moe_intermediate_size=r.choice([8, 24]))
        if kind in ("gemma4", "gemma4_unified"):
            how.update(short=False)
            c = dict(text_config=c, vision_config=None, audio_config=None, tie_word_embeddings=c["tie_word_embeddings"])
    if how.get("published"):
        how.update(short=False, shard="1GB")
    return c, how
