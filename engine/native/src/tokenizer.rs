//! Tokenizer exports beside daulet's own. They take a length instead of
//! looking for a NUL, give character offsets, and report errors.
//!
//! A handle is daulet's `UnifiedTokenizer`, so one loaded tokenizer serves both sets of functions.

use crate::abi::{answer, answer_object, input, MrResult};
use crate::daulet::UnifiedTokenizer;
use crate::encode::encode;
use crate::read::{self, Spellings};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{Model, OffsetType, Tokenizer};

/// A token id at or above this is taken for a broken file: tables by id would not fit memory.
const MAX_TOKEN_ID: u32 = 1 << 22;

const TOKEN_PRESENT: u8 = 1;
const TOKEN_ADDED: u8 = 2;
const TOKEN_SPECIAL: u8 = 4;

unsafe fn hf<'a>(handle: *const libc::c_void) -> Result<&'a Tokenizer, String> {
    match handle.cast::<UnifiedTokenizer>().as_ref() {
        Some(UnifiedTokenizer::HuggingFace(t)) => Ok(t),
        Some(_) => Err("not made from a tokenizer.json".to_string()),
        None => Err("null handle".to_string()),
    }
}

/// Makes a handle from the text of a tokenizer.json. `vocabulary` becomes a result
/// of its own: how many ids there are, for each the end of its spelling (native-endian
/// u32 both), for each its flags (u8), the spellings.
///
/// Truncation and padding that the file asks for are switched off: they are
/// habits of training, and transformers ignores them unless asked.
#[no_mangle]
pub unsafe extern "C" fn mr_tokenizer_new(json: *const u8, len: usize, vocabulary: *mut MrResult) -> MrResult {
    let mut table = Vec::new();
    let made = answer_object(|| {
        let json = input(json, len);
        let (mut t, spellings) = match read::usual(json) {
            Some(read) => read,
            None => (Tokenizer::from_bytes(json).map_err(|e| e.to_string())?, None),
        };
        t.with_truncation(None).map_err(|e| e.to_string())?;
        t.with_padding(None);
        table = vocabulary_table(&t, spellings)?;
        Ok(UnifiedTokenizer::HuggingFace(t))
    });
    vocabulary.write(answer(|| Ok(table)));
    made
}

/// The vocabulary as mr_tokenizer_new gives it. `spellings` are those of the model's
/// own tokens, if they are known.
fn vocabulary_table(t: &Tokenizer, spellings: Option<Spellings>) -> Result<Vec<u8>, String> {
    let (model, added) = (t.get_model(), t.get_added_tokens_decoder());
    let Spellings { text, ends } = spellings.unwrap_or_default();
    let own = if ends.is_empty() {
        // A copy of a large vocabulary takes longer than all the rest: without gaps, the
        // last id follows from the size.
        let size = u32::try_from(model.get_vocab_size()).map_err(|e| e.to_string())?;
        if (0..size).all(|id| model.id_to_token(id).is_some()) {
            size.checked_sub(1)
        } else {
            model.get_vocab().into_values().max()
        }
    } else {
        u32::try_from(ends.len() - 1).ok()
    };
    let Some(last) = added.keys().copied().chain(own).max() else {
        return Err("the vocabulary is empty".to_string());
    };
    if last >= MAX_TOKEN_ID {
        let name = t.id_to_token(last).unwrap_or_default();
        return Err(format!("token {name:?} has the id {last}, the limit is {}", MAX_TOKEN_ID - 1));
    }
    let size = last + 1;
    let mut all: Vec<u8> = Vec::with_capacity(text.len());
    let mut table = Vec::with_capacity(4 + 5 * size as usize + text.len());
    table.extend(size.to_ne_bytes());
    let mut flags = Vec::with_capacity(size as usize);
    for id in 0..size {
        let at = id as usize;
        if let Some(token) = added.get(&id) {
            all.extend(token.content.as_bytes());
            let special = t.get_added_vocabulary().is_special_token(&token.content);
            flags.push(TOKEN_PRESENT | TOKEN_ADDED | if special { TOKEN_SPECIAL } else { 0 });
        } else if at < ends.len() {
            let start = if at == 0 { 0 } else { ends[at - 1] };
            all.extend(&text.as_bytes()[start as usize..ends[at] as usize]);
            flags.push(TOKEN_PRESENT);
        } else if let Some(token) = model.id_to_token(id) {
            all.extend(token.as_bytes());
            flags.push(TOKEN_PRESENT);
        } else {
            flags.push(0);
        }
        let end = u32::try_from(all.len()).map_err(|e| e.to_string())?;
        table.extend(end.to_ne_bytes());
    }
    table.extend(flags);
    table.extend(all);
    Ok(table)
}

