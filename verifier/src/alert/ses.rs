//! Mail through Amazon SES.

use async_trait::async_trait;
use aws_sdk_ses::Client;
use aws_sdk_ses::error::BoxError;
use aws_sdk_ses::types::{Body, Content, Destination, Message};

use crate::alert::{Mail, MailError, Mailer};

/// From one verified address to some others.
#[derive(Debug)]
pub struct SesMailer {
    client: Client,
    from: String,
    to: Vec<String>,
}

impl SesMailer {
    /// Prepares sending; nothing is requested yet.
    pub async fn new(from: &str, to: &[String]) -> Self {
        let client = Client::new(&crate::aws::configuration().await);
        Self { client, from: from.to_owned(), to: to.to_vec() }
    }
}

fn failed(source: impl Into<BoxError>) -> MailError {
    MailError { service: "SES", source: source.into() }
}

fn content(text: &str) -> Result<Content, MailError> {
    Content::builder().charset("UTF-8").data(text).build().map_err(failed)
}

#[async_trait]
impl Mailer for SesMailer {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let body = Body::builder().text(content(&mail.text)?).html(content(&mail.html)?).build();
        let message = Message::builder().subject(content(&mail.subject)?).body(body).build();
        self.client
            .send_email()
            .source(&self.from)
            .destination(Destination::builder().set_to_addresses(Some(self.to.clone())).build())
            .message(message)
            .send()
            .await
            .map_err(failed)?;
        Ok(())
    }
}
