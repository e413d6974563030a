//! Writes a file of the chain anew, with something changed on the way.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use replica::format::{Checksum, Decoder, Header};

use crate::sabotage::forge::{Forge, Form, Index};
use crate::sabotage::scratch::Scratch;

/// What to do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Write it (as it is by then).
    Keep,
    /// Leave it out.
    Drop,
    /// Write it twice.
    Twice,
}

type EditHeader<'a> = Box<dyn Fn(&mut Header) + 'a>;
type EditPage<'a> = Box<dyn FnMut(u32, &mut Vec<u8>) -> anyhow::Result<Page> + 'a>;

/// The changes. LZ4, page index and file checksum are right in any case, unless `index` says otherwise; the database
/// checksums stay what they were.
pub(super) struct Rewrite<'a> {
    /// Changes the header.
    pub(super) header: EditHeader<'a>,
    /// Changes each page (its content may get any length).
    pub(super) page: EditPage<'a>,
    /// How pages are written.
    pub(super) form: Form,
    /// Whether the page index is right.
    pub(super) index: Index,
    /// Another post-apply checksum.
    pub(super) post_apply: Option<Checksum>,
}

impl Default for Rewrite<'_> {
    fn default() -> Self {
        Self {
            header: Box::new(|_| {}),
            page: Box::new(|_, _| Ok(Page::Keep)),
            form: Form::Block,
            index: Index::Right,
            post_apply: None,
        }
    }
}

impl Rewrite<'_> {
    /// Writes the file at `from` to `to` (which may be the same).
    pub(super) fn run(
        mut self,
        scratch: &Scratch<'_>,
        from: &Path,
        to: &Path,
    ) -> anyhow::Result<()> {
        let mut decoder = Decoder::new(File::open(from)?).context("read header")?;
        let mut header = *decoder.header();
        let mut page = vec![0; header.page_size.len()];
        let length = page.len();
        (self.header)(&mut header);
        scratch.write(to, from, |out| {
            let mut forge = Forge::new(out, &header.encode())?;
            while let Some(number) = decoder.next_page(&mut page).context("read page")? {
                let times = match (self.page)(number.get(), &mut page)? {
                    Page::Keep => 1,
                    Page::Drop => 0,
                    Page::Twice => 2,
                };
                for _ in 0..times {
                    forge.page(number.get(), &page, self.form, self.index)?;
                }
                page.resize(length, 0);
            }
            let trailer = decoder.finish().context("read trailer")?;
            forge.finish(self.post_apply.or(trailer.post_apply))?.flush()?;
            Ok(())
        })
    }
}

/// Goes through the pages of a file; the file's trailer.
pub(super) fn each_page(
    path: &Path,
    mut look: impl FnMut(u32, &[u8]),
) -> anyhow::Result<replica::format::Trailer> {
    let mut decoder = Decoder::new(File::open(path)?).context("read header")?;
    let mut page = vec![0; decoder.header().page_size.len()];
    while let Some(number) = decoder.next_page(&mut page).context("read page")? {
        look(number.get(), &page);
    }
    decoder.finish().context("read trailer")
}
