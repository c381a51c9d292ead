//! Chat templates, rendered as transformers renders them: Jinja with
//! trim_blocks, lstrip_blocks and loop controls, Python's string and list
//! methods, and a `tojson` that writes what `json.dumps` writes.
//!
//! Known differences that remain: attributes that Python objects have and JSON
//! values do not, the globals `joiner` and `cycler`, and the format `%r`.

use crate::abi::{answer_object, answer_within, input, Fault, MrResult};
use crate::bounded::{run, Bounds, Failure};
use crate::marks::{unescape, Marks};
use crate::json::{dumps, float, Style};
use crate::rewrite::{rewrite, PERCENT};
use minijinja::formatting::{format, FormatStyle};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{escape_formatter, AutoEscape, Environment, Error, ErrorKind, Output, State, Value};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "chat_template";

/// A compiled template; rendering only reads it.
pub struct Chat {
    env: Environment<'static>,
    /// How many renderings were stopped: what they hold is never given back.
    stopped: AtomicUsize,
}

fn compile(source: &str) -> Result<Chat, Fault> {
    environment(&rewrite(source).map_err(Fault::Limit)?).map_err(|e| Fault::Failed(reason(e)))
}

fn environment(source: &str) -> Result<Chat, Error> {
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
    env.add_template_owned(NAME, source.to_string())?;
    Ok(Chat { env, stopped: AtomicUsize::new(0) })
}

/// Renders `context`, a JSON object. With a character: what marks spellings of special tokens in the text.
fn render(chat: &Chat, context: &[u8], max_bytes: usize, marks: Option<&Marks>) -> Result<(String, Option<char>), Fault> {
    let fuel = FUEL + FUEL_PER_BYTE * context.len() as u64;
    let read = match marks {
        Some(marks) => marks.read(context),
        None => serde_json::from_slice(context).map(|v| (v, None)).map_err(|e| e.to_string()),
    };
    let (context, mark) = read.map_err(|e| format!("context: {e}"))?;
    let mut text = Text { bytes: Vec::new(), max: max_bytes, over: false };
    let mut env = chat.env.clone();
    env.set_fuel(Some(fuel));
    let template = env.get_template(NAME).map_err(reason)?;
    let rendered = template.render_captured_to(context, &mut text).map(drop);
    match rendered {
        Err(_) if text.over => Err(Fault::TooLong),
        Err(e) if out_of_fuel(&e) => Err(Fault::Limit("the template takes too many steps".to_string())),
        Err(e) => Err(Fault::Failed(reason(e))),
        Ok(_) => {
            let text = String::from_utf8(text.bytes).map_err(|e| e.to_string())?;
            Ok((if let Some(mark) = mark { unescape(text, mark) } else { text }, mark))
        }
    }
}

fn out_of_fuel(e: &Error) -> bool {
    e.kind() == ErrorKind::OutOfFuel || std::error::Error::source(e).and_then(|e| e.downcast_ref()).is_some_and(out_of_fuel)
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

/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

/// The longest source. The largest templates in use have 30 kB.
const MAX_SOURCE: usize = 256 << 10;

/// Steps of a rendering: instructions, and 64 bytes of text each.
const FUEL: u64 = 1 << 20;
const FUEL_PER_BYTE: u64 = 32; // of the context: some templates look at each character

/// How often a template is stopped before it is given up.
const MAX_STOPPED: usize = 4;

/// What compiling may take. The parser goes down by a frame for each byte of a
/// chain of signs, and looks at all that is below again and again: the depth
/// bounds that.
fn compile_bounds(source: &str) -> Bounds {
    Bounds { memory: 64 << 20, depth: 2 << 20, stack: 2048 * source.len(), time: Duration::from_secs(1) }
}

/// What rendering may take. Known templates hold up to 14 times the context. A
/// nested value has 40 bytes or more a level, and its end takes less than 320 of stack.
fn render_bounds(context: &[u8]) -> Bounds {
    let memory = (16 << 20) + 32 * context.len();
    let time = Duration::from_secs(1) + Duration::from_micros(4) * context.len() as u32;
    Bounds { memory, depth: 16 << 20, stack: 8 * memory, time }
}

fn over(f: Failure) -> Fault {
    match f {
        Failure::NoThread(e) => Fault::Failed(format!("no thread for the template: {e}")),
        Failure::Memory => Fault::Limit("the template takes too much memory".to_string()),
        Failure::Stack => Fault::Limit("the template is nested too deeply".to_string()),
        Failure::Time => Fault::Limit("the template takes too much time".to_string()),
    }
}

/// For a client: what a template raised itself, else what is wrong and where.
fn reason(e: Error) -> String {
    let mut text = whole_reason(e);
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= MAX_REASON).last();
    text.truncate(end.unwrap_or(0));
    text
}

fn whole_reason(e: Error) -> String {
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
        if len > MAX_SOURCE {
            return Err(Fault::Limit(format!("the template has {len} bytes, the limit is {MAX_SOURCE}")));
        }
        let source = std::str::from_utf8(input(source, len)).map_err(|e| e.to_string())?.to_string();
        let chat = run(compile_bounds(&source), move || compile(&source)).map_err(over)??;
        Ok(Arc::new(chat))
    })
}

/// Renders with the JSON object `context` as the template's variables.
#[no_mangle]
pub unsafe extern "C" fn mr_chat_render(
    chat: *const Arc<Chat>,
    context: *const u8,
    len: usize,
    max_bytes: usize,
    marks: *const Arc<Marks>,
    mark: *mut u32,
) -> MrResult {
    answer_within(|| {
        let chat = chat.as_ref().ok_or("null template")?.clone();
        // A copy, because a rendering that is stopped never gives back what it has.
        let context = input(context, len).to_vec();
        if chat.stopped.load(Ordering::Relaxed) >= MAX_STOPPED {
            return Err(Fault::Limit("the template took too much before and is not used any more".to_string()));
        }
        let (it, marks) = (chat.clone(), marks.as_ref().cloned());
        let (text, used) = run(render_bounds(&context), move || render(&it, &context, max_bytes, marks.as_deref())).map_err(|f| {
            if !matches!(f, Failure::NoThread(_)) {
                chat.stopped.fetch_add(1, Ordering::Relaxed);
            }
            over(f)
        })??;
        *mark = used.map_or(0, u32::from);
        Ok(text)
    })
}

/// # Safety
/// `chat` came from `mr_chat_new` and is not used after this.
#[no_mangle]
pub unsafe extern "C" fn mr_chat_free(chat: *mut Arc<Chat>) {
    if !chat.is_null() {
        drop(Box::from_raw(chat));
    }
}

/// Makes marks of a JSON list of spellings; the object is freed with `mr_marks_free`.
#[no_mangle]
pub unsafe extern "C" fn mr_marks_new(spellings: *const u8, len: usize) -> MrResult {
    answer_object(|| {
        let spellings: Vec<String> = serde_json::from_slice(input(spellings, len)).map_err(|e| e.to_string())?;
        Ok(Arc::new(Marks::new(&spellings)?))
    })
}

/// # Safety
/// `marks` came from `mr_marks_new` and is not used after this.
#[no_mangle]
pub unsafe extern "C" fn mr_marks_free(marks: *mut Arc<Marks>) {
    if !marks.is_null() {
        drop(Box::from_raw(marks));
    }
}
