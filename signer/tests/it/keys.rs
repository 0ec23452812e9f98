//! Every place a key can be in.

use std::time::Duration;

use hpbuild_metadata::Machine;
use hpbuild_signer::{
    Checks, CommandSigner, Passphrase, SignOptions, Signer, TestKeysOptions, Trust, keygen_test,
    sign, verify,
};

use crate::{sample, tools};

fn check(signer: &Signer, trust: &Trust) {
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

#[cfg(feature = "pkcs11")]
mod token {
    use std::path::Path;
    use std::process::Command;

    use hpbuild_metadata::Machine;
    use hpbuild_signer::{Certificate, Passphrase, Pkcs11Signer, SignOptions, Signer, Trust, sign};

    use super::check;
    use crate::{sample, tools};

    /// Where the SoftHSM module may be.
    const MODULES: [&str; 3] = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    const FOLDER: &str = "HPBUILD_TEST_TOKEN_FOLDER";

    /// A software token is set up in a folder of its own. Its module finds the folder through the
    /// environment of the process that loads it, so the test runs itself again as a child with that
    /// environment.
    #[test]
    fn keys_on_a_token_sign() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            sign_with_token(Path::new(&folder));
            println!("the token has signed");
            return;
        }
        if !tools::have("softhsm2-util") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("tokens")).unwrap();
        let config = format!("directories.tokendir = {}/tokens\n", path.display());
        std::fs::write(path.join("softhsm2.conf"), config).unwrap();
        let keys = sample::keys();
        std::fs::write(path.join("ec.key"), keys.code_signing.key.as_bytes()).unwrap();
        std::fs::write(path.join("ec.pem"), &keys.code_signing.certificate).unwrap();
        std::fs::write(path.join("ca.pem"), &keys.authority.certificate).unwrap();
        std::fs::write(
            path.join("rsa.key"),
            include_str!("../data/rsa-code-signing.pem"),
        )
        .unwrap();
        let token = |arguments: &str| {
            let output = Command::new("softhsm2-util")
                .args(arguments.split(' '))
                .current_dir(path)
                .env("SOFTHSM2_CONF", path.join("softhsm2.conf"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments}: {output:?}");
        };
        token("--init-token --free --label test --so-pin 1234 --pin 5678");
        token("--import ec.key --token test --pin 5678 --label ec --id 0a");
        token("--import rsa.key --token test --pin 5678 --label rsa --id 0b");
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "keys::token::keys_on_a_token_sign",
                "--exact",
                "--nocapture",
            ])
            .env("SOFTHSM2_CONF", path.join("softhsm2.conf"))
            .env(FOLDER, path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && text.contains("the token has signed"),
            "{child:?}"
        );
    }

    fn sign_with_token(folder: &Path) {
        let module = MODULES
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let open = |uri: &str, pin: &str| {
            Pkcs11Signer::open(uri, Some(module), Passphrase::new(pin.into()))
        };
        let trust = Trust {
            anchors: Certificate::from_pem(&read("ca.pem")).unwrap(),
            now: sample::NOW,
            ..Trust::default()
        };
        let token = open("pkcs11:token=test;object=ec", "5678").unwrap();
        check(
            &Signer::from_pkcs11(token, &read("ec.pem")).unwrap(),
            &trust,
        );
        let token = open("pkcs11:token=test;id=%0b;type=private", "5678").unwrap();
        let (_, trust) = sample::rsa_signer();
        check(
            &Signer::from_pkcs11(token, &read("rsa.key")).unwrap(),
            &trust,
        );

        let image = sample::patch_image(Machine::X64);
        for (uri, pin) in [
            ("pkcs11:token=test;object=ec", "0000"),
            ("pkcs11:token=test;object=none", "5678"),
            ("pkcs11:token=none;object=ec", "5678"),
            ("pkcs11:token=test;object=rsa", "5678"),
        ] {
            let signer = Signer::from_pkcs11(open(uri, pin).unwrap(), &read("ec.pem")).unwrap();
            assert!(
                sign(&image, &SignOptions::default(), &signer).is_err(),
                "{uri} {pin}"
            );
        }
        assert!(open("pkcs11:token=test?pin-value=5678", "").is_err());
        assert!(
            Pkcs11Signer::open("pkcs11:token=test", None, Passphrase::new(String::new())).is_err()
        );
    }
}
