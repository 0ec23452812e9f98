//! The TLS directory.

use hpbuild_metadata::Side;

use super::Tls;
use super::headers::{Headers, directory};
use super::view::{Fault, View, u32_at, u64_at};

pub(super) fn read<S: Side>(
    view: &View<'_, S>,
    headers: &Headers,
) -> Result<Option<Tls<S>>, Fault> {
    let Some((start, _)) = headers.directory(directory::TLS) else {
        return Ok(None);
    };
    let bytes: [u8; 40] = view.mapped(start, "TLS directory")?;
    let (from, to) = (u64_at(&bytes, 0), u64_at(&bytes, 8));
    let what = "TLS directory StartAddressOfRawData";
    let template = match view.rva_of(from, what)? {
        None => None,
        Some(rva) => {
            let size = to
                .checked_sub(from)
                .and_then(|size| u32::try_from(size).ok());
            let end = size.and_then(|size| rva.checked_add(size));
            match (size, end) {
                (Some(size), Some(end)) if end.get() <= view.image_size => Some((rva, size)),
                _ => {
                    return Err(Fault::new(
                        "TLS directory EndAddressOfRawData",
                        format!("an address inside the image, not before {from:#x}"),
                        format!("{to:#x}"),
                    ));
                }
            }
        }
    };
    let mut callbacks = Vec::new();
    if let Some(list) = view.rva_of(u64_at(&bytes, 24), "TLS directory AddressOfCallBacks")? {
        let what = "TLS callback";
        let mut at = list.get();
        while let Some(callback) = view.rva_of(view.u64(at, what)?, what)? {
            callbacks.push(callback);
            // A callback lies inside the image, so the list is far from the end of the range.
            at = at.saturating_add(8);
        }
    }
    Ok(Some(Tls {
        template,
        index: view.rva_of(u64_at(&bytes, 16), "TLS directory AddressOfIndex")?,
        callbacks,
        zero_fill: u32_at(&bytes, 32),
    }))
}
