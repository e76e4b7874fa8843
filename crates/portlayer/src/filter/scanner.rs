//! The tokens of containerd's filter language (its `filters/scanner.go`), with byte offsets.

use super::FilterError;

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    End,
    /// Quotes included.
    Quoted(&'a str),
    /// `,` or `.`.
    Separator(char),
    Operator(&'a str),
    /// A field name, or a value after an operator.
    Word(&'a str),
}

pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The token before was an operator: what follows is a value.
    value: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            value: false,
        }
    }

    /// Offset of the next character.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next character, spaces not skipped.
    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// The next token and its offset, spaces before it skipped.
    pub(super) fn scan(&mut self) -> Result<(usize, Token<'a>), FilterError> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.step();
        }
        let at = self.at;
        let was_value = std::mem::replace(&mut self.value, false);
        let Some(c) = self.peek() else {
            return Ok((at, Token::End));
        };
        let token = match c {
            '"' | '/' | '|' => {
                self.quoted(c)?;
                Token::Quoted(&self.text[at..self.at])
            }
            ',' | '.' if !was_value => {
                self.step();
                Token::Separator(c)
            }
            '=' | '!' | '~' if !was_value => {
                self.skip(|c| matches!(c, '=' | '!' | '~'));
                let text = &self.text[at..self.at];
                if !matches!(text, "==" | "!=" | "~=") {
                    return Err(FilterError::new(at, "unsupported operator"));
                }
                self.value = true;
                Token::Operator(text)
            }
            _ if was_value && is_value(c) => {
                self.skip(is_value);
                Token::Word(&self.text[at..self.at])
            }
            _ if is_field(c) => {
                self.skip(is_field);
                Token::Word(&self.text[at..self.at])
            }
            ',' => {
                self.step();
                Token::Separator(c)
            }
            _ => return Err(FilterError::new(at, "unexpected character")),
        };
        Ok((at, token))
    }

    fn step(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn skip(&mut self, belongs: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&belongs) {
            self.step();
        }
    }

    fn quoted(&mut self, quote: char) -> Result<(), FilterError> {
        let start = self.at;
        self.step();
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return Err(FilterError::new(start, "quoted literal not terminated"));
                }
                Some(c) if c == quote => {
                    self.step();
                    return Ok(());
                }
                Some('\\') => {
                    self.step();
                    // Which escapes are good is for unquoting to say; here only the quote must not end the literal.
                    if self.peek() != Some('\n') {
                        self.step();
                    }
                }
                Some(_) => self.step(),
            }
        }
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}
