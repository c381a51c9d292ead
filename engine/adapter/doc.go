// Package adapter reads LoRA adapters as PEFT saves them, fits them to the plan of
// a model, and keeps those in use on an engine.
//
//	Read     adapter_config.json and adapter_model.safetensors → Adapter
//	Fit      Adapter and plan → device.Adapter
//	Manager  names → adapters that are loaded: by the first request that wants
//	         one, within a budget of memory, dropped when they are not in use
//
// Whatever would make the answer another one than PEFT's is refused by name:
// DoRA, modules that are saved whole, embeddings, other methods than LoRA.
// An error names the file, the tensor, what was expected and what was found.
//
// Not here: where the files come from (container/source), what computes with an
// adapter (engine/device and its backends).
package adapter
