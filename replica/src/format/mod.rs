//! LTX v3: the unit of change in the bucket, byte-compatible with Litestream v0.5. And SQLite's own [`wal`].
//!
//! Source of the LTX format: the public README and Go code of `superfly/ltx`. Nothing here does I/O
//! of its own (readers and writers are passed in), reads a clock or logs.

mod checksum;
mod decode;
mod encode;
mod error;
mod header;
mod ids;
mod index;
mod lz4;
mod lz4_frame;
mod merge;
mod page;
mod sequence;
mod source;
pub mod wal;

pub use checksum::{Checksum, DatabaseChecksum, page_checksum};
pub use decode::Decoder;
pub use encode::{Encoded, Encoder};
pub use error::{EncodeError, FormatError, PageFault};
pub use header::{HEADER_SIZE, Header, TRAILER_SIZE, Trailer, WalSpan};
pub use ids::{GenerationId, IdError, Level, Txid, TxidRange};
pub use lz4_frame::{FrameError, FrameReader};
pub use merge::{MergeError, Wholeness, merge, merge_as};
pub use page::{PageNumber, PageSize};
