//! Encoding in pieces, where that is the same as encoding at once.
//!
//! The library holds some 200 bytes for each byte of a text while it encodes it:
//! where each character came from, and each token's spelling. Byte-level
//! tokenizers let a text be cut between a letter and a space before a letter: no
//! token reaches over such a place. Others see a text whole.

use std::cell::OnceCell;
use tokenizers::{Encoding, Model, NormalizedString, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token, Tokenizer};

/// About how long a piece is, in bytes.
const PIECE: usize = 32 << 10;

/// Calls `token` with id, start and stop of each token. The places count
/// characters without the mark, and are 0 unless `offsets` asks for them. What
/// the post-processor adds stands at 0, 0.
pub fn encode(
    t: &Tokenizer,
    text: &str,
    add_special: bool,
    mark: Option<char>,
    offsets: OffsetType,
    mut token: impl FnMut(u32, u32, u32),
) -> Result<(), String> {
    let mark = mark.filter(|&c| c != '\0');
    let mut rest = text;
    let mut base = 0; // characters before rest
    let can_cut = OnceCell::new();
    let mut suffix = Vec::new();
    loop {
        let mut end = rest.len();
        if end > PIECE && *can_cut.get_or_init(|| cuttable(t)) {
            end = cut(rest.as_bytes());
        }
        let piece = &rest[..end];
        let (at_once, last) = (piece.len() == text.len(), end == rest.len());
        let encoding = encode_piece(t, piece, mark, offsets)?;
        let marks: Vec<usize> = mark.map_or(Vec::new(), |m| piece.chars().enumerate().filter(|&(_, c)| c == m).map(|(i, _)| i).collect());
        let place = |at: usize| (base + at - marks.partition_point(|&m| m < at)) as u32;

        let encoding = t.post_process(encoding, None, add_special && at_once).map_err(|e| e.to_string())?;
        if add_special && !at_once && base == 0 {
            let (before, after) = added(t)?;
            before.into_iter().for_each(|id| token(id, 0, 0));
            suffix = after;
        }
        let added = encoding.get_special_tokens_mask();
        for (i, (&id, &(start, stop))) in encoding.get_ids().iter().zip(encoding.get_offsets()).enumerate() {
            match offsets {
                OffsetType::Char if added[i] == 0 => token(id, place(start), place(stop)),
                _ => token(id, 0, 0),
            }
        }
        if last {
            break;
        }
        base += piece.chars().count() - marks.len();
        rest = &rest[end..];
    }
    suffix.into_iter().for_each(|id| token(id, 0, 0));
    Ok(())
}

/// What the library's own encode does, but for the marks.
fn encode_piece(t: &Tokenizer, text: &str, mark: Option<char>, offsets: OffsetType) -> Result<Encoding, String> {
    let mut pieces = t.get_added_vocabulary().extract_and_normalize(t.get_normalizer(), text);
    if let Some(mark) = mark {
        pieces.normalize(|n| n.replace(mark, "")).map_err(|e| e.to_string())?;
        // Splits that were a mark alone are empty now.
        pieces.split(|_, n| Ok([n])).map_err(|e| e.to_string())?;
    }
    pre_tokenize(t, &mut pieces)?;
    match mark {
        None => pieces.tokenize(|n: &NormalizedString| t.get_model().tokenize(n.get())),
        Some(_) => pieces.tokenize(|n: &NormalizedString| tokenize_plain(t, n.get())),
    }
    .map_err(|e| e.to_string())?;
    pieces.into_encoding(None, 0, offsets).map_err(|e| e.to_string())
}

/// The tokens of a text that has no special ones. Some models have these among
/// their own and find them: there the text is cut after the first character.
fn tokenize_plain(t: &Tokenizer, text: &str) -> tokenizers::Result<Vec<Token>> {
    let tokens = t.get_model().tokenize(text)?;
    let cut = |k: &Token| {
        let spelling = text.get(k.offsets.0..k.offsets.1)?;
        let special = t.get_added_vocabulary().is_special_token(spelling) && t.token_to_id(spelling) == Some(k.id);
        spelling.char_indices().nth(1).filter(|_| special).map(|(at, _)| k.offsets.0 + at)
    };
    let cuts: Vec<usize> = tokens.iter().filter_map(cut).collect();
    if cuts.is_empty() {
        return Ok(tokens);
    }
    let mut tokens = Vec::new();
    let mut from = 0;
    for to in cuts.into_iter().chain([text.len()]) {
        tokens.extend(tokenize_plain(t, &text[from..to])?.into_iter().map(|mut k| {
            k.offsets = (k.offsets.0 + from, k.offsets.1 + from);
            k
        }));
        from = to;
    }
    Ok(tokens)
}

