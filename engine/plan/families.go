package plan

import (
	"fmt"
	"maps"
	"slices"
)

// family is one model architecture.
type family struct {
	read  func(o *object, c *Config)
	build func(b *Builder, c *Config)
	eos   int // transformers' default end-of-sequence id, -1 for none

	// draft writes the operations of a head that predicts one more token, if the
	// checkpoint has one; nil: the family has none.
	draft func(b *Builder, c *Config)

	models  string // that people know, for docs/models.md
	remarks string // what docs/models.md says beside; optional
	// like is the family whose checkpoints stand for this one's in tests: it has the
	// same layers under another name, or inside a multimodal model. "": its own do.
	like string

	// keys are what config.json calls the keys of readCommon, where it has other
	// names for them: the attribute_map of transformers' config class.
	keys map[string]string
	// ignored are keys of config.json that change no number of this family.
	ignored []string
	// prefixes are where checkpoints put the decoder; nil: decoderPrefixes. The one
	// with a tensor root, or else the first, is taken.
	prefixes []string
	root     string // "": norm.weight
	// embed is what checkpoints call the embedding, below the prefix, and heads what
	// they call the output head; "" and nil: embed_tokens.weight and outputNames.
	embed string
	heads []string
	// spare are tensors of the decoder that checkpoints have and the plan does not
	// need (Plan.Spare).
	spare []string
}