/// Replaces the post-processor by "bos text eos"; an empty token is left out.
/// Only before the handle is shared with another thread.
#[no_mangle]
pub unsafe extern "C" fn mr_tokenizer_frame(
    handle: *mut libc::c_void,
    bos: *const u8,
    bos_len: usize,
    eos: *const u8,
    eos_len: usize,
) -> MrResult {
    answer(|| {
        let Some(UnifiedTokenizer::HuggingFace(t)) = handle.cast::<UnifiedTokenizer>().as_mut() else {
            return Err("not made from a tokenizer.json".to_string());
        };
        let name = |b| std::str::from_utf8(b).map_err(|e| e.to_string());
        let (bos, eos) = (name(input(bos, bos_len))?, name(input(eos, eos_len))?);
        let mut special = Vec::new();
        for token in [bos, eos].into_iter().filter(|s| !s.is_empty()) {
            let id = t.token_to_id(token).ok_or_else(|| format!("no token {token:?} in the vocabulary"))?;
            special.push((token.to_string(), id));
        }
        let piece = |token: &str| (!token.is_empty()).then(|| token.to_string());
        let single: Vec<String> = [piece(bos), Some("$A".to_string()), piece(eos)].into_iter().flatten().collect();
        let processor = TemplateProcessing::builder()
            .try_single(single)
            .map_err(|e| e.to_string())?
            .special_tokens(special)
            .build()
            .map_err(|e| e.to_string())?;
        t.with_post_processor(Some(processor));
        Ok(Vec::new())
    })
}

/// Ids of `text`, native-endian u32 each.
#[no_mangle]
pub unsafe extern "C" fn mr_encode(handle: *const libc::c_void, text: *const u8, len: usize, add_special: bool, mark: u32) -> MrResult {
    answer(|| {
        let mut out = Vec::new();
        encode(hf(handle)?, &String::from_utf8_lossy(input(text, len)), add_special, char::from_u32(mark), OffsetType::None, |id, _, _| {
            out.extend(id.to_ne_bytes());
        })?;
        Ok(out)
    })
}

/// Id, start and stop of each token of `text`, native-endian u32 each; offsets count characters.
#[no_mangle]
pub unsafe extern "C" fn mr_encode_spans(handle: *const libc::c_void, text: *const u8, len: usize, add_special: bool, mark: u32) -> MrResult {
    answer(|| {
        let mut out = Vec::new();
        encode(hf(handle)?, &String::from_utf8_lossy(input(text, len)), add_special, char::from_u32(mark), OffsetType::Char, |id, start, stop| {
            out.extend([id, start, stop].into_iter().flat_map(u32::to_ne_bytes));
        })?;
        Ok(out)
    })
}

fn words(w: impl Iterator<Item = u32>) -> Vec<u8> {
    w.flat_map(u32::to_ne_bytes).collect()
}

/// Text of `ids`; ids that name no token add nothing.
#[no_mangle]
pub unsafe extern "C" fn mr_decode(handle: *const libc::c_void, ids: *const u32, count: usize, skip_special: bool) -> MrResult {
    answer(|| {
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        hf(handle)?.decode(ids, skip_special).map_err(|e| e.to_string())
    })
}

/// Id of the token that is spelled exactly so, as a native-endian u32; nothing if there is none.
#[no_mangle]
pub unsafe extern "C" fn mr_token_to_id(handle: *const libc::c_void, token: *const u8, len: usize) -> MrResult {
    answer(|| {
        let id = std::str::from_utf8(input(token, len)).ok().map(|s| hf(handle).map(|t| t.token_to_id(s)));
        Ok(words(id.transpose()?.flatten().into_iter()))
    })
}

/// The "decoder" part of the tokenizer.json, as JSON ("null" without one).
#[no_mangle]
pub unsafe extern "C" fn mr_decoder_json(handle: *const libc::c_void) -> MrResult {
    answer(|| serde_json::to_string(&hf(handle)?.get_decoder()).map_err(|e| e.to_string()))
}
