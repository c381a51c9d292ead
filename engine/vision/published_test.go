package vision

import "testing"

// published are files of models as their makers published them, as far as they are about
// images, and how many tokens an image of 1024×768 has.
var published = []struct {
	name, config, preprocessor, processor string
	tokens, tiles                         int
}{
	{
		"gemma-3-4b-it",
		`{"architectures":["Gemma3ForConditionalGeneration"],"boi_token_index":255999,"eoi_token_index":256000,"image_token_index":262144,
		"mm_tokens_per_image":256,"model_type":"gemma3","vision_config":{"hidden_size":1152,"image_size":896,"intermediate_size":4304,
		"model_type":"siglip_vision_model","num_attention_heads":16,"num_hidden_layers":27,"patch_size":14,"vision_use_head":false}}`,
		`{"do_convert_rgb":null,"do_normalize":true,"do_pan_and_scan":null,"do_rescale":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],
		"image_processor_type":"Gemma3ImageProcessor","image_seq_length":256,"image_std":[0.5,0.5,0.5],"pan_and_scan_max_num_crops":null,
		"pan_and_scan_min_crop_size":null,"pan_and_scan_min_ratio_to_activate":null,"processor_class":"Gemma3Processor","resample":2,
		"rescale_factor":0.00392156862745098,"size":{"height":896,"width":896}}`,
		`{"image_seq_length":256,"processor_class":"Gemma3Processor"}`,
		256, 1,
	},
	{
		"Qwen2-VL-2B-Instruct",
		`{"model_type":"qwen2_vl","image_token_id":151655,"vision_start_token_id":151652,"vision_config":{"depth":32,"embed_dim":1280,
		"mlp_ratio":4,"num_heads":16,"in_chans":3,"hidden_size":1536,"patch_size":14,"spatial_merge_size":2,"spatial_patch_size":14,
		"temporal_patch_size":2}}`,
		`{"min_pixels":3136,"max_pixels":12845056,"patch_size":14,"temporal_patch_size":2,"merge_size":2,"image_mean":[0.48145466,0.4578275,
		0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"image_processor_type":"Qwen2VLImageProcessor","processor_class":"Qwen2VLProcessor"}`,
		"", 37 * 27, 1,
	},
	{
		"Qwen2.5-VL-3B-Instruct",
		`{"model_type":"qwen2_5_vl","image_token_id":151655,"vision_config":{"depth":32,"hidden_act":"silu","hidden_size":1280,
		"intermediate_size":3420,"num_heads":16,"in_chans":3,"out_hidden_size":2048,"patch_size":14,"spatial_merge_size":2,
		"spatial_patch_size":14,"window_size":112,"fullatt_block_indexes":[7,15,23,31],"tokens_per_second":2,"temporal_patch_size":2}}`,
		`{"min_pixels":3136,"max_pixels":12845056,"patch_size":14,"temporal_patch_size":2,"merge_size":2,"image_mean":[0.48145466,0.4578275,
		0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"image_processor_type":"Qwen2VLImageProcessor","processor_class":"Qwen2_5_VLProcessor"}`,
		"", 37 * 27, 1,
	},
	{
		"Qwen3-VL-4B-Instruct",
		`{"model_type":"qwen3_vl","image_token_id":151655,"vision_config":{"deepstack_visual_indexes":[5,11,17],"depth":24,
		"hidden_act":"gelu_pytorch_tanh","hidden_size":1024,"in_channels":3,"intermediate_size":4096,"model_type":"qwen3_vl","num_heads":16,
		"num_position_embeddings":2304,"out_hidden_size":2560,"patch_size":16,"spatial_merge_size":2,"temporal_patch_size":2}}`,
		`{"size":{"longest_edge":16777216,"shortest_edge":65536},"patch_size":16,"temporal_patch_size":2,"merge_size":2,
		"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"processor_class":"Qwen3VLProcessor","image_processor_type":"Qwen2VLImageProcessorFast"}`,
		"", 32 * 24, 1,
	},
	{
		"Idefics3-8B-Llama3",
		`{"model_type":"idefics3","image_token_id":128257,"scale_factor":2,"vision_config":{"hidden_size":1152,"image_size":364,
		"intermediate_size":4304,"model_type":"idefics3","num_attention_heads":16,"num_hidden_layers":27,"patch_size":14}}`,
		`{"do_convert_rgb":true,"do_image_splitting":true,"do_normalize":true,"do_pad":true,"do_rescale":true,"do_resize":true,
		"image_mean":[0.5,0.5,0.5],"image_processor_type":"Idefics3ImageProcessor","image_std":[0.5,0.5,0.5],"max_image_size":{"longest_edge":364},
		"processor_class":"Idefics3Processor","resample":1,"rescale_factor":0.00392156862745098,"size":{"longest_edge":1456}}`,
		`{"image_seq_len":169,"processor_class":"Idefics3Processor"}`,
		13 * 169, 13,
	},
	{
		"SmolVLM2-2.2B-Instruct",
		`{"model_type":"smolvlm","image_token_id":49190,"scale_factor":3,"vision_config":{"hidden_size":1152,"image_size":384,
		"intermediate_size":4304,"max_image_size":{"longest_edge":384},"model_type":"smolvlm_vision","num_attention_heads":16,
		"num_hidden_layers":27,"patch_size":14,"size":{"longest_edge":1920},"use_base_siglip":false}}`,
		`{"do_convert_rgb":true,"do_image_splitting":true,"do_normalize":true,"do_pad":true,"do_rescale":true,"do_resize":true,
		"image_mean":[0.5,0.5,0.5],"image_processor_type":"SmolVLMImageProcessor","image_std":[0.5,0.5,0.5],"max_image_size":{"longest_edge":384},
		"processor_class":"SmolVLMProcessor","resample":1,"rescale_factor":0.00392156862745098,"size":{"longest_edge":1536},
		"video_sampling":{"fps":1,"max_frames":64,"video_size":{"longest_edge":384}}}`,
		`{"image_seq_len":81,"processor_class":"SmolVLMProcessor"}`,
		13 * 81, 13,
	},
	{
		"llava-1.5-7b-hf",
		`{"model_type":"llava","image_token_index":32000,"image_seq_length":576,"vision_feature_layer":-2,"vision_feature_select_strategy":"default",
		"vision_config":{"hidden_size":1024,"image_size":336,"intermediate_size":4096,"model_type":"clip_vision_model","num_attention_heads":16,
		"num_hidden_layers":24,"patch_size":14,"projection_dim":768,"vocab_size":32000}}`,
		`{"crop_size":{"height":336,"width":336},"do_center_crop":true,"do_convert_rgb":true,"do_normalize":true,"do_rescale":true,"do_resize":true,
		"image_mean":[0.48145466,0.4578275,0.40821073],"image_processor_type":"CLIPImageProcessor","image_std":[0.26862954,0.26130258,0.27577711],
		"processor_class":"LlavaProcessor","resample":3,"rescale_factor":0.00392156862745098,"size":{"shortest_edge":336}}`,
		`{"image_token":"<image>","num_additional_image_tokens":1,"patch_size":14,"processor_class":"LlavaProcessor","vision_feature_select_strategy":"default"}`,
		576, 1,
	},
	{
		"llava-v1.6-mistral-7b-hf",
		`{"model_type":"llava_next","image_token_index":32000,"image_grid_pinpoints":[[336,672],[672,336],[672,672],[1008,336],[336,1008]],
		"vision_feature_layer":-2,"vision_feature_select_strategy":"default","vision_config":{"hidden_size":1024,"image_size":336,
		"intermediate_size":4096,"model_type":"clip_vision_model","num_attention_heads":16,"num_hidden_layers":24,"patch_size":14,
		"projection_dim":768,"vocab_size":32000}}`,
		`{"aspect_ratio_setting":"anyres","crop_size":{"height":336,"width":336},"do_center_crop":true,"do_convert_rgb":true,"do_normalize":true,
		"do_pad":true,"do_rescale":true,"do_resize":true,"image_grid_pinpoints":[[336,672],[672,336],[672,672],[1008,336],[336,1008]],
		"image_mean":[0.48145466,0.4578275,0.40821073],"image_processor_type":"LlavaNextImageProcessor","image_std":[0.26862954,0.26130258,
		0.27577711],"processor_class":"LlavaNextProcessor","resample":3,"rescale_factor":0.00392156862745098,"size":{"shortest_edge":336}}`,
		`{"image_token":"<image>","num_additional_image_tokens":1,"patch_size":14,"processor_class":"LlavaNextProcessor","vision_feature_select_strategy":"default"}`,
		576 + 36*49, 5,
	},
	{
		"InternVL3-1B-hf",
		`{"model_type":"internvl","downsample_ratio":0.5,"image_seq_length":256,"image_token_id":151667,"projector_hidden_act":"gelu",
		"vision_feature_layer":-1,"vision_feature_select_strategy":"default","vision_config":{"image_size":[448,448],"model_type":"internvl_vision",
		"num_channels":3,"patch_size":[14,14],"hidden_size":1024,"use_absolute_position_embeddings":true}}`,
		`{"crop_size":null,"crop_to_patches":false,"data_format":"channels_first","default_to_square":true,"device":null,"do_center_crop":null,
		"do_convert_rgb":true,"do_normalize":true,"do_rescale":true,"do_resize":true,"image_mean":[0.485,0.456,0.406],
		"image_processor_type":"GotOcr2ImageProcessorFast","image_std":[0.229,0.224,0.225],"input_data_format":null,"max_patches":12,
		"min_patches":1,"processor_class":"InternVLProcessor","resample":3,"rescale_factor":0.00392156862745098,"return_tensors":null,
		"size":{"height":448,"width":448}}`,
		`{"image_seq_length":256,"processor_class":"InternVLProcessor"}`,
		13 * 256, 13,
	},
	{
		"paligemma-3b-mix-224",
		`{"model_type":"paligemma","image_token_index":257152,"projection_dim":2048,"vision_config":{"hidden_size":1152,"intermediate_size":4304,
		"model_type":"siglip_vision_model","num_attention_heads":16,"num_hidden_layers":27,"num_image_tokens":256,"patch_size":14,
		"projection_dim":2048,"projector_hidden_act":"gelu_fast","vision_use_head":false}}`,
		`{"do_convert_rgb":null,"do_normalize":true,"do_rescale":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],
		"image_processor_type":"SiglipImageProcessor","image_seq_length":256,"image_std":[0.5,0.5,0.5],"processor_class":"PaliGemmaProcessor",
		"resample":3,"rescale_factor":0.00392156862745098,"size":{"height":224,"width":224}}`,
		"", 256, 1,
	},
	{
		"pixtral-12b",
		`{"model_type":"llava","image_token_index":10,"image_seq_length":1,"vision_feature_layer":-1,"vision_feature_select_strategy":"full",
		"vision_config":{"head_dim":64,"hidden_act":"silu","image_size":1024,"is_composition":true,"model_type":"pixtral","patch_size":16,
		"rope_theta":10000.0,"tie_word_embeddings":false}}`,
		`{"do_convert_rgb":true,"do_normalize":true,"do_rescale":true,"do_resize":true,"image_mean":[0.48145466,0.4578275,0.40821073],
		"image_processor_type":"PixtralImageProcessor","image_std":[0.26862954,0.26130258,0.27577711],"patch_size":{"height":16,"width":16},
		"processor_class":"PixtralProcessor","resample":3,"rescale_factor":0.00392156862745098,"size":{"longest_edge":1024}}`,
		`{"image_break_token":"[IMG_BREAK]","image_end_token":"[IMG_END]","image_token":"[IMG]","patch_size":16,"processor_class":"PixtralProcessor"}`,
		64 * 48, 1,
	},
	{
		"Mistral-Small-3.1-24B-Instruct-2503",
		`{"model_type":"mistral3","image_token_index":10,"multimodal_projector_bias":false,"spatial_merge_size":2,"vision_feature_layer":-1,
		"vision_config":{"attention_dropout":0.0,"head_dim":64,"hidden_act":"silu","hidden_size":1024,"image_size":1540,"model_type":"pixtral",
		"num_channels":3,"patch_size":14,"rope_theta":10000.0}}`,
		`{"crop_size":null,"data_format":"channels_first","default_to_square":true,"device":null,"do_center_crop":null,"do_convert_rgb":true,
		"do_normalize":true,"do_rescale":true,"do_resize":true,"image_mean":[0.48145466,0.4578275,0.40821073],
		"image_processor_type":"PixtralImageProcessorFast","image_std":[0.26862954,0.26130258,0.27577711],"patch_size":{"height":14,"width":14},
		"processor_class":"PixtralProcessor","resample":3,"rescale_factor":0.00392156862745098,"return_tensors":null,"size":{"longest_edge":1540}}`,
		`{"image_break_token":"[IMG_BREAK]","image_end_token":"[IMG_END]","image_token":"[IMG]","patch_size":14,"processor_class":"PixtralProcessor","spatial_merge_size":2}`,
		37 * 28, 1,
	},
}

func TestPublished(t *testing.T) {
	for _, m := range published {
		files := Files{Config: []byte(m.config), Preprocessor: []byte(m.preprocessor)}
		if m.processor != "" {
			files.Processor = []byte(m.processor)
		}
		p, err := New(files)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		l, err := p.Layout(1024, 768)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if l.Tokens != m.tokens || len(l.Tiles) != m.tiles {
			t.Errorf("%s: %d tokens of %d tiles, expected %d of %d", m.name, l.Tokens, len(l.Tiles), m.tokens, m.tiles)
		}
	}
}