// families are the supported architectures by model_type.
var families = map[string]family{
	"llama": {
		read: readLlama, build: buildLlama, eos: 2, ignored: llamaIgnored,
		models: "Llama 1 to 3.2, SmolLM2, TinyLlama, and many more with this architecture", remarks: "also rotary scaling by `llama3`, `linear`, `dynamic`, `yarn`",
	},
	"mistral": {
		read: readMistral, build: buildLlama, eos: 2,
		models: "Mistral 7B", remarks: "sliding windows",
	},
	"qwen2": {
		read: readQwen2, build: buildLlama, eos: -1,
		models: "Qwen2, Qwen2.5",
	},
	"qwen3": {
		read: readQwen3, build: buildQwen3, eos: -1,
		models: "Qwen3 0.6B to 32B",
	},
	"gemma": {
		read: readGemma, build: buildGemma, eos: 1,
		models: "Gemma 2B, 7B",
	},
	"gemma2": {
		read: readGemma2, build: buildGemma2, eos: 1, ignored: gemma2Ignored,
		models: "Gemma 2", remarks: "sliding windows, soft caps",
	},
	"gemma3": {
		read: readGemma3, build: buildGemma3, eos: 1, ignored: gemma3Ignored,
		models: "Gemma 3 4B and larger", remarks: "with the vision tower",
	},
	"gemma3_text": {
		read: readGemma3Text, build: buildGemma3, eos: 1, ignored: gemma3Ignored,
		models: "Gemma 3 270M, 1B",
	},
	"granite": {
		read: readGranite, build: buildLlama, eos: 2,
		models: "Granite 3 and 3.3",
	},
	"granite_swa": {
		read: readGraniteSWA, build: buildGraniteSWA, eos: 100257,
		models: "Granite with sliding windows", remarks: "attention sinks, layers without positions",
	},
	"smollm3": {
		read: readSmolLM3, build: buildLlama, eos: 128001, ignored: []string{"max_window_layers"},
		models: "SmolLM3 3B", remarks: "layers without positions",
	},
	"olmo": {
		read: readOLMo, build: buildOLMo, eos: 50279, root: "embed_tokens.weight",
		models: "OLMo 1B, 7B",
	},
	"olmo2": {
		read: readOLMo2, build: buildOLMo2, eos: 50279,
		models: "OLMo 2 1B to 32B",
	},
	"olmo3": {
		read: readOLMo3, build: buildOLMo2, eos: 50279,
		models: "OLMo 3 7B, 32B", remarks: "sliding windows",
	},
	"exaone4": {
		read: readEXAONE4, build: buildEXAONE4, eos: 2,
		models: "EXAONE 4.0 1.2B, 32B", remarks: "sliding windows, layers without positions",
	},
	"cohere": {
		read: readCohere, build: buildCohere, eos: 255001, keys: cohereKeys, ignored: cohereIgnored,
		models: "Command R, Command R+, Aya",
	},
	"cohere2": {
		read: readCohere2, build: buildCohere, eos: 255001, keys: cohereKeys, ignored: cohereIgnored,
		models: "Command R7B, Command A", remarks: "sliding windows, layers without positions",
	},
	"glm": {
		read: readGLM, build: buildGLM, eos: -1,
		models: "GLM-4-9B of 2024",
	},
	"glm4": {
		read: readGLM, build: buildGLM4, eos: -1,
		models: "GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1",
	},
	"ernie4_5": {
		read: readERNIE45, build: buildLlama, eos: 2,
		models: "ERNIE 4.5 0.3B",
	},
	"seed_oss": {
		read: readSeedOSS, build: buildLlama, eos: 2,
		models: "Seed-OSS-36B",
	},
	"helium": {
		read: readHelium, build: buildLlama, eos: 2,
		models: "Helium 1 2B",
	},
	"arcee": {
		read: readArcee, build: buildArcee, eos: 128001,
		models: "AFM-4.5B",
	},
	"hunyuan_v1_dense": {
		read: readHunYuan, build: buildHunYuan, eos: 2, ignored: hunYuanIgnored,
		models: "Hunyuan 0.5B to 7B",
	},
	"internlm3": {
		read: readInternLM3, build: buildLlama, eos: 2, keys: internLM3Keys,
		models: "InternLM3 8B",
	},
	"ministral": {
		read: readMinistral, build: buildLlama, eos: 2,
		models: "Ministral 8B of 2024", remarks: "sliding windows",
	},
	"mistral3": {
		read: readMistral3, build: buildMistral3, eos: 2, ignored: mistral3Ignored,
		models: "Mistral Small 3.1, 3.2 and 4, Ministral 3", remarks: "with the vision tower",
	},
	"apertus": {
		read: readApertus, build: buildApertus, eos: 2, spare: []string{".act_fn.beta", ".act_fn.eps"},
		models: "Apertus 8B, 70B",
	},
	"ministral3": {
		read: readMinistral3, build: buildLlama, eos: 2,
		models: "Ministral 3 3B, 8B, 14B, the text part",
	},
	"llama4": {
		read: readLlama4, build: buildLlama4, eos: 2, ignored: llama4Ignored,
		models: "Llama 4 Scout, Maverick, the text part", remarks: "chunked attention, mixture of experts; images are refused",
	},
	"llama4_text": {
		read: readLlama4Text, build: buildLlama4, eos: 2,
		models: "the same without the vision part",
	},
	"gemma3n": {
		read: readGemma3n, build: buildGemma3n, eos: 1, ignored: gemma3nIgnored, spare: []string{".altup.correct_output_scale"},
		like:   "gemma3n_text",
		models: "Gemma 3n E2B, E4B, the text part", remarks: "images and audio are refused",
	},
	"gemma3n_text": {
		read: readGemma3nText, build: buildGemma3n, eos: 1, ignored: gemma3nIgnored, spare: []string{".altup.correct_output_scale"},
		models: "the same without the other parts",
	},
	"gemma4": {
		read: readGemma4, build: buildGemma4, eos: 1, keys: gemma4Keys, ignored: gemma4Ignored,
		models: "Gemma 4 E2B, E4B, 26B-A4B, 31B", remarks: "with the vision tower; video and audio are refused",
	},
	"gemma4_text": {
		read: readGemma4Text, build: buildGemma4, eos: 1, keys: gemma4Keys, ignored: gemma4Ignored,
		models: "the same without the other parts",
	},
	"gemma4_unified": {
		read: readGemma4UnifiedModel, build: buildGemma4, eos: 1, keys: gemma4Keys, ignored: gemma4Ignored,
		models: "Gemma 4 12B, the text part", remarks: "images, video and audio are refused",
	},
	"gemma4_unified_text": {
		read: readGemma4Unified, build: buildGemma4, eos: 1, keys: gemma4Keys, ignored: gemma4Ignored,
		like:   "gemma4_text",
		models: "the same without the other parts",
	},
	"vaultgemma": {
		read: readGemma2, build: buildVaultGemma, eos: 1,
		models: "VaultGemma 1B", remarks: "sliding windows, soft caps",
	},
	"phi3": {
		read: readPhi3, build: buildPhi3, eos: 32000,
		models: "Phi-3, Phi-3.5-mini, Phi-4-mini", remarks: "also `longrope`",
	},
	"mixtral": {
		read: readMixtral, build: buildMixtral, eos: 2,
		models: "Mixtral 8x7B, 8x22B", remarks: "mixture of experts",
	},
	"qwen3_moe": {
		read: readQwen3MoE, build: buildQwen3MoE, eos: -1, keys: qwen3MoEKeys, ignored: []string{"max_window_layers"},
		models: "Qwen3-30B-A3B", remarks: "mixture of experts",
	},
	"gpt_oss": {
		read: readGPTOSS, build: buildGPTOSS, eos: 200002, ignored: gptOSSIgnored,
		models: "gpt-oss-20b, gpt-oss-120b", remarks: "MXFP4 or bf16 experts",
	},
	"deepseek_v3": {
		read: readDeepseekV3, build: buildDeepseekV3, draft: draftDeepseekV3, eos: 1, ignored: deepseekIgnored,
		models: "DeepSeek-V3's architecture", remarks: "latent attention; in bf16, the FP8 checkpoint is refused; its MTP head drafts with `--speculate`",
	},
	"qwen3_5": {
		read: readQwen35, build: buildQwen35, draft: draftQwen35, eos: -1, ignored: qwen35Ignored,
		like:   "qwen3_5_text",
		models: "Qwen3.5", remarks: "with the vision tower; gated delta nets beside attention; states in the prefix cache; its MTP head drafts with `--speculate`",
	},
	"qwen3_5_text": {
		read: readQwen35Text, build: buildQwen35, draft: draftQwen35, eos: -1, ignored: qwen35Ignored,
		models: "the same without the vision part",
	},
	"qwen2_moe": {
		read: readQwen2MoE, build: buildQwen2MoE, eos: -1,
		models: "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B", remarks: "mixture of experts",
	},
	"qwen3_5_moe": {
		read: readQwen35MoE, build: buildQwen35MoE, draft: draftQwen35MoE, eos: -1, ignored: qwen35Ignored,
		like:   "qwen3_5_moe_text",
		models: "Qwen3.6-35B-A3B, Qwen3.5 with experts", remarks: "with the vision tower; gated delta nets beside attention; mixture of experts; its MTP head drafts with `--speculate`",
	},
	"qwen3_5_moe_text": {
		read: readQwen35MoEText, build: buildQwen35MoE, draft: draftQwen35MoE, eos: -1, ignored: qwen35Ignored,
		models: "the same without the vision part",
	},
	"qwen3_next": {
		read: readQwen3Next, build: buildQwen35MoE, draft: draftQwen35MoE, eos: -1, ignored: qwen35Ignored,
		models: "Qwen3-Next-80B-A3B", remarks: "gated delta nets beside attention; mixture of experts; its MTP head drafts with `--speculate`",
	},
	"glm4_moe": {
		read: readGLM4MoE, build: buildGLM4MoE, draft: draftGLM4MoE, eos: -1, ignored: deepseekIgnored,
		models: "GLM-4.5, GLM-4.5-Air, GLM-4.6, GLM-4.7", remarks: "mixture of experts; its MTP head drafts with `--speculate`",
	},
	"glm4_moe_lite": {
		read: readGLM4MoELite, build: buildDeepseekV3, draft: draftDeepseekV3, eos: 1, ignored: deepseekIgnored,
		models: "GLM-4.7-Flash", remarks: "latent attention; its MTP head drafts with `--speculate`",
	},
	"dots1": {
		read: readDots1, build: buildGLM4MoE, eos: -1, ignored: deepseekIgnored,
		models: "dots.llm1", remarks: "mixture of experts",
	},
	"solar_open": {
		read: readSolarOpen, build: buildGLM4MoE, eos: -1, ignored: deepseekIgnored,
		models: "Solar-Open-100B", remarks: "mixture of experts",
	},
	"deepseek_v2": {
		read: readDeepseekV2, build: buildDeepseekV3, eos: 2, ignored: deepseekIgnored,
		models: "DeepSeek-V2, V2-Lite, Coder-V2", remarks: "latent attention; mixture of experts",
	},
	"mistral4": {
		read: readMistral4, build: buildDeepseekV3, eos: 2, ignored: deepseekIgnored,
		models: "Mistral Small 4, the text part alone", remarks: "latent attention; mixture of experts",
	},
	"olmoe": {
		read: readOLMoE, build: buildOLMoE, eos: 50279, keys: olmoeKeys,
		models: "OLMoE-1B-7B", remarks: "mixture of experts",
	},
	"flex_olmo": {
		read: readFlexOlmo, build: buildFlexOlmo, eos: 100257, keys: olmoeKeys,
		models: "FlexOlmo-7x7B", remarks: "mixture of experts",
	},
	"granitemoe": {
		read: readGraniteMoE, build: buildGraniteMoE, eos: 2,
		models: "Granite 3 1B-A400M, 3B-A800M, PowerMoE-3b", remarks: "mixture of experts",
	},
	"granitemoeshared": {
		read: readGraniteMoEShared, build: buildGraniteMoE, eos: 2,
		models: "Granite with experts, one of which sees every token", remarks: "mixture of experts",
	},
	"kimi_k2": {
		read: readDeepseekV3, build: buildDeepseekV3, eos: 1, ignored: deepseekIgnored,
		models: "Kimi-K2", remarks: "`deepseek_v3` under another name; the FP8 checkpoint is refused",
	},
	"deepseek_v32": {
		read: readDeepseekV32, build: buildIndexed, eos: 1, ignored: indexedIgnored,
		models: "DeepSeek-V3.2", remarks: "up to `index_topk` positions (2048), where the indexer chooses all; the FP8 checkpoint is refused",
	},
	"glm_moe_dsa": {
		read: readGLMMoEDSA, build: buildIndexed, eos: 1, ignored: indexedIgnored,
		models: "GLM-5", remarks: "up to `index_topk` positions (2048), where the indexer chooses all",
	},
	"minimax_m2": {
		read: readMiniMaxM2, build: buildMiniMaxM2, eos: 200020, keys: qwen3MoEKeys, ignored: miniMaxIgnored,
		models: "MiniMax-M2, M2.1", remarks: "mixture of experts; in bf16, the FP8 checkpoint is refused",
	},
	"ernie4_5_moe": {
		read: readErnie45MoE, build: buildErnie45MoE, eos: 2, keys: ernieMoEKeys, ignored: ernieMoEIgnored,
		models: "ERNIE-4.5-21B-A3B, 300B-A47B", remarks: "mixture of experts",
	},
	"hunyuan_v1_moe": {
		read: readHunYuanMoE, build: buildHunYuanMoE, eos: 2, keys: hunYuanMoEKeys, ignored: hunYuanIgnored,
		models: "Hunyuan-A13B", remarks: "mixture of experts",
	},
	"exaone_moe": {
		read: readExaoneMoE, build: buildExaoneMoE, eos: 53, keys: exaoneMoEKeys, ignored: deepseekIgnored,
		models: "K-EXAONE-236B-A23B", remarks: "mixture of experts; layers without a window have no positions",
	},
	"llava": {
		read: readLlava, build: buildText, eos: 2, ignored: seeingIgnored,
		models: "LLaVA 1.5, Pixtral 12B, LLaVA-Interleave", remarks: "with the vision tower",
	},
	"llava_next": {
		read: readLlava, build: buildText, eos: 2, ignored: seeingIgnored,
		models: "LLaVA-NeXT 1.6", remarks: "with the vision tower",
	},
	"idefics3": {
		read: readIdefics3, build: buildText, eos: 128001, ignored: seeingIgnored, prefixes: idefics3Prefixes,
		models: "Idefics3-8B", remarks: "with the vision tower",
	},
	"smolvlm": {
		read: readIdefics3, build: buildText, eos: 2, ignored: seeingIgnored, prefixes: idefics3Prefixes,
		models: "SmolVLM, SmolVLM2 256M to 2.2B", remarks: "with the vision tower",
	},
	"internvl": {
		read: readInternVL, build: buildText, eos: -1, ignored: seeingIgnored,
		models: "InternVL 2.5, InternVL 3, as transformers has them", remarks: "with the vision tower",
	},
	"paligemma": {
		read: readPaliGemma, build: buildText, eos: 1, ignored: seeingIgnored,
		models: "PaliGemma 3B, PaliGemma 2", remarks: "with the vision tower",
	},
	"qwen2_vl": {
		read: readQwen2VL, build: buildLlama, eos: 151645, ignored: seeingIgnored,
		models: "Qwen2-VL 2B to 72B", remarks: "with the vision tower; positions of three axes",
	},
	"qwen2_5_vl": {
		read: readQwen2VL, build: buildLlama, eos: 151645, ignored: seeingIgnored,
		models: "Qwen2.5-VL 3B to 72B", remarks: "with the vision tower; positions of three axes",
	},
	"qwen3_vl": {
		read: readQwen3VL, build: buildQwen3, eos: 151645, ignored: seeingIgnored,
		models: "Qwen3-VL 2B to 32B", remarks: "with the vision tower, which several layers hear of; positions of three axes",
	},
	"qwen3_vl_moe": {
		read: readQwen3VLMoE, build: buildQwen3MoE, eos: 151645, keys: qwen3MoEKeys, ignored: seeingIgnored,
		models: "Qwen3-VL-30B-A3B, 235B-A22B", remarks: "with the vision tower, which several layers hear of; positions of three axes; mixture of experts",
	},
	"gpt2": {
		read: readGPT2, build: buildGPT2, eos: 50256, keys: gpt2Keys, ignored: gpt2Ignored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "wte.weight",
		spare:  []string{".attn.bias", ".attn.masked_bias"},
		models: "GPT-2",
	},
	"gpt_neox": {
		read: readNeoX, build: buildNeoX, eos: 2, keys: neoxKeys,
		prefixes: []string{"gpt_neox.", ""}, root: "final_layer_norm.weight", embed: "embed_in.weight",
		heads:  []string{"embed_out.weight", "lm_head.weight"},
		spare:  []string{".attention.bias", ".attention.masked_bias"},
		models: "Pythia, GPT-NeoX-20B",
	},
	"bloom": {
		read: readBloom, build: buildBloom, eos: 2, keys: bloomKeys, ignored: bloomIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "word_embeddings.weight",
		models: "BLOOM",
	},
	"opt": {
		read: readOPT, build: buildOPT, eos: 2, keys: optKeys, ignored: []string{"activation_dropout", "layerdrop"},
		prefixes: []string{"model.decoder.", "decoder.", ""}, root: "embed_positions.weight",
		models: "OPT 125M to 66B, Galactica",
	},
	"gpt_neo": {
		read: readGPTNeo, build: buildGPTNeo, eos: 50256, keys: gptNeoKeys, ignored: gptNeoIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "wte.weight",
		spare:  []string{".attn.attention.bias", ".attn.attention.masked_bias"},
		models: "GPT-Neo 125M to 2.7B, TinyStories", remarks: "windows on every other layer",
	},
	"gptj": {
		read: readGPTJ, build: buildGPTJ, eos: 50256, keys: gptjKeys, ignored: gptjIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "wte.weight",
		spare:  []string{".attn.bias", ".attn.masked_bias"},
		models: "GPT-J 6B, GPT-JT",
	},
	"codegen": {
		read: readGPTJ, build: buildGPTJ, eos: 50256, keys: gptjKeys, ignored: gptjIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "wte.weight",
		spare:  []string{".attn.causal_mask"},
		models: "CodeGen 350M to 16B",
	},
	"gpt_bigcode": {
		read: readGPTBigCode, build: buildGPTBigCode, eos: 50256, keys: gpt2Keys, ignored: bigCodeIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "wte.weight",
		spare:  []string{".attn.bias", ".attn.masked_bias"},
		models: "StarCoder, SantaCoder, Granite Code 20B and 34B", remarks: "multi-query attention",
	},
	"falcon": {
		read: readFalcon, build: buildFalcon, eos: 11, keys: falconKeys, ignored: falconIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "word_embeddings.weight",
		models: "Falcon 7B, 40B, 180B, RW 1B, Falcon 2 11B", remarks: "rotary positions or ALiBi, old and new architecture",
	},
	"RefinedWeb": {
		read: readFalcon, build: buildFalcon, eos: 11, keys: refinedWebKeys, ignored: falconIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "word_embeddings.weight",
		like:   "falcon",
		models: "Falcon 40B as first released",
	},
	"RefinedWebModel": {
		read: readFalcon, build: buildFalcon, eos: 11, keys: refinedWebKeys, ignored: falconIgnored,
		prefixes: []string{"transformer.", ""}, root: "ln_f.weight", embed: "word_embeddings.weight",
		like:   "falcon",
		models: "Falcon 7B and RW 1B as first released",
	},
	"phi": {
		read: readPhi, build: buildPhi, eos: 2, keys: layerNormKeys,
		root: "final_layernorm.weight", models: "Phi-1, Phi-1.5, Phi-2",
	},
	"persimmon": {
		read: readPersimmon, build: buildPersimmon, eos: 2, keys: layerNormKeys, ignored: []string{"num_key_value_heads"},
		root: "final_layernorm.weight", models: "Persimmon 8B",
	},
	"stablelm": {
		read: readStableLM, build: buildStableLM, eos: 0, keys: layerNormKeys,
		models: "StableLM 3B, StableLM 2 1.6B, 12B, Stable Code 3B",
	},
	"starcoder2": {
		read: readStarcoder2, build: buildStarcoder2, eos: 50256, keys: starcoder2Keys, ignored: starcoder2Ignored,
		models: "StarCoder2 3B, 7B, 15B", remarks: "sliding windows",
	},
	"mpt": {
		read: readMPT, build: buildMPT, eos: -1, keys: mptKeys, ignored: mptIgnored,
		prefixes: []string{"transformer.", ""}, root: "norm_f.weight", embed: "wte.weight",
		models: "MPT 7B and 30B", remarks: "ALiBi, also `clip_qkv` and `alibi_bias_max`",
	},
	"dbrx": {
		read: readDbrx, build: buildDbrx, eos: -1, keys: dbrxKeys, ignored: dbrxIgnored,
		prefixes: []string{"transformer.", ""}, root: "norm_f.weight", embed: "wte.weight",
		models: "DBRX", remarks: "mixture of experts",
	},
	"phimoe": {
		read: readPhimoe, build: buildPhimoe, eos: 2, ignored: []string{"input_jitter_noise"},
		models: "Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE", remarks: "mixture of experts",
	},
	"nemotron": {
		read: readNemotron, build: buildNemotron, eos: 3, keys: map[string]string{"rms_norm_eps": "norm_eps"},
		models: "Nemotron-4, Minitron 4B and 8B",
	},
	"bitnet": {
		read: readBitNet, build: buildBitNet, eos: 128001,
		models: "BitNet b1.58 2B", remarks: "weights are dequantised, activations not rounded to 8 bits",
	},
	"nanochat": {
		read: readNanochat, build: buildNanochat, eos: 1,
		models: "nanochat-d32",
	},
	"mamba2": {
		read: readMamba2, build: buildMamba2, eos: 0, keys: mamba2Keys, ignored: mamba2Ignored,
		prefixes: []string{"backbone.", "model.", ""}, root: "norm_f.weight", embed: "embeddings.weight",
		models: "Mamba 2", remarks: "recurrent, no attention",
	},
	"lfm2": {
		read: readLFM2, build: buildLFM2, eos: 2, keys: lfm2Keys, ignored: lfm2Ignored, root: "embedding_norm.weight",
		models: "LFM2 350M to 2.6B, LFM2.5", remarks: "short convolutions beside attention",
	},
	"lfm2_moe": {
		read: readLFM2MoE, build: buildLFM2, eos: 2, keys: lfm2Keys, ignored: lfm2Ignored, root: "embedding_norm.weight",
		models: "LFM2-8B-A1B, LFM2-24B-A2B", remarks: "short convolutions beside attention; mixture of experts",
	},
	"lfm3": {
		read: readLFM3, build: buildLFM3, eos: 124900, keys: lfm2Keys, root: "embedding_norm.weight",
		models: "LFM3 1.7B", remarks: "short convolutions beside attention, some with windows",
	},
	"nemotron_h": {
		read: readNemotronH, build: buildNemotronH, draft: draftNemotronH, eos: 2, keys: nemotronHKeys, ignored: nemotronHIgnored,
		prefixes: mambaPrefixes, root: "norm_f.weight", embed: "embeddings.weight",
		models: "Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano", remarks: "Mamba 2, attention, MLPs and experts in layers of their own; its MTP head drafts with `--speculate`",
	},
	"falcon_h1": {
		read: readFalconH1, build: buildFalconH1, eos: 2, keys: bambaKeys, ignored: falconH1Ignored, root: "final_layernorm.weight",
		models: "Falcon-H1 0.5B to 34B", remarks: "Mamba 2 beside attention in every layer",
	},
	"mamba": {
		read: readMamba, build: buildMamba, eos: 0, keys: mambaKeys, ignored: mambaIgnored,
		prefixes: mambaPrefixes, root: "norm_f.weight", embed: "embeddings.weight",
		models: "Mamba 130M to 2.8B", remarks: "recurrent, no attention",
	},
	"falcon_mamba": {
		read: readFalconMamba, build: buildMamba, eos: 0, keys: mambaKeys, ignored: mambaIgnored,
		prefixes: mambaPrefixes, root: "norm_f.weight", embed: "embeddings.weight",
		models: "Falcon Mamba 7B", remarks: "recurrent, no attention",
	},
	"jamba": {
		read: readJamba, build: buildJamba, eos: 2, keys: jambaKeys, ignored: jambaIgnored, root: "final_layernorm.weight",
		models: "Jamba 1.5, 1.7, Jamba Reasoning 3B", remarks: "Mamba beside attention; mixture of experts",
	},
	"kimi_linear": {
		read: readKimiLinear, build: buildKimiLinear, eos: 163586, keys: kimiLinearKeys, ignored: kimiLinearIgnored,
		models: "Kimi-Linear-48B-A3B", remarks: "Kimi delta attention beside latent attention; mixture of experts",
	},
	"olmo_hybrid": {
		read: readOlmoHybrid, build: buildOlmoHybrid, eos: 100257, ignored: olmoHybridIgnored,
		models: "Olmo Hybrid 7B", remarks: "gated delta nets beside attention",
	},
	"zamba2": {
		read: readZamba2, build: buildZamba2, eos: 2, keys: zamba2Keys, ignored: zamba2Ignored, root: "final_layernorm.weight",
		models: "Zamba2 1.2B to 7B", remarks: "Mamba 2 with blocks of attention that layers share",
	},
	"bamba": {
		read: readBamba, build: buildBamba, eos: 2, keys: bambaKeys, ignored: bambaIgnored, root: "final_layernorm.weight",
		models: "Bamba 9B", remarks: "Mamba 2 beside attention",
	},
	"granitemoehybrid": {
		read: readGraniteHybrid, build: buildGraniteHybrid, eos: 2, keys: bambaKeys, ignored: graniteHybridIgnored,
		models: "Granite 4.0 micro, H-1B, H-Tiny, H-Small", remarks: "Mamba 2 beside attention; also with experts",
	},
}

