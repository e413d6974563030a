//! Listings, page by page: what stands directly below a prefix.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use crate::store::StoreError;

use super::client::Client;
use super::failure::{Action, Failure};

/// Pages of 1,000 keys; a store that never comes to an end is not believed.
const MAX_PAGES: u32 = 10_000;

/// A listing under way.
pub(super) struct Pages<'a> {
    client: &'a Client,
    /// Ends in a slash.
    prefix: String,
    token: Option<String>,
    pages: u32,
    done: bool,
}

impl Pages<'_> {
    /// The next page; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<ListObjectsV2Output>, StoreError> {
        if self.done {
            return Ok(None);
        }
        let call = self.client.call(&self.prefix, Action::LIST, 0);
        let page = self
            .client
            .run(&call, || async {
                let request = self.client.sdk().list_objects_v2().bucket(self.client.bucket());
                let request = request.prefix(&self.prefix).delimiter("/");
                let request = request.set_continuation_token(self.token.clone());
                request.send().await.map_err(|error| Failure::of(&error))
            })
            .await?;
        self.pages += 1;
        let token = page.next_continuation_token().map(str::to_owned);
        self.done = !page.is_truncated().unwrap_or(false);
        if !self.done && (token.is_none() || token == self.token || self.pages >= MAX_PAGES) {
            let text = format!("listing does not come to an end after {} pages", self.pages);
            return Err(call.failed(Failure::transient(text), 1).into());
        }
        self.token = token;
        Ok(Some(page))
    }
}

impl Client {
    /// Lists what stands directly below `dir` (no slash at its end).
    pub(super) fn pages(&self, dir: &str) -> Pages<'_> {
        Pages { client: self, prefix: format!("{dir}/"), token: None, pages: 0, done: false }
    }

    /// Names of the directories directly below `dir`, in the store's order.
    pub(in crate::store) async fn directories(&self, dir: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut pages = self.pages(dir);
        while let Some(page) = pages.next().await? {
            for common in page.common_prefixes() {
                let path = common.prefix().unwrap_or_default().trim_end_matches('/');
                if let Some(name) = path.rsplit('/').next() {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }
}
