//! The CHECK constraints in the text of a `CREATE TABLE`. Pure.
//!
//! SQLite keeps none of them for a file that it may not write (`sqlite3AddCheckConstraint` drops what it parsed where the b-tree is
//! read-only), and has no function that lists them. CHECK is a reserved word: unquoted, and right inside of
//! the statement's outer parentheses, it can only begin a constraint.

/// The expressions of a statement's CHECK constraints, in order; none in what is no `CREATE TABLE`.
pub(super) fn check_clauses(sql: &str) -> Vec<&str> {
    let mut tokens = Tokens { sql, at: 0 };
    let words = [tokens.next(), tokens.next()].map(|token| token.map(|range| &sql[range]));
    let is_table = matches!(words, [Some(create), Some(table)]
        if create.eq_ignore_ascii_case("CREATE") && table.eq_ignore_ascii_case("TABLE"));
    let (mut clauses, mut depth, mut follows_check, mut begin) = (Vec::new(), 0_u32, false, None);
    for range in tokens.filter(|_| is_table) {
        let token = &sql[range.clone()];
        match token {
            "(" => {
                if depth == 1 && follows_check {
                    begin = Some(range.end);
                }
                depth += 1;
            }
            ")" => {
                depth = depth.saturating_sub(1);
                if let (1, Some(begin)) = (depth, begin.take_if(|_| depth == 1)) {
                    clauses.push(sql[begin..range.start].trim());
                }
            }
            _ => {}
        }
        follows_check = token.eq_ignore_ascii_case("CHECK");
    }
    clauses
}

/// Where the tokens of a statement are, without spaces and comments; quoted ones are whole, with their quotes.
struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = std::ops::Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.sql[self.at..];
            let first = rest.chars().next()?;
            let length = match first {
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => {
                    rest[2..].find("*/").map_or(rest.len(), |end| end + 4)
                }
                _ if first.is_ascii_whitespace() => 1,
                _ => {
                    let begin = self.at;
                    self.at += token_length(rest, first);
                    return Some(begin..self.at);
                }
            };
            self.at += length;
        }
    }
}

fn token_length(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    match first {
        '\'' | '"' | '`' => quoted_length(rest, first),
        '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
        _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        _ => first.len_utf8(),
    }
}

/// A quote that is doubled inside does not end it.
fn quoted_length(rest: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(found) = rest[at..].find(quote) {
        at += found + 1;
        if !rest[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_found_wherever_sqlite_takes_them() {
        let cases: [(&str, &[&str]); 10] = [
            ("CREATE TABLE t(x CHECK (x > 0))", &["x > 0"]),
            (
                "create table t(x, check(x in (1, 2)), CHECK ( y <> ')' ))",
                &["x in (1, 2)", "y <> ')'"],
            ),
            ("CREATE TABLE t(x CONSTRAINT c CHECK/* ( */(x)NOT NULL, y)", &["x"]),
            ("CREATE TABLE \"CHECK (a)\"(x DEFAULT (1), [check (b)] INT, `CHECK`, 'check')", &[]),
            (
                "CREATE TABLE t(x DEFAULT 'it''s CHECK (1)' CHECK (x <> 'it''s)'))",
                &["x <> 'it''s)'"],
            ),
            ("CREATE TABLE t(x CHECK (x > 0 -- not )\n))", &["x > 0 -- not )"]),
            ("CREATE TABLE t(größe CHECK (größe > 0), checked (1))", &["größe > 0"]),
            ("CREATE VIRTUAL TABLE t USING fts5(x, check (1))", &[]),
            ("CREATE TABLE t(x CHECK (x", &[]),
            ("", &[]),
        ];
        for (sql, expected) in cases {
            assert_eq!(check_clauses(sql), expected, "{sql}");
        }
    }
}
