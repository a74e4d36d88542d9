//! SQL `LIKE`: `%` stands for any text, `_` for one character, `\` takes the next character as it is.

/// A compiled pattern. Matching needs no memory and at most pattern × text steps.
#[derive(Debug)]
pub(super) struct LikePattern {
    tokens: Vec<Token>,
    ignore_case: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Char(char),
}

impl LikePattern {
    /// Compiles a pattern. `None` when it ends in the escape character, which Postgres refuses too.
    pub fn new(pattern: &str, ignore_case: bool) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' if tokens.last() == Some(&Token::Any) => {}
                '%' => tokens.push(Token::Any),
                '_' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Char(fold(chars.next()?, ignore_case))),
                c => tokens.push(Token::Char(fold(c, ignore_case))),
            }
        }
        Some(Self {
            tokens,
            ignore_case,
        })
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut token = 0;
        // Where to go on when a literal fails: behind the last `%`, one character further in the text.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if self.tokens.get(token) == Some(&Token::Any) {
                token += 1;
                retry = Some((token, rest.clone()));
                continue;
            }
            match (self.tokens.get(token), rest.next()) {
                (None, None) => return true,
                (Some(Token::One), Some(_)) => {
                    token += 1;
                    continue;
                }
                (Some(Token::Char(expected)), Some(actual))
                    if *expected == fold(actual, self.ignore_case) =>
                {
                    token += 1;
                    continue;
                }
                (_, None) => return false,
                _ => {}
            }
            let Some((after_any, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            token = *after_any;
            rest = from.clone();
        }
    }
}

/// Lower case where that is one character; the few others keep their case.
fn fold(c: char, ignore_case: bool) -> char {
    if !ignore_case {
        return c;
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) => lower,
        _ => c,
    }
}
