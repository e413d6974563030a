//! The page that every mail is: a title, paragraphs, facts, a command. One content, rendered as text and as HTML;
//! whatever comes from a database or a bucket is escaped.

use maud::{DOCTYPE, html};

use crate::alert::{Mail, subject_line};

/// The content of a mail.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The subject and title.
    pub title: String,
    /// What happened and what to do, paragraph by paragraph; a paragraph may have several lines.
    pub paragraphs: Vec<String>,
    /// A command to copy, with the sentence before it.
    pub command: Option<(String, String)>,
    /// Names and values.
    pub facts: Vec<(String, String)>,
}

impl Page {
    /// Renders both forms.
    #[must_use]
    pub fn into_mail(self) -> Mail {
        Mail { subject: subject_line(&self.title), text: self.text(), html: self.html() }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for paragraph in &self.paragraphs {
            text.push_str(&format!("\n{paragraph}\n"));
        }
        if let Some((sentence, command)) = &self.command {
            text.push_str(&format!("\n{sentence}\n\n    {command}\n"));
        }
        if !self.facts.is_empty() {
            text.push('\n');
        }
        for (name, value) in &self.facts {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text
    }

    fn html(&self) -> String {
        html! {
            (DOCTYPE)
            html lang="en" {
                head { meta charset="utf-8"; title { (self.title) } }
                body style="font-family: sans-serif; max-width: 48rem" {
                    h1 style="font-size: 1.2rem" { (self.title) }
                    @for paragraph in &self.paragraphs {
                        p style="white-space: pre-wrap" { (paragraph) }
                    }
                    @if let Some((sentence, command)) = &self.command {
                        p { (sentence) }
                        pre style="background: #eee; padding: .5rem; overflow-x: auto" { code { (command) } }
                    }
                    @if !self.facts.is_empty() {
                        table cellpadding="4" {
                            @for (name, value) in &self.facts {
                                tr { th align="left" valign="top" { (name) } td { (value) } }
                            }
                        }
                    }
                }
            }
        }
        .into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_says_is_escaped() {
        let evil = "<script>alert(1)</script>&\"'";
        let page = Page {
            title: evil.to_owned(),
            paragraphs: vec![evil.to_owned()],
            command: Some((evil.to_owned(), evil.to_owned())),
            facts: vec![(evil.to_owned(), evil.to_owned())],
        };
        let mail = page.into_mail();
        assert!(!mail.html.contains("<script"), "{}", mail.html);
        assert_eq!(mail.html.matches("&lt;script&gt;").count(), 7);
        assert_eq!(mail.text.matches("<script>").count(), 6, "the text form is left as it is");
    }
}
