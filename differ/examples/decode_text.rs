//! The floor under comparing: decodes the code of both images once and does nothing else.
//!
//! `decode_text JOBS BASE FIXED` reads two x64 images and decodes their executable sections with
//! `iced-x86` on as many threads, as one long run of instructions. Prints how many bytes and
//! instructions that were. `cargo xtask bench` runs it beside `hpbuild diff`.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::LittleEndian;
use object::pe::{IMAGE_SCN_MEM_EXECUTE, ImageNtHeaders64};
use object::read::pe::PeFile;
use rayon::prelude::*;

/// Bytes that one task decodes. An instruction cut at the seam costs one misread.
const CHUNK: usize = 64 * 1024;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let jobs = arguments.next().context("JOBS BASE FIXED")?.parse()?;
    let images = arguments
        .map(|path| std::fs::read(&path).with_context(|| path))
        .collect::<Result<Vec<_>>>()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build()?;
    let mut chunks = Vec::new();
    for image in &images {
        let pe = PeFile::<ImageNtHeaders64>::parse(image.as_slice())?;
        for section in pe.section_table().iter() {
            if section.characteristics.get(LittleEndian).0 & IMAGE_SCN_MEM_EXECUTE.0 != 0 {
                chunks.extend(section.pe_data(image.as_slice())?.chunks(CHUNK));
            }
        }
    }
    let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let instructions: u64 = pool.install(|| chunks.par_iter().map(|chunk| decode(chunk)).sum());
    println!("{bytes} {instructions}");
    Ok(())
}

fn decode(code: &[u8]) -> u64 {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut count = 0;
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        // What is not looked at would not have to be decoded.
        std::hint::black_box(&instruction);
        count += 1;
    }
    count
}
