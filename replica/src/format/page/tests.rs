#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn page_size_is_a_power_of_two_in_512_to_65536() {
    let valid: Vec<u32> = (0..=131_072).filter(|size| PageSize::new(*size).is_ok()).collect();
    assert_eq!(valid, [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
}

#[test]
fn lock_page_holds_the_byte_at_one_gibibyte() {
    for power in 9..=16 {
        let size = PageSize::new(1 << power).unwrap();
        let start = size.lock_page().file_offset(size);
        assert_eq!(start, 1 << 30, "page size {size}");
    }
    assert_eq!(PageSize::new(4096).unwrap().lock_page().get(), 262_145);
}

#[test]
fn page_offset_of_a_large_database_does_not_overflow() {
    let size = PageSize::new(65536).unwrap();
    let last = PageNumber::new(u32::MAX).unwrap();
    assert_eq!(last.file_offset(size), (u64::from(u32::MAX) - 1) * 65536);
}

#[test]
fn zero_is_no_page_number_in_json_either() {
    assert!(PageNumber::new(0).is_err());
    assert!(serde_json::from_str::<PageNumber>("0").is_err());
    assert_eq!(serde_json::from_str::<PageNumber>("7").unwrap().get(), 7);
}
