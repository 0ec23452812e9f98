//! Putting a signature behind an image, and the checksum.

use super::Layout;
use super::layout::u32_at;
use crate::error::Error;

/// `WIN_CERTIFICATE.wRevision` 2.0 and `wCertificateType` PKCS #7, as they stand in the file.
const WIN_CERTIFICATE_KIND: [u8; 4] = [0x00, 0x02, 0x02, 0x00];

/// The image as it is before it is signed: without certificate table, filled with zeros to a
/// multiple of 8 bytes (which the digest covers), checksum zero.
pub(crate) fn normalise(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let layout = Layout::read(bytes)?;
    let mut image = bytes[..layout.certificates.start].to_vec();
    image.resize(image.len().next_multiple_of(8), 0);
    image[layout.checksum_at..layout.checksum_at + 4].fill(0);
    image[layout.security_at..layout.security_at + 8].fill(0);
    Ok(image)
}

/// The signed image made of a [`normalise`]d one and the DER of its signature.
pub(crate) fn attach(image: &[u8], signature: &[u8]) -> Result<Vec<u8>, Error> {
    let layout = Layout::read(image)?;
    let length = (8 + signature.len()).next_multiple_of(8);
    let too_large = |_| Error::request("certificate table", "the signed image is over 4 GiB");
    let entry_size = u32::try_from(length).map_err(too_large)?;
    let offset = u32::try_from(image.len()).map_err(too_large)?;
    u32::try_from(image.len() + length).map_err(too_large)?;

    let mut signed = image.to_vec();
    signed.extend_from_slice(&entry_size.to_le_bytes());
    signed.extend_from_slice(&WIN_CERTIFICATE_KIND);
    signed.extend_from_slice(signature);
    signed.resize(image.len() + length, 0);
    signed[layout.security_at..layout.security_at + 4].copy_from_slice(&offset.to_le_bytes());
    signed[layout.security_at + 4..layout.security_at + 8]
        .copy_from_slice(&entry_size.to_le_bytes());
    let sum = checksum(&signed, layout.checksum_at);
    signed[layout.checksum_at..layout.checksum_at + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(signed)
}

/// The DER of the one signature in the certificate table of an image, if it has one.
pub(crate) fn signature<'a>(bytes: &'a [u8], layout: &Layout) -> Result<Option<&'a [u8]>, Error> {
    let place = "certificate table";
    let table = &bytes[layout.certificates.clone()];
    if table.is_empty() {
        return Ok(None);
    }
    let length = u32_at(table, 0, place)? as usize;
    if table.len() < 8 || length.next_multiple_of(8) != table.len() || length < 8 {
        let expected = format!("one entry of {:#x} bytes", table.len());
        return Err(Error::format(place, expected, format!("{length:#x}")));
    }
    if table[4..8] != WIN_CERTIFICATE_KIND {
        let found = crate::digest::hex(&table[4..8]);
        return Err(Error::format(
            place,
            "revision 2.0, type PKCS #7 (00020200)",
            found,
        ));
    }
    without_padding(&table[8..], place).map(Some)
}

/// The element at the start of `bytes`; fewer than 8 zero bytes may follow.
pub(crate) fn without_padding<'a>(bytes: &'a [u8], place: &str) -> Result<&'a [u8], Error> {
    let element = crate::asn1::Elements::new(bytes, "signature").any("ContentInfo")?;
    let padding = &bytes[element.whole.len()..];
    if padding.len() >= 8 || padding.iter().any(|b| *b != 0) {
        let found = format!("{} bytes behind the signature", padding.len());
        return Err(Error::format(
            place,
            "fewer than 8 bytes of zero padding",
            found,
        ));
    }
    Ok(element.whole)
}

/// The checksum of the optional header: the sum of the file's 16-bit words with end-around carry,
/// the checksum field counted as zero, plus the file's length.
pub(crate) fn checksum(bytes: &[u8], checksum_at: usize) -> u32 {
    let mut sum: u64 = 0;
    let words = |bytes: &[u8]| -> u64 {
        let mut sum = 0u64;
        let mut chunks = bytes.chunks_exact(2);
        for pair in &mut chunks {
            sum += u64::from(u16::from_le_bytes([pair[0], pair[1]]));
        }
        if let [last] = chunks.remainder() {
            sum += u64::from(*last);
        }
        sum
    };
    // `e_lfanew` may be odd, so the field is taken out by bytes and not by words.
    sum += words(bytes);
    let odd = checksum_at % 2;
    for (index, byte) in bytes[checksum_at..checksum_at + 4].iter().enumerate() {
        sum -= u64::from(*byte) << (8 * ((index + odd) % 2));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u32).wrapping_add(bytes.len() as u32)
}
