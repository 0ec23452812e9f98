//! Every place where a PDB is looked for, from outside.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use hpbuild_fixtures::demo;

use crate::program::{Run, Workspace, program, run};

/// The pair with no PDB beside it; the fixed one's is named.
struct Files {
    workspace: Workspace,
    pdb: Vec<u8>,
    /// GUID and age as stores have them.
    key: String,
}

impl Files {
    fn new() -> Self {
        let workspace = Workspace::new();
        let pdb = std::fs::read(workspace.base_pdb()).unwrap();
        std::fs::remove_file(workspace.base_pdb()).unwrap();
        // An RSDS record: GUID, age, name.
        let dll = demo::X64.base.dll.bytes;
        let at = dll.windows(4).position(|four| four == b"RSDS").unwrap();
        let field = |at: usize, size: usize| dll[at..at + size].iter();
        let hex = |bytes: &mut dyn Iterator<Item = &u8>| -> String {
            bytes.map(|byte| format!("{byte:02X}")).collect()
        };
        let guid = [
            hex(&mut field(at + 4, 4).rev()),
            hex(&mut field(at + 8, 2).rev()),
            hex(&mut field(at + 10, 2).rev()),
            hex(&mut field(at + 12, 8)),
        ];
        let age = u32::from_le_bytes(*dll[at + 20..].first_chunk().unwrap());
        let key = format!("{}{age:X}", guid.concat());
        Self {
            workspace,
            pdb,
            key,
        }
    }

    /// Puts the PDB of the base there.
    fn put(&self, path: &str) {
        self.write(path, &self.pdb);
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.workspace.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn diff(&self, symbols: Option<&Path>, symbol_path: Option<&str>) -> Run {
        let mut command = Command::new(program());
        command
            .arg("diff")
            .args([self.workspace.base(), self.workspace.fixed()]);
        if let Some(symbols) = symbols {
            command.args([OsStr::new("--symbols"), symbols.as_ref()]);
        }
        // The runner removes the variable, so that it comes by way of `env`.
        if let Some(symbol_path) = symbol_path {
            let mut by_env = Command::new("env");
            by_env
                .arg(format!("_NT_SYMBOL_PATH={symbol_path}"))
                .arg(command.get_program())
                .args(command.get_args());
            command = by_env;
        }
        run(command)
    }
}

#[test]
fn stores_and_folders() {
    let key = Files::new().key;
    let places = [
        "symbols/hp_demo.pdb".to_owned(),
        "symbols/HP_Demo.PDB".to_owned(),
        format!("symbols/hp_demo.pdb/{key}/hp_demo.pdb"),
        format!("symbols/HP_DEMO.PDB/{}/Hp_Demo.Pdb", key.to_lowercase()),
    ];
    for place in places {
        let files = Files::new();
        files
            .diff(None, None)
            .is_error(&["no PDB found", "HP004", "hint: "]);
        files.put(&place);
        let symbols = files.workspace.path("symbols");
        files.diff(Some(&symbols), None).ends_with(0);
        let variable = |text: &str| text.replace("HERE", symbols.to_str().unwrap());
        for text in [
            "HERE",
            "srv*HERE*https://symbols.example.com/download",
            "cache*HERE;srv*https://symbols.example.com/download",
            "/nowhere;symsrv*symsrv.dll*HERE*https://symbols.example.com",
            ";;SRV*HERE",
        ] {
            files.diff(None, Some(&variable(text))).ends_with(0);
        }
    }
}

#[test]
fn two_tiers_and_pointers() {
    let files = Files::new();
    let symbols = files.workspace.path("symbols");
    files.put(&format!("symbols/hp/hp_demo.pdb/{}/hp_demo.pdb", files.key));
    // Without its mark the store is not one of two tiers.
    files.diff(Some(&symbols), None).is_error(&["HP004"]);
    files.write("symbols/index2.txt", b"");
    files.diff(Some(&symbols), None).ends_with(0);

    let files = Files::new();
    let symbols = files.workspace.path("symbols");
    files.put("kept/somewhere.pdb");
    let kept = files.workspace.path("kept/somewhere.pdb");
    let pointer = format!("symbols/hp_demo.pdb/{}/file.ptr", files.key);
    files.write(&pointer, format!("PATH:{}", kept.display()).as_bytes());
    files.diff(Some(&symbols), None).ends_with(0);
    // A server is not asked.
    files.write(&pointer, br"PATH:\\server\share\hp_demo.pdb");
    files.diff(Some(&symbols), None).is_error(&["HP004"]);
}

/// A stale PDB beside the image, and one that is cut, do not hide the right one in a store.
#[test]
fn wrong_ones_are_passed_over() {
    for wrong in [
        demo::X64.fixed.pdb.bytes,
        &demo::X64.base.pdb.bytes[..0x1000],
    ] {
        let files = Files::new();
        files.write("base/hp_demo.pdb", wrong);
        let symbols = files.workspace.path("symbols");
        let run = files.diff(Some(&symbols), None);
        run.is_error(&["base/hp_demo.pdb: pdb", "expected", "found"]);
        files.put(&format!("symbols/hp_demo.pdb/{}/hp_demo.pdb", files.key));
        files.diff(Some(&symbols), None).ends_with(0);
    }
}

/// The error says what was expected and every place that was looked at.
#[test]
fn errors_name_every_place() {
    let files = Files::new();
    let symbols = files.workspace.path("symbols");
    let in_store = format!("symbols/hp_demo.pdb/{}/hp_demo.pdb", files.key);
    let places = ["base/hp_demo.pdb", in_store.as_str(), "symbols/hp_demo.pdb"];
    let run = files.diff(Some(&symbols), None);
    run.is_error(&["no PDB found", "HP004", "expected", " age "]);
    run.is_error(&places);
    files.write("base/hp_demo.pdb", demo::X64.fixed.pdb.bytes);
    let run = files.diff(Some(&symbols), None);
    run.is_error(&["HP005", "expected", "found", "looked at", "hint: "]);
    run.is_error(&places);
}
