//! Memory operands that must be aligned: others make the processor raise an exception.

use iced_x86::{Decoder, DecoderOptions, EncodingKind, Instruction as Iced, Mnemonic, Register};

/// See [`crate::decode::alignment_at`].
pub(in crate::decode) fn alignment_at(bytes: &[u8], offset: u32) -> u32 {
    let rest = bytes.get(offset as usize..).filter(|it| !it.is_empty());
    rest.map_or(1, |rest| {
        alignment(&Decoder::with_ip(64, rest, 0, DecoderOptions::NONE).decode())
    })
}

/// See [`crate::decode::alignment_by_register`].
pub(in crate::decode) fn alignment_by_register(bytes: &[u8]) -> u32 {
    let by_register = |iced: &Iced| {
        let base = iced.memory_base();
        let is_frame = matches!(base, Register::RSP | Register::RBP | Register::None);
        !is_frame && !iced.is_ip_rel_memory_operand()
    };
    let decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let found = decoder.into_iter().filter(by_register);
    found.map(|iced| alignment(&iced)).max().unwrap_or(1)
}

/// Bytes to which the memory operand of an instruction must be aligned (Intel SDM volume 1, 4.1.1,
/// and the exception classes of volume 2, 2.4).
fn alignment(iced: &Iced) -> u32 {
    use Mnemonic::{
        Cmpxchg16b, Fxrstor, Fxrstor64, Fxsave, Fxsave64, Lddqu, Movdqu, Movupd, Movups, Pcmpestri,
        Pcmpestri64, Pcmpestrm, Pcmpestrm64, Pcmpistri, Pcmpistrm, Vmovapd, Vmovaps, Vmovdqa,
        Vmovdqa32, Vmovdqa64, Vmovntdq, Vmovntdqa, Vmovntpd, Vmovntps, Xrstor, Xrstor64, Xsave,
        Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64,
    };
    let size = iced.memory_size().size();
    match iced.mnemonic() {
        Cmpxchg16b | Fxrstor | Fxrstor64 | Fxsave | Fxsave64 => 16,
        Xrstor | Xrstor64 | Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64 => 64,
        Vmovapd | Vmovaps | Vmovdqa | Vmovdqa32 | Vmovdqa64 | Vmovntdq | Vmovntdqa | Vmovntpd
        | Vmovntps => match size {
            32 => 32,
            64 => 64,
            16 => 16,
            _ => 1,
        },
        Lddqu | Movdqu | Movupd | Movups | Pcmpestri | Pcmpestri64 | Pcmpestrm | Pcmpestrm64
        | Pcmpistri | Pcmpistrm => 1,
        _ if size == 16 && iced.encoding() == EncodingKind::Legacy => 16,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_must_be_aligned() {
        // movaps, movups, paddd, addps with [rip+0x100]; movss and addss; vmovaps ymm, vaddps ymm.
        let aligned = |bytes: &[u8]| {
            let mut code = bytes.to_vec();
            code.extend([0, 1, 0, 0]);
            alignment_at(&code, 0)
        };
        assert_eq!(aligned(&[0x0f, 0x28, 0x05]), 16);
        assert_eq!(aligned(&[0x0f, 0x10, 0x05]), 1);
        assert_eq!(aligned(&[0x66, 0x0f, 0xfe, 0x05]), 16);
        assert_eq!(aligned(&[0x0f, 0x58, 0x05]), 16);
        assert_eq!(aligned(&[0xf3, 0x0f, 0x10, 0x05]), 1);
        assert_eq!(aligned(&[0xf3, 0x0f, 0x58, 0x05]), 1);
        assert_eq!(aligned(&[0xc5, 0xfc, 0x28, 0x05]), 32);
        assert_eq!(aligned(&[0xc5, 0xfc, 0x58, 0x05]), 1);
    }

    #[test]
    fn registers_that_lead_to_aligned_places() {
        // movaps xmm0, [rsp+8] and [rax].
        assert_eq!(alignment_by_register(&[0x0f, 0x28, 0x44, 0x24, 8]), 1);
        assert_eq!(alignment_by_register(&[0x90, 0x0f, 0x28, 0x00]), 16);
    }
}
