use super::bytes::Reader;
use super::{Handler, NotUnderstood};

/// The numbers of `__CxxFrameHandler4`, each length at its limits.
#[test]
fn packed_numbers() {
    let cases: [(&[u8], u32); 8] = [
        (&[0x00], 0),
        (&[0xfe], 0x7f),
        (&[0x01, 0x02], 0x80),
        (&[0xfd, 0xff], 0x3fff),
        (&[0x03, 0x00, 0x02], 0x4000),
        (&[0xf7, 0xff, 0xff, 0xff], 0x0fff_ffff),
        (&[0x0f, 0x00, 0x00, 0x00, 0x10], 0x1000_0000),
        (&[0x0f, 0xff, 0xff, 0xff, 0xff], u32::MAX),
    ];
    for (bytes, value) in cases {
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.packed(), Ok(value), "{bytes:x?}");
        assert_eq!(reader.left(), 0, "{bytes:x?}");
        // One byte short is no number.
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(Reader::new(cut).packed(), Err(NotUnderstood), "{cut:x?}");
    }
}

#[test]
fn leb128() {
    assert_eq!(Reader::new(&[0xe5, 0x8e, 0x26]).uleb(), Ok(624_485));
    assert_eq!(Reader::new(&[0xc0, 0xbb, 0x78]).sleb(), Ok(-123_456));
    assert_eq!(Reader::new(&[0x7f]).sleb(), Ok(-1));
    assert_eq!(Reader::new(&[0x80; 20]).uleb(), Err(NotUnderstood));
    assert_eq!(Reader::new(&[0x80]).sleb(), Err(NotUnderstood));
}

#[test]
fn handlers_by_name() {
    let cookies = |name| Handler::of(name).map(Handler::has_cookie);
    assert_eq!(cookies("__CxxFrameHandler4"), Some(false));
    assert_eq!(cookies("__GSHandlerCheck_EH4"), Some(true));
    assert_eq!(cookies("__C_specific_handler"), Some(false));
    assert_eq!(cookies("__GSHandlerCheck_SEH"), Some(true));
    assert_eq!(cookies("__GSHandlerCheck"), Some(true));
    assert_eq!(cookies("somebody_elses_handler"), None);
}
