//! What the encoder writes, the decoder reads: every page size, snapshots and increments, with and
//! without database checksums.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use jiff::Timestamp;
use proptest::prelude::*;
use replica::format::{
    DatabaseChecksum, Decoder, Encoder, Header, PageNumber, PageSize, Txid, TxidRange, WalSpan,
    page_checksum,
};

/// Contents that LZ4 shrinks much, a little and not at all.
fn page(length: usize, seed: u64) -> Vec<u8> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(seed);
    let mut page = vec![0; length];
    match seed % 3 {
        0 => page.fill(random.random()),
        1 => page.iter_mut().for_each(|byte| *byte = random.random_range(0..4)),
        _ => random.fill(&mut page[..]),
    }
    page
}

fn arbitrary_file() -> impl Strategy<Value = (Header, Vec<(u32, Vec<u8>)>)> {
    let pages = proptest::collection::btree_set(1_u32..200, 0..12);
    (9_u32..=16, 1_u64..4, pages, any::<bool>(), any::<u64>(), any::<u64>()).prop_map(
        |(power, min, numbers, checksummed, seed, node_id)| {
            let page_size = PageSize::new(1 << power).unwrap();
            let numbers: Vec<u32> = if min == 1 {
                (1..=u32::try_from(numbers.len()).unwrap()).collect()
            } else {
                numbers.into_iter().collect()
            };
            let commit = numbers.last().copied().unwrap_or(0);
            let txids = TxidRange::new(Txid::new(min).unwrap(), Txid::new(min + seed % 5).unwrap());
            let pre_apply = (checksummed && min > 1)
                .then(|| page_checksum(PageNumber::new(1).unwrap(), &seed.to_be_bytes()));
            let header = Header {
                page_size,
                commit: if min == 1 { commit } else { commit + u32::from(seed % 2 == 0) },
                txids: txids.unwrap(),
                timestamp: Timestamp::from_millisecond(1_795_338_712_531).unwrap(),
                checksummed,
                pre_apply,
                wal: (seed % 2 == 0).then_some(WalSpan { offset: 32, size: 7, salts: (1, 2) }),
                node_id,
            };
            let pages = numbers
                .into_iter()
                .map(|number| (number, page(page_size.len(), seed ^ u64::from(number))))
                .collect();
            (header, pages)
        },
    )
}

proptest! {
    #[test]
    fn decoded_is_what_was_encoded((header, pages) in arbitrary_file()) {
        let mut database = DatabaseChecksum::default();
        let mut encoder =
            Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
        for (number, page) in &pages {
            let number = PageNumber::new(*number).unwrap();
            database.toggle(page_checksum(number, page));
            encoder.page(number, page).unwrap();
        }
        let encoded = encoder.finish(header.checksummed.then(|| database.value())).unwrap();
        prop_assert_eq!(encoded.size, encoded.out.len() as u64);
        prop_assert_eq!(encoded.pages as usize, pages.len());

        let mut decoder = Decoder::new(&encoded.out[..]).unwrap();
        prop_assert_eq!(*decoder.header(), header);
        let mut page = vec![0; header.page_size.len()];
        for (number, expected) in &pages {
            let decoded = decoder.next_page(&mut page).unwrap();
            prop_assert_eq!(decoded.map(PageNumber::get), Some(*number));
            prop_assert!(&page == expected, "page {} differs", number);
        }
        prop_assert_eq!(decoder.next_page(&mut page).unwrap(), None);
        prop_assert_eq!(decoder.finish().unwrap(), encoded.trailer);
    }
}