// Keys of config.json that change no number of a family, beside the harmless ones
// of all: how weights were initialized, what training and other tasks do, ids of
// tokens, and names of what the family always does.
var (
	// A mark of converted checkpoints, and the length of models before Llama 2.
	llamaIgnored = []string{"is_llama_config", "max_sequence_length"}
	// transformers reads hidden_activation and sliding_window in their place.
	gemma2Ignored = []string{"hidden_act", "sliding_window_size"}
	gemma3Ignored = []string{
		"_sliding_window_pattern", "mm_tokens_per_image", "image_token_index", "image_token_id", "boi_token_index", "boi_token_id",
		"eoi_token_index", "eoi_token_id",
	}
	// What Cohere's own configs say of what all its models do.
	cohereIgnored = []string{
		"layer_switch", "rotary_pct", "use_embedding_sharing", "use_gated_activation", "use_parallel_block",
		"use_parallel_embedding",
	}
	// transformers reads head_dim and vocab_size.
	hunYuanIgnored = []string{
		"attention_head_dim", "capacity_factor", "cla_share_factor", "class_num", "dense_list", "eod_token_id", "im_end_id", "im_newline_id",
		"im_start_id", "mask_init_id", "moe_random_routing_dropped_token", "norm_type", "org_vocab_size", "pad_id", "pool_type", "text_end_id", "text_start_id",
	}
	mistral3Ignored = []string{
		"image_token_id", "image_token_index", "multimodal_projector_bias", "projector_hidden_act", "spatial_merge_size", "vision_feature_layer",
	}
	llama4Ignored  = []string{"boi_token_index", "eoi_token_index", "image_token_index"}
	gemma3nIgnored = []string{
		"altup_coef_clip", "altup_lr_multiplier", "audio_soft_tokens_per_image", "audio_token_id", "boa_token_id", "boi_token_id", "eoa_token_id",
		"eoi_token_id", "image_token_id", "query_pre_attn_scalar", "vision_soft_tokens_per_image",
	}
	gemma4Ignored = []string{
		"audio_token_id", "boa_token_id", "boi_token_id", "eoa_token_id", "eoa_token_index", "eoi_token_id", "image_token_id",
		"moe_intermediate_size", "num_experts", "top_k_experts", "video_token_id",
	}
	gpt2Ignored = []string{
		"n_ctx", "reorder_and_upcast_attn",
		"summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
	}
	bloomIgnored = []string{
		"attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "n_inner",
		"offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact",
	}
	gptNeoIgnored = []string{
		"attention_layers", "resid_dropout", "embed_dropout", // attention_layers follows from attention_types
		"summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
	}
	gptjIgnored = []string{
		"n_ctx", "rotary", "scale_attn_weights", "n_special", "predict_special_tokens",
		"summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
	}
	bigCodeIgnored = []string{
		"num_key_value_heads", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner", "max_batch_size",
		"max_sequence_length", "pad_key_length", "pre_allocate_kv_cache", "validate_runner_input", "n_ctx",
		"summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
	}
	falconIgnored = []string{"ff_factor"}
	mptIgnored    = []string{
		"embedding_fraction", "emb_pdrop", "expansion_ratio", "init_config", "init_device", "learned_pos_emb", // of effect without alibi alone
		"no_bias", "norm_type", "tokenizer_name", "verbose", "attn_impl", "attn_uses_sequence_id", "num_key_value_heads",
	}
	dbrxIgnored       = []string{"emb_pdrop", "hidden_size", "moe_jitter_eps", "moe_loss_weight", "num_key_value_heads"}
	starcoder2Ignored = []string{
		"activation_function", "attention_softmax_in_fp32", "layer_norm_epsilon", "scale_attention_softmax_in_fp32", "scale_attn_weights",
	}
	gptOSSIgnored   = []string{"experts_per_token", "hidden_act", "initial_context_length"}
	deepseekIgnored = []string{
		"head_dim", "num_nextn_predict_layers", "qk_head_dim",
	}
	// The indexer's shape, and which layers share what it chose.
	indexedIgnored = append([]string{
		"index_head_dim", "index_n_heads", "index_topk_freq", "index_topk_pattern", "index_skip_topk_offset", "indexer_types", "indexer_rope_interleave",
	}, deepseekIgnored...)
	miniMaxIgnored = []string{
		"mlp_intermediate_size", "mtp_transformer_layers", "num_mtp_modules", "shared_moe_mode", "use_mtp",
	}
	ernieMoEIgnored = []string{"moe_capacity", "moe_gate", "moe_use_aux_free", "num_nextn_predict_layers", "moe_aux_loss_lambda"}
	qwen35Ignored   = []string{
		"image_token_id", "language_model_only", "mamba_ssm_dtype", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings",
		"attn_output_gate", "video_token_id", "vision_end_token_id", "vision_start_token_id",
	}
	// What is of images: BuildTower and the image processor read it.
	seeingIgnored = append([]string{
		"image_token_id", "image_token_index", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id",
		"image_seq_length", "image_seq_len", "projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy",
		"multimodal_projector_bias", "image_grid_pinpoints", "use_image_newline_parameter", "ignore_index", "scale_factor",
		"downsample_ratio", "projection_dim", "num_image_tokens", "hidden_size", "vocab_size", "max_image_size",
		"_flash_attn_2_enabled", "perceiver_config", "pixel_shuffle_factor", "_pad_token_id", "_vocab_size", "is_composition",
	}, llamaIgnored...)
	idefics3Prefixes = []string{"model.text_model.", "text_model.", "model.", ""}
	mamba2Ignored    = []string{
		"chunk_size", "rescale_prenorm_residual", "residual_in_fp32", "time_step_floor", "time_step_init_scheme",
		"time_step_max", "time_step_min", "time_step_rank", "time_step_scale", "norm_before_gate", "rms_norm",
	}
)

