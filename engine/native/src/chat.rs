//! Chat templates, rendered as transformers renders them: Jinja with
//! trim_blocks, lstrip_blocks and loop controls, Python's string and list
//! methods, and a `tojson` that writes what `json.dumps` writes.
//!
//! Known differences that remain: attributes that Python objects have and JSON
//! values do not, the globals `joiner` and `cycler`, and the format `%r`.

use crate::abi::{answer, answer_object, input, MrResult};
use crate::json::{dumps, float, Style};
use crate::rewrite::{rewrite, PERCENT};
use minijinja::formatting::{format, FormatStyle};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{escape_formatter, AutoEscape, Environment, Error, ErrorKind, Output, State, Value};
use std::fmt::Write;

const NAME: &str = "chat_template";

/// A compiled template; rendering only reads it.
pub struct Chat {
    env: Environment<'static>,
}

fn compile(source: &str) -> Result<Chat, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(print_value);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", tojson);
    env.add_test("iterable", is_iterable);
    env.add_function(PERCENT, percent);
    env.add_template_owned(NAME, rewrite(source))?;
    Ok(Chat { env })
}

fn render(chat: &Chat, context: &serde_json::Value, max_bytes: usize) -> Result<String, String> {
    let mut text = Text { bytes: Vec::new(), max: max_bytes, over: false };
    let template = chat.env.get_template(NAME).map_err(reason)?;
    match template.render_captured_to(Value::from(Serde(context)), &mut text) {
        Err(_) if text.over => Err(String::new()),
        Err(e) => Err(reason(e)),
        Ok(_) => String::from_utf8(text.bytes).map_err(|e| e.to_string()),
    }
}

/// What a template has written, up to a limit.
struct Text {
    bytes: Vec<u8>,
    max: usize,
    over: bool,
}

impl std::io::Write for Text {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if part.len() > self.max - self.bytes.len() {
            self.over = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Prints floats as Python does, all else as minijinja does.
fn print_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match f64::try_from(value.clone()) {
        Ok(f) if value.kind() == ValueKind::Number && !value.is_integer() => Ok(out.write_str(&float(f))?),
        _ => escape_formatter(out, state, value),
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, Error> {
    let mut out = String::new();
    // write!, because to_string() panics on a format that chrono does not know.
    write!(out, "{}", chrono::Local::now().format(&format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: bad format {format:?}")))?;
    Ok(out)
}

/// `json.dumps(value, ensure_ascii=False, ...)`: unlike Jinja's own filter it escapes no HTML.
fn tojson(value: &Value, args: Kwargs) -> Result<Value, Error> {
    let mut style = Style::new(args.get("indent")?);
    style.ensure_ascii = args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    style.sort_keys = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    if let Some(pair) = args.get::<Option<Vec<String>>>("separators")? {
        let [item, key] = <[String; 2]>::try_from(pair)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators wants two strings"))?;
        (style.item_separator, style.key_separator) = (item, key);
    }
    args.assert_all_used()?;
    let json = serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}")))?;
    Ok(Value::from_safe_string(dumps(&json, &style)))
}

/// As Jinja's test; minijinja's own counts none as iterable.
fn is_iterable(v: &Value) -> bool {
    v.kind() != ValueKind::None && v.try_iter().is_ok()
}

/// Python's `%`: formats where the left side is a string, else takes the remainder that has the divisor's sign.
fn percent(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(template) = left.as_str() {
        return printf(template, right);
    }
    if let (Ok(a), Ok(b)) = (i64::try_from(left.clone()), i64::try_from(right.clone())) {
        if b != 0 {
            let r = i128::from(a) % i128::from(b);
            return Ok(Value::from(if r != 0 && (r < 0) != (b < 0) { r + i128::from(b) } else { r } as i64));
        }
    } else if let (Ok(a), Ok(b)) = (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        if b != 0.0 {
            let r = a % b;
            return Ok(Value::from(if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }));
        }
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("cannot calculate {} % {}", left.kind(), right.kind())))
}

/// `template % right`: the members of a tuple, the named members of a mapping, or one value.
fn printf(template: &str, right: &Value) -> Result<Value, Error> {
    let args: Vec<Value> = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] };
    let text = format(FormatStyle::Printf, template, &args)?;
    // Python counts: an argument that changes nothing by its absence is one too many.
    if let Some((_, fewer)) = args.split_last().filter(|_| right.kind() != ValueKind::Map) {
        if format(FormatStyle::Printf, template, fewer).is_ok() {
            return Err(Error::new(ErrorKind::InvalidOperation, "not all arguments converted during string formatting"));
        }
    }
    Ok(Value::from(text))
}

/// One line for a client: what a template raised itself, else what is wrong and where.
fn reason(e: Error) -> String {
    let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
    let place = e.line().map(|n| format!(" (line {n} of the template)")).unwrap_or_default();
    match (e.kind(), e.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}{cause}{place}"),
        (kind, None) => format!("{kind}{cause}{place}"),
    }
}

/// Compiles a template; the object is freed with `mr_chat_free`.
#[no_mangle]
pub unsafe extern "C" fn mr_chat_new(source: *const u8, len: usize) -> MrResult {
    answer_object(|| {
        let source = std::str::from_utf8(input(source, len)).map_err(|e| e.to_string())?;
        compile(source).map_err(reason)
    })
}

/// Renders with the JSON object `context` as the template's variables. A text
/// of more than `max_bytes` fails without a reason.
#[no_mangle]
pub unsafe extern "C" fn mr_chat_render(chat: *const Chat, context: *const u8, len: usize, max_bytes: usize) -> MrResult {
    answer(|| {
        let chat = chat.as_ref().ok_or("null template")?;
        let context = serde_json::from_slice(input(context, len)).map_err(|e| format!("context: {e}"))?;
        render(chat, &context, max_bytes)
    })
}

/// # Safety
/// `chat` came from `mr_chat_new` and is not used after this.
#[no_mangle]
pub unsafe extern "C" fn mr_chat_free(chat: *mut Chat) {
    if !chat.is_null() {
        drop(Box::from_raw(chat));
    }
}
