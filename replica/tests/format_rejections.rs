//! Every rule that a file can break, with the message that tells so. The files are right in
//! everything else, checksums included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod format_support;

use format_support::*;
use replica::format::{Checksum, Decoder, HEADER_SIZE, Header};

const SIZE: u32 = 512;

/// The message of the one reason for which `bytes` are refused.
fn refusal(bytes: &[u8]) -> String {
    decode(bytes).expect_err("accepted").to_string()
}

/// A header refused with one field overwritten.
fn header_refusal(header: Header, offset: usize, field: &[u8]) -> String {
    let mut bytes = header.encode();
    bytes[offset..offset + field.len()].copy_from_slice(field);
    Header::decode(&bytes).expect_err("accepted").to_string()
}

fn plain() -> Header {
    header(SIZE, 4, 2, 3)
}

fn chained() -> Header {
    checksummed(plain(), Checksum::from_raw(1 << 63 | 5))
}

fn snapshot() -> Header {
    header(SIZE, 2, 1, 1)
}

fn sized(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap().to_be_bytes()
}

mod header_fields {
    use super::*;

    #[test]
    fn magic() {
        let message = "offset 0: not an LTX file: expected magic LTX1, actual SQLi";
        assert_eq!(header_refusal(plain(), 0, b"SQLi"), message);
    }

    #[test]
    fn magic_that_is_no_text() {
        let message = r"offset 0: not an LTX file: expected magic LTX1, actual \x1b[2\xff";
        assert_eq!(header_refusal(plain(), 0, b"\x1b[2\xff"), message);
    }

    #[test]
    fn version_1() {
        let message = "offset 4: older LTX format (flag 0x1, all pages compressed as one), \
                       expected version 3\n\
                       HINT: restore this file with the Litestream or LiteFS release that wrote it";
        assert_eq!(header_refusal(plain(), 4, &[0, 0, 0, 1]), message);
    }

    #[test]
    fn flags() {
        for bit in 2..32 {
            let flags = 1_u32 << bit | 2;
            let message =
                format!("offset 4: unknown header flags: expected 0x0 or 0x2, actual {flags:#x}");
            assert_eq!(header_refusal(plain(), 4, &flags.to_be_bytes()), message);
        }
    }

    #[test]
    fn page_size() {
        for size in [0, 1, 256, 513, 4095, 131_072, u32::MAX] {
            let message = format!(
                "offset 8: page size: expected a power of two in 512..=65536, actual {size}"
            );
            assert_eq!(header_refusal(plain(), 8, &size.to_be_bytes()), message);
        }
    }

    #[test]
    fn min_txid_zero() {
        let message = "offset 16: min TXID: expected 1 or more, actual 0";
        assert_eq!(header_refusal(plain(), 16, &[0; 8]), message);
    }

    #[test]
    fn max_txid_zero() {
        let message = "offset 24: max TXID: expected 1 or more, actual 0";
        assert_eq!(header_refusal(plain(), 24, &[0; 8]), message);
    }

    #[test]
    fn txids_out_of_order() {
        let message =
            "offset 24: max TXID: expected 0000000000000002 or more, actual 0000000000000001";
        assert_eq!(header_refusal(plain(), 24, &1_u64.to_be_bytes()), message);
    }

    #[test]
    fn timestamp() {
        let message = format!("offset 32: timestamp out of range: actual {} ms", i64::MIN);
        assert_eq!(header_refusal(plain(), 32, &i64::MIN.to_be_bytes()), message);
    }

    #[test]
    fn pre_apply_on_a_snapshot() {
        let message =
            "offset 40: pre-apply checksum of a snapshot: expected 0, actual 8000000000000001";
        for header in [snapshot(), checksummed(snapshot(), None)] {
            assert_eq!(header_refusal(header, 40, &[0x80, 0, 0, 0, 0, 0, 0, 1]), message);
        }
    }

    #[test]
    fn pre_apply_without_checksums() {
        let message =
            "offset 40: pre-apply checksum without checksums: expected 0, actual 8000000000000001";
        assert_eq!(header_refusal(plain(), 40, &[0x80, 0, 0, 0, 0, 0, 0, 1]), message);
    }

