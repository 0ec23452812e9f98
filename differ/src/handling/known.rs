//! Which handler it is, and so how its data looks.

use hpbuild_metadata::{Rva, Side};

use crate::image::{FunctionKind, Image};
use crate::pe::ImportSymbol;

/// Handlers whose data is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// C++, by tables of words; the data of the stack cookie may follow their address.
    Cxx3 {
        /// Whether it does.
        cookie: bool,
    },
    /// C++, by packed tables.
    Cxx4 {
        /// Whether the stack cookie's data follows.
        cookie: bool,
    },
    /// `__try` blocks, by a scope table.
    Scopes {
        /// Whether the stack cookie's data follows.
        cookie: bool,
    },
    /// The check of the stack cookie and nothing else.
    Cookie,
    /// A personality routine of the Itanium C++ ABI: GCC's, Rust's.
    Itanium,
}

impl Handler {
    /// The handler at an address: that of a known name, the names of folded functions and of an
    /// import behind a thunk included.
    pub fn at<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Self> {
        names(image, rva).into_iter().find_map(Self::of)
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "__CxxFrameHandler" | "__CxxFrameHandler2" | "__CxxFrameHandler3" => {
                Handler::Cxx3 { cookie: false }
            }
            "__GSHandlerCheck_EH" => Handler::Cxx3 { cookie: true },
            "__CxxFrameHandler4" => Handler::Cxx4 { cookie: false },
            "__GSHandlerCheck_EH4" => Handler::Cxx4 { cookie: true },
            "__C_specific_handler" | "__C_specific_handler_noexcept" => {
                Handler::Scopes { cookie: false }
            }
            "__GSHandlerCheck_SEH" | "__GSHandlerCheck_SEH_noexcept" => {
                Handler::Scopes { cookie: true }
            }
            "__GSHandlerCheck" => Handler::Cookie,
            "__gxx_personality_seh0"
            | "__gcc_personality_seh0"
            | "__gnat_personality_seh0"
            | "__gnu_objc_personality_seh0"
            | "rust_eh_personality" => Handler::Itanium,
            _ => return None,
        })
    }

    /// Whether the place of the stack cookie is told behind its own data.
    pub fn has_cookie(self) -> bool {
        matches!(
            self,
            Handler::Cookie
                | Handler::Cxx3 { cookie: true }
                | Handler::Cxx4 { cookie: true }
                | Handler::Scopes { cookie: true }
        )
    }
}

/// The names of the function at `rva`, and of the import that it passes on to.
fn names<S: Side>(image: &Image<S>, rva: Rva<S>) -> Vec<&str> {
    let Some(id) = image.function_at(rva) else {
        return Vec::new();
    };
    let id = image.behind_trampoline(id);
    let mut names: Vec<&str> = Vec::new();
    let function = image.function(id);
    if function.kind == FunctionKind::Thunk || function.size <= 12 {
        let reached = image.references_of(id).iter();
        for import in reached.filter_map(|placed| image.pe.import_at(placed.reference.target)) {
            if let ImportSymbol::Name(name) = &import.symbol {
                names.push(name);
            }
        }
    }
    for procedure in image.procedures_of(id) {
        names.push(&procedure.name);
        names.extend(procedure.decorated.as_deref());
    }
    names
}
