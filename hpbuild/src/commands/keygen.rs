//! `hpbuild keygen --test`: keys for trying things out.

use std::path::PathBuf;

use clap::Args;
use hpbuild_signer::{TestKeysOptions, keygen_test};

use super::signer::{PassphraseArguments, present};
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(Clone, Debug, Args)]
pub(crate) struct KeygenArguments {
    /// Make throw-away keys; real ones come from a certificate authority
    #[arg(long, required = true)]
    pub(crate) test: bool,

    /// The folder to write them to
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,

    /// The name in the certificates
    #[arg(long, value_name = "TEXT", default_value = "hpbuild")]
    pub(crate) name: String,

    /// Days of validity
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) days: u32,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseArguments,
}

pub(crate) fn run(arguments: &KeygenArguments) -> Result<Outcome, Failure> {
    let keys = keygen_test(&TestKeysOptions {
        name: arguments.name.clone(),
        // An hour back, for machines whose clocks are behind.
        from: present()?.saturating_sub(3600),
        days: arguments.days,
        passphrase: arguments.passphrase.given()?,
    })?;
    let folder = &arguments.output;
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let files = [
        ("test-authority", &keys.authority),
        ("test-code-signing", &keys.code_signing),
        ("test-time-stamping", &keys.time_stamping),
    ];
    for (name, _) in &files {
        for suffix in [".pem", ".key.pem"] {
            let path = folder.join(format!("{name}{suffix}"));
            if path.exists() {
                let message = format!("{}: expected no such file, found one", path.display());
                return Err(Failure::new(message).hint("name another folder"));
            }
        }
    }
    let mut text = String::from("for tests only, trusted by nobody:\n");
    for (name, key) in files {
        let certificate = folder.join(format!("{name}.pem"));
        let private = folder.join(format!("{name}.key.pem"));
        output::write_file(&certificate, key.certificate.as_bytes())?;
        output::write_private(&private, key.key.as_bytes())?;
        text += &format!("  {}\n  {}\n", certificate.display(), private.display());
    }
    output::print(&text)?;
    Ok(Outcome::Done)
}
