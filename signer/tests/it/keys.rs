//! Every place a key can be in.

use std::time::Duration;

use hpbuild_metadata::Machine;
use hpbuild_signer::{
    Checks, CommandSigner, Passphrase, SignOptions, Signer, TestKeysOptions, keygen_test, sign,
    verify,
};

use crate::{sample, tools};

fn check(signer: &Signer, trust: &hpbuild_signer::Trust) {
    let image = sample::patch_image(Machine::X64);
    let signed = sign(&image, &SignOptions::default(), signer).unwrap();
    verify(&signed, trust, &mut Checks::default()).unwrap();
}

#[test]
fn encrypted_pem_needs_its_passphrase() {
    let passphrase = Passphrase::new("correct horse".into());
    let keys = keygen_test(&TestKeysOptions {
        name: "hpbuild".into(),
        from: sample::NOW - 86_400,
        days: 100,
        passphrase: Some(passphrase.clone()),
    })
    .unwrap();
    let key = &keys.code_signing;
    assert!(key.key.contains("ENCRYPTED PRIVATE KEY"));
    let open = |passphrase| Signer::from_pem(&key.key, &key.certificate, passphrase);
    check(&open(Some(&passphrase)).unwrap(), &sample::trust(&keys));
    assert!(
        open(None)
            .unwrap_err()
            .to_string()
            .contains("no passphrase")
    );
    assert!(open(Some(&Passphrase::new("wrong".into()))).is_err());
}

#[test]
fn keys_of_openssl_are_read_in_every_form() {
    if !tools::have_with("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = include_str!("../data/rsa-code-signing.pem");
    let authority = include_str!("../data/rsa-authority.pem");
    std::fs::write(path.join("rsa.pem"), data).unwrap();
    std::fs::write(path.join("ca.pem"), authority).unwrap();
    let keys = sample::keys();
    std::fs::write(path.join("ec.key"), keys.code_signing.key.as_bytes()).unwrap();
    std::fs::write(path.join("ec.pem"), &keys.code_signing.certificate).unwrap();
    let trust = sample::rsa_signer().1;

    tools::succeed(
        "openssl",
        &["rsa", "-in", "rsa.pem", "-out", "pkcs1.pem", "-traditional"],
        path,
    );
    let pkcs1 = std::fs::read_to_string(path.join("pkcs1.pem")).unwrap();
    assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY"));
    check(&Signer::from_pem(&pkcs1, data, None).unwrap(), &trust);

    tools::succeed(
        "openssl",
        &["ec", "-in", "ec.key", "-out", "sec1.pem"],
        path,
    );
    let sec1 = std::fs::read_to_string(path.join("sec1.pem")).unwrap();
    assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
    let signer = Signer::from_pem(&sec1, &keys.code_signing.certificate, None).unwrap();
    check(&signer, &sample::trust(&keys));

    for ciphers in [
        &[][..],
        &["-legacy"][..],
        &["-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC"],
    ] {
        let mut arguments = vec!["pkcs12", "-export", "-in", "rsa.pem", "-certfile", "ca.pem"];
        arguments.extend(["-out", "key.pfx", "-passout", "pass:secret"]);
        arguments.extend(ciphers);
        tools::succeed("openssl", &arguments, path);
        let bytes = std::fs::read(path.join("key.pfx")).unwrap();
        let signer = Signer::from_pkcs12(&bytes, &Passphrase::new("secret".into())).unwrap();
        check(&signer, &trust);
        assert!(Signer::from_pkcs12(&bytes, &Passphrase::new("wrong".into())).is_err());
    }
}

/// A key service, played by OpenSSL.
fn openssl_command(script: &str) -> CommandSigner {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    CommandSigner::new("sh", arguments, Duration::from_secs(20))
}

#[test]
fn a_command_signs_with_any_kind_of_key_and_is_not_believed() {
    if !tools::have_with("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let data = include_str!("../data/rsa-code-signing.pem");
    let keys = sample::keys();
    std::fs::write(folder.path().join("rsa.pem"), data).unwrap();
    std::fs::write(
        folder.path().join("ec.pem"),
        keys.code_signing.key.as_bytes(),
    )
    .unwrap();
    let rsa = format!(
        "openssl pkeyutl -sign -inkey {path}/rsa.pem -pkeyopt digest:$HPBUILD_DIGEST_ALGORITHM"
    );
    let signer = Signer::from_command(openssl_command(&rsa), data).unwrap();
    check(&signer, &sample::rsa_signer().1);
    let certificate = &keys.code_signing.certificate;
    for form in ["", " | base64", "| base64 -w0"] {
        let script = format!("openssl pkeyutl -sign -inkey {path}/ec.pem {form}");
        let signer = Signer::from_command(openssl_command(&script), certificate).unwrap();
        check(&signer, &sample::trust(&keys));
    }
    let image = sample::patch_image(Machine::X64);
    for script in [
        "echo nonsense",
        "exit 3",
        "true",
        "head -c 64 /dev/zero",
        "yes",
    ] {
        let signer = Signer::from_command(openssl_command(script), certificate).unwrap();
        let error = sign(&image, &SignOptions::default(), &signer).unwrap_err();
        assert!(error.to_string().starts_with("sh: "), "{script}: {error}");
    }
    let slow = CommandSigner::new("sleep", vec!["30".into()], Duration::from_millis(100));
    let signer = Signer::from_command(slow, certificate).unwrap();
    let error = sign(&image, &SignOptions::default(), &signer).unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    let missing = CommandSigner::new("no-such-program", Vec::new(), Duration::from_secs(1));
    let signer = Signer::from_command(missing, certificate).unwrap();
    assert!(sign(&image, &SignOptions::default(), &signer).is_err());
}
