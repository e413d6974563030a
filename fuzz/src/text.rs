//! Texts: names of objects, URLs, documents, and `drill.toml`.

use std::str::FromStr;

use replica::documents::{Heartbeat, ReceiptDocument};
use replica::format::{Checksum, GenerationId, HEADER_SIZE, Header, Txid, TxidRange};
use replica::operator::DatabaseArg;
use replica::store::{Chain, Key, LtxKey, RootUrl};
use verifier::rules::Rules;

/// Reads the rules of a drill.
pub(crate) fn drill_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Rules::parse("drill.toml", text);
}

/// Reads names, ids and documents. What is accepted is written as it was read, and no key leads out of its database.
pub(crate) fn names(data: &[u8]) {
    if let Some(header) = data.first_chunk::<HEADER_SIZE>()
        && let Ok(header) = Header::decode(header)
    {
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }
    let _ = serde_json::from_slice::<Heartbeat>(data);
    let _ = serde_json::from_slice::<ReceiptDocument>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let name = TxidRange::from_file_name(text).ok();
    if let Some(name) = name {
        assert_eq!(name.file_name(), text);
    }
    if let Some(txid) = read::<Txid>(text) {
        assert_eq!(read::<Txid>(&txid.to_string()), Some(txid));
    }
    if let Some(checksum) = read::<Checksum>(text) {
        assert!(checksum.to_string().eq_ignore_ascii_case(text));
    }
    if let Some(generation) = read::<GenerationId>(text) {
        assert_eq!(generation.to_string(), text);
        let txids = name.unwrap_or(TxidRange::single(Txid::FIRST));
        let level = replica::format::Level::SYNC;
        let key = Key::Ltx(LtxKey { chain: Chain::Generation(generation), level, txids });
        for path in [key.s3_path(), key.file_path()] {
            assert!(!path.contains("..") && !path.starts_with('/'), "{path}");
        }
    }
    let _ = read::<RootUrl>(text);
    let _ = read::<DatabaseArg>(text);
}

fn read<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}
