//! JSON written as Python's `json.dumps` writes it: the text that models saw in training.

use serde_json::Value;

/// The keyword arguments of `json.dumps` that chat templates use.
pub struct Style {
    pub indent: Option<usize>,
    pub item_separator: String,
    pub key_separator: String,
    pub ensure_ascii: bool,
    pub sort_keys: bool,
}

impl Style {
    /// Python's defaults; transformers' `tojson` sets ensure_ascii to false.
    pub fn new(indent: Option<usize>) -> Style {
        let item = if indent.is_some() { "," } else { ", " };
        Style { indent, item_separator: item.to_string(), key_separator: ": ".to_string(), ensure_ascii: false, sort_keys: false }
    }
}

pub fn dumps(v: &Value, style: &Style) -> String {
    let mut out = String::new();
    write(v, style, 0, &mut out);
    out
}

fn write(v: &Value, style: &Style, level: usize, out: &mut String) {
    match v {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => number(n, out),
        Value::String(s) => string(s, style, out),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(i, style, level + 1, out);
                write(item, style, level + 1, out);
            }
            line(style, level, out);
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            if style.sort_keys {
                entries.sort_by_key(|&(k, _)| k);
            }
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                separate(i, style, level + 1, out);
                string(key, style, out);
                out.push_str(&style.key_separator);
                write(item, style, level + 1, out);
            }
            line(style, level, out);
            out.push('}');
        }
    }
}

fn separate(i: usize, style: &Style, level: usize, out: &mut String) {
    if i > 0 {
        out.push_str(&style.item_separator);
    }
    line(style, level, out);
}

fn line(style: &Style, level: usize, out: &mut String) {
    if let Some(n) = style.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', n * level));
    }
}

fn number(n: &serde_json::Number, out: &mut String) {
    match n.as_f64() {
        Some(f) if n.is_f64() => out.push_str(&float(f)),
        _ => out.push_str(&n.to_string()),
    }
}

/// Python's repr of a float: an exponent below 1e-4 and from 1e16 on, with a sign and two digits at least.
pub fn float(f: f64) -> String {
    let magnitude = f.abs();
    if f == 0.0 || (1e-4..1e16).contains(&magnitude) || !f.is_finite() {
        return format!("{f:?}");
    }
    let s = format!("{f:e}");
    let (mantissa, exponent) = s.split_once('e').unwrap_or((&s, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(d) => ('-', d),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn string(s: &str, style: &Style, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (style.ensure_ascii && !c.is_ascii()) || (style.ensure_ascii && c == '\u{7f}') => escape(c, out),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}
