//! `cargo xtask browser`: the HTML report in a real browser.
//!
//! Not part of CI, which has no browser: Chromium and `playwright-core` are large. Everything that
//! can be seen without one is tested with the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::corpus::proof::Profile;
use crate::run;

/// The version of `playwright-core` that drives the browser.
const PLAYWRIGHT: &str = "playwright-core@1.56";
/// Functions of the page that shows whether many are a burden.
const MANY: usize = 5000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The browser
    #[arg(long, default_value = "/usr/bin/chromium")]
    browser: PathBuf,
}

/// Makes pages from a prebuilt pair, opens them wide and narrow, light and dark, and filters one
/// with thousands of functions by keyboard. Screenshots are left in `target/browser`.
///
/// # Errors
/// A tool is missing, or the page does something else than it should.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.browser.is_file(),
        "{}: no browser\nhint: as root, `apt-get install chromium nodejs npm`, or --browser",
        arguments.browser.display()
    );
    let folder = run::root().join("target/browser");
    std::fs::create_dir_all(&folder)?;
    let (page, many) = (folder.join("page.html"), folder.join("many.html"));
    report(&page)?;
    let text = std::fs::read_to_string(&page)?;
    std::fs::write(&many, multiplied(&text)?)?;
    let script = folder.join("check.mjs");
    std::fs::copy(run::root().join("xtask/browser/check.mjs"), &script)?;
    run::checked(Command::new("npm").current_dir(&folder).args([
        "install",
        "--silent",
        "--no-save",
        "--prefix",
        ".",
        PLAYWRIGHT,
    ]))?;
    run::checked(
        Command::new("node")
            .arg(&script)
            .arg(&arguments.browser)
            .args([&page, &many, &folder]),
    )
}

fn report(page: &Path) -> Result<()> {
    let images = run::root().join("fixtures/prebuilt/edits/x64");
    Profile::Dev.compile()?;
    let mut diff = Profile::Dev.hpbuild();
    diff.arg("diff")
        .arg(images.join("base/hp_edits.dll"))
        .arg(images.join("inlined-callee/hp_edits.dll"))
        .args(["--format", "html", "-o"])
        .arg(page);
    run::checked(&mut diff)
}

/// The page with its first function many times over, each under a name of its own.
fn multiplied(page: &str) -> Result<String> {
    const START: &str = "<details class=\"function\">";
    const END: &str = "</details>\n";
    let start = page.find(START).context("a changed function")?;
    let length = page[start..].find(END).context("the function's end")? + END.len();
    let block = &page[start..start + length];
    let mut out = page[..start].to_owned();
    for number in 0..MANY {
        let name = format!("class=\"name\">std::copy_{number}_&lt;unsigned int&gt; ");
        out.push_str(&block.replacen("class=\"name\">", &name, 1));
    }
    let rest = &page[start + length..];
    let section = rest.find("</section>").context("the end of the list")?;
    out.push_str(&rest[section..]);
    Ok(out)
}
