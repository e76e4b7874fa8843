//! The grammar (containerd's `filters/parser.go`):
//!
//! ```text
//! filter    = selector ("," selector)*            all must hold
//! selector  = fieldpath [operator value]          without operator: the field is there
//! fieldpath = field ("." field)*
//! field     = [A-Za-z0-9_]+ | quoted
//! operator  = "==" | "!=" | "~="
//! value     = [^\s,]+ | quoted                    after "~=" also in / / or | |
//! quoted    = a Go string literal
//! ```

use super::FilterError;
use super::quote::unquote;
use super::scanner::{Scanner, Token};

/// One selector as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// The parts of the field's path.
    pub(super) path: Vec<String>,
    /// Where the path begins.
    pub(super) at: usize,
    /// What is asked of it.
    pub(super) test: Test,
    /// Where the value begins.
    pub(super) value_at: usize,
}

/// What a selector asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Vec<u8>),
}

/// Parses one filter.
pub(super) fn parse(text: &str) -> Result<Vec<Selector>, FilterError> {
    let mut scanner = Scanner::new(text);
    let mut selectors = vec![selector(&mut scanner)?];
    loop {
        match scanner.peek() {
            None => return Ok(selectors),
            Some(',') => {
                scanner.scan()?;
                selectors.push(selector(&mut scanner)?);
            }
            Some(_) => return Err(FilterError::new(scanner.at(), "expected , or the end")),
        }
    }
}

fn selector(scanner: &mut Scanner<'_>) -> Result<Selector, FilterError> {
    let (at, first) = field(scanner)?;
    let mut path = vec![first];
    while scanner.peek() == Some('.') {
        scanner.scan()?;
        path.push(field(scanner)?.1);
    }
    if matches!(scanner.peek(), None | Some(',')) {
        return Ok(Selector {
            path,
            at,
            test: Test::Present,
            value_at: at,
        });
    }
    let (operator_at, token) = scanner.scan()?;
    let Token::Operator(operator) = token else {
        return Err(FilterError::new(
            operator_at,
            "expected an operator (==, !=, ~=)",
        ));
    };
    let (value_at, value) = value(scanner, operator == "~=")?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => Test::Matches(value),
    };
    Ok(Selector {
        path,
        at,
        test,
        value_at,
    })
}

fn field(scanner: &mut Scanner<'_>) -> Result<(usize, String), FilterError> {
    match scanner.scan()? {
        (at, Token::Word(word)) => Ok((at, word.to_owned())),
        (at, Token::Quoted(literal)) if literal.starts_with('"') => {
            let bytes = unquote(literal, at)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| FilterError::new(at, "a field name is UTF-8 text"))?;
            Ok((at, text))
        }
        (at, _) => Err(FilterError::new(at, "expected a field")),
    }
}

fn value(scanner: &mut Scanner<'_>, regex: bool) -> Result<(usize, Vec<u8>), FilterError> {
    match scanner.scan()? {
        (at, Token::Word(word)) => Ok((at, word.as_bytes().to_vec())),
        (at, Token::Quoted(literal)) if regex || literal.starts_with('"') => {
            Ok((at, unquote(literal, at)?))
        }
        (at, Token::Quoted(_)) => Err(FilterError::new(
            at,
            "a value that begins with / or | must be in double quotes",
        )),
        (at, _) => Err(FilterError::new(at, "expected a value")),
    }
}
