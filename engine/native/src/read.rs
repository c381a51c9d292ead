//! Reads a tokenizer.json of a BPE model, as nearly all language models have one.
//!
//! The library reads the model three times: into a buffer, from there into a tree of
//! values, and from that into the model. For a vocabulary of 150,000 tokens that is
//! most of a server's start. Here vocabulary and merges are read once, at the same
//! time. A file that has anything unusual in it is left to the library, and so are
//! faults, which it is to word.

use ahash::AHashMap;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PaddingParams, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer, TruncationParams,
};

/// The whole file. A member that is not listed, or is there twice, makes it unusual.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(default, rename = "version")]
    _version: Version,
    #[serde(rename = "truncation")]
    _truncation: Option<TruncationParams>, // checked as by the library, and switched off later
    #[serde(rename = "padding")]
    _padding: Option<PaddingParams>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Default, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1.0")]
    One,
}

#[derive(Deserialize)]
struct Added {
    #[serde(rename = "id")]
    _id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default, rename = "dropout")]
    _dropout: (),
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow)]
    merges: &'a RawValue,
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "BPE")]
    Bpe,
}

/// Spellings by id, one after the other.
#[derive(Default)]
pub struct Spellings {
    pub text: String,
    pub ends: Vec<u32>,
}

/// A BPE model's vocabulary. The spellings are those of ids that count up from 0,
/// which they do in nearly every file; None if they do not.
struct Vocabulary {
    ids: AHashMap<String, u32>,
    spellings: Option<Spellings>,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut ids = AHashMap::new();
                let mut spellings = Spellings::default();
                let mut counts = true;
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    counts = counts && id as usize == spellings.ends.len();
                    if counts {
                        spellings.text.push_str(&token);
                        spellings.ends.push(spellings.text.len() as u32);
                    }
                    counts = ids.insert(token, id).is_none() && counts; // of two ids, the last one counts
                }
                Ok(Vocabulary { ids, spellings: counts.then_some(spellings) })
            }
        }
        d.deserialize_map(Entries)
    }
}

/// Reads merges, each a pair or, in older files, two tokens with a space between them.
fn read_merges(json: &str) -> Option<Vec<(String, String)>> {
    if let Ok(pairs) = serde_json::from_str(json) {
        return Some(pairs);
    }
    let lines: Vec<String> = serde_json::from_str(json).ok()?;
    let pair = |line: &String| line.split_once(' ').filter(|(_, right)| !right.contains(' ')).map(|(left, right)| (left.to_string(), right.to_string()));
    lines.iter().filter(|line| !line.starts_with("#version")).map(pair).collect()
}

/// Reads a file of the usual form; None for all others. With it come the spellings of
/// the model's own tokens, if that is easy.
pub fn usual(json: &[u8]) -> Option<(Tokenizer, Option<Spellings>)> {
    let file: File = serde_json::from_slice(json).ok()?;
    let model = file.model;
    let Kind::Bpe = model.kind;
    let (vocabulary, merges) = std::thread::scope(|s| {
        let merges = std::thread::Builder::new().spawn_scoped(s, || read_merges(model.merges.get()));
        let vocabulary = serde_json::from_str::<Vocabulary>(model.vocab.get()).ok();
        (vocabulary, merges.ok().and_then(|thread| thread.join().ok().flatten()))
    });
    let Vocabulary { ids, spellings } = vocabulary?;
    let mut builder = BPE::builder().vocab_and_merges(ids, merges?);
    if let Some(token) = model.unk_token {
        builder = builder.unk_token(token);
    }
    if let Some(prefix) = model.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = model.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    if let Some(fuse) = model.fuse_unk {
        builder = builder.fuse_unk(fuse);
    }
    if let Some(fallback) = model.byte_fallback {
        builder = builder.byte_fallback(fallback);
    }
    if let Some(ignore) = model.ignore_merges {
        builder = builder.ignore_merges(ignore);
    }
    let mut t = Tokenizer::new(builder.build().ok()?);
    t.with_normalizer(file.normalizer);
    t.with_pre_tokenizer(file.pre_tokenizer);
    t.with_post_processor(file.post_processor);
    t.with_decoder(file.decoder);
    let added: Vec<AddedToken> = file.added_tokens.into_iter().map(|a| a.token).collect();
    t.add_tokens(&added);
    Some((t, spellings))
}
