//! Variables of functions, as records have them.

/// A variable by its record, or an object that is allocated.
pub(super) struct Variable<'a> {
    /// Its type.
    pub(super) ty: u32,
    pub(super) name: &'a [u8],
    pub(super) is_parameter: bool,
    /// Whether it is an object that is allocated, which has no name.
    pub(super) is_allocated: bool,
}

impl<'a> Variable<'a> {
    /// Reads one of `S_LOCAL`, `S_REGISTER`, `S_BPREL32`, `S_REGREL32` and `S_HEAPALLOCSITE`
    /// (`cvinfo.h`).
    pub(super) fn of(kind: u16, data: &'a [u8]) -> Option<Self> {
        let (type_at, name_at) = match kind {
            0x113e | 0x1106 => (0, 6),
            0x110b => (4, 8),
            0x1111 => (4, 10),
            0x115e => (8, data.len()),
            _ => return None,
        };
        /// `CV_LVARFLAGS`: the variable is a parameter.
        const PARAMETER: u8 = 1;
        let ty = data.get(type_at..)?.first_chunk()?;
        Some(Self {
            ty: u32::from_le_bytes(*ty),
            name: data.get(name_at..)?.split(|byte| *byte == 0).next()?,
            is_parameter: kind == 0x113e && data.get(4)? & PARAMETER != 0,
            is_allocated: kind == 0x115e,
        })
    }
}
