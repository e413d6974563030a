//! Mails: what is wrong, which object, what to do, and the command that restores the last proven point.
//!
//! Rendering is pure; [`Mailer`] sends. Where nobody is configured to be mailed, the log and the exit
//! code speak ([`LogMailer`]). A mail that cannot be sent is an error of the run, never silent.

mod drill_mail;
mod page;
mod ses;
mod watch_mail;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use drill_mail::{Story, drill_mail};
pub use ses::SesMailer;
pub use watch_mail::watch_mail;

/// One mail, to whoever the mailer is configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// One line, without control characters.
    pub subject: String,
    /// The body as text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
#[error("send mail through {service}")]
pub struct MailError {
    /// The service.
    pub service: &'static str,
    /// Its failure.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Sends mails.
#[async_trait]
pub trait Mailer: Send + Sync + Debug {
    /// Sends one mail. `Ok` once the service has taken it.
    async fn send(&self, mail: &Mail) -> Result<(), MailError>;
}

/// Says the mail in the log.
#[derive(Debug)]
pub struct LogMailer;

#[async_trait]
impl Mailer for LogMailer {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        tracing::warn!(
            subject = mail.subject,
            "nobody is configured to be mailed ([alert] from and to)"
        );
        Ok(())
    }
}

/// The mailer for these addresses; nothing is requested yet.
pub async fn mailer(from: Option<&str>, to: &[String]) -> Arc<dyn Mailer> {
    match from {
        Some(from) if !to.is_empty() => Arc::new(SesMailer::new(from, to).await),
        _ => Arc::new(LogMailer),
    }
}

/// A subject: one line, no control characters (they could start another mail header), bounded.
fn subject_line(text: &str) -> String {
    const LONGEST: usize = 150;
    let mut line: String =
        text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_bounded_line() {
        assert_eq!(subject_line("a\tb\r\nBcc: x"), "ab");
        assert_eq!(subject_line(&"é".repeat(1000)).chars().count(), 151);
    }
}
