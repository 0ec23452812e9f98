//! Page hashes: a digest of every page of the image, so that Windows can check a page when it is
//! read in instead of the whole file when it is opened.
//!
//! The value is a list of entries, a little-endian u32 file offset and the digest of the page
//! there, filled with zeros to the page's size: first the headers, then the raw data of each
//! section, then an entry of zeros at the end of the last one. No public document describes it;
//! the layout is the one that existing signing tools write, and the tests compare with theirs.

use super::Layout;
use crate::digest::DigestAlgorithm;
use crate::error::Error;

/// The list of page hashes of a [`super::normalise`]d or signed image.
pub(crate) fn page_hashes(
    bytes: &[u8],
    layout: &Layout,
    algorithm: DigestAlgorithm,
) -> Result<Vec<u8>, Error> {
    let page = layout.section_alignment as usize;
    if page != 0x1000 {
        let expected = "0x1000, for page hashes";
        let found = format!("{page:#x}");
        return Err(Error::format(
            "optional header: SectionAlignment",
            expected,
            found,
        ));
    }
    let zeros = vec![0u8; page];
    let mut list = Vec::new();
    let mut entry = |offset: u32, digest: &[u8]| {
        list.extend_from_slice(&offset.to_le_bytes());
        list.extend_from_slice(digest);
    };
    let headers = [
        &bytes[..layout.checksum_at],
        &bytes[layout.checksum_at + 4..layout.security_at],
        &bytes[layout.security_at + 8..layout.size_of_headers],
        &zeros[..page.saturating_sub(layout.size_of_headers)],
    ];
    entry(0, &algorithm.digest_parts(&headers));
    let mut end = layout.size_of_headers as u32;
    for section in layout.sections.iter().filter(|s| s.raw_size != 0) {
        // `Layout` has checked that the raw data lies inside the file.
        let start = section.raw_offset as usize;
        let raw = &bytes[start..start + section.raw_size as usize];
        for (index, part) in raw.chunks(page).enumerate() {
            let digest = algorithm.digest_parts(&[part, &zeros[part.len()..]]);
            entry(section.raw_offset + (index * page) as u32, &digest);
        }
        end = section.raw_offset + section.raw_size;
    }
    entry(end, &zeros[..algorithm.size()]);
    Ok(list)
}
