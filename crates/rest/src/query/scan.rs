//! A cursor over one parameter's value.

use crate::RestError;

pub(super) struct Scan<'a> {
    /// What is read, for errors.
    what: &'static str,
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(what: &'static str, text: &'a str) -> Self {
        Self { what, text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn is_done(&self) -> bool {
        self.at == self.text.len()
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Passes `token` if it is next.
    pub fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// The characters up to the first for which `stop` holds.
    pub fn until(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(stop).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A keyword: letters and digits.
    pub fn word(&mut self) -> &'a str {
        self.until(|c| !c.is_ascii_alphanumeric())
    }

    pub fn rest_of_text(&mut self) -> &'a str {
        let rest = self.rest();
        self.at = self.text.len();
        rest
    }

    /// The name of a column or relation, in double quotes where it holds what has a meaning here.
    pub fn name(&mut self) -> Result<String, RestError> {
        if self.peek() == Some('"') {
            return self.quoted(|_| true);
        }
        let rest = self.rest();
        let mut end = rest
            .find([',', '(', ')', '.', ':', '!', '"'])
            .unwrap_or(rest.len());
        if let Some(arrow) = rest[..end].find("->") {
            end = arrow;
        }
        let name = rest[..end].trim();
        self.at += end;
        if name.is_empty() {
            return Err(self.fail("expecting a name"));
        }
        Ok(name.to_owned())
    }

    /// A text in double quotes; a backslash takes the next character as it is. A quote closes only where `may_close`
    /// holds for what follows: the client does not escape quotes inside.
    pub fn quoted(
        &mut self,
        may_close: impl Fn(Option<char>) -> bool,
    ) -> Result<String, RestError> {
        if !self.eat("\"") {
            return Err(self.fail("expecting a double quote"));
        }
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\\') => text.extend(self.next()),
                Some('"') if may_close(self.peek()) => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(self.fail("expecting a closing double quote")),
            }
        }
    }

    pub fn fail(&self, expecting: &str) -> RestError {
        let column = self.text[..self.at].chars().count() + 1;
        let details = match self.peek() {
            Some(c) => format!("unexpected {:?} {expecting}", c.to_string()),
            None => format!("unexpected end of input {expecting}"),
        };
        RestError::unreadable(self.what, self.text, column, &details)
    }
}
