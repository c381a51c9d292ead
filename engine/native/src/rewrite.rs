//! Template source rewritten where minijinja's syntax is narrower than that of
//! Jinja in transformers' hands:
//!
//! * `a % b` becomes a call of [`PERCENT`], because minijinja's operator knows
//!   numbers only and templates format strings with it;
//! * `{% generation %}` ... `{% endgeneration %}`, which mark what to train on,
//!   become blocks that do nothing.
//!
//! Lines stay lines, so errors name the right one. Text that does not lex is
//! copied: the compiler says what is wrong with it.

/// The function that stands for the operator `%`.
pub const PERCENT: &str = "_percent";

///
/// Fails if a tag has too many tokens.
pub fn rewrite(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => copy(through(rest, "#}"), &mut out).ok_or(Stop::End),
            Some(b'{') => Tag::new(rest, "}}", &mut out).rewrite(),
            Some(b'%') => statement(rest, &mut out),
            _ => copy(Some(&rest[..1]), &mut out).ok_or(Stop::End),
        };
        match taken {
            Ok(n) => rest = &rest[n..],
            Err(Stop::End) => break,
            Err(Stop::TooLong) => {
                let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
                return Err(format!("a tag has more than {MAX_TOKENS} words and signs (line {line} of the template)"));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Why a tag is not rewritten.
enum Stop {
    /// It does not lex.
    End,
    TooLong,
}

fn copy(text: Option<&str>, out: &mut String) -> Option<usize> {
    out.push_str(text?);
    Some(text?.len())
}

/// The text up to and with `end`.
fn through<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    text.find(end).map(|at| &text[..at + end.len()])
}

/// Rewrites the `{% ... %}` at the beginning of `rest`; returns how long it was.
fn statement(rest: &str, out: &mut String) -> Result<usize, Stop> {
    let tag = through(rest, "%}").ok_or(Stop::End)?;
    let body = tag[2..tag.len() - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
    let replacement = match body {
        "raw" => {
            let raw_end = rest.find("endraw").ok_or(Stop::End)?;
            let end = raw_end + through(&rest[raw_end..], "%}").ok_or(Stop::End)?.len();
            return copy(Some(&rest[..end]), out).ok_or(Stop::End);
        }
        "generation" => "if true",
        "endgeneration" => "endif",
        _ => return Tag::new(rest, "%}", out).rewrite(),
    };
    out.push_str(&tag.replacen(body, replacement, 1));
    Ok(tag.len())
}

/// What is known of the expression inside one pair of brackets.
#[derive(Default)]
struct Frame {
    /// Where in the output the operand to the left of a `%` would begin: the
    /// first token after an operator that binds less.
    operand: Option<usize>,
    /// Whether the operand to the right of a `%` is being copied.
    right: bool,
}

/// One `{{ ... }}` or `{% ... %}`.
struct Tag<'a> {
    text: &'a str,
    end: &'static str,
    out: &'a mut String,
    from: usize, // length of out before the tag
    count: usize, // of its tokens
}

/// The most tokens of a tag. Known templates have up to 150; the compiler goes
/// down a level for each link of a chain, and at each level looks at all of them.
const MAX_TOKENS: usize = 1024;


impl<'a> Tag<'a> {
    fn new(text: &'a str, end: &'static str, out: &'a mut String) -> Tag<'a> {
        let from = out.len();
        Tag { text, end, out, from, count: 0 }
    }

    /// Copies the tag with its `%` rewritten; nothing is copied if it cannot be.
    fn rewrite(mut self) -> Result<usize, Stop> {
        match self.tokens() {
            Some(n) => Ok(n),
            None if self.count > MAX_TOKENS => Err(Stop::TooLong),
            None => {
                self.out.truncate(self.from);
                Err(Stop::End)
            }
        }
    }

    fn tokens(&mut self) -> Option<usize> {
        let mut frames = vec![Frame::default()];
        let mut after_operand = false; // an operator may come now
        let mut at = copy(self.text.get(..3).filter(|t| t.ends_with(['-', '+'])).or(self.text.get(..2)), self.out)?;
        loop {
            let rest = &self.text[at..];
            let c = rest.chars().next()?;
            if frames.len() == 1 && rest.strip_prefix(['-', '+']).unwrap_or(rest).starts_with(self.end) {
                self.close(&mut frames);
                let end = rest.find(self.end)? + self.end.len();
                return Some(at + copy(Some(&rest[..end]), self.out)?);
            }
            let token = token(rest)?;
            at += token.len();
            let frame = frames.last_mut()?;
            if c.is_whitespace() {
                self.out.push_str(token);
                continue;
            }
            let sign = matches!(token, "+" | "-") && !after_operand;
            match token {
                "%" => {
                    self.close(&mut frames);
                    let frame = frames.last_mut()?;
                    self.out.insert_str(frame.operand?, &format!("{PERCENT}("));
                    self.out.push(',');
                    frame.right = true;
                    after_operand = false;
                    continue;
                }
                "*" | "/" | "//" => self.close(&mut frames),
                "(" | "[" | "{" => {
                    frame.operand.get_or_insert(self.out.len());
                    frames.push(Frame::default());
                }
                ")" | "]" | "}" => {
                    self.close(&mut frames);
                    frames.pop();
                    frames.last()?;
                }
                _ if sign || !separates(token) => {
                    frame.operand.get_or_insert(self.out.len());
                }
                _ => {
                    self.close(&mut frames);
                    frames.last_mut()?.operand = None;
                }
            }
            after_operand = matches!(token, ")" | "]" | "}") || !separates(token) && is_operand(c);
            self.out.push_str(token);
            self.count += 1;
            if self.count > MAX_TOKENS {
                return None;
            }
        }
    }

    /// Ends the call that an open `%` began in the innermost brackets.
    fn close(&mut self, frames: &mut [Frame]) {
        if let Some(frame) = frames.last_mut().filter(|f| f.right) {
            frame.right = false;
            self.out.push(')');
        }
    }
}

fn is_operand(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '"' | '\'')
}

/// Whether a token ends the operands beside it: what binds less than `%`, and keywords.
fn separates(token: &str) -> bool {
    matches!(token, "+" | "-" | "~" | "==" | "!=" | "<" | ">" | "<=" | ">=" | "=" | "," | ":")
        || matches!(token, "and" | "or" | "not" | "in" | "is" | "if" | "elif" | "else" | "for" | "set" | "do" | "with" | "call" | "filter" | "recursive")
}

/// The first token of `text`, which is not empty.
fn token(text: &str) -> Option<&str> {
    let c = text.chars().next()?;
    let run = |part: fn(char) -> bool| text.find(|c| !part(c)).unwrap_or(text.len());
    let n = match c {
        c if c.is_whitespace() => run(char::is_whitespace),
        c if c.is_alphanumeric() || c == '_' => run(|c| c.is_alphanumeric() || c == '_'),
        '"' | '\'' => string(text, c)?,
        _ if ["**", "//", "==", "!=", "<=", ">="].contains(&text.get(..2).unwrap_or("")) => 2,
        c => c.len_utf8(),
    };
    Some(&text[..n])
}

/// The length of the quoted string at the beginning of `text`.
fn string(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(i + 1),
            _ => {}
        }
    }
    None
}
