//! A pair of very many small functions, generated, compiled and kept.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;
use crate::toolchain::Toolchain;

/// Functions of one source file.
const PER_FILE: u32 = 4000;

/// One function in so many is different in the fixed image.
const CHANGED: u32 = 20_011;

const COMPILE: [&str; 9] = [
    "--target=x86_64-pc-windows-msvc",
    "-c",
    "-O1",
    "-g",
    "-gcodeview",
    "-gno-codeview-command-line",
    "-ffunction-sections",
    "-fms-hotpatch",
    "-ffreestanding",
];

const LINK: [&str; 8] = [
    "/dll",
    "/noentry",
    "/nodefaultlib",
    "/debug",
    "/brepro",
    "/release",
    "/opt:noref,noicf",
    "/functionpadmin:16",
];

/// The two images, made where they are not there yet; `None` where the tools are missing.
///
/// # Errors
/// A tool fails, or a file cannot be written.
pub(super) fn build(folder: &Path, functions: u32) -> Result<Option<[PathBuf; 2]>> {
    let folder = folder.join(functions.to_string());
    let images = ["base", "fixed"].map(|side| folder.join(side).join("synthetic.dll"));
    if images.iter().all(|image| image.is_file()) {
        return Ok(Some(images));
    }
    let tools = match Toolchain::find() {
        Ok(tools) => tools,
        Err(error) => {
            eprintln!("synthetic: skipped: {error:#}");
            return Ok(None);
        }
    };
    run::step(&format!("compile {functions} functions, twice"));
    let objects = folder.join("obj");
    fs::create_dir_all(&objects)?;
    let files = functions.div_ceil(PER_FILE);
    // What is the same on both sides is compiled once.
    let mut jobs = Vec::new();
    let mut sides = [Vec::new(), Vec::new()];
    for file in 0..files {
        let base = source(file, functions, false);
        let fixed = source(file, functions, true);
        let name = format!("part{file}");
        sides[0].push(name.clone());
        if base == fixed {
            sides[1].push(name.clone());
        } else {
            let name = format!("part{file}_fixed");
            sides[1].push(name.clone());
            jobs.push((name, fixed));
        }
        jobs.push((name, base));
    }
    run::in_parallel(jobs, |(name, text)| {
        let object = objects.join(format!("{name}.obj"));
        // An interrupted run goes on where it ended: the compiler renames what it completed.
        if object.is_file() {
            return Ok(());
        }
        // One name for both sides: it is in the debug information.
        let scratch = tempfile::tempdir()?;
        let source = scratch.path().join("part.c");
        fs::write(&source, text)?;
        let mut clang = tools.clang();
        clang.current_dir(scratch.path()).args(COMPILE);
        run::captured(clang.args(["part.c", "-o"]).arg(object)).map(drop)
    })?;
    for (image, names) in images.iter().zip(sides) {
        let side = image.parent().context("an image lies in a folder")?;
        fs::create_dir_all(side)?;
        // The command line would be too long.
        let list: String = names.iter().map(|name| format!("{name}.obj\n")).collect();
        let response = side.join("objects.txt");
        fs::write(&response, list)?;
        let mut linker = tools.lld_link();
        linker.current_dir(&objects).args(LINK);
        linker.arg(format!("@{}", response.display()));
        linker.arg(format!("/pdb:{}", image.with_extension("pdb").display()));
        run::captured(linker.arg(format!("/out:{}", image.display())))?;
    }
    fs::remove_dir_all(&objects)?;
    Ok(Some(images))
}

/// One source: functions that read and write globals, use strings, floats and a constant table,
/// branch, switch, and call functions of their own file and of the next one.
fn source(file: u32, functions: u32, is_fixed: bool) -> String {
    let first = file * PER_FILE;
    let last = functions.min(first + PER_FILE);
    let mut text = String::new();
    if file == 0 {
        text.push_str("int _fltused;\n");
    }
    for k in 0..16 {
        let _ = writeln!(text, "int g{file}_{k}; static int s{file}_{k} = {k};");
    }
    let _ = writeln!(
        text,
        "static const int table{file}[8] = {{9,8,7,6,5,4,3,2}};"
    );
    let _ = writeln!(text, "const char *volatile said{file};");
    for id in first..last {
        let other = (id + PER_FILE) % functions;
        let near = first + (id.wrapping_mul(7919) % (last - first));
        let _ = writeln!(text, "int f{near}(int, int); int f{other}(int, int);");
        let fix = if is_fixed && id % CHANGED == 77 {
            "if (a > 4096) return -1;"
        } else {
            ""
        };
        let (g, s) = (id % 16, id % 13);
        let body = match id % 5 {
            0 => format!("said{file} = \"text of {id}\"; return f{near}(b, a) + g{file}_{g};"),
            1 => format!("g{file}_{g} += table{file}[a & 7]; return f{other}(a, {id}) * 3;"),
            2 => format!("for (int i = 0; i < b; i++) s{file}_{s} += f{near}(i, a); return a;"),
            3 => format!("return (int)(a * {id}.5) + f{near}(a, 1) + s{file}_{s};"),
            _ => format!(
                "switch (a) {{ case 0: return f{near}(b, 2); case 1: g{file}_{g} = b; return 5; \
                 case 2: return f{other}(1, a); case 3: return b * {id}; \
                 case 4: s{file}_{s} = a; return 2; default: return b - {id}; }}"
            ),
        };
        let _ = writeln!(text, "int f{id}(int a, int b) {{ {fix} {body} }}");
    }
    text
}
