//! Holds what the differ reads from code against the linker's own record, for images whose PDB has
//! one (`/PROFILE`, `/DEBUGTYPE:CV,FIXUP`). Prints a line an image; fails where the two disagree.

use std::process::ExitCode;

use hpbuild_differ::{Differ, Input, diff};

fn main() -> ExitCode {
    let mut agree = true;
    for path in std::env::args().skip(1) {
        let input = Input {
            pe: path.clone().into(),
            pdb: None,
        };
        let differ = Differ {
            base: input.clone(),
            fixed: input,
            symbols: Default::default(),
            policy: Default::default(),
        };
        let image = match diff(&differ, &mut Vec::new()) {
            Ok(Ok(diff)) => diff,
            // Of a kind that is not read.
            Ok(Err(_)) => continue,
            Err(error) => {
                println!("{path}: {error}");
                agree = false;
                continue;
            }
        };
        let Some(check) = image.base.check_fixups() else {
            continue;
        };
        println!(
            "{path}: {} fixups in functions, {} found, {} missed, {} imagined",
            check.fixups,
            check.found,
            check.missed.len(),
            check.imagined.len()
        );
        for (what, places) in [("missed", &check.missed), ("imagined", &check.imagined)] {
            for place in places.iter().take(8) {
                println!("  {what} at rva {place:#x}");
            }
        }
        agree &= check.missed.is_empty() && check.imagined.is_empty();
    }
    if agree {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
