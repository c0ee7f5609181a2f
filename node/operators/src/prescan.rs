//! Bounds on an expression's text before it is parsed: the parser and the evaluation recurse, so
//! what is too deep must not reach them.

use dunlin_protocol::limits::EXPRESSION_BYTES_MAX;

/// Names and literals in one expression.
const TERMS_MAX: usize = 64;
/// Brackets within brackets.
const DEPTH_MAX: usize = 16;
/// `!` or `-` in front of one operand, and fields, indices and calls behind one.
const PREFIX_MAX: usize = 8;
const POSTFIX_MAX: usize = 24;

/// Refuses what is too long, too large or too deep. An error is a clause.
pub(crate) fn prescan(text: &str) -> Result<(), String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("it has {} bytes, and {EXPRESSION_BYTES_MAX} are allowed", text.len()));
    }
    let mut scan = Scan { rest: text, terms: 0, prefix: 0, postfix: vec![0] };
    while let Some(token) = scan.token() {
        scan.count(token)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    /// A name, number or string.
    Term,
    Open,
    Close,
    Dot,
    /// `!` and `-`, which may stand in front of an operand.
    Prefix,
    /// Any other operator, comma or unknown character.
    Other,
}

struct Scan<'a> {
    rest: &'a str,
    terms: usize,
    prefix: usize,
    /// For each open bracket, how long the chain of fields, indices and calls is by now.
    postfix: Vec<usize>,
}

impl Scan<'_> {
    fn count(&mut self, token: Token) -> Result<(), String> {
        let prefix = std::mem::take(&mut self.prefix);
        match token {
            Token::Term => {
                self.terms += 1;
                if self.terms > TERMS_MAX {
                    return Err(format!("it has more than {TERMS_MAX} terms"));
                }
            }
            Token::Open => {
                self.chain()?;
                self.postfix.push(0);
                if self.postfix.len() > DEPTH_MAX + 1 {
                    return Err(format!("its brackets are nested more than {DEPTH_MAX} deep"));
                }
            }
            Token::Close => {
                if self.postfix.len() > 1 {
                    self.postfix.pop();
                }
            }
            Token::Dot => self.chain()?,
            Token::Prefix | Token::Other => {
                if let Some(chain) = self.postfix.last_mut() {
                    *chain = 0;
                }
                if token == Token::Prefix {
                    self.prefix = prefix + 1;
                }
                if self.prefix > PREFIX_MAX {
                    return Err(format!("more than {PREFIX_MAX} signs stand in a row"));
                }
            }
        }
        Ok(())
    }

    fn chain(&mut self) -> Result<(), String> {
        let Some(chain) = self.postfix.last_mut() else { return Ok(()) };
        *chain += 1;
        if *chain > POSTFIX_MAX {
            return Err(format!("more than {POSTFIX_MAX} fields, indices or calls stand behind one another"));
        }
        Ok(())
    }

    fn token(&mut self) -> Option<Token> {
        self.rest = self.rest.trim_start();
        while let Some(comment) = self.rest.strip_prefix("//") {
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        }
        let first = self.rest.chars().next()?;
        if first == '.'
            && !self.rest.get(1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            self.rest = self.rest.get(1..)?.trim_start();
            // The field's name is part of the chain, not a term.
            let name = self.rest.chars().take_while(|c| is_name(*c)).count();
            self.rest = self.rest.get(name..)?;
            return Some(Token::Dot);
        }
        if is_name(first) || first == '.' {
            let name: usize = self.rest.chars().take_while(|c| is_name(*c) || *c == '.').count();
            let word_end = match first.is_ascii_digit() || first == '.' {
                true => name,
                false => self.rest.chars().take_while(|c| is_name(*c)).count(),
            };
            let (word, rest) = self.rest.split_at(word_end);
            self.rest = rest;
            if word.len() <= 2 && word.chars().all(|c| "rRbB".contains(c)) && rest.starts_with(['"', '\'']) {
                let raw = word.contains(['r', 'R']);
                self.string(raw);
            }
            return Some(if word == "in" { Token::Other } else { Token::Term });
        }
        if first == '"' || first == '\'' {
            self.string(false);
            return Some(Token::Term);
        }
        self.rest = self.rest.get(first.len_utf8()..)?;
        Some(match first {
            '(' | '[' | '{' => Token::Open,
            ')' | ']' | '}' => Token::Close,
            '!' | '-' => Token::Prefix,
            _ => Token::Other,
        })
    }

    /// Skips the string that `rest` begins with; one that never ends takes all.
    fn string(&mut self, raw: bool) {
        let quote = self.rest.chars().next().unwrap_or('"');
        let triple: String = [quote; 3].iter().collect();
        let end = if self.rest.starts_with(&triple) { triple } else { quote.to_string() };
        let mut rest = self.rest.get(end.len()..).unwrap_or("");
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(&end) {
                self.rest = behind;
                return;
            }
            let mut chars = rest.chars();
            if chars.next() == Some('\\') && !raw {
                chars.next();
            }
            rest = chars.as_str();
        }
        self.rest = "";
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold_where_they_are_said_to() {
        let sum = |n: usize| vec!["event.v"; n].join(" + ");
        assert_eq!(prescan(&sum(64)), Ok(()));
        assert!(prescan(&sum(65)).unwrap_err().contains("64 terms"));
        let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
        assert_eq!(prescan(&nested(16)), Ok(()));
        assert!(prescan(&nested(17)).unwrap_err().contains("16 deep"));
        assert!(prescan(&"!".repeat(9)).unwrap_err().contains("in a row"));
        assert!(prescan(&format!("a{}", ".b".repeat(25))).unwrap_err().contains("behind one another"));
        assert!(prescan(&format!("a{}", "[0]".repeat(25))).unwrap_err().contains("behind one another"));
        assert!(prescan(&" ".repeat(1025)).unwrap_err().contains("1024"));
        assert_eq!(prescan("event.a == '((((((((((((((((((((' // ((((((((((((((((((((((("), Ok(()));
        assert_eq!(
            prescan("r'\\' == \"\\\"\" && '''it's''' == \"\" && 1.5e3 > .5 && event.x in [1, 2]"),
            Ok(())
        );
        assert_eq!(prescan("'never ends ((((((((((((((((((((((((((("), Ok(()));
        assert_eq!(prescan("é € ((("), Ok(()));
    }
}
