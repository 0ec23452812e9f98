//! Repacks a PDB into small blocks.
//!
//! A PDB is a container of streams (MSF, the multi-stream format) that are cut into blocks of one
//! size. lld always takes 4096 bytes, so the PDB of a few functions, some twenty streams of a few
//! hundred bytes, is 90 KB of mostly nothing. The prebuilt fixtures are in the repository and the
//! demo pair is in the program, so they are stored again in blocks of 512 bytes, which every
//! reader must know anyway. The streams stay byte for byte what the linker wrote.

use anyhow::{Context, Result, bail};

const MAGIC: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";

/// The smallest block size of the format.
const SMALL: usize = 512;

/// Size of a stream that does not exist.
const NIL: u32 = u32::MAX;

/// The same streams in blocks of 512 bytes.
///
/// # Errors
/// `pdb` is not a complete PDB.
pub(crate) fn repack(pdb: &[u8]) -> Result<Vec<u8>> {
    write(&read(pdb)?)
}

/// Every stream, `None` for one that does not exist.
fn read(pdb: &[u8]) -> Result<Vec<Option<Vec<u8>>>> {
    if !pdb.starts_with(MAGIC) {
        bail!("the file is not a PDB");
    }
    let block_size = word(pdb, 32)? as usize;
    let directory_size = word(pdb, 44)? as usize;
    let map_block = word(pdb, 52)? as usize;
    let block = |number: u32| -> Result<&[u8]> {
        let start = number as usize * block_size;
        pdb.get(start..start + block_size)
            .context("a block lies outside the PDB")
    };
    let gather = |size: usize, numbers: &[u32]| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &number in numbers {
            bytes.extend_from_slice(block(number)?);
        }
        bytes.truncate(size);
        Ok(bytes)
    };
    let words = |bytes: &[u8], at: usize, count: usize| -> Result<Vec<u32>> {
        (0..count)
            .map(|index| word(bytes, at + 4 * index))
            .collect()
    };
    let directory_blocks = words(
        pdb,
        map_block * block_size,
        directory_size.div_ceil(block_size),
    )?;
    let directory = gather(directory_size, &directory_blocks)?;
    let count = word(&directory, 0)? as usize;
    let sizes = words(&directory, 4, count)?;
    let mut at = 4 + 4 * count;
    let mut streams = Vec::new();
    for size in sizes {
        if size == NIL {
            streams.push(None);
            continue;
        }
        let blocks = (size as usize).div_ceil(block_size);
        streams.push(Some(gather(
            size as usize,
            &words(&directory, at, blocks)?,
        )?));
        at += 4 * blocks;
    }
    Ok(streams)
}

fn write(streams: &[Option<Vec<u8>>]) -> Result<Vec<u8>> {
    // Block 0 is the header; blocks 1 and 2 of every 512 are the two maps of free blocks.
    let mut file = vec![0; 3 * SMALL];
    let mut directory = (streams.len() as u32).to_le_bytes().to_vec();
    for stream in streams {
        let size = stream.as_ref().map_or(NIL, |bytes| bytes.len() as u32);
        directory.extend_from_slice(&size.to_le_bytes());
    }
    for stream in streams.iter().flatten() {
        for number in append(&mut file, stream) {
            directory.extend_from_slice(&number.to_le_bytes());
        }
    }
    let blocks = append(&mut file, &directory);
    let map: Vec<u8> = blocks
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let &[map_block] = append(&mut file, &map).as_slice() else {
        bail!("the PDB has more streams than small blocks can list");
    };
    let count = file.len() / SMALL;
    // A set bit means free: all behind the end of the file, and none before it.
    for interval in 0..count.div_ceil(SMALL) {
        for bit in 0..8 * SMALL {
            let number = interval * 8 * SMALL + bit;
            if number >= count {
                file[(interval * SMALL + 1) * SMALL + bit / 8] |= 1 << (bit % 8);
            }
        }
    }
    file[..32].copy_from_slice(MAGIC);
    for (index, value) in [SMALL, 1, count, directory.len(), 0]
        .into_iter()
        .enumerate()
    {
        file[32 + 4 * index..][..4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    file[52..56].copy_from_slice(&map_block.to_le_bytes());
    Ok(file)
}

/// Appends the bytes in whole blocks and gives their numbers.
fn append(file: &mut Vec<u8>, bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    for piece in bytes.chunks(SMALL) {
        if (file.len() / SMALL) % SMALL == 1 {
            file.resize(file.len() + 2 * SMALL, 0);
        }
        numbers.push((file.len() / SMALL) as u32);
        file.extend_from_slice(piece);
        file.resize(file.len().next_multiple_of(SMALL), 0);
    }
    numbers
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("the PDB is cut short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_survive_in_small_blocks() {
        // The second stream alone needs more blocks than lie between two maps of free blocks.
        let long = (0..700 * SMALL).map(|it| it as u8).collect();
        let streams = vec![Some(vec![]), Some(long), None, Some(vec![7; 513])];
        let packed = write(&streams).expect("can be listed");
        assert_eq!(read(&packed).expect("a PDB"), streams);
        assert_eq!(repack(&packed).expect("a PDB"), packed);
    }

    #[test]
    fn what_is_not_a_pdb_is_refused() {
        let packed = write(&[Some(vec![1; 2000])]).expect("can be listed");
        assert!(read(&packed[..packed.len() - SMALL]).is_err());
        assert!(read(&packed[1..]).is_err());
    }
}
