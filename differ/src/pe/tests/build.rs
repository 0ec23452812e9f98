//! A PE writer just large enough for the tests: one header page, sections one after another.

/// Distance between sections, and the address of the first one.
pub(super) const PAGE: u32 = 0x1000;
/// The image base of every image made here.
pub(super) const IMAGE_BASE: u64 = 0x1_8000_0000;

/// An image under construction.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) machine: u16,
    pub(super) magic: u16,
    pub(super) entry_point: u32,
    pub(super) section_alignment: u32,
    pub(super) directories: [(u32, u32); 16],
    /// Name, bytes and characteristics.
    pub(super) sections: Vec<(&'static str, Vec<u8>, u32)>,
}

impl Image {
    pub(super) fn new(machine: u16) -> Self {
        Self {
            machine,
            magic: if machine == 0x14c { 0x10b } else { 0x20b },
            entry_point: 0,
            section_alignment: PAGE,
            directories: [(0, 0); 16],
            sections: Vec::new(),
        }
    }

    /// Adds a section of one page or less and returns its address.
    pub(super) fn section(&mut self, name: &'static str, bytes: &[u8], flags: u32) -> u32 {
        assert!(bytes.len() <= PAGE as usize);
        self.sections.push((name, bytes.to_vec(), flags));
        self.sections.len() as u32 * PAGE
    }

    /// Adds a read-only section whose start a directory points at.
    pub(super) fn directory(mut self, index: usize, bytes: &[u8]) -> Self {
        let rva = self.section(".rdata", bytes, 0x4000_0040);
        self.directories[index] = (rva, bytes.len() as u32);
        self
    }

    /// The file.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x40u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &self.machine.to_le_bytes());
        put(0x46, &(self.sections.len() as u16).to_le_bytes());
        put(0x48, &0x1234_5678u32.to_le_bytes());
        let fixed: usize = if self.magic == 0x10b { 96 } else { 112 };
        put(0x54, &(fixed as u16 + 128).to_le_bytes());
        put(0x56, &0x2022u16.to_le_bytes());
        let optional = 0x58;
        put(optional, &self.magic.to_le_bytes());
        put(optional + 16, &self.entry_point.to_le_bytes());
        if self.magic == 0x10b {
            put(optional + 28, &0x1000_0000u32.to_le_bytes());
        } else {
            put(optional + 24, &IMAGE_BASE.to_le_bytes());
        }
        put(optional + 32, &self.section_alignment.to_le_bytes());
        put(optional + 36, &0x200u32.to_le_bytes());
        put(
            optional + 56,
            &(PAGE * (self.sections.len() as u32 + 1)).to_le_bytes(),
        );
        put(optional + 60, &0x400u32.to_le_bytes());
        put(optional + 64, &0x9abcu32.to_le_bytes());
        put(optional + fixed - 4, &16u32.to_le_bytes());
        for (index, (rva, size)) in self.directories.iter().enumerate() {
            put(optional + fixed + 8 * index, &rva.to_le_bytes());
            put(optional + fixed + 8 * index + 4, &size.to_le_bytes());
        }
        for (index, (name, bytes, flags)) in self.sections.iter().enumerate() {
            let header = optional + fixed + 128 + 40 * index;
            let place = file.len() as u32;
            let padded = bytes.len().next_multiple_of(0x200);
            let mut put =
                |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
            put(header, name.as_bytes());
            put(header + 8, &(bytes.len() as u32).to_le_bytes());
            put(header + 12, &(PAGE * (index as u32 + 1)).to_le_bytes());
            put(header + 16, &(padded as u32).to_le_bytes());
            put(header + 20, &place.to_le_bytes());
            put(header + 36, &flags.to_le_bytes());
            file.extend_from_slice(bytes);
            file.resize(place as usize + padded, 0);
        }
        file
    }
}

/// Little-endian words one after another.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Writes `bytes` into `to` at `at`.
pub(super) fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}
