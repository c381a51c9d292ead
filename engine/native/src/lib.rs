//! The Rust half of Millrace: tokenizers, grammars and chat templates behind
//! one C ABI. `millrace_native.h` is the contract of the `mr_*` functions.

/// daulet/tokenizers' own exports (`tokenizers_*`), compiled from the source that go.sum pins.
#[allow(dead_code, unused_imports, clippy::all)]
mod daulet {
    include!(env!("DAULET_TOKENIZERS_LIB"));
}
mod abi;
mod bounded;
mod chat;
mod encode;
mod json;
mod marks;
mod read;
mod rewrite;
mod tokenizer;

// Keeps the `llg_*` functions of llguidance in the archive.
pub use llguidance::ffi::*;
