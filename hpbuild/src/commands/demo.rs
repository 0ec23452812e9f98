//! `hpbuild demo`: the main job on a pair that comes with the program, made of the subcommands
//! that everybody has.

use std::path::{Path, PathBuf};
use std::process::Command;

use hpbuild_fixtures::demo::{self, Demo, Image};
use hpbuild_metadata::Machine;

use crate::cli::DemoArguments;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What the demo tells before it starts.
const ABOUT: &str = "\
The demo pair is a reader of session records. Its base trusts the length of a name: 24 bytes
overwrite the rights of the session, more leave it altogether. The fixed build checks the length.
";

pub(crate) fn run(arguments: &DemoArguments) -> Result<Outcome, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of this program: {error}")))?;
    let folder = &arguments.output;
    output::print(ABOUT)?;
    let scenario = folder.join("scenario.toml");
    write(&scenario, demo::SCENARIO.as_bytes())?;
    write(&folder.join("release.toml"), demo::RELEASE.as_bytes())?;
    write(&folder.join("base.c"), demo::BASE_SOURCE.as_bytes())?;
    write(&folder.join("fixed.c"), demo::FIXED_SOURCE.as_bytes())?;
    for pair in demo::ALL {
        for step in steps(folder, &pair, &scenario)? {
            output::print(&format!(
                "\n# {}\n$ hpbuild {}\n",
                step.about,
                shown(&step.arguments)
            ))?;
            let status = Command::new(&program)
                .args(&step.arguments)
                .status()
                .map_err(|error| Failure::new(format!("{}: {error}", program.display())))?;
            if !status.success() {
                let message = format!("demo: hpbuild {}: {status}", shown(&step.arguments));
                return Err(Failure::new(message));
            }
        }
    }
    output::print(&format!("\nThe files are in {}.\n", folder.display()))?;
    Ok(Outcome::Done)
}

/// One subcommand of the demo.
struct Step {
    about: String,
    arguments: Vec<String>,
}

/// Writes the pair's files and says what to do with them.
fn steps(folder: &Path, pair: &Demo, scenario: &Path) -> Result<Vec<Step>, Failure> {
    let base = write_image(&folder.join(pair.machine).join("base"), &pair.base)?;
    let fixed = write_image(&folder.join(pair.machine).join("fixed"), &pair.fixed)?;
    let patch = folder
        .join(pair.machine)
        .join("hp_demo_hotpatch.dll")
        .display()
        .to_string();
    let (base, fixed) = (base.display().to_string(), fixed.display().to_string());
    let scenario = scenario.display().to_string();
    let machine = pair.machine;
    let step = |about: &str, arguments: &[&str]| Step {
        about: format!("{machine}: {about}"),
        arguments: arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect(),
    };
    let mut test = vec!["test", &base, &patch];
    let executed = Machine::X64;
    if machine == executed.name() && hpbuild_harness::runs_here(executed) {
        test.extend(["--scenario", &scenario, "--against", &fixed]);
    }
    Ok(vec![
        step(
            "what changed, and can it be hotpatched?",
            &["diff", &base, &fixed],
        ),
        step(
            "make the patch image",
            &["build", &base, &fixed, "-o", &patch],
        ),
        step("what does it hold?", &["inspect", &patch]),
        step("apply it to the running base, and revert it", &test),
    ])
}

fn write_image(folder: &Path, image: &Image) -> Result<PathBuf, Failure> {
    write(&folder.join(image.pdb.name), image.pdb.bytes)?;
    let path = folder.join(image.dll.name);
    write(&path, image.dll.bytes)?;
    Ok(path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    output::write_file(path, bytes)
}

/// Arguments as they are typed.
fn shown(arguments: &[String]) -> String {
    let quoted = |argument: &String| {
        if argument.contains(' ') {
            format!("\"{argument}\"")
        } else {
            argument.clone()
        }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}
