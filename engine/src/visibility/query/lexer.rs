//! A query's text in tokens.

use super::Located;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A bare word: a name or a word of the language.
    Word(String),
    /// A name between backticks.
    Name(String),
    Text(String),
    Int(i64),
    Double(f64),
    /// `= != <> < <= > >= ( ) ,`
    Sign(&'static str),
}

impl Token {
    /// As an error shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Word(text) => text.clone(),
            Self::Name(text) => format!("`{text}`"),
            Self::Text(text) => format!("'{text}'"),
            Self::Int(number) => number.to_string(),
            Self::Double(number) => number.to_string(),
            Self::Sign(sign) => (*sign).to_owned(),
        }
    }
}

/// Longer ones first: the first that fits is taken.
const SIGNS: [&str; 10] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

pub(super) fn tokens(text: &str) -> Located<Vec<(usize, Token)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if matches!(c, '\'' | '"' | '`') {
            quoted(rest, c).map_err(|why| (at, why))?
        } else if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') {
            number(rest).map_err(|why| (at, why))?
        } else if is_word(c) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err((
                at,
                format!(
                    "{c:?} has no meaning here: put texts between quotes and unusual names between backticks"
                ),
            ));
        };
        found.push((at, token));
        at += length;
    }
    Ok(found)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.' || c == '$'
}

/// A closing quote doubled, or any character behind a backslash, stands for itself; not in names, which have neither.
fn quoted(text: &str, quote: char) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if quote != '`' && chars.next_if(|(_, next)| *next == quote).is_some() {
                value.push(quote);
                continue;
            }
            let token = if quote == '`' {
                Token::Name(value)
            } else {
                Token::Text(value)
            };
            return Ok((token, at + c.len_utf8()));
        }
        if c == '\\' && quote != '`' {
            let Some((_, escaped)) = chars.next() else {
                break;
            };
            value.push(match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            });
            continue;
        }
        value.push(c);
    }
    Err(format!(
        "the text that begins here is not closed: end it with {quote}"
    ))
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let mut length = 0;
    let mut before = ' ';
    for c in text.chars() {
        let sign_fits = length == 0 || matches!(before, 'e' | 'E');
        let fits = c.is_ascii_alphanumeric() || c == '.' || (matches!(c, '-' | '+') && sign_fits);
        if !fits {
            break;
        }
        length += c.len_utf8();
        before = c;
    }
    let written = &text[..length];
    if let Ok(number) = written.parse::<i64>() {
        return Ok((Token::Int(number), length));
    }
    let digits = written.contains(|c: char| c.is_ascii_digit());
    match written.parse::<f64>() {
        Ok(number) if digits && number.is_finite() => Ok((Token::Double(number), length)),
        _ => Err(format!(
            "{written} is no number: give one like 3, -1.5 or 2e6, or put a text between quotes"
        )),
    }
}
