//! The container of a PDB: streams in blocks, and a directory of the blocks.

const BLOCK: usize = 4096;
const MAGIC: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";

/// The file that holds `streams`, by number.
///
/// # Panics
/// When the file would be larger than one free block map describes (128 MiB), which no table of
/// names of a patch reaches.
pub(super) fn container(streams: &[Vec<u8>]) -> Vec<u8> {
    let mut blocks = Blocks::new();
    let mut directory = Vec::new();
    let mut put = |value: usize| directory.extend((value as u32).to_le_bytes());
    put(streams.len());
    streams.iter().for_each(|stream| put(stream.len()));
    for stream in streams {
        blocks.add(stream).into_iter().for_each(&mut put);
    }
    let map: Vec<u8> = blocks
        .add(&directory)
        .into_iter()
        .flat_map(|block| (block as u32).to_le_bytes())
        .collect();
    assert!(map.len() <= BLOCK, "the directory of blocks fits one block");
    let map_block = blocks.add(&map)[0];
    blocks.finish(directory.len(), map_block)
}

/// The file under construction. Blocks 1 and 2 of every 4096 belong to the free block maps.
struct Blocks {
    file: Vec<u8>,
}

impl Blocks {
    fn new() -> Self {
        Self {
            file: vec![0; BLOCK],
        }
    }

    /// Appends `bytes` and tells in which blocks.
    fn add(&mut self, bytes: &[u8]) -> Vec<usize> {
        let mut used = Vec::new();
        for part in bytes.chunks(BLOCK) {
            while matches!(self.file.len() / BLOCK % BLOCK, 1 | 2) {
                self.file.resize(self.file.len() + BLOCK, 0xff);
            }
            used.push(self.file.len() / BLOCK);
            self.file.extend_from_slice(part);
            self.file.resize(self.file.len().next_multiple_of(BLOCK), 0);
        }
        used
    }

    /// Writes the free block map, in which a set bit is a free block, and the head.
    fn finish(mut self, directory_size: usize, map_block: usize) -> Vec<u8> {
        let count = self.file.len() / BLOCK;
        assert!(count <= 8 * BLOCK, "a container of at most 128 MiB");
        for block in 0..count {
            self.file[BLOCK + block / 8] &= !(1 << (block % 8));
        }
        self.file[..32].copy_from_slice(MAGIC);
        let head = [BLOCK, 1, count, directory_size, 0, map_block];
        for (index, value) in head.into_iter().enumerate() {
            let at = 32 + 4 * index;
            self.file[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        self.file
    }
}
