#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn txid_is_printed_as_16_digits_and_read_with_or_without_leading_zeros() {
    let txid: Txid = "1a".parse().unwrap();
    assert_eq!(txid.get(), 26);
    assert_eq!(txid.to_string(), "000000000000001a");
    assert_eq!("000000000000001A".parse::<Txid>().unwrap(), txid);
    assert_eq!("ffffffffffffffff".parse::<Txid>().unwrap().get(), u64::MAX);
}

#[test]
fn txid_refuses_zero_and_what_is_no_number() {
    for text in
        ["", "0", "0000000000000000", "+1", "-1", " 1", "1 ", "0x1", "g", "00000000000000001"]
    {
        let error = text.parse::<Txid>().unwrap_err().to_string();
        assert_eq!(error, format!("TXID is not 1 to 16 hexadecimal digits, not zero: {text}"));
    }
    assert!(Txid::new(0).is_err());
}

#[test]
fn next_txid_of_the_last_one_does_not_wrap() {
    assert_eq!(Txid::FIRST.next().get(), 2);
    assert_eq!(Txid::new(u64::MAX).unwrap().next().get(), u64::MAX);
}

#[test]
fn file_name_and_range_are_each_others_inverse() {
    let range = TxidRange::new(Txid::FIRST, Txid::new(0xabc).unwrap()).unwrap();
    assert_eq!(range.file_name(), "0000000000000001-0000000000000abc.ltx");
    assert_eq!(TxidRange::from_file_name(&range.file_name()).unwrap(), range);
    assert!(range.is_snapshot());
    assert!(!TxidRange::single(Txid::new(2).unwrap()).is_snapshot());
}

#[test]
fn file_name_in_any_other_form_is_refused() {
    for name in [
        "",
        "0000000000000001-0000000000000002",
        "0000000000000001-0000000000000002.ltx.tmp",
        "0000000000000001-0000000000000002.LTX",
        "0000000000000001_0000000000000002.ltx",
        "000000000000001-0000000000000002.ltx",
        "00000000000000001-0000000000000002.ltx",
        "000000000000000A-000000000000000B.ltx",
        "000000000000000g-000000000000000b.ltx",
        "0000000000000000-0000000000000002.ltx",
        "0000000000000003-0000000000000002.ltx",
        "0000000000000001-0000000000000002-0000000000000003.ltx",
        "x/0000000000000001-0000000000000002.ltx",
    ] {
        assert!(TxidRange::from_file_name(name).is_err(), "{name}");
    }
}

#[test]
fn level_is_0_to_9() {
    assert_eq!(Level::all().map(Level::get).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(Level::new(9).unwrap(), Level::SNAPSHOT);
    assert!(Level::new(10).is_err());
}

#[test]
fn generation_is_read_in_its_one_form_only() {
    let text = "0196b0a8-77e4-7cc3-98c4-dc0c0c07398f";
    let id: GenerationId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    let upper = text.to_uppercase();
    for other in
        ["", "0196b0a877e47cc398c4dc0c0c07398f", &upper, "{0196b0a8-77e4-7cc3-98c4-dc0c0c07398f}"]
    {
        assert!(other.parse::<GenerationId>().is_err(), "{other}");
        assert!(serde_json::from_value::<GenerationId>(other.into()).is_err(), "{other}");
    }
    assert_eq!(serde_json::to_value(id).unwrap(), text);
}
