//! An external command that signs: the door to cloud key services.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::KeyAlgorithm;
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;

/// Longer than any signature in any text form.
const MAX_OUTPUT: u64 = 64 << 10;

/// A program that is given a digest on its standard input and writes the signature to its
/// standard output.
///
/// The digest comes as raw bytes. The environment says more: `HPBUILD_DIGEST_ALGORITHM` (`sha256`,
/// `sha384`, `sha512`), `HPBUILD_DIGEST_HEX`, `HPBUILD_KEY_ALGORITHM` (`rsa-pkcs1`, `ecdsa-p256`,
/// `ecdsa-p384`). An RSA signature is PKCS #1 v1.5 over the digest *with* its DigestInfo, as
/// `openssl pkeyutl -sign -pkeyopt digest:sha256` makes it; an ECDSA signature may be DER or the
/// two numbers one behind the other. The answer may be raw bytes or base64.
///
/// Nothing of what the program says is believed: the signature is held against the certificate.
#[derive(Clone, Debug)]
pub struct CommandSigner {
    program: String,
    arguments: Vec<String>,
    timeout: Duration,
}

impl CommandSigner {
    /// The program and its arguments, run without a shell.
    pub fn new(program: impl Into<String>, arguments: Vec<String>, timeout: Duration) -> Self {
        Self {
            program: program.into(),
            arguments,
            timeout,
        }
    }

    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    pub(super) fn sign(
        &self,
        key: KeyAlgorithm,
        algorithm: DigestAlgorithm,
        digest: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let fail = |reason: String| Error::key(&self.program, reason);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env("HPBUILD_DIGEST_ALGORITHM", algorithm.name())
            .env("HPBUILD_DIGEST_HEX", hex(digest))
            .env("HPBUILD_KEY_ALGORITHM", key_name(key))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| fail(format!("cannot be started: {error}")))?;
        // A digest fits any pipe's buffer. A program that does not read it is no error.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(digest);
        }
        let stdout = child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut output = Vec::new();
            stdout.map_or(Ok(0), |out| {
                out.take(MAX_OUTPUT + 1).read_to_end(&mut output)
            })?;
            Ok::<_, std::io::Error>(output)
        });
        let deadline = Instant::now() + self.timeout;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(fail(format!("no answer in {} s", self.timeout.as_secs())));
                }
                Err(error) => return Err(fail(format!("cannot be waited for: {error}"))),
            }
        };
        if !status.success() {
            return Err(fail(format!("ended with {status}")));
        }
        let output = reader
            .join()
            .map_err(|_| fail("its output cannot be read".into()))?
            .map_err(|error| fail(format!("its output cannot be read: {error}")))?;
        if output.is_empty() || output.len() as u64 > MAX_OUTPUT {
            return Err(fail(format!(
                "wrote {} bytes where a signature belongs",
                output.len()
            )));
        }
        Ok(decode_text(output))
    }
}

fn key_name(key: KeyAlgorithm) -> &'static str {
    match key {
        KeyAlgorithm::Rsa => "rsa-pkcs1",
        KeyAlgorithm::P256 => "ecdsa-p256",
        KeyAlgorithm::P384 => "ecdsa-p384",
    }
}

/// Signature bytes from base64 text, or the bytes themselves when they are no such text. A raw
/// signature that happens to be base64 throughout is out of reach: it has 64 bytes or more.
pub(crate) fn decode_text(output: Vec<u8>) -> Vec<u8> {
    let text: Vec<u8> = output
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    STANDARD.decode(text).unwrap_or(output)
}