fn pre_tokenize(t: &Tokenizer, pieces: &mut PreTokenizedString) -> Result<(), String> {
    match t.get_pre_tokenizer() {
        Some(p) => p.pre_tokenize(pieces).map_err(|e| e.to_string()),
        None => Ok(()),
    }
}

/// The ids that the post-processor puts before and after a text.
fn added(t: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let whole = t.encode_fast("a", true).map_err(|e| e.to_string())?;
    let mask = whole.get_special_tokens_mask();
    let before = mask.iter().take_while(|&&m| m == 1).count();
    let after = mask.iter().rev().take_while(|&&m| m == 1).count();
    let ids = whole.get_ids();
    Ok((ids[..before].to_vec(), ids[ids.len() - after..].to_vec()))
}

/// Where to cut a text: at the last place in the piece, or the first after it.
fn cut(text: &[u8]) -> usize {
    let good = |&at: &usize| text[at] == b' ' && text[at - 1].is_ascii_alphabetic() && text[at + 1].is_ascii_alphabetic();
    (1..PIECE).rev().find(good).or_else(|| (PIECE..text.len() - 1).find(good)).unwrap_or(text.len())
}

/// Whether texts may be cut: each part of the tokenizer must be one that looks no
/// further than over a space between letters.
fn cuttable(t: &Tokenizer) -> bool {
    let json = |v: serde_json::Result<serde_json::Value>| v.unwrap_or_default();
    let normalizer = json(serde_json::to_value(t.get_normalizer()));
    let added = t.get_added_tokens_decoder();
    (normalizer.is_null() || normalizer["type"] == "NFC")
        && stops_at_spaces(&json(serde_json::to_value(t.get_pre_tokenizer())), &mut false)
        && !trims(&json(serde_json::to_value(t.get_post_processor())))
        && !added.values().any(|a| a.lstrip || a.rstrip || a.single_word || a.content.contains(' '))
        && ["a b", "ab cd ef", "AB Cd", "the cAt's Pyjamas are", "x1y z2"].iter().all(|probe| cuts_before_spaces(t, probe).unwrap_or(false))
}

/// Whether a pre-tokenizer is made of known parts. Bytes must be among them: they make the words.
fn stops_at_spaces(p: &serde_json::Value, bytes: &mut bool) -> bool {
    match p["type"].as_str() {
        Some("Sequence") => p["pretokenizers"].as_array().is_some_and(|all| all.iter().all(|p| stops_at_spaces(p, bytes))) && *bytes,
        Some("ByteLevel") => {
            *bytes = true;
            p["add_prefix_space"] == false
        }
        Some("Digits") => true,
        // Nothing that depends on what is before, or on where the text begins and ends.
        Some("Split") => p["behavior"] == "Isolated" && p["pattern"]["Regex"].as_str().is_some_and(|r| {
            !["(?<", "^(", "|^", "$", "\\b", "\\B", "\\A", "\\G", "\\z", "\\Z", "\\K"].iter().any(|s| r.contains(s)) && !r.starts_with('^')
        }),
        _ => false,
    }
}

/// Whether a post-processor moves offsets.
fn trims(p: &serde_json::Value) -> bool {
    p["trim_offsets"] == true || p["processors"].as_array().is_some_and(|all| all.iter().any(trims))
}

fn cuts_before_spaces(t: &Tokenizer, probe: &str) -> Result<bool, String> {
    let mut pieces = PreTokenizedString::from(probe);
    pre_tokenize(t, &mut pieces)?;
    let starts: Vec<usize> = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte).iter().map(|s| s.1 .0).collect();
    Ok(probe.match_indices(' ').all(|(at, _)| starts.contains(&at)))
}
