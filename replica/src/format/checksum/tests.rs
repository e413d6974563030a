#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use super::*;

/// By Go's `hash/crc64` with its ISO table, of `bytes(length)`: each path of a SIMD implementation
/// (tail, one block, folding) sees its own lengths.
const GO_VECTORS: [(usize, u64); 15] = [
    (0, 0x0000_0000_0000_0000),
    (1, 0x6f90_0000_0000_0000),
    (9, 0xc400_772b_3fa3_87db),
    (15, 0x73ce_aa25_6acb_9400),
    (16, 0x39d3_ceaa_256a_cb94),
    (17, 0xeb69_d3ce_aa25_6acb),
    (127, 0x075e_5ed6_33f1_ed08),
    (128, 0x2f27_5e5e_d633_f1ed),
    (129, 0x3f4f_275e_5ed6_33f1),
    (255, 0xd295_5833_4636_5b64),
    (256, 0xa6b2_9558_3346_365b),
    (257, 0x16d6_b295_5833_4636),
    (1000, 0x5603_2513_afe8_356c),
    (4096, 0xfc9e_6752_ead4_4f45),
    (65536, 0x26bf_62b5_b774_94b1),
];

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// The definition: reflected polynomial 0x1b, bit by bit.
fn bitwise(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn equals_go_crc64_iso() {
    for (length, expected) in GO_VECTORS {
        let mut crc = Crc::new();
        crc.update(&bytes(length));
        assert_eq!(crc.checksum().raw(), expected | BIT_63, "{length} bytes");
    }
    let mut crc = Crc::new();
    crc.update(b"123456789");
    assert_eq!(crc.checksum().raw(), 0xb909_56c7_75a4_1001);
}

#[test]
fn equals_the_definition_however_the_bytes_come() {
    let bytes = bytes(700);
    for length in 0..bytes.len() {
        let expected = bitwise(&bytes[..length]) | BIT_63;
        for split in [0, length / 3, length.saturating_sub(5)] {
            let mut crc = Crc::new();
            crc.update(&bytes[..split]);
            crc.update(&bytes[split..length]);
            assert_eq!(crc.checksum().raw(), expected, "{length} bytes split at {split}");
        }
    }
}

#[test]
fn page_checksum_covers_number_and_page() {
    let page = bytes(512);
    let mut all = vec![0, 0, 1, 2];
    all.extend_from_slice(&page);
    let checksum = page_checksum(PageNumber::new(258).unwrap(), &page);
    assert_eq!(checksum.raw(), bitwise(&all) | BIT_63);
}

#[test]
fn database_checksum_is_free_of_order_and_takes_pages_out_again() {
    let page = |n: u32| page_checksum(PageNumber::new(n).unwrap(), &bytes(512));
    let sum = |pages: &[u32]| {
        let mut sum = DatabaseChecksum::default();
        pages.iter().for_each(|n| sum.toggle(page(*n)));
        sum.value()
    };
    assert_eq!(sum(&[]).raw(), BIT_63);
    assert_eq!(sum(&[1, 2, 3]), sum(&[3, 1, 2]));
    assert_eq!(sum(&[1, 2, 3, 2]), sum(&[1, 3]));
    assert_ne!(sum(&[1, 2]), sum(&[1, 3]));
}

#[test]
fn database_checksum_goes_on_from_a_stored_one() {
    let page = |n: u32| page_checksum(PageNumber::new(n).unwrap(), &bytes(512));
    let mut whole = DatabaseChecksum::default();
    whole.toggle(page(1));
    let mut stored = DatabaseChecksum::from(whole.value());
    whole.toggle(page(2));
    stored.toggle(page(2));
    assert_eq!(stored.value(), whole.value());
}

#[test]
fn checksum_without_bit_63_is_none() {
    assert!(Checksum::from_raw(BIT_63 - 1).is_none());
    assert!(Checksum::from_raw(0).is_none());
    assert_eq!(Checksum::from_raw(BIT_63).unwrap().raw(), BIT_63);
}

#[test]
fn checksum_as_text_is_16_digits() {
    let checksum = Checksum::from_raw(0xa4fb_ee6d_8ca7_514c).unwrap();
    assert_eq!(serde_json::to_value(checksum).unwrap(), "a4fbee6d8ca7514c");
    assert_eq!("a4fbee6d8ca7514c".parse::<Checksum>().unwrap(), checksum);
    for text in ["", "a4fbee6d8ca7514", "24fbee6d8ca7514c", "a4fbee6d8ca7514c0", "+4fbee6d8ca7514c"]
    {
        assert!(text.parse::<Checksum>().is_err(), "{text}");
    }
}
