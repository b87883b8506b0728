//! A query's tokens as a tree. Names and values are not yet checked against each other.

use super::lexer::Token;
use super::{Located, QUERY_DEPTH_MAX};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// Something, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) it: T,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    Test { name: At<String>, test: At<RawTest> },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawTest {
    Compare(&'static str, At<Literal>),
    In(Vec<At<Literal>>),
    Between(At<Literal>, At<Literal>),
    StartsWith(At<Literal>),
    IsNull,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Parsed {
    pub(super) tree: Option<Tree>,
    pub(super) group_by: Option<At<String>>,
    /// Name, and whether newest first.
    pub(super) order_by: Option<(At<String>, bool)>,
}

pub(super) fn parse(tokens: &[(usize, Token)], end: usize) -> Located<Parsed> {
    let mut parser = Parser {
        tokens,
        next: 0,
        end,
        depth: 0,
    };
    let mut parsed = Parsed::default();
    if !parser.at_end() && !parser.sees("GROUP") && !parser.sees("ORDER") {
        parsed.tree = Some(parser.or()?);
    }
    if parser.takes("GROUP") {
        parser.needs("BY")?;
        parsed.group_by = Some(parser.name()?);
    }
    if parser.takes("ORDER") {
        parser.needs("BY")?;
        let name = parser.name()?;
        let descending = parser.takes("DESC");
        if !descending {
            let _ = parser.takes("ASC");
        }
        if parser.sees_sign(",") {
            return parser.expected("the end: one attribute orders a listing");
        }
        parsed.order_by = Some((name, descending));
    }
    if !parser.at_end() {
        return parser.expected("AND, OR, GROUP BY, ORDER BY or the end");
    }
    Ok(parsed)
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Located<Tree> {
        let mut parts = vec![self.and()?];
        while self.takes("OR") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Tree::Or))
    }

    fn and(&mut self) -> Located<Tree> {
        let mut parts = vec![self.not()?];
        while self.takes("AND") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Tree::And))
    }

    fn not(&mut self) -> Located<Tree> {
        let at = self.place();
        if self.depth >= QUERY_DEPTH_MAX {
            return Err((
                at,
                format!("more than {QUERY_DEPTH_MAX} parentheses and NOTs within one another"),
            ));
        }
        self.depth += 1;
        let tree = if self.takes("NOT") {
            Tree::Not(Box::new(self.not()?))
        } else if self.takes_sign("(") {
            let inner = self.or()?;
            if !self.takes_sign(")") {
                return self.expected(") or AND or OR");
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn test(&mut self) -> Located<Tree> {
        let name = self.name()?;
        let at = self.place();
        if let Some(sign) = self.comparison() {
            let value = self.literal()?;
            let it = RawTest::Compare(sign, value);
            let test = At { at, it };
            return Ok(Tree::Test { name, test });
        }
        if self.takes("IS") {
            let negated = self.takes("NOT");
            self.needs("NULL")?;
            let it = RawTest::IsNull;
            return Ok(negate(name, At { at, it }, negated));
        }
        let negated = self.takes("NOT");
        let at = self.place();
        let it = if self.takes("IN") {
            RawTest::In(self.list()?)
        } else if self.takes("BETWEEN") {
            let low = self.literal()?;
            self.needs("AND")?;
            RawTest::Between(low, self.literal()?)
        } else if self.takes("STARTS_WITH") {
            RawTest::StartsWith(self.literal()?)
        } else {
            return self.expected(
                "a comparison (= != < <= > >=), [NOT] IN, [NOT] BETWEEN, [NOT] STARTS_WITH or IS [NOT] NULL",
            );
        };
        Ok(negate(name, At { at, it }, negated))
    }

    fn list(&mut self) -> Located<Vec<At<Literal>>> {
        if !self.takes_sign("(") {
            return self.expected("( and a list of values");
        }
        let mut values = vec![self.literal()?];
        while self.takes_sign(",") {
            values.push(self.literal()?);
        }
        if !self.takes_sign(")") {
            return self.expected(", or )");
        }
        Ok(values)
    }

    fn comparison(&mut self) -> Option<&'static str> {
        match self.tokens.get(self.next) {
            Some((_, Token::Sign(sign))) if !matches!(*sign, "(" | ")" | ",") => {
                self.next += 1;
                Some(sign)
            }
            _ => None,
        }
    }

    fn name(&mut self) -> Located<At<String>> {
        let at = self.place();
        match self.tokens.get(self.next) {
            Some((_, Token::Word(it) | Token::Name(it))) => {
                let it = it.clone();
                self.next += 1;
                Ok(At { at, it })
            }
            _ => self.expected("the name of a search attribute"),
        }
    }

    fn literal(&mut self) -> Located<At<Literal>> {
        let at = self.place();
        let it = match self.tokens.get(self.next) {
            Some((_, Token::Text(text))) => Literal::Text(text.clone()),
            Some((_, Token::Int(number))) => Literal::Int(*number),
            Some((_, Token::Double(number))) => Literal::Double(*number),
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("true") => {
                Literal::Bool(true)
            }
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("false") => {
                Literal::Bool(false)
            }
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("null") => {
                return Err((
                    at,
                    "nothing compares with NULL: ask IS NULL or IS NOT NULL".to_owned(),
                ));
            }
            _ => return self.expected("a value: a text between quotes, a number, true or false"),
        };
        self.next += 1;
        Ok(At { at, it })
    }

    fn needs(&mut self, word: &str) -> Located<()> {
        if self.takes(word) {
            Ok(())
        } else {
            self.expected(word)
        }
    }

    fn sees(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.next), Some((_, Token::Word(it))) if it.eq_ignore_ascii_case(word))
    }

    fn takes(&mut self, word: &str) -> bool {
        let sees = self.sees(word);
        self.next += usize::from(sees);
        sees
    }

    fn sees_sign(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.next), Some((_, Token::Sign(it))) if *it == sign)
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let sees = self.sees_sign(sign);
        self.next += usize::from(sees);
        sees
    }

    fn at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn expected<T>(&self, what: &str) -> Located<T> {
        let found = self
            .tokens
            .get(self.next)
            .map_or("the end of the query".to_owned(), |(_, token)| {
                token.shown()
            });
        Err((self.place(), format!("expected {what}, found {found}")))
    }
}

fn one_or(mut parts: Vec<Tree>, many: fn(Vec<Tree>) -> Tree) -> Tree {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

fn negate(name: At<String>, test: At<RawTest>, negated: bool) -> Tree {
    let tree = Tree::Test { name, test };
    if negated {
        Tree::Not(Box::new(tree))
    } else {
        tree
    }
}