    #[test]
    fn pre_apply_missing() {
        let message = "offset 40: pre-apply checksum: expected one, actual 0";
        assert_eq!(header_refusal(chained(), 40, &[0; 8]), message);
    }

    #[test]
    fn pre_apply_malformed() {
        let message = "offset 40: pre-apply checksum: expected bit 63 set, actual 0000000000000001";
        assert_eq!(header_refusal(chained(), 40, &1_u64.to_be_bytes()), message);
    }

    #[test]
    fn wal_offset_negative() {
        let message = "offset 48: WAL offset: expected 0 or more, actual -1";
        assert_eq!(header_refusal(plain(), 48, &[0xff; 8]), message);
    }

    #[test]
    fn wal_size_negative() {
        let message = "offset 56: WAL size: expected 0 or more, actual -1";
        assert_eq!(header_refusal(plain(), 56, &[0xff; 8]), message);
    }

    #[test]
    fn wal_size_without_offset() {
        let message = "offset 48: WAL offset: expected one beside WAL size 9, actual 0";
        assert_eq!(header_refusal(plain(), 56, &9_u64.to_be_bytes()), message);
    }

    #[test]
    fn wal_salts_without_offset() {
        let message =
            "offset 48: WAL offset: expected one beside WAL salts 00000001 00000000, actual 0";
        assert_eq!(header_refusal(plain(), 64, &1_u32.to_be_bytes()), message);
        let message =
            "offset 48: WAL offset: expected one beside WAL salts 00000000 00000002, actual 0";
        assert_eq!(header_refusal(plain(), 68, &2_u32.to_be_bytes()), message);
    }

    #[test]
    fn name_of_another_file() {
        let message = "offset 16: TXIDs differ from the file's name: \
                       expected 0000000000000002-0000000000000004, \
                       actual 0000000000000002-0000000000000003";
        assert_eq!(plain().check_name(txids(2, 4)).unwrap_err().to_string(), message);
        plain().check_name(txids(2, 3)).unwrap();
    }

    /// As the reference implementation does; the file checksum covers them.
    #[test]
    fn reserved_bytes_are_not_looked_at() {
        let mut bytes = plain().encode();
        assert_eq!(bytes[80..], [0; 20]);
        bytes[80..].fill(7);
        assert_eq!(Header::decode(&bytes).unwrap(), plain());
    }
}

mod pages {
    use super::*;

    #[test]
    fn page_header_of_version_2() {
        let page = page(SIZE, 1);
        let mut bytes = plain().encode().to_vec();
        bytes.extend_from_slice(&1_u32.to_be_bytes());
        bytes.extend_from_slice(&lz4_frame(&page));
        let message = "offset 100: older LTX format (page header of 4 bytes), expected version 3\n\
                       HINT: restore this file with the Litestream or LiteFS release that wrote it";
        assert_eq!(refusal(&bytes), message);
    }

