//! Small renderings that records, mails and terminals share.

use replica::operator::explain;

/// An error with its causes on one line, its hints on lines of their own.
#[must_use]
pub fn in_words(error: impl Into<anyhow::Error>) -> String {
    let text = explain(&error.into());
    text.strip_prefix("error: ").map_or(text.clone(), str::to_owned)
}

/// Seconds with three decimals, as records keep them.
#[must_use]
pub fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// A word as a POSIX shell reads it back.
#[must_use]
pub fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-=@+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_quoted("s3://b/p/app-1.x_y"), "s3://b/p/app-1.x_y");
        assert_eq!(shell_quoted("file:///a b/it's;rm"), r"'file:///a b/it'\''s;rm'");
        assert_eq!(shell_quoted(""), "''");
    }
}
