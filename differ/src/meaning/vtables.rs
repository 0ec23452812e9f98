//! What stands in front of the functions of a vtable: code and objects hold the address of the first
//! function, and reach back from there.

use hpbuild_metadata::{Rva, Side};

use super::content::pointer_at;
use super::extent::comdat;
use super::{Extent, Target, is_read_only, resolve};
use crate::image::Image;
use crate::names::is_itanium_vtable;
use crate::read::is_locator;

/// How the linkage names of what tells the class of an object begin.
const LOCATOR: &str = "??_R4";
/// Those of the vtables of objects under construction (Itanium C++ ABI, 5.1.4).
const UNDER_CONSTRUCTION: &str = "_ZTC";
/// Longer mangled names of types are not looked for.
const MAX_TYPE_NAME: usize = 1 << 12;

/// The whole of what has a section of its own and no name, and of a vtable of the Itanium C++ ABI.
pub(super) fn reached_back<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    match resolve(image, rva) {
        Target::Anonymous(_) => comdat(image, rva),
        Target::Data { id, .. } => {
            let symbol = image.data_symbol(id);
            let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
            let is_vtable = is_itanium_vtable(linkage) || linkage.starts_with(UNDER_CONSTRUCTION);
            is_vtable.then_some(Extent {
                rva: symbol.rva,
                size: symbol.size,
                exact: symbol.sized_by_type,
            })
        }
        _ => None,
    }
}

/// The run-time type information that the pointer before a vtable leads to.
pub(super) fn locator<S: Side>(image: &Image<S>, vtable: Rva<S>) -> Option<Rva<S>> {
    let place = Rva::new(vtable.get().checked_sub(8)?);
    if !image.pe.relocations_in(place, 8).contains(&place) {
        return None;
    }
    let target = pointer_at(image, place, true)?;
    let is_named = image.data_at(target).is_some_and(|id| {
        image.data_aliases(id).any(|id| {
            let symbol = image.data_symbol(id);
            let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
            symbol.rva == target && linkage.starts_with(LOCATOR)
        })
    });
    let is_told = is_named || is_locator(&image.pe, target) || is_type_info(image, target);
    is_told.then_some(target)
}

/// Whether this is type information of the Itanium C++ ABI, by what is in it: compilers keep the names
/// of classes that one object knows to themselves. Its second word leads to the mangled name.
fn is_type_info<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let place = rva.checked_add(8);
    let place = place.filter(|it| image.pe.relocations_in(*it, 8).contains(it));
    let name = place.and_then(|place| pointer_at(image, place, true));
    let name = name.filter(|name| is_read_only(image, *name) && is_read_only(image, rva));
    name.is_some_and(|name| {
        // GCC marks names that are compared by their address.
        let bytes = image.pe.bytes_from(name).iter().take(MAX_TYPE_NAME);
        let mut letters = bytes.skip_while(|byte| **byte == b'*').peekable();
        let is_name = letters
            .peek()
            .is_some_and(|first| first.is_ascii_alphanumeric());
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.".contains(byte);
        is_name && letters.find(|byte| !is_letter(byte)) == Some(&0)
    })
}