// towers begin the names of tensors that are beside a decoder, whatever its
// prefix: what sees and hears, and heads that predict further tokens.
var towers = []string{
	"visual.", "model.visual.", "vision_tower.", "model.vision_tower.", "vision_model.",
	"multi_modal_projector.", "model.multi_modal_projector.", "model.embed_vision.",
	"vision_embedder.", "model.vision_embedder.", "connector.", "model.connector.", "image_newline", "model.image_newline",
	"audio_tower.", "model.audio_tower.", "model.embed_audio.",
	"mtp.", "model.mtp.",
	"lm_head.weight",       // a copy of the embedding
	".rotary_emb.inv_freq", // a table that old checkpoints carry along
}

// layerNormKeys are what families with layer norms call a norm's epsilon.
var layerNormKeys = map[string]string{"rms_norm_eps": "layer_norm_eps"}

// leftOut are architectures that are known and not supported, and why.
var leftOut = map[string]string{
	"deepseek_v4":   "its attention over compressed positions is not implemented",
	"kimi_k25":      "its checkpoints wrap Kimi K2 in a model of images, which is not read",
	"longcat_flash": "its experts that return what they are given are not implemented",
	"minimax":       "its lightning attention is not implemented",
	"t5":            "it is an encoder and a decoder, and the engine runs decoders alone",
	"xglm":          "its positions are sinusoids that no tensor of a checkpoint has",
}

// Prefixes are where checkpoints of a family may put the decoder (Plan.Prefix).
func Prefixes(name string) []string {
	if p := families[name].prefixes; p != nil {
		return p
	}
	return decoderPrefixes
}

func familyNames() []string { return slices.Collect(maps.Keys(families)) }

// Build writes the forward pass of the model that c describes, its caches in
// groups and every value written once (Share). names tells
// the shape of a tensor of the checkpoint, false if there is none; it is
// asked for what checkpoints name or leave out differently, while comparing
// every shape with the plan is left to the code that reads the tensors.
func Build(c *Config, names func(string) (shape []int, ok bool)) (*Plan, error) {
	f, ok := families[c.Family]
	if !ok {
		return nil, fmt.Errorf("model family %q is not supported, only %s", c.Family, oneOf(familyNames()))
	}
	b := newBuilder(c, f, names)
	f.build(b, c)
	if c.Draft && f.draft != nil && b.err == nil {
		f.draft(b, c)
	}
	return b.finish()
}
