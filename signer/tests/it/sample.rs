//! Small images and keys that the tests sign. The tests of the command line use them, too.
#![allow(dead_code)]

use hpbuild_metadata::table::{Chunk, ForwardAttach, HotPatchTable, encode};
use hpbuild_metadata::{BaseIdentity, Machine, Rva, Sequence};
use hpbuild_signer::{Certificate, Signer, TestKeys, TestKeysOptions, Trust, keygen_test};
use object::pe;
use object::write::pe::{NtHeaders, Writer};

/// 2026-01-01T00:00:00Z, the moment the tests take for the present.
pub(crate) const NOW: u64 = 1_767_225_600;

/// The base that [`patch_image`] belongs to.
pub(crate) const BASE: BaseIdentity = BaseIdentity {
    time_date_stamp: 0x662a_7c63,
    checksum: 0x1f2a4,
};

/// A patch image with one forward attach: base+0x1400 to patch+0x1010.
pub(crate) fn patch_image(machine: Machine) -> Vec<u8> {
    let table = encode(&HotPatchTable::new(
        Sequence::FIRST,
        machine,
        BASE,
        vec![Chunk::ForwardFunction(vec![ForwardAttach {
            base: Rva::new(0x1400),
            patch: Rva::new(0x1010),
            original: 0x5340,
        }])],
    ));
    let text = [0xcc; 0x40];
    let config_size = 0x140u32;
    let mut rdata = vec![0u8; config_size as usize];
    rdata[..4].copy_from_slice(&config_size.to_le_bytes());
    rdata[0xf0..0xf4].copy_from_slice(&(0x2000 + config_size).to_le_bytes());
    rdata.extend_from_slice(&table);
    write_image(machine, &text, &rdata, Some((0x2000, config_size)))
}

/// An image of two sections at 0x1000 and 0x2000.
pub(crate) fn write_image(
    machine: Machine,
    text: &[u8],
    rdata: &[u8],
    load_config: Option<(u32, u32)>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(true, 0x1000, 0x200, &mut bytes);
    writer.reserve_dos_header_and_stub();
    writer.reserve_nt_headers(16);
    writer.reserve_section_headers(2);
    let text_range = writer.reserve_text_section(text.len() as u32);
    let rdata_range = writer.reserve_rdata_section(rdata.len() as u32);
    if let Some((address, size)) = load_config {
        writer.set_data_directory(10, address, size);
    }
    writer.write_dos_header_and_stub().unwrap();
    writer.write_nt_headers(NtHeaders {
        machine: pe::Machine(machine.coff()),
        time_date_stamp: 0x1234_5678,
        characteristics: pe::IMAGE_FILE_EXECUTABLE_IMAGE
            | pe::IMAGE_FILE_DLL
            | pe::IMAGE_FILE_LARGE_ADDRESS_AWARE,
        major_linker_version: 0,
        minor_linker_version: 0,
        address_of_entry_point: 0,
        image_base: 0x1_8000_0000,
        major_operating_system_version: 6,
        minor_operating_system_version: 0,
        major_image_version: 0,
        minor_image_version: 0,
        major_subsystem_version: 6,
        minor_subsystem_version: 0,
        subsystem: pe::IMAGE_SUBSYSTEM_WINDOWS_GUI,
        dll_characteristics: pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT,
        size_of_stack_reserve: 0x10_0000,
        size_of_stack_commit: 0x1000,
        size_of_heap_reserve: 0x10_0000,
        size_of_heap_commit: 0x1000,
    });
    writer.write_section_headers();
    writer.write_section(text_range.file_offset, text);
    writer.write_section(rdata_range.file_offset, rdata);
    bytes
}

/// Fresh test keys, valid around [`NOW`].
pub(crate) fn keys() -> TestKeys {
    keygen_test(&TestKeysOptions {
        name: "hpbuild".into(),
        from: NOW - 86_400,
        days: 36_500,
        passphrase: None,
    })
    .unwrap()
}

pub(crate) fn signer(keys: &TestKeys) -> Signer {
    let code = &keys.code_signing;
    Signer::from_pem(&code.key, &code.certificate, None).unwrap()
}

pub(crate) fn trust(keys: &TestKeys) -> Trust {
    Trust {
        anchors: Certificate::from_pem(&keys.authority.certificate).unwrap(),
        now: NOW,
        ..Trust::default()
    }
}

/// An RSA-3072 key and a self-made chain for it, made once with OpenSSL for these tests:
/// PKCS #1 signatures need RSA keys, and nothing here can make one.
pub(crate) fn rsa_signer() -> (Signer, Trust) {
    let text = include_str!("../data/rsa-code-signing.pem");
    let authority = include_str!("../data/rsa-authority.pem");
    let trust = Trust {
        anchors: Certificate::from_pem(authority).unwrap(),
        now: NOW,
        ..Trust::default()
    };
    (Signer::from_pem(text, text, None).unwrap(), trust)
}

/// SHA-256 of `bytes` in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