    #[test]
    fn page_number_zero() {
        let page = page(SIZE, 1);
        let file = Forge::new(&plain()).block(0, &page).finish(0);
        let message = "offset 100: page number: expected 1 or more, actual 0 with flags 0x0001";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn page_flags() {
        let page = page(SIZE, 1);
        for bit in 1..16 {
            let flags = 1_u16 << bit | 1;
            let file = Forge::new(&plain()).frame(3, flags, &[], &[], &page).finish(0);
            let message = format!(
                "offset 100: page 3: unknown flags: expected 0x0 or 0x1, actual {flags:#06x}"
            );
            assert_eq!(refusal(&file), message);
        }
    }

    #[test]
    fn page_twice() {
        let page = page(SIZE, 1);
        let forge = Forge::new(&plain()).block(3, &page);
        let at = forge.offset();
        let message = format!("offset {at}: pages out of order: expected above 3, actual 3");
        assert_eq!(refusal(&forge.block(3, &page).finish(0)), message);
    }

    #[test]
    fn pages_out_of_order() {
        let page = page(SIZE, 1);
        let forge = Forge::new(&plain()).block(3, &page);
        let at = forge.offset();
        let message = format!("offset {at}: pages out of order: expected above 3, actual 2");
        assert_eq!(refusal(&forge.block(2, &page).finish(0)), message);
    }

    #[test]
    fn page_beyond_the_commit() {
        let file = Forge::new(&plain()).block(5, &page(SIZE, 1)).finish(0);
        let message = "offset 100: page beyond the commit: expected at most 4, actual 5";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn lock_page() {
        let file =
            Forge::new(&header(65536, 20_000, 2, 2)).block(16_385, &page(65536, 1)).finish(0);
        assert_eq!(refusal(&file), "offset 100: lock page 16385 in the file");
    }

    #[test]
    fn snapshot_without_its_first_page() {
        let file = Forge::new(&snapshot()).block(2, &page(SIZE, 1)).finish(0);
        let message = "offset 100: page missing from a snapshot: expected 1, actual 2";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn snapshot_without_a_page_between() {
        let forge = Forge::new(&header(SIZE, 3, 1, 1)).block(1, &page(SIZE, 1));
        let at = forge.offset();
        let message = format!("offset {at}: page missing from a snapshot: expected 2, actual 3");
        assert_eq!(refusal(&forge.block(3, &page(SIZE, 3)).finish(0)), message);
    }

    #[test]
    fn snapshot_without_its_last_page() {
        let forge = Forge::new(&snapshot()).block(1, &page(SIZE, 1));
        let at = forge.offset();
        let message =
            format!("offset {at}: snapshot incomplete: expected page 2 of 2, actual end of pages");
        assert_eq!(refusal(&forge.finish(0)), message);
    }

    #[test]
    fn snapshot_without_pages() {
        let message = "offset 100: snapshot incomplete: expected page 1 of 2, actual end of pages";
        assert_eq!(refusal(&Forge::new(&snapshot()).finish(0)), message);
    }

    #[test]
    fn page_buffer_of_another_length() {
        let file = Forge::new(&plain()).block(3, &page(SIZE, 1)).finish(0);
        let mut decoder = Decoder::new(&file[..]).unwrap();
        let message = "page buffer of 513 bytes, expected 512";
        assert_eq!(decoder.next_page(&mut [0; 513]).unwrap_err().to_string(), message);
    }

    #[test]
    fn reading_on_after_an_error() {
        let file = Forge::new(&plain()).block(5, &page(SIZE, 1)).block(2, &page(SIZE, 1)).finish(0);
        let mut decoder = Decoder::new(&file[..]).unwrap();
        decoder.next_page(&mut [0; 512]).unwrap_err();
        let message = "offset 106: read on after an error";
        assert_eq!(decoder.next_page(&mut [0; 512]).unwrap_err().to_string(), message);
        assert_eq!(decoder.finish().unwrap_err().to_string(), message);
    }
}

mod lz4 {
    use super::*;

    #[test]
    fn compressed_size_of_zero() {
        let file = Forge::new(&plain()).frame(3, 1, &sized(0), &[], &page(SIZE, 1)).finish(0);
        let message = "offset 106: page 3: compressed size: expected 1 to 530, actual 0";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn compressed_size_that_no_page_needs() {
        for size in [531, 1 << 31, u32::MAX] {
            let file = Forge::new(&plain())
                .frame(3, 1, &size.to_be_bytes(), &[], &page(SIZE, 1))
                .finish(0);
            let message =
                format!("offset 106: page 3: compressed size: expected 1 to 530, actual {size}");
            assert_eq!(refusal(&file), message);
        }
    }

    #[test]
    fn no_lz4_block() {
        let file =
            Forge::new(&plain()).frame(3, 1, &sized(4), &[0xff; 4], &page(SIZE, 1)).finish(0);
        assert_eq!(refusal(&file), "offset 110: page 3: invalid LZ4 block");
    }

    #[test]
    fn block_that_holds_more_than_a_page() {
        let long = page(2 * SIZE, 1);
        let block = lz4_flex::block::compress(&long);
        let file = Forge::new(&plain()).frame(3, 1, &sized(block.len()), &block, &long).finish(0);
        assert_eq!(refusal(&file), "offset 110: page 3: invalid LZ4 block");
    }

    #[test]
    fn block_that_holds_less_than_a_page() {
        let short = page(SIZE / 2, 1);
        let block = lz4_flex::block::compress(&short);
        let file = Forge::new(&plain()).frame(3, 1, &sized(block.len()), &block, &short).finish(0);
        let message = "offset 110: page 3: decoded length: expected 512, actual 256";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn frame_of_another_kind() {
        let page = page(SIZE, 1);
        let mut frame = lz4_frame(&page);
        frame[4] ^= 0x10;
        let file = Forge::new(&plain()).frame(3, 0, &[], &frame, &page).finish(0);
        let message = "offset 106: page 3: LZ4 frame header: \
                       expected 04224d186440a7, actual 04224d187440a7";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn frame_block_that_no_page_needs() {
        let page = page(SIZE, 1);
        let mut frame = lz4_frame(&page);
        frame[7..11].copy_from_slice(&531_u32.to_le_bytes());
        let file = Forge::new(&plain()).frame(3, 0, &[], &frame, &page).finish(0);
        let message = "offset 113: page 3: compressed size: expected 1 to 530, actual 531";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn frame_with_a_stored_block_of_another_length() {
        let long = page(SIZE + 1, 1);
        let mut frame = lz4_frame(&long)[..7].to_vec();
        frame.extend_from_slice(&((SIZE + 1) | 1 << 31).to_le_bytes());
        frame.extend_from_slice(&long);
        let file = Forge::new(&plain()).frame(3, 0, &[], &frame, &long).finish(0);
        let message = "offset 117: page 3: decoded length: expected 512, actual 513";
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn frame_with_a_second_block() {
        let page = page(SIZE, 1);
        let mut frame = lz4_frame(&page);
        let at = 106 + frame.len() - 8;
        frame.truncate(frame.len() - 8);
        frame.extend_from_slice(&[3, 0, 0, 0, 1, 2, 3]);
        let file = Forge::new(&plain()).frame(3, 0, &[], &frame, &page).finish(0);
        let message =
            format!("offset {at}: page 3: LZ4 frame: expected its end, actual block of 0x3");
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn frame_checksum() {
        let page = page(SIZE, 1);
        let mut frame = lz4_frame(&page);
        let end = frame.len() - 4;
        let right = u32::from_le_bytes(frame[end..].try_into().unwrap());
        frame[end] ^= 1;
        let file = Forge::new(&plain()).frame(3, 0, &[], &frame, &page).finish(0);
        let message = format!(
            "offset {}: page 3: LZ4 frame checksum: expected {right:08x}, actual {:08x}",
            106 + end,
            right ^ 1
        );
        assert_eq!(refusal(&file), message);
    }
}

mod end_of_file {
    use super::*;

    fn two_pages() -> Forge {
        Forge::new(&plain()).block(2, &page(SIZE, 1)).block(4, &page(SIZE, 2))
    }

    /// Offset of the trailer in `file`.
    fn trailer(file: &[u8]) -> usize {
        file.len() - 16
    }

    #[test]
    fn empty_file() {
        let message = "offset 0: file ends within header: expected 100 bytes, actual 0";
        assert_eq!(refusal(&[]), message);
    }

    #[test]
    fn short_header() {
        let message = "offset 0: file ends within header: expected 100 bytes, actual 99";
        assert_eq!(refusal(&plain().encode()[..HEADER_SIZE - 1]), message);
    }

    #[test]
    fn file_that_ends_after_the_header() {
        let message = "offset 100: file ends within page header: expected 6 bytes, actual 0";
        assert_eq!(refusal(&plain().encode()), message);
    }

    #[test]
    fn one_byte_short() {
        let file = two_pages().finish(0);
        let message = format!(
            "offset {}: file ends within file checksum: expected 8 bytes, actual 7",
            file.len() - 8
        );
        assert_eq!(refusal(&file[..file.len() - 1]), message);
    }

    #[test]
    fn trailing_garbage() {
        let mut file = two_pages().finish(0);
        let message = format!("offset {}: bytes after the end of the file", file.len());
        file.push(0);
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn index_of_other_pages() {
        let forge = two_pages();
        let (at, mut index) = (forge.offset() + 6, forge.index());
        index[0] = 1;
        let (length, message) =
            (index.len(), "page index of 8 bytes differs from the pages before it");
        let file = forge.finish_with_index(&index, length as u64, 0);
        assert_eq!(refusal(&file), format!("offset {at}: {message}"));
    }

    #[test]
    fn index_with_a_page_too_few() {
        let forge = two_pages();
        let at = forge.offset() + 6;
        let index = [&forge.index()[..3], &[0]].concat();
        let file = forge.finish_with_index(&index, 4, 0);
        let message =
            format!("offset {at}: page index of 8 bytes differs from the pages before it");
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn index_with_a_varint_longer_than_needed() {
        let forge = two_pages();
        let (at, mut index) = (forge.offset() + 6, forge.index());
        index.splice(0..1, [0x82, 0]);
        let file = forge.finish_with_index(&index, 9, 0);
        let message =
            format!("offset {at}: page index of 8 bytes differs from the pages before it");
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn index_of_another_length() {
        let forge = two_pages();
        let index = forge.index();
        let at = forge.offset() + 6 + index.len();
        let file = forge.finish_with_index(&index, 9, 0);
        let message = format!("offset {at}: length of the page index: expected 8, actual 9");
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn post_apply_without_checksums() {
        let file = two_pages().finish(1 << 63);
        let message = format!(
            "offset {}: post-apply checksum without checksums: expected 0, actual 8000000000000000",
            trailer(&file)
        );
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn post_apply_missing() {
        let file = Forge::new(&chained()).finish(0);
        let message =
            format!("offset {}: post-apply checksum: expected one, actual 0", trailer(&file));
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn post_apply_malformed() {
        let file = Forge::new(&chained()).finish(1);
        let message = format!(
            "offset {}: post-apply checksum: expected bit 63 set, actual 0000000000000001",
            trailer(&file)
        );
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn post_apply_of_a_snapshot_with_other_pages() {
        let pages = vec![(1, page(SIZE, 1)), (2, page(SIZE, 2))];
        let right = database_checksum(&pages);
        let file = Forge::new(&checksummed(snapshot(), None))
            .block(1, &pages[0].1)
            .block(2, &pages[1].1)
            .finish(right.raw() ^ 1);
        let message = format!(
            "offset {}: post-apply checksum of a snapshot: expected {right} by its pages, actual {:016x}",
            trailer(&file),
            right.raw() ^ 1
        );
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn post_apply_of_an_empty_database() {
        let file = Forge::new(&Header { commit: 0, ..chained() }).finish(1 << 63 | 1);
        let message = format!(
            "offset {}: post-apply checksum of a snapshot: \
             expected 8000000000000000 by its pages, actual 8000000000000001",
            trailer(&file)
        );
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn file_checksum_malformed() {
        let mut file = two_pages().finish(0);
        let at = file.len() - 8;
        file[at] &= 0x7f;
        let actual = u64::from_be_bytes(file[at..].try_into().unwrap());
        let message =
            format!("offset {at}: file checksum: expected bit 63 set, actual {actual:016x}");
        assert_eq!(refusal(&file), message);
    }

    #[test]
    fn file_checksum_of_other_content() {
        let mut file = two_pages().finish(0);
        let at = file.len() - 8;
        let right = u64::from_be_bytes(file[at..].try_into().unwrap());
        file[at + 7] ^= 1;
        let message = format!(
            "offset {at}: file checksum: expected {right:016x} by the content, actual {:016x}",
            right ^ 1
        );
        assert_eq!(refusal(&file), message);
    }

    /// What the files above are measured against.
    #[test]
    fn the_same_files_without_fault_are_accepted() {
        decode(&two_pages().finish(0)[..]).unwrap();
        decode(&Forge::new(&chained()).lz4_frame(3, &page(SIZE, 1)).finish(1 << 63)[..]).unwrap();
        decode(&Forge::new(&Header { commit: 0, ..chained() }).finish(1 << 63)[..]).unwrap();
        let noise = |i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0];
        let noise: Vec<u8> = (0..SIZE).map(noise).collect();
        assert_eq!(lz4_frame(&noise)[10], 0x80, "the block is not stored as it is");
        decode(&Forge::new(&plain()).lz4_frame(3, &noise).finish(0)[..]).unwrap();
    }
}
