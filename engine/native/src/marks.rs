//! Special tokens that are spelled in a client's text, kept from becoming
//! control tokens.
//!
//! A character that no text has is put into each such spelling before a template
//! is rendered. The tokenizer splits off special tokens first, and does not find
//! these; then it takes the marks out, and goes on with the text as it was.

use aho_corasick::AhoCorasick;
use minijinja::Value;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::Deserializer;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

/// The spellings to look for.
pub struct Marks {
    spellings: AhoCorasick,
    /// What a spelling may begin with: the next text might go on with it.
    beginnings: HashSet<String>,
    longest: usize,
}

/// Unicode keeps 32 characters for private use inside of a process.
const CANDIDATES: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The variables of a template that hold the checkpoint's own special tokens.
const TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Marks {
    /// Spellings of a single character cannot be marked.
    pub fn new(spellings: &[String]) -> Result<Marks, String> {
        let spellings: Vec<&String> = spellings.iter().filter(|s| s.chars().nth(1).is_some()).collect();
        let mut beginnings = HashSet::new();
        for s in &spellings {
            beginnings.extend(s.char_indices().skip(1).map(|(at, _)| s[..at].to_string()));
        }
        let longest = beginnings.iter().map(String::len).max().unwrap_or(0);
        let spellings = AhoCorasick::new(spellings).map_err(|e| e.to_string())?;
        Ok(Marks { spellings, beginnings, longest })
    }

    /// Reads a context as variables. With a character: what marks spellings in it.
    pub fn read(&self, context: &[u8]) -> Result<(Value, Option<char>), String> {
        let marker = Marker { marks: self, mark: unused(context)?, found: Cell::new(false) };
        let mut json = serde_json::Deserializer::from_slice(context);
        let value = (Members(&marker)).deserialize(&mut json).and_then(|v| json.end().map(|()| v)).map_err(|e| e.to_string())?;
        Ok((value, marker.found.get().then_some(marker.mark)))
    }

    /// Where marks go into `s`: after the first character of each spelling, and
    /// at the end if a spelling may have begun there.
    fn places(&self, s: &str) -> Vec<usize> {
        let behind_first = |at: usize| at + s[at..].chars().next().map_or(0, char::len_utf8);
        let mut places: Vec<usize> = self.spellings.find_overlapping_iter(s).map(|m| behind_first(m.start())).collect();
        let begins = |n: &usize| s.is_char_boundary(s.len() - n) && self.beginnings.contains(&s[s.len() - n..]);
        if (1..=self.longest.min(s.len())).any(|n| begins(&n)) {
            places.push(s.len());
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// A mark that stands nowhere in a context, as itself or as JSON's escape.
fn unused(context: &[u8]) -> Result<char, String> {
    let text = std::str::from_utf8(context).map_err(|e| e.to_string())?;
    let escapes = text.contains("\\u");
    CANDIDATES
        .filter(|&c| !text.contains(c))
        .find(|&c| !escapes || ![format!("\\u{:04x}", c as u32), format!("\\u{:04X}", c as u32)].iter().any(|e| text.contains(e)))
        .ok_or_else(|| "the texts have all of Unicode's noncharacters".to_string())
}

/// Takes a template's text apart from the marks that it wrote as escapes.
pub fn unescape(text: String, mark: char) -> String {
    let escape = format!("\\u{:04x}", mark as u32);
    if text.contains(&escape) {
        return text.replace(&escape, mark.encode_utf8(&mut [0; 4]));
    }
    text
}

struct Marker<'a> {
    marks: &'a Marks,
    mark: char,
    found: Cell<bool>,
}

impl Marker<'_> {
    fn text(&self, s: &str) -> Value {
        let places = self.marks.places(s);
        if places.is_empty() {
            return Value::from(s);
        }
        self.found.set(true);
        let mut out = String::with_capacity(s.len() + places.len() * self.mark.len_utf8());
        let mut from = 0;
        for at in places {
            out.push_str(&s[from..at]);
            out.push(self.mark);
            from = at;
        }
        out.push_str(&s[from..]);
        Value::from(out)
    }
}

/// The members of a context: all are marked but the checkpoint's tokens, whose
/// names a client may use again after them.
struct Members<'a>(&'a Marker<'a>);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let own = TOKENS.contains(&name.as_str()) && members.iter().all(|(n, _)| *n != name);
            let value = if own { map.next_value()? } else { map.next_value_seed(Text(self.0))? };
            members.push((name, value));
        }
        Ok(Value::from_pairs(members))
    }
}

/// Any value, its texts marked.
struct Text<'a>(&'a Marker<'a>);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(self.0.text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Text(self.0))? {
            items.push(item);
        }
        Ok(Value::from(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members: Vec<(Value, Value)> = Vec::new();
        while let Some(name) = map.next_key_seed(Text(self.0))? {
            members.push((name, map.next_value_seed(Text(self.0))?));
        }
        Ok(Value::from_pairs(members))
    }
}
